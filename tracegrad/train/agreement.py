"""What processes tell each other: through the key-value store of JAX's coordination service, not through devices.

So it needs no computation, and waits no longer than it is told to. All processes call these in the same order.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from ..parallel import ProcessesError
from ..parallel import store as texts
from ..parallel.store import store

_PATIENCE = 0.5
"""So many seconds are waited before what may end the waiting is looked at."""

_LONG = 60.0
"""After so many seconds of waiting it is said for whom."""


def nothing() -> None:
    """What is called while waiting, where nothing has to be."""


def count() -> int:
    """How many processes there are. JAX's devices are not looked for where there is one."""
    return 1 if store() is None else jax.process_count()


def index() -> int:
    """Which of them this is."""
    return 0 if store() is None else jax.process_index()


def first(
    what: str,
    fun: Callable[[], Any],
    waiting: Callable[[], None] = nothing,
    errors: Sequence[type[Exception]] = (),
) -> Any:
    """What `fun` returns in process 0, in all of them: numbers and texts, in lists and dicts. What it raises, too.

    Args:
      what: what is being done; the same in all.
      fun: called in process 0 alone.
      waiting: called now and then by those that wait; it raises to end that.
      errors: what `fun` raises; these are of the same kind in all processes.

    Raises:
      ProcessesError: for any other error in process 0, and if it is doing something else.
    """
    if count() == 1:
        return fun()
    key = _key(turn("agreements"))
    if index() == 0:
        told: dict[str, Any] = {"what": what}
        try:
            told["value"] = fun()
        except BaseException as error:
            told["error"], told["text"] = type(error).__name__, str(error)
            raise
        finally:
            store().key_value_set(key, json.dumps(told))
        return told["value"]
    told = json.loads(_get(key, 0, what, waiting))
    _same(0, told["what"], what)
    if "error" in told:
        kind = {error.__name__: error for error in errors}.get(told["error"])
        if kind is None:
            raise ProcessesError(f"process 0 of {count()}: {told['error']}: {told['text']}")
        raise kind(f"process 0 of {count()}: {told['text']}")
    return told["value"]


def gather(what: str, value: Any, waiting: Callable[[], None] = nothing) -> list[Any]:
    """What each process has, in their order: numbers and texts, in lists and dicts.

    Raises:
      ProcessesError: if another does something else.
    """
    if count() == 1:
        return [value]
    number = turn("agreements")
    key = _key(number)
    store().key_value_set(f"{key}/{index()}", json.dumps({"what": what, "value": value}))
    found = [json.loads(_get(f"{key}/{i}", i, what, waiting)) for i in range(count())]
    if index() == 0:
        # All have come here, and need these no more.
        for before in (number - 1, number - 2):
            store().key_value_delete(_key(before))
    for i, other in enumerate(found):
        _same(i, other["what"], what)
    return [other["value"] for other in found]


def all_well(
    what: str, fun: Callable[[], Any], waiting: Callable[[], None] = nothing, error: type[Exception] = ProcessesError
) -> Any:
    """What `fun` returns in this process, once it has returned in each. What it raises in one is raised in all.

    Raises:
      error: in those in which it has returned; the message is that of another.
    """
    if count() == 1:
        return fun()
    value, raised = None, None
    try:
        value = fun()
    except Exception as own:
        raised = own
    texts = gather(what, None if raised is None else f"{type(raised).__name__}: {raised}", waiting)
    if raised is not None:
        raise raised
    for i, text in enumerate(texts):
        if text is not None:
            raise error(f"process {i} of {count()}: {text}")
    return value


def turn(what: str) -> int:
    """How often this was asked here: the same number in all processes."""
    return texts.turn(what, index())


def _key(number: int) -> str:
    return f"tracegrad/agreement/{number}"


def _get(key: str, process: int, what: str, waiting: Callable[[], None]) -> str:
    begun, said = time.monotonic(), False
    while (text := texts.read(key, _PATIENCE)) is None:
        waiting()
        if not said and time.monotonic() > begun + _LONG:
            said = True
            late = f"process {index()} of {count()} waits for process {process} at: {what}. All have to come there."
            print(late, file=sys.stderr, flush=True)
    return text


def _same(other: int, theirs: str, ours: str) -> None:
    if theirs != ours:
        raise ProcessesError(
            f"process {other} of {count()} is at: {theirs}; and process {index()} at: {ours}. All processes have to "
            "call the same functions in the same order."
        )
