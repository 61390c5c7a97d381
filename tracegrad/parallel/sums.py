"""How the gradients of the devices become one: modules with one interface, interchangeable by one argument."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import numpy as tnp
from ..errors import called, describe, here
from ..ops import (
    add,
    all_gather_alike_op,
    all_to_all_op,
    astype,
    axis_index_op,
    bitcast,
    complex_,
    concatenate,
    dynamic_slice,
    mul,
    psum_op,
    psum_scatter_op,
    reduce_precision,
    reshape,
    transpose,
)
from ..tape import Aval, aval_of
from ..tracer import literal
from .collectives import axis_size
from .summing import (
    GradientSum,
    Leaf,
    all_reduced,
    buckets,
    each_own,
    is_count,
    is_float0,
    joined,
    next_multiple,
    padded,
    parted,
    shape_of,
)

_TOGETHER = 2**20
"""Up to so many bytes, arrays are put together before they travel. On a CPU, putting larger ones together costs more
than another message."""


@dataclass(frozen=True)
class AllReduce(GradientSum):
    """One all-reduce of each array, which XLA puts together as it sees fit.

    Example:
      >>> import jax, tracegrad as tg, tracegrad.numpy as np
      >>> n = jax.device_count()
      >>> module = tg.parallel.AllReduce()
      >>> tg.pmap(lambda g: module(g, (), "i")[0], "i", out_axes=None)(np.ones((n, 2))).tolist() == [n, n]
      True
    """

    def _sum(self, leaves: list[Leaf], state: Any, axis_name: str) -> tuple[list[Any], Any]:
        return [all_reduced(leaf, axis_name) for leaf in leaves], state


@dataclass(frozen=True)
class Bucketed(GradientSum):
    """One all-reduce for each bucket of so many megabytes (of 2**20 bytes), of arrays of one dtype.

    The buckets are filled from the last array to the first, as a backward pass makes the gradients, so that the first
    ones travel while it goes on: Li et al., PyTorch Distributed (2020), section 3.2.3, with its default size. An array
    that is larger than a bucket has one for itself.

    Raises:
      ValueError: if `megabytes` is not positive.
    """

    megabytes: float = 25

    def __post_init__(self) -> None:
        if isinstance(self.megabytes, bool) or not isinstance(self.megabytes, (int, float)) or not self.megabytes > 0:
            raise ValueError(
                f"Bucketed: megabytes is {describe(self.megabytes)} {here()}. Give the size of a bucket, such as 25."
            )

    def _sum(self, leaves: list[Leaf], state: Any, axis_name: str) -> tuple[list[Any], Any]:
        sums = [leaf.value for leaf in leaves]
        waiting = [i for i, leaf in enumerate(leaves) if not leaf.summed][::-1]
        for bucket in buckets([leaves[i].kind for i in waiting], self.megabytes * 2**20):
            members = [waiting[i] for i in bucket]
            if len(members) == 1:
                sums[members[0]] = all_reduced(leaves[members[0]], axis_name)
                continue
            flat = joined([reshape(sums[i], shape=(math.prod(leaves[i].aval.shape),)) for i in members], 0)
            total = psum_op(flat, axis_name=(axis_name,))
            for i, part in zip(members, parted(total, [leaves[i].aval.shape for i in members]), strict=True):
                sums[i] = part
        return sums, state


def shard_axis(shape: Sequence[int], size: int) -> int | None:
    """Along which axis an array of this shape is split over so many devices: its longest that they divide.

    Of several as long it is the first. `None` if there is none: each device then has the whole array.

    Example:
      >>> from tracegrad.parallel import shard_axis
      >>> shard_axis((3, 3, 64, 128), 8), shard_axis((10,), 8)
      (3, None)
    """
    if 0 in shape:
        return None
    return max((i for i, n in enumerate(shape) if n % size == 0), key=lambda i: (shape[i], -i), default=None)


@dataclass(frozen=True)
class Sharded(GradientSum):
    """A reduce-scatter: each device gets a part of the sum of each array, along the axis that `shard_axis` says.

    The device keeps the optimizer's state of that part alone and updates it, and the new parameters are gathered:
    Rajbhandari et al., ZeRO (2020), stage 2; Xu et al., Automatic cross-replica sharding of weight update (2020). An
    array without such an axis is all-reduced. `split_axes` says which are split.
    """

    def split_axes(self, like: Any, size: int) -> Any:
        return jax.tree.map(lambda leaf: shard_axis(shape_of(leaf), size), like)

    def _sum(self, leaves: list[Leaf], state: Any, axis_name: str) -> tuple[list[Any], Any]:
        size = axis_size(axis_name)
        sums = []
        for leaf in leaves:
            axis = shard_axis(leaf.aval.shape, size)
            if axis is None:
                sums.append(all_reduced(leaf, axis_name))
            elif leaf.summed:
                shape = list(leaf.aval.shape)
                shape[axis] //= size
                starts: list[Any] = [0] * len(shape)
                starts[axis] = mul(axis_index_op(axis_name=(axis_name,)), literal(shape[axis]))
                sums.append(dynamic_slice(leaf.value, starts, shape))
            else:
                own = each_own(leaf.value, axis_name)
                sums.append(psum_scatter_op(own, axis_name=(axis_name,), size=size, axis=axis))
        return sums, state


class ErrorFeedback(NamedTuple):
    """What rounding has left out so far, of what a device sent and of its part of the sum: vectors, one a message."""

    sent: tuple[Any, ...]
    summed: tuple[Any, ...]


class _Packed(NamedTuple):
    """Leaves that travel in low precision together: which, how much room each has in their vector, and its length.

    `dtype` is the precision that they are summed in.
    """

    dtype: Any
    members: list[int]
    lengths: list[int]
    size: int


@dataclass(frozen=True)
class Compressed(GradientSum):
    """An all-reduce in low precision on the wire, with what rounding leaves out added to the next step's terms.

    Each device rounds its terms, and each gets all terms of one part (all-to-all), sums them in float32, rounds the
    sum, and gives it to all (all-gather): the sum itself is never taken in low precision. Both roundings have an error
    feedback, so that the sum over many steps is that of the exact sums but for the last step's rounding: Seide et al.,
    1-bit stochastic gradient descent (2014); both ways as in Tang et al., 1-bit Adam (2021), and DoubleSqueeze (2019).

    Args:
      dtype: "bfloat16"; or "int8", with a scale in full precision for each `block` of elements, as Dettmers et al.,
        8-bit optimizers via block-wise quantization (2022), have it.
      block: how many elements of one array share a scale. An array with fewer, as biases and counts are, and one of
        integers are all-reduced as they are.

    float64 and complex128 are summed in float64. Infinities and NaN arrive, each at its own element, and leave no
    error behind. One device alone rounds nothing.

    Raises:
      ValueError: if `dtype` or `block` is something else; when called, if the state is another's, or a gradient that
        would be rounded is summed already.
    """

    dtype: str = "bfloat16"
    block: int = 256

    def __post_init__(self) -> None:
        if self.dtype not in ("bfloat16", "int8"):
            raise ValueError(f"Compressed: dtype is {describe(self.dtype)} {here()}. It is 'bfloat16' or 'int8'.")
        if not is_count(self.block):
            raise ValueError(
                f"Compressed: block is {describe(self.block)} {here()}. Give a number of elements, as 256."
            )

    def init(self, like: Any, size: int) -> ErrorFeedback:
        avals = [aval_of(x) for x in jax.tree.leaves(like) if not is_float0(x)]
        packs = self._packs([(aval.shape, aval.dtype) for aval in avals], size)
        return ErrorFeedback(
            tuple(tnp.zeros(pack.size, pack.dtype) for pack in packs),
            tuple(tnp.zeros(pack.size // size, pack.dtype) for pack in packs),
        )

    def _packs(self, types: Sequence[tuple[tuple[int, ...], Any]], size: int) -> list[_Packed]:
        chosen: list[int] = []
        lengths: list[int] = []
        kinds: list[tuple[Any, int]] = []
        for i, (shape, dtype) in enumerate(types):
            n = math.prod(shape)
            if jnp.issubdtype(dtype, jnp.inexact) and n >= self.block:
                wide = np.dtype(np.float64 if dtype in (np.float64, np.complex128) else np.float32)
                reals = 2 * n if jnp.issubdtype(dtype, jnp.complexfloating) else n
                chosen.append(i)
                # Filled up, so that no block has elements of two arrays.
                lengths.append(next_multiple(reals, self.block))
                kinds.append((wide, lengths[-1] * wide.itemsize))
        packs = []
        for bucket in buckets(kinds, _TOGETHER):
            room = [lengths[j] for j in bucket]
            dtype, _ = kinds[bucket[0]]
            packs.append(_Packed(dtype, [chosen[j] for j in bucket], room, next_multiple(sum(room), size * self.block)))
        return packs

    def _sum(self, leaves: list[Leaf], state: Any, axis_name: str) -> tuple[list[Any], Any]:
        size = axis_size(axis_name)
        packs = self._packs([(leaf.aval.shape, leaf.aval.dtype) for leaf in leaves], size)
        self._check(state, packs, size)
        if size == 1:
            return [all_reduced(leaf, axis_name) for leaf in leaves], state
        packed = {i for pack in packs for i in pack.members}
        sums = [None if i in packed else all_reduced(leaf, axis_name) for i, leaf in enumerate(leaves)]
        sent, summed = [], []
        for pack, before, after in zip(packs, state.sent, state.summed, strict=True):
            members = [leaves[i] for i in pack.members]
            for leaf in members:
                self._need_own(leaf, "nothing is left to send in low precision", axis_name)
            terms = [padded(_reals(x, pack.dtype), n) for x, n in zip(members, pack.lengths, strict=True)]
            flat = each_own(padded(joined(terms, 0), pack.size), axis_name)
            parts, error = self._rounded(reshape(add(flat, before), shape=(size, pack.size // size)))
            sent.append(reshape(error, shape=(pack.size,)))
            each = {"axis_name": (axis_name,), "size": size}
            parts = [all_to_all_op(part, **each, split_axis=0, concat_axis=0) for part in parts]
            total = _halved(self._restored(parts, pack.dtype))
            parts, error = self._rounded(add(total, after))
            summed.append(error)
            parts = [all_gather_alike_op(part, **each, axis=0) for part in parts]
            found = parted(self._restored(parts, pack.dtype), [(n,) for n in pack.lengths])
            for i, reals in zip(pack.members, found, strict=True):
                sums[i] = _from_reals(reals, leaves[i].aval)
        return sums, ErrorFeedback(tuple(sent), tuple(summed))

    def _check(self, state: Any, packs: list[_Packed], size: int) -> None:
        wanted = [(pack.size,) for pack in packs], [(pack.size // size,) for pack in packs]
        if isinstance(state, ErrorFeedback):
            found = [shape_of(x) for x in state.sent], [shape_of(x) for x in state.summed]
            if found == wanted:
                return
            given = f"has vectors of the sizes {found[0]} and {found[1]}, where {wanted[0]} and {wanted[1]} are needed"
        else:
            given = f"is {describe(state)}"
        raise ValueError(
            f"{self}: state {given} {here()}. Give what init(like, {size}) returns, with `like` as the gradients, or "
            "what the step before returned, on each device its own."
        )

    def _rounded(self, x: Any) -> tuple[list[Any], Any]:
        """What is sent for an array of rows of whole blocks, and what that leaves out."""
        finite = tnp.isfinite(x)
        if self.dtype == "bfloat16":
            # The largest float32 would round to infinity. XLA takes a conversion there and back for nothing, unless the
            # rounding is a step of its own.
            most = float(jnp.finfo(jnp.bfloat16).max)
            rounded = reduce_precision(tnp.where(finite, tnp.clip(x, -most, most), x), exponent_bits=8, mantissa_bits=7)
            # As integers: on a CPU, XLA would send what is bfloat16 as float32.
            parts = [bitcast(astype(rounded, dtype=jnp.dtype(jnp.bfloat16)), dtype=np.dtype(np.uint16))]
        else:
            *rows, n = aval_of(x).shape
            parts = self._quantized(reshape(x, shape=(*rows, n // self.block, self.block)))
            rounded = self._restored(parts, aval_of(x).dtype)
        return parts, tnp.where(finite, x - rounded, 0)

    def _quantized(self, blocks: Any) -> list[Any]:
        # Of the 256 codes -126 to 126 are multiples of the block's scale, 127 and -127 infinities, and -128 is NaN.
        finite = tnp.isfinite(blocks)
        largest = tnp.max(tnp.where(finite, abs(blocks), 0), axis=-1)
        # A hair less than a 126th, so that 126 scales are never more than the largest, which may be that of the dtype.
        scale = largest * float((1 - 4 * jnp.finfo(aval_of(blocks).dtype).eps) / 126)
        steps = blocks / tnp.where(scale > 0, scale, 1)[..., None]
        codes = tnp.clip(tnp.round(steps), -126, 126)
        special = tnp.where(tnp.isnan(blocks), -128, tnp.where(blocks > 0, 127, -127))
        return [astype(tnp.where(finite, codes, special), dtype=np.dtype(np.int8)), scale]

    def _restored(self, parts: Sequence[Any], dtype: Any) -> Any:
        """The numbers that were sent, in rows."""
        if self.dtype == "bfloat16":
            return astype(bitcast(parts[0], dtype=jnp.dtype(jnp.bfloat16)), dtype=dtype)
        codes, scale = astype(parts[0], dtype=dtype), parts[1]
        values = tnp.where(abs(codes) < 127, codes * scale[..., None], tnp.where(codes < -127, np.nan, codes * np.inf))
        *rows, count, block = aval_of(values).shape
        return reshape(values, shape=(*rows, count * block))


def _halved(rows: Any) -> Any:
    """The sum of a matrix's rows, half of them onto the other half: on a CPU, XLA's own takes 100 times as long."""
    while (n := aval_of(rows).shape[0]) > 1:
        half = n // 2
        rows = concatenate(add(rows[:half], rows[half : 2 * half]), rows[2 * half :], axis=0)
    return rows[0]


def _reals(leaf: Leaf, dtype: Any) -> Any:
    """The real numbers of a leaf, as a vector of this dtype."""
    flat = reshape(leaf.value, shape=(math.prod(leaf.aval.shape),))
    if jnp.issubdtype(leaf.aval.dtype, jnp.complexfloating):
        flat = concatenate(tnp.real(flat), tnp.imag(flat), axis=0)
    return astype(flat, dtype=dtype)


def _from_reals(reals: Any, aval: Aval) -> Any:
    """A leaf of this type from the first of these real numbers."""
    n = math.prod(aval.shape)
    if jnp.issubdtype(aval.dtype, jnp.complexfloating):
        return reshape(complex_(reals[:n], reals[n : 2 * n]), shape=aval.shape)
    return reshape(astype(reals[:n], dtype=aval.dtype), shape=aval.shape)


@dataclass(frozen=True)
class Ordered(GradientSum):
    """The sum over `shards` shards of the batch by one fixed binary tree: the same bits on any number of devices.

    For eight shards it is ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)), whoever has them; one that has no partner at a
    level goes up as it is. Nothing is multiplied, so that no fused multiply-add can change a bit.

    Of `size` devices, device d has the `held` = ceil(shards / size) consecutive shards from d * held on, stacked on
    axis 0 of each array; those past the last shard may be anything, and take no part. Subtrees that lie within a device
    are summed there; then each device gets all terms of one part of the elements (all-to-all), and the sums are
    gathered (all-gather).

    Args:
      shards: how many there are, whatever the number of devices: part of what is computed, as a batch size is.
      mode: "strict" or "fused", for who runs the steps; the sum of given terms has the same bits in both. "strict" asks
        the driver to compile the gradient of a shard, the sum, and the update each as a program of its own, since only
        then are the *terms* the same on any number of devices, one included. "fused" is one program: the same bits on
        all numbers of devices from two on, for models of which XLA compiles a shard's gradient alike on them, as it
        does MLPs; to be checked for others.

    The elements that are NaN are the same ones; which of the many NaN is not promised.

    Raises:
      ValueError: if `shards` or `mode` is something else; when called, if an array does not have the shards on axis 0,
        or is a gradient that is summed already.

    Example:
      >>> import tracegrad as tg, numpy as np
      >>> module = tg.parallel.Ordered(shards=4)
      >>> terms = np.array([[1.0, 1e8], [-1e8, 3.0]], np.float32)  # two devices with two shards each
      >>> tg.vmap(lambda g: module(g, (), "i")[0], axis_name="i", out_axes=None)(terms).item()
      0.0
    """

    shards: int = 8  # type: ignore[assignment]
    mode: str = "strict"

    def __post_init__(self) -> None:
        if not is_count(self.shards):
            raise ValueError(
                f"Ordered: shards is {describe(self.shards)} {here()}. Give how many there are, such as 8."
            )
        if self.mode not in ("strict", "fused"):
            raise ValueError(f"Ordered: mode is {describe(self.mode)} {here()}. It is 'strict' or 'fused'.")

    def _unstacked(self, leaf: Leaf, size: int) -> tuple[int, ...]:
        held = -(-self.shards // size)
        if leaf.aval.shape[:1] != (held,):
            raise ValueError(
                f"{self}: grads{leaf.path} has shape {leaf.aval.shape} {here()}. Of {self.shards} shards each of "
                f"{size} devices has {held}, stacked on axis 0 of each array."
            )
        return leaf.aval.shape[1:]

    def _sum(self, leaves: list[Leaf], state: Any, axis_name: str) -> tuple[list[Any], Any]:
        size = axis_size(axis_name)
        held = -(-self.shards // size)
        # So many shards, from any multiple of it on, are a subtree: none of them on another device, none past the last.
        common = math.gcd(held, self.shards)
        whole = common & -common
        sums: list[Any] = [None] * len(leaves)
        for bucket in buckets([leaf.kind for leaf in leaves], _TOGETHER * held):
            members = [leaves[i] for i in bucket]
            for leaf in members:
                self._need_own(leaf, "in which order is not known", axis_name)
            flat = each_own(joined([_subtrees(leaf.value, held, whole) for leaf in members], 1), axis_name)
            rows, n = aval_of(flat).shape
            share = -(-n // size)
            parts = reshape(padded(flat, size * share), shape=(rows, size, share))
            each = {"axis_name": (axis_name,), "size": size}
            parts = all_to_all_op(transpose(parts, axes=(1, 0, 2)), **each, split_axis=0, concat_axis=0)
            # Row after row as they were sent: what is reshaped first, XLA copies.
            total = _tree([parts[i // rows][i % rows] for i in range(self.shards // whole)])
            total = all_gather_alike_op(total, **each, axis=0)
            for i, part in zip(bucket, parted(total, [leaf.aval.shape[1:] for leaf in members]), strict=True):
                sums[i] = part
        return sums, state


def _tree(terms: Sequence[Any]) -> Any:
    """Their sum in the one order: neighbours first, then neighbouring sums; the last of an odd number goes up alone."""
    while len(terms) > 1:
        pairs = [terms[i : i + 2] for i in range(0, len(terms), 2)]
        terms = [add(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return terms[0]


def _subtrees(stacked: Any, held: int, whole: int) -> Any:
    """The sums of each `whole` consecutive ones of the `held` shards on axis 0, as rows."""
    if whole > 1:
        # Where a product meets its addition in one program, the two may become one operation, with one rounding, as
        # they cannot where the term travels first. XLA drops its barriers before; this choice, which copies, stays.
        stacked = tnp.where(tnp.isnan(stacked), np.nan, stacked) if aval_of(stacked).differentiable else stacked
        sums = [_tree([stacked[start + i] for i in range(whole)]) for start in range(0, held, whole)]
        stacked = tnp.stack(sums)
    shape = aval_of(stacked).shape
    return reshape(stacked, shape=(shape[0], math.prod(shape[1:])))


_NAMED: dict[str, GradientSum] = {
    "all_reduce": AllReduce(),
    "bucketed": Bucketed(),
    "bfloat16": Compressed("bfloat16"),
    "int8": Compressed("int8"),
    "sharded": Sharded(),
    "ordered": Ordered(),
}


def gradient_sum(which: str | GradientSum) -> GradientSum:
    """The module of this name; a module itself is returned as it is.

    Args:
      which: "all_reduce", "bucketed", "bfloat16", "int8", "sharded", "ordered", or a `GradientSum`.

    Raises:
      TypeError, ValueError: if it is something else.

    Example:
      >>> from tracegrad.parallel import Ordered, gradient_sum
      >>> gradient_sum("int8"), gradient_sum(Ordered(16)).shards
      (Compressed(dtype='int8', block=256), 16)
    """
    if isinstance(which, GradientSum):
        return which
    names = ", ".join(map(repr, _NAMED))
    if isinstance(which, str) and which in _NAMED:
        return _NAMED[which]
    if isinstance(which, type) and issubclass(which, GradientSum):
        raise TypeError(f"{called()}: {which.__name__} is a class {here()}. Give one of it: {which.__name__}().")
    kind = ValueError if isinstance(which, str) else TypeError
    raise kind(f"{called()}: {describe(which)} {here()}. It is one of {names}, or a module such as Ordered(16).")


__all__ = [
    "AllReduce", "Bucketed", "Compressed", "ErrorFeedback", "GradientSum", "Ordered", "Sharded", "gradient_sum",
    "shard_axis",
]  # fmt: skip
