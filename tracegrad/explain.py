"""What define-by-run compiled for a function, why, and which field differed. Uses tapes, ops and messages."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .caches import Cache
from .errors import describe_source, name_of
from .op import Op
from .tape import Aval, Node, Source


class Step(NamedTuple):
    """A node without its values."""

    op: Op
    types: tuple[Aval, ...]
    params: dict[str, Any]
    source: Source | None


class History:
    """What one function's recordings have compiled so far; `explain` prints it."""

    __slots__ = ("calls", "compiled", "events", "last")

    def __init__(self) -> None:
        self.calls = 0
        self.compiled = 0
        self.events: deque[str] = deque(maxlen=50)
        self.last: tuple[Any, list[Step]] | None = None


_histories = Cache(1_024)


def history_of(fun: Any) -> History:
    """What a function has compiled: by its code, so that a lambda made anew at each call is still one function."""
    inner = inspect.unwrap(fun)
    code = getattr(inner, "__code__", None)
    # Code compares equal to the same text on the same line of another file.
    key = type(inner) if code is None else (code, code.co_filename)
    return _histories.get(key) or _histories.keep(key, History())  # type: ignore[no-any-return]


def explain(fun: Callable[..., Any]) -> str:
    """What the undecorated transforms of `fun` compiled, why each time, and which field differed.

    And, under `@jit` too, which loops were rolled, and what is computed again for a memory budget.

    Example:
      >>> import tracegrad as tg
      >>> def f(x): return x * x
      >>> _ = tg.grad(f)(2.0), tg.grad(f)(3.0)
      >>> print(tg.explain(f))
      f: calls: 2, compiled: 1
        - 5 nodes: first recording
    """
    history = history_of(fun)
    counts = f"calls: {history.calls}, compiled: {history.compiled}"
    lines = [f"{name_of(fun)}: {counts if history.calls or history.compiled or not history.events else 'under @jit'}"]
    return "\n".join(lines + [f"  - {event}" for event in history.events])


def steps(nodes: Sequence[Node]) -> list[Step]:
    return [Step(node.op, tuple(v.aval for v in node.inputs), node.params, node.source) for node in nodes]


def explain_miss(key: Any, nodes: Sequence[Node], history: History) -> str:
    """Why this structure was new: the first thing that differs from the last one recorded."""
    count = f"{len(nodes)} nodes"
    if history.last is None:
        return f"{count}: first recording"
    old_key, old = history.last
    if old_key[0] == key[0]:
        changes = [f"{a} became {b}" for a, b in zip(old_key[1], key[1], strict=True) if a is not b]
        return f"{count}: the operations are the same, but an input's type changed: {', '.join(changes)}"
    for i, (a, b) in enumerate(zip(old, steps(nodes), strict=False)):
        at = describe_source(b.source)
        if a.op is not b.op:
            return f"{count}: node {i} was {a.op.name}, is {b.op.name} at {at}"
        if a.params != b.params:
            return f"{count}: node {i} ({b.op.name}) had {a.params}, has {b.params} at {at}"
        if a.types != b.types:
            return f"{count}: node {i} ({b.op.name}) took {a.types}, takes {b.types} at {at}"
    if len(nodes) != len(old):
        return f"{count}: there were {len(old)}"
    return f"{count}: the same operations, connected differently"
