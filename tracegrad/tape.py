"""The tape: a program as a list of nodes, each value bound once, in the order it was recorded.

A `Tape` is what every transform reads and writes: recording appends to it, `backward` appends the
gradient to it, a pass turns one into another, `lower` turns one into a JAX function.
"""

from __future__ import annotations

import gc
import linecache
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import CodeType
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import find_top_trace

if TYPE_CHECKING:
    from .arguments import Arguments
    from .op import Op

Source = tuple[CodeType, int]
"""A place in the user's code: a code object and the offset of an instruction in it."""

VERIFY = False
"""Whether every pass and transform checks the tape that it returns; the tests turn it on."""

_NEVER = 1_000_000

_SHORT_DTYPES = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u", "complex": "c"}

_WEAK = {"i": int, "f": float, "c": complex}


NOWHERE: frozenset[str] = frozenset()
"""The axes along which what is the same on all devices varies."""


class Aval:
    """The type of a value: its shape, its dtype, its weak-type flag, and the mapped axes along which it varies.

    Along another mapped axis the value is the same on each device, or for each element.

    Avals are interned by `make_aval`, so two of them are equal exactly when they are one object.
    """

    __slots__ = ("differentiable", "dtype", "shape", "varying", "weak_type")

    def __init__(self, shape: tuple[int, ...], dtype: Any, weak_type: bool, varying: frozenset[str]) -> None:
        self.shape = shape
        self.dtype = dtype
        self.weak_type = weak_type
        self.varying = varying
        self.differentiable = bool(jnp.issubdtype(dtype, jnp.inexact))
        """Whether values of this type have cotangents: floats and complex numbers do."""

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def struct(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.shape, self.dtype, weak_type=self.weak_type)

    def promoting(self) -> Any:
        """What `jax.dtypes.result_type` takes for a value of this type: it does not see that a `struct` is weak."""
        return _WEAK.get(self.dtype.kind, self.dtype) if self.weak_type else self.dtype

    def __repr__(self) -> str:
        name = str(self.dtype)
        letters = name.rstrip("0123456789")
        short = _SHORT_DTYPES.get(letters, letters) + name[len(letters) :]
        axes = f"{{{','.join(sorted(self.varying))}}}" if self.varying else ""
        return f"{short}[{','.join(map(str, self.shape))}]" + ("~" if self.weak_type else "") + axes


_AVALS: dict[tuple[tuple[int, ...], Any, bool, frozenset[str]], Aval] = {}


def make_aval(
    shape: tuple[int, ...], dtype: Any, weak_type: bool = False, varying: frozenset[str] = NOWHERE
) -> Aval:  # fmt: skip
    """The one `Aval` of this shape, dtype and weak-type flag, that varies along these axes."""
    key = (shape, dtype, weak_type, varying)
    aval = _AVALS.get(key)
    if aval is None:
        aval = _AVALS[key] = Aval(tuple(map(int, shape)), dtype, bool(weak_type), varying)
    return aval


def with_axes(aval: Aval, varying: frozenset[str]) -> Aval:
    """This type, of a value that varies along these axes."""
    return aval if aval.varying == varying else make_aval(aval.shape, aval.dtype, aval.weak_type, varying)


def aval_of(value: Any) -> Aval:
    """The `Aval` of a Python scalar, a NumPy array or a JAX array, dtypes as JAX would keep them.

    Raises:
      TypeError: if `value` is not array-like.
    """
    if isinstance(value, Var):
        return value.aval
    if isinstance(value, (np.ndarray, np.generic)):
        return make_aval(value.shape, jax.dtypes.canonicalize_dtype(value.dtype))
    if isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer):
        aval = value.aval
        return make_aval(aval.shape, aval.dtype, getattr(aval, "weak_type", False))  # typed keys have none
    aval = jax.typeof(value)
    return make_aval(aval.shape, aval.dtype, getattr(aval, "weak_type", False), varying_in_jax(value))


def varying_in_jax(value: Any) -> frozenset[str]:
    """The axes of a `jax.shard_map` around this along which JAX says that a value varies."""
    if not isinstance(value, jax.core.Tracer):
        return NOWHERE
    return frozenset(jax.typeof(value).manual_axis_type.varying)


class Var:
    """One value of a tape. `value` is its concrete value, when it has one.

    A number that is part of the program itself (a literal) belongs to no tape.
    """

    __slots__ = ("aval", "tape", "value")
    aval: Aval
    tape: Tape | None
    value: Any


class Node:
    """One step of a tape: an op, what goes in, its static parameters, what comes out, and whose line it was.

    `grad` marks a node that differentiation appended; its `source` is the line it is the gradient of.
    """

    # The place is kept in two slots: a tuple more a node is felt by Python's garbage collector.
    __slots__ = ("code", "grad", "inputs", "offset", "op", "outputs", "params")

    def __init__(
        self,
        op: Op,
        inputs: Sequence[Var],
        params: dict[str, Any],
        outputs: tuple[Var, ...],
        code: CodeType | None,
        offset: int,
        grad: bool,
    ) -> None:
        self.op = op
        self.inputs = inputs
        self.params = params
        self.outputs = outputs
        self.code = code
        self.offset = offset
        self.grad = grad

    @property
    def source(self) -> Source | None:
        return None if self.code is None else (self.code, self.offset)

    def with_inputs(self, inputs: Sequence[Var]) -> Node:
        return Node(self.op, inputs, self.params, self.outputs, self.code, self.offset, self.grad)


class Tape:
    """An append-only program in static single assignment form.

    Attributes:
      inputs: the values the program takes, in order.
      nodes: the steps, each after the steps whose outputs it reads.
      outputs: the values the program returns, in order.
      name: the name of the function it was recorded from.
      arguments: what the arguments of that function are called, and the values that stood for them.

    While it records, a tape also knows how: `run` (computes what was recorded so far, under the JAX trace `trace`;
    `None` for a body, which has no values), `lazy` (Python may ask for values), `lifts` (scalars are lifted to
    inputs), `parent` and `captured` (the enclosing tape, and what a body took from there), `axes` (mapped axis names
    and their sizes), `ambient` (the axes along which it varies whether it runs at all, and so all that it captures),
    `poles` (values that may be infinite), `unbounded` (whether cotangents of cotangents may be so too), `blame` (the
    node whose line new nodes take, instead of the caller's). `imported` marks a body that is made of no lines of the
    user's: those of its nodes are the lines of whoever runs it.
    """

    __slots__ = (
        "__weakref__", "_key", "ambient", "arguments", "axes", "blame", "captured", "constants", "done", "imported",
        "inputs", "jitted", "lazy", "lifts", "linear", "name", "nodes", "open", "out_tree", "outputs", "parent",
        "poles", "run", "trace", "unbounded", "x64",
    )  # fmt: skip

    def __init__(
        self,
        name: str = "",
        *,
        run: Callable[[Tape], None] | None = None,
        lazy: bool = False,
        parent: Tape | None = None,
        axes: dict[str, int] | None = None,
    ) -> None:
        self.inputs: list[Var] = []
        self.nodes: list[Node] = []
        self.outputs: list[Var] = []
        self.name = name
        self.run = run
        self.trace: Any = find_top_trace(()) if run is not None else None
        self.arguments: tuple[Arguments, Sequence[Any]] | None = None
        self.lazy = lazy
        self.lifts = lazy
        self.parent = parent
        self.captured: list[tuple[Var, Any]] | None = None
        self.constants: dict[int, Var] = {}
        self.axes: dict[str, int] = (parent.axes if parent is not None else {}) | (axes or {})
        self.ambient: frozenset[str] = parent.ambient if parent is not None else NOWHERE
        self.blame: Node | None = None
        self.imported: bool = parent is not None and parent.imported
        self.poles: set[Var] = set()
        self.unbounded = False
        self.open = True
        self.done = 0
        self.linear: dict[Any, Any] = {}
        self.x64: bool = jax.config.jax_enable_x64  # type: ignore[attr-defined]
        self._key: Any = None
        self.jitted: Callable[..., Any] | None = None
        self.out_tree: Any = None

    @classmethod
    def of(cls, inputs: Sequence[Var], nodes: list[Node], outputs: Sequence[Var], like: Tape) -> Tape:
        """A finished tape of these parts, named as `like`."""
        tape = cls(like.name, axes=like.axes)
        tape.inputs, tape.nodes, tape.outputs = list(inputs), nodes, list(outputs)
        tape.open, tape.out_tree, tape.arguments = False, like.out_tree, like.arguments
        tape.imported = like.imported
        return tape

    def close(self) -> None:
        """Ends the recording and drops what it held, so that no array outlives it in a reference cycle."""
        self.open = False
        self.nodes = []
        self.constants = {}
        self.poles = set()
        self.trace = None

    # A finished body is a static parameter of the node that runs it, so it compares by structure.

    def key(self) -> Any:
        if self._key is None:
            nodes, leaves = structure(self.nodes, self.outputs, self.inputs)
            self._key = (nodes, tuple(v.aval for v in self.inputs), tuple((id(v.value), v.aval) for v in leaves))
        return self._key

    def __hash__(self) -> int:
        return hash(self.key()) if not self.open else id(self)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Tape) or self.open or other.open:
            return False
        return bool(self.key() == other.key())

    def check(self) -> None:
        """Checks that every value is bound once and before its use, with the type its op's rule gives.

        Raises:
          AssertionError: if not; the message names the node.
        """
        bound: set[Var] = set(self.inputs)
        if len(bound) != len(self.inputs):
            raise AssertionError(f"an input of {self.name or 'the tape'} is bound twice")
        made = {v for node in self.nodes for v in node.outputs}
        for node in self.nodes:

            def fail(what: str, node: Node = node) -> AssertionError:
                return AssertionError(f"{node.op.name} at {describe_source(node.source)}: {what}")

            for v in node.inputs:
                if v in made and v not in bound:
                    raise fail(f"an operand of type {v.aval} is used before it is bound\n{self.text(whole=True)}")
                if v not in bound and v.value is None:
                    raise fail(f"an operand of type {v.aval} belongs to no node and no input\n{self.text(whole=True)}")
            body = node.params.get("body")
            for v, taken in zip(node.inputs, body.inputs if isinstance(body, Tape) else (), strict=False):
                if taken.aval.varying - {node.params.get("axis_name")} != v.aval.varying:
                    raise fail(f"an operand of type {v.aval} goes into its body as {taken.aval}")
            expected = node.op.infer(tuple(v.aval for v in node.inputs), node.params)
            actual = tuple(v.aval for v in node.outputs)
            if actual != expected:
                raise fail(f"outputs are {actual}, the op's rule says {expected}")
            for v in node.outputs:
                if v in bound:
                    raise fail(f"its output of type {v.aval} is bound twice")
                bound.add(v)
        for v in self.outputs:
            if v not in bound and v.value is None:
                raise AssertionError(f"an output of type {v.aval} is never computed")

    def __len__(self) -> int:
        return len(self.nodes)

    if TYPE_CHECKING:
        # `tracegrad.show` installs how a tape prints.
        def text(self, whole: bool = False) -> str: ...


def output_types(*avals: Aval, body: Tape, **params: Any) -> list[Aval]:
    """The shape rule of an op that returns what its body does."""
    return [v.aval for v in body.outputs]


def verified(tape: Tape) -> Tape:
    """`tape`, checked if `VERIFY` is on."""
    if VERIFY:
        tape.check()
    return tape


@contextmanager
def long_lived() -> Iterator[None]:
    """Pauses cyclic garbage collection while our own code makes many objects that all stay."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def no_full_collections() -> Iterator[None]:
    """Puts off garbage collections of the oldest generation, for code that makes many objects that stay a while.

    A tape that grows to 100,000 nodes would otherwise be searched for garbage many times over. The young
    generations are collected as ever.
    """
    young, middle, old = gc.get_threshold()
    if old >= _NEVER:
        yield
        return
    gc.set_threshold(young, middle, _NEVER)
    try:
        yield
    finally:
        gc.set_threshold(young, middle, old)


def structure(
    nodes: Iterable[Node], outputs: Iterable[Var], inputs: Iterable[Var] = ()
) -> tuple[tuple[Any, ...], list[Var]]:
    """What a program computes, free of the identity and the values of its leaves.

    Returns:
      A hashable key (ops, static parameters, and for each operand its position), and the leaves: the
      values the program reads but does not compute, in the order of their first use.
    """
    position: dict[Var, Any] = {}
    count = 0
    for v in inputs:
        position[v] = count
        count += 1
    leaves: list[Var] = []
    key: list[Any] = []

    def read(v: Var) -> Any:
        """The place of a value that no node before this one computed: a literal stands for itself."""
        if v.tape is None:
            return (v.value.__class__, repr(v.value), v.aval)
        leaves.append(v)
        position[v] = -len(leaves)
        return position[v]

    for node in nodes:
        key.append(node.op)
        if node.params:
            key.append(tuple(node.params.items()))
        for v in node.inputs:
            p = position.get(v)
            key.append(read(v) if p is None else p)
        for v in node.outputs:
            position[v] = count
            count += 1
    key.append(None)
    for v in outputs:
        p = position.get(v)
        key.append(read(v) if p is None else p)
    return tuple(key), leaves


def fresh(tape: Tape) -> Tape:
    """The same program with values of its own, so that it keeps nothing of the recording alive."""
    new: dict[Var, Var] = {}

    def rename(v: Var) -> Var:
        return v if v.tape is None else new.setdefault(v, _renamed(v, copy))

    copy = Tape.of((), [], (), tape)
    copy.arguments = None
    copy.inputs = [rename(v) for v in tape.inputs]
    for node in tape.nodes:
        outputs = tuple(rename(v) for v in node.outputs)
        inputs = [rename(v) for v in node.inputs]
        copy.nodes.append(Node(node.op, inputs, node.params, outputs, node.code, node.offset, node.grad))
    copy.outputs = [rename(v) for v in tape.outputs]
    return copy


def _renamed(v: Var, tape: Tape) -> Var:
    new = type(v).__new__(type(v))
    new.aval, new.tape, new.value = v.aval, tape, None
    return new


def source_position(source: Source | None) -> tuple[str, int, str]:
    """File name, line number and function name of a place in the user's code."""
    if source is None:
        return "<unknown>", 0, "<unknown>"
    code, offset = source
    lines = list(code.co_positions())
    line = lines[offset // 2][0] if offset // 2 < len(lines) else code.co_firstlineno
    return code.co_filename, line or code.co_firstlineno, code.co_name


def cell_of(filename: str) -> str | None:
    """`In [3]`, if that is the cell of a notebook or of an IPython session that code of this file name was typed in."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    named = shell.compile.format_code_name(filename) if shell is not None else None
    return named[1].replace("In[", "In [") if named is not None else None


def describe_source(source: Source | None) -> str:
    """File, line, function and the text of the line, for messages."""
    filename, line, function = source_position(source)
    text = linecache.getline(filename, line).strip()
    return f"{cell_of(filename) or filename}:{line} ({function})" + (f" `{text}`" if text else "")
