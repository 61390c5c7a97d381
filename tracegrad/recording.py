"""What is recording now: a tape while it is written. Uses the tape, and what keeps Python's collector away from it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import jax

from .collecting import no_full_collections
from .tape import NOWHERE, Node, Tape, Var

if TYPE_CHECKING:
    from .arguments import Arguments


class _State(threading.local):
    """What is recording in this thread, and how: nothing else in the package is global."""

    tape: Recording | None = None
    no_nan: bool = True
    capture: Any = None
    watch: Any = None  # who is asked to call each layer, where it is not its own call
    wrt: tuple[Var, ...] = ()
    examine: Any = None  # who looks at results for what is not finite
    cotangents: dict[Var, Any] | None = None  # where backward notes the cotangent of each value, if anyone asks


state = _State()


# `jax.extend` brings Pallas with it, which an import of the package would wait for.


def top_trace() -> Any:
    """The innermost trace of JAX's."""
    from jax.extend.core import find_top_trace

    return find_top_trace(())


def in_trace(trace: Any) -> AbstractContextManager[None]:
    """The block runs under this trace of JAX's."""
    from jax.extend.core import set_current_trace

    return set_current_trace(trace)


class Recording:
    """A tape while it is written. Inside its `with`, it takes what this thread does; with the block, it ends.

    Attributes:
      inputs, nodes: the program so far; what ends with the block is made a `Tape` before it does, by `finished`.
      run: computes what was recorded so far, under the JAX trace `trace`; `None` for a body, which has no values.
      done: how many nodes have run.
      lazy: whether Python may ask for values.
      lifts: whether numbers become inputs, so that others need no new program.
      parent, captured: of a body, the enclosing recording, and what it took from there: each input with its value.
      constants: the arrays that it reads, by their identity, each with what stands for it.
      axes: mapped axis names and their sizes.
      ambient: the axes along which it varies whether it runs at all, and so all that it captures.
      poles: values that may be infinite; `unbounded`: whether cotangents of cotangents may be so too.
      blame: the node whose line new nodes take, instead of the caller's.
      open: whether it has not ended.
      examine: who looks at its results for what is not finite, if someone inside it asked for that.
    """

    __slots__ = (
        "__weakref__", "_collecting", "_outer", "ambient", "arguments", "axes", "blame", "captured", "constants",
        "done", "examine", "imported", "inputs", "lazy", "lifts", "name", "nodes", "open", "parent", "poles", "run",
        "trace", "unbounded", "x64",
    )  # fmt: skip

    def __init__(
        self,
        name: str = "",
        *,
        run: Callable[[Recording], None] | None = None,
        lazy: bool = False,
        parent: Recording | None = None,
        captures: bool = False,
        lifts: bool | None = None,
        axes: dict[str, int] | None = None,
        ambient: frozenset[str] = NOWHERE,
        imported: bool = False,
        blame: Node | None = None,
    ) -> None:
        self.name = name
        self.inputs: list[Any] = []
        self.nodes: list[Node] = []
        self.run = run
        self.trace: Any = top_trace() if run is not None else None
        self.done = 0
        self.lazy = lazy
        self.lifts = lazy if lifts is None else lifts
        self.parent = parent
        self.captured: list[tuple[Var, Any]] | None = [] if captures else None
        self.constants: dict[int, Var] = {}
        self.axes: dict[str, int] = (parent.axes if parent is not None else {}) | (axes or {})
        self.ambient: frozenset[str] = ambient if parent is None else ambient | parent.ambient
        self.imported: bool = imported or (parent is not None and parent.imported)
        self.blame = blame
        self.poles: set[Var] = set()
        self.unbounded = False
        self.open = True
        self.examine: Any = None
        self.arguments: tuple[Arguments, Sequence[Any]] | None = None
        self.x64: bool = jax.config.jax_enable_x64  # type: ignore[attr-defined]

    def __enter__(self) -> Recording:
        self._outer, state.tape = state.tape, self
        self._collecting: AbstractContextManager[None] = no_full_collections()
        self._collecting.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._collecting.__exit__(*error)
        state.tape = self._outer
        # What outlives this, such as a value that was kept, must keep nothing else.
        self.open = False
        self._outer = self.parent = self.run = self.trace = self.captured = self.blame = self.arguments = None
        self.inputs, self.nodes, self.constants, self.poles = [], [], {}, set()

    def part(self, nodes: Sequence[Node], outputs: Sequence[Var], inputs: Sequence[Var] = ()) -> Tape:
        """These nodes as a program."""
        return Tape(tuple(inputs), tuple(nodes), tuple(outputs), self.name, self.axes, imported=self.imported)

    def finished(self, outputs: Sequence[Var], out_tree: Any = None) -> Tape:
        """All that was recorded, as the program that returns these values."""
        tape = self.part(self.nodes, outputs, self.inputs)
        return tape.replace(out_tree=out_tree, arguments=self.arguments)


def current() -> Recording:
    """What is recording."""
    assert state.tape is not None
    return state.tape


def is_recording() -> bool:
    """Whether a tape records what is done now: not what is done inside a transformation of JAX's, entered since."""
    tape = state.tape
    return tape is not None and (tape.run is None or top_trace() is tape.trace)


@contextmanager
def differentiating(variables: Sequence[Var]) -> Iterator[None]:
    """The block runs a function whose derivative with respect to these values is wanted."""
    outer = state.wrt
    state.wrt = (*outer, *variables)
    try:
        yield
    finally:
        state.wrt = outer
