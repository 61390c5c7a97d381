"""The tape: a program as a sequence of nodes, each value bound once. Uses `printed`.

A `Tape` is what every transform reads and makes: recording makes one of a function, `backward` appends the
gradient to it, a pass turns one into another, `lower` turns one into a JAX function.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from types import CodeType
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from .printed import Printed

if TYPE_CHECKING:
    from .arguments import Arguments
    from .op import Op
    from .recording import Recording

Source = tuple[CodeType, int]
"""A place in the user's code: a code object and the offset of an instruction in it."""

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
        # Of two threads that make it, both get the first one's.
        aval = _AVALS.setdefault(key, Aval(tuple(map(int, shape)), dtype, bool(weak_type), varying))
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
    """One value of a program. `value` is its concrete value, when it has one.

    `tape` is the recording that made it. A number that is part of the program itself (a literal) has none.
    """

    __slots__ = ("aval", "tape", "value")
    aval: Aval
    tape: Recording | None
    value: Any


class Node:
    """One step of a tape: an op, what goes in, its static parameters, what comes out, and whose line it was.

    `grad` marks a node that differentiation appended: `source` and `of` are line and value of what it differentiates.
    """

    # The place is kept in two slots: a tuple more a node is felt by Python's garbage collector.
    __slots__ = ("code", "grad", "inputs", "of", "offset", "op", "outputs", "params")

    def __init__(
        self, op: Op, inputs: Sequence[Var], params: dict[str, Any], outputs: tuple[Var, ...],
        code: CodeType | None, offset: int, grad: bool, of: Var | None = None,
    ) -> None:  # fmt: skip
        self.op = op
        self.inputs = inputs
        self.params = params
        self.outputs = outputs
        self.code = code
        self.offset = offset
        self.grad, self.of = grad, of

    @property
    def source(self) -> Source | None:
        return None if self.code is None else (self.code, self.offset)

    def with_inputs(self, inputs: Sequence[Var]) -> Node:
        return Node(self.op, inputs, self.params, self.outputs, self.code, self.offset, self.grad, self.of)

    def extend(self, params: dict[str, Any], outputs: Sequence[Var], inputs: Sequence[Var] = ()) -> None:
        """Makes the node run with these parameters, for which it returns, and takes, these values too.

        It keeps its outputs and its place, so that nothing runs twice. No other part of a program ever changes.
        """
        self.params = params
        self.inputs = (*self.inputs, *inputs)
        self.outputs = (*self.outputs, *outputs)


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True, repr=False)
class Tape(Printed):
    """A finished program in static single assignment form.

    Attributes:
      inputs: the values the program takes, in order.
      nodes: the steps, each after the steps whose outputs it reads.
      outputs: the values the program returns, in order.
      name: the name of the function it was recorded from.
      axes: the mapped axes that it may speak of, and their sizes.
      out_tree: the structure of what the function returned.
      arguments: what the arguments of that function are called, and the values that stood for them.
      imported: whether it is made of no lines of the user's: those of its nodes are the lines of whoever runs it.
      made: what was made of it, once: its key, its compiled form, its derivatives.
    """

    inputs: tuple[Var, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Var, ...]
    name: str = ""
    axes: dict[str, int] = field(default_factory=dict)
    out_tree: Any = None
    arguments: tuple[Arguments, Sequence[Any]] | None = None
    imported: bool = False
    made: dict[Any, Any] = field(default_factory=dict, init=False)

    def replace(self, **changes: Any) -> Tape:
        """This program with other parts."""
        return replace(self, **changes)

    # A body is a static parameter of the node that runs it, so it compares by structure.

    def key(self) -> Any:
        key = self.made.get("key")
        if key is None:
            nodes, leaves = structure(self.nodes, self.outputs, self.inputs)
            types = tuple([v.aval for v in self.inputs]), tuple([(id(v.value), v.aval) for v in leaves])
            key = self.made["key"] = (nodes, *types)
        return key

    def __hash__(self) -> int:
        return hash(self.key())

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Tape) and bool(self.key() == other.key()))

    def __len__(self) -> int:
        return len(self.nodes)


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
