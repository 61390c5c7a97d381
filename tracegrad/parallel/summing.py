"""What the modules that sum gradients have in common: `GradientSum`, and arrays that travel together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from .. import numpy as tnp
from ..errors import describe, here
from ..ops import astype, concatenate, pad, psum_op, reshape, split_op, vary
from ..recording import Recording
from ..recording import state as recording_state
from ..tape import Aval, Tape, Var, aval_of, make_aval, varying_in_jax
from ..tracer import Tracer, literal
from ..varying import mapped_by_jax
from .collectives import axis_size

FLOAT0 = jax.dtypes.float0
"""The dtype of JAX's gradient of what has none, such as integers: there is nothing in it to sum."""


class Leaf(NamedTuple):
    """An array to sum, where it stands in the tree, and whether all devices have its sum already."""

    value: Any
    path: str
    aval: Aval
    summed: bool

    @property
    def kind(self) -> tuple[Any, int]:
        """Its dtype and its bytes."""
        return self.aval.dtype, math.prod(self.aval.shape) * self.aval.dtype.itemsize


@dataclass(frozen=True)
class GradientSum:
    """What makes one tree of all devices' trees, inside a function that is mapped over them.

    A tree holds gradients and what they are divided by, such as the sum of the examples' weights, as *sums* over the
    device's share: a mean of means would count the examples of a small share more. Divide after.

        module = gradient_sum("sharded")
        state = module.init(like, size)  # one for each device; `like` is a tree as the sum will be, or of types
        total, state = module((grads, count), state, "data")

    An array that all devices have alike is their terms' common value, so that its sum is as many times it as there
    are devices. But a gradient that differentiation has summed over the axis already, that of what all devices
    share, stays what it is, as in `sum_gradients`. Parameters that are each device's own, `pcast(params, axis_name,
    to="varying")`, have gradients that are each device's own. Integers are summed exactly, and wrap.

    A module is hashable, and equal to one with the same settings. To write one, override what differs.
    """

    @property
    def shards(self) -> int | None:
        """`None`: it takes one tree a device. A number: it takes the device's shards of so many, stacked on axis 0."""
        return None

    def init(self, like: Any, size: int) -> Any:
        """What each device keeps from step to step, for `size` of them, as arrays of that device alone; or `()`."""
        return ()

    def split_axes(self, like: Any, size: int) -> Any:
        """For each leaf the axis along which each device has a part of the sum, or `None` where each has all of it.

        To go through both, put the tree first: `jax.tree.map(f, like, module.split_axes(like, size))`.
        """
        return jax.tree.map(lambda leaf: None, like)

    def __call__(self, grads: Any, state: Any, axis_name: str) -> tuple[Any, Any]:
        """The sum over the devices along a mapped axis, and the state for the next step.

        Args:
          grads: a pytree of arrays or numbers, of one structure on all devices.
          state: what `init` or the last call returned.
          axis_name: the mapped axis.

        Raises:
          NameError: if no such axis is mapped.
          TypeError: if a leaf is no number, such as a key or a boolean, or `axis_name` no name.
          ValueError: if a leaf or the state has another shape than the module needs.
        """
        if not isinstance(axis_name, str):
            raise TypeError(f"{self}: axis_name is {describe(axis_name)} {here()}. Give the name of one mapped axis.")
        size = axis_size(axis_name)
        flat, tree = tree_flatten_with_path(grads)
        sums: list[Any] = [None] * len(flat)
        leaves: dict[int, Leaf] = {}
        for i, leaf in enumerate(self._leaves(flat, axis_name)):
            shape = self._unstacked(leaf, size)
            if leaf.aval.dtype == FLOAT0:
                sums[i] = np.zeros(shape, FLOAT0)
            elif math.prod(shape) == 0:
                sums[i] = tnp.zeros(shape, leaf.aval.dtype)
            else:
                leaves[i] = leaf
        found, state = self._sum(list(leaves.values()), state, axis_name)
        for i, total in zip(leaves, found, strict=True):
            sums[i] = total
        return jax.tree.unflatten(tree, sums), state

    def _sum(self, leaves: list[Leaf], state: Any, axis_name: str) -> tuple[list[Any], Any]:
        raise NotImplementedError(
            f"{type(self).__name__} does not say how it sums {here()}. Override __call__, or use AllReduce, Bucketed, "
            "Compressed, Sharded or Ordered."
        )

    def _unstacked(self, leaf: Leaf, size: int) -> tuple[int, ...]:
        return leaf.aval.shape

    def _leaves(self, flat: Sequence[tuple[Any, Any]], axis_name: str) -> list[Leaf]:
        tape = recording_state.tape
        tracked = tape is not None and axis_name in tape.axes
        differentiated: frozenset[Var] | None = None
        found = []
        for path, value in flat:
            name = keystr(path)
            if is_float0(value):
                found.append(Leaf(value, name, make_aval(np.shape(value), FLOAT0), False))
                continue
            aval = _number(value)
            if aval is None:
                raise TypeError(
                    f"{self}: grads{name} is {describe(value)}, which has no sum {here()}. Give arrays of numbers: "
                    "leave keys and strings out, and make booleans integers to count them, x.astype(int)."
                )
            summed = False
            if isinstance(value, Tracer) and tracked and aval.differentiable and axis_name not in aval.varying:
                assert tape is not None
                differentiated = _from_gradients(tape) if differentiated is None else differentiated
                summed = value in differentiated
            elif _alike_in_jax(value, aval, axis_name):
                raise ValueError(
                    f"{self}: grads{name} ({aval}) is the same on all devices along {axis_name!r} {here()}: a gradient "
                    "that is summed already, or a term that they all have. Under jax.shard_map the two cannot be told "
                    f"apart: make the parameters, or the term, each device's own, pcast(x, {axis_name!r}, "
                    "to='varying')."
                )
            array = value if isinstance(value, Tracer | jax.Array) else tnp.asarray(value)
            found.append(Leaf(array, name, aval, summed))
        return found

    def _need_own(self, leaf: Leaf, why: str, axis_name: str) -> None:
        if leaf.summed:
            raise ValueError(
                f"{self}: grads{leaf.path} ({leaf.aval}) is a gradient that differentiation has summed over "
                f"{axis_name!r} already, since all devices share what it is the gradient of {here()}: {why}. Take the "
                f"gradient at pcast(params, {axis_name!r}, to='varying'), which is each device's own."
            )


def _number(value: Any) -> Aval | None:
    """The type of an array of numbers, or of a number."""
    try:
        aval = aval_of(value)
    except TypeError:
        return None
    return aval if jnp.issubdtype(aval.dtype, jnp.number) else None


def _alike_in_jax(value: Any, aval: Aval, axis_name: str) -> bool:
    """Whether JAX, where it keeps track, says that all devices have this one, of a kind that a gradient may be."""
    if not isinstance(value, jax.core.Tracer) or not aval.differentiable or axis_name not in mapped_by_jax():
        return False
    return axis_name not in varying_in_jax(value)


def _from_gradients(tape: Recording) -> frozenset[Var]:
    """The values on a tape that differentiation made, or that were computed from such."""
    found: set[Var] = set()
    for node in tape.nodes:
        if node.grad or not found.isdisjoint(node.inputs) or any(map(_differentiates, node.params.values())):
            found.update(node.outputs)
    return frozenset(found)


def _differentiates(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(map(_differentiates, value))
    if not isinstance(value, Tape):
        return False
    return any(n.grad or any(map(_differentiates, n.params.values())) for n in value.nodes)


def all_reduced(leaf: Leaf, axis_name: str) -> Any:
    """Its sum, on each device."""
    return leaf.value if leaf.summed else psum_op(leaf.value, axis_name=(axis_name,))


def buckets(kinds: Sequence[tuple[Any, int]], size: float) -> list[list[int]]:
    """Which arrays travel together, each given by its dtype and its bytes: those of one dtype, in order, up to a size.

    One that is larger is alone.
    """
    full: list[list[int]] = []
    filling: dict[Any, tuple[list[int], int]] = {}
    for i, (dtype, own) in enumerate(kinds):
        bucket, held = filling.get(dtype, ([], 0))
        if bucket and held + own > size:
            full.append(bucket)
            bucket, held = [], 0
        filling[dtype] = ([*bucket, i], held + own)
    return full + [bucket for bucket, _ in filling.values()]


def joined(values: Sequence[Any], axis: int) -> Any:
    """One array of several, along an axis; one alone stays."""
    return values[0] if len(values) == 1 else concatenate(*values, axis=axis)


def parted(flat: Any, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """The arrays of these shapes, one after the other in a vector, which may be longer."""
    sizes = [math.prod(shape) for shape in shapes]
    sizes.append(aval_of(flat).shape[0] - sum(sizes))
    parts = split_op(flat, sizes=tuple(sizes), axis=0)
    return [reshape(part, shape=shape) for part, shape in zip(parts, shapes, strict=False)]


def padded(x: Any, size: int) -> Any:
    """`x` with its last axis made so long, with zeros."""
    aval = aval_of(x)
    missing = size - aval.shape[-1]
    config = *[(0, 0, 0)] * (aval.ndim - 1), (0, missing, 0)
    return pad(x, astype(literal(0), dtype=aval.dtype), config=config) if missing else x


def next_multiple(n: int, of: int) -> int:
    """The least multiple that is not below `n`."""
    return -(-n // of) * of


def each_own(value: Any, axis_name: str) -> Any:
    """A value as each device's own, where a tape keeps track of that."""
    tape = recording_state.tape
    return vary(value, frozenset({axis_name})) if tape is not None and axis_name in tape.axes else value


def shape_of(leaf: Any) -> tuple[int, ...]:
    """The shape of an array, of a number, or of what describes one."""
    return tuple(leaf.shape) if hasattr(leaf, "shape") else ()


def is_count(n: Any) -> bool:
    """Whether this is a whole number above 0."""
    return isinstance(n, (int, np.integer)) and not isinstance(n, bool) and bool(n > 0)


def is_float0(x: Any) -> bool:
    """Whether this is JAX's gradient of something that has none."""
    return getattr(x, "dtype", None) == FLOAT0
