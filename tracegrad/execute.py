"""Define-by-run: a recording runs as compiled calls that are found again by its structure."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import set_current_trace

from .errors import describe_source
from .lower import evaluate
from .op import Op
from .passes import dead_code, fold, optimize, program
from .recording import Recording
from .tape import Aval, Node, Source, Tape, Var, fresh, structure
from .verify import verified

LONG = 3_000
"""Nodes beyond which a program runs op by op: XLA's compile time grows faster than its length."""

LONG_TINY, TINY = 800, 8
"""The same for nodes with so few elements: XLA makes one function of them, and its compile time grows fastest."""

ONE_OP = 20
"""What compiling one op by itself costs, in nodes of a program compiled whole (about 1 ms each)."""

CACHE_SIZE = 1_024
"""How many compiled programs are kept."""

_compiled_alone: set[Any] = set()
_wanted: Counter[Any] = Counter()
_programs: OrderedDict[Any, Callable[..., Any] | None] = OrderedDict()


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


def run_pending(tape: Recording, history: History | None = None, outputs: Sequence[Var] | None = None) -> None:
    """Computes what `tape` recorded since it last ran, and stores the values of `outputs` on them.

    Without `outputs`, every value is kept, for whatever is recorded next. Inside a JAX trace, where values are JAX's
    tracers, the nodes are lowered into that trace; so they are without a `history`, which says what was compiled.
    """
    nodes = tape.nodes[tape.done :]
    if outputs is None:
        outputs = [v for node in nodes for v in node.outputs]
    outputs = [v for v in outputs if v.value is None]
    if not outputs:
        tape.done = len(tape.nodes)
        return
    nodes_key, leaves = structure(nodes, outputs)
    values = [v.value for v in leaves]
    # A value may be asked for inside a transformation of JAX's that the recorded function has entered: it is not that
    # one's, and must outlive it.
    with set_current_trace(tape.trace):
        if history is None or any(isinstance(value, jax.core.Tracer) for value in values):
            inline = verified(optimize(tape.part(nodes, outputs)))
            results = evaluate(inline.nodes, inline.outputs, {})
        else:
            key = (nodes_key, tuple([v.aval for v in leaves]), jax.config.jax_enable_x64)  # type: ignore[attr-defined]
            compiled = find_program(key, nodes, outputs, leaves, tape.name, history)
            results = compiled(*values) if compiled is not None else run_by_op(nodes, outputs)
    for v, value in zip(outputs, results, strict=True):
        v.value = value
    tape.done = len(tape.nodes)


def find_program(
    key: Any, nodes: Sequence[Node], outputs: Sequence[Var], leaves: list[Var], name: str, history: History
) -> Callable[..., Any] | None:
    """The compiled call for a program of this structure, or `None` when it should run op by op."""
    known = _programs.get(key)
    if known is not None:
        _programs.move_to_end(key)
        return known
    seen = key in _programs
    if not seen:
        _programs[key] = None
        _shrink()
        # Ops that were compiled alone before cost nothing more: a structure that is new at every call soon
        # runs on them. It is compiled whole when it comes a second time.
        alone = {_alone(node) for node in nodes} - _compiled_alone
        # The more structures have wanted an op, the more are likely to share what compiling it alone costs.
        by_op = _too_long(nodes) or sum(ONE_OP / (1 + _wanted[op]) for op in alone) < len(nodes)
        _wanted.update(alone)
        history.events.append(explain_miss(key, nodes, history) + (" (run op by op)" if by_op else ""))
        history.last = (key, _steps(nodes))
        if by_op:
            return None
    elif _too_long(nodes):
        return None
    else:
        history.events.append(f"{len(nodes)} nodes: seen a second time, compiled whole")
    tape = fresh(optimize(Tape(tuple(leaves), tuple(nodes), tuple(outputs), name or "tracegrad")))
    history.compiled += 1
    compiled = _programs[key] = jax.jit(program(tape))
    _shrink()
    return compiled


def _too_long(nodes: Sequence[Node]) -> bool:
    """Whether compiling a program whole takes longer than anyone who did not ask for it would wait."""
    if len(nodes) > LONG:
        return True
    return len(nodes) > LONG_TINY < sum(math.prod(n.outputs[0].aval.shape) <= TINY for n in nodes)


def _alone(node: Node) -> Any:
    """What an op is compiled for when it runs by itself."""
    return (node.op, tuple(node.params.items()), tuple([v.aval for v in node.inputs]))


def _shrink() -> None:
    while len(_programs) > CACHE_SIZE:
        _programs.popitem(last=False)


def run_by_op(nodes: Sequence[Node], outputs: Sequence[Var]) -> list[Any]:
    """Runs the nodes one at a time, each as its own cached compiled call."""
    needed = dead_code(fold(Tape((), tuple(nodes), tuple(outputs))))
    nodes, outputs = needed.nodes, needed.outputs
    last_use = {v: i for i, node in enumerate(nodes) for v in node.inputs}
    keep = set(outputs)
    env: dict[Var, Any] = {}
    for i, node in enumerate(nodes):
        op = node.op
        values = []
        for v in node.inputs:
            value = env.get(v)
            if value is None:
                value = v.value if v.tape is not None or v.aval.weak_type else np.asarray(v.value, v.aval.dtype)
            values.append(value)
        out = op.compiled(node.params)(*values)
        _compiled_alone.add(_alone(node))
        if op.multiple:
            env.update(zip(node.outputs, out, strict=True))
        else:
            env[node.outputs[0]] = out
        for v in node.inputs:
            if last_use[v] == i and v not in keep:
                env.pop(v, None)
    return [env.get(v, v.value) for v in outputs]


def _steps(nodes: Sequence[Node]) -> list[Step]:
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
    for i, (a, b) in enumerate(zip(old, _steps(nodes), strict=False)):
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
