"""Shapes: what moves, joins and repeats elements."""

from __future__ import annotations

import builtins
import itertools
import math
import operator
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy import broadcast_shapes

from .. import ops
from ..borrow import borrow
from ..errors import called, describe, here
from ..tracer import Tracer
from .arguments import (
    axes_of,
    axis_of,
    dtype_of,
    inexact,
    integer,
    is_inexact,
    is_known,
    known,
    literal,
    order_of,
    promoted,
    refuse,
    shape_of,
    type_of,
    types_of,
)
from .creation import array_like


def shape(a: Any) -> tuple[int, ...]:
    """The shape of an array."""
    return type_of(a).shape


def ndim(a: Any) -> int:
    """How many axes an array has."""
    return len(type_of(a).shape)


def size(a: Any, axis: int | None = None) -> int:
    """How many elements an array has, in all or along an axis."""
    s = type_of(a).shape
    return math.prod(s) if axis is None else s[axis_of(axis, len(s))]


def reshape(a: Any, shape: Any, order: str = "C", *, copy: bool | None = None) -> Any:
    """The elements of `a` in another shape; one size may be -1, and is worked out.

    Raises:
      ValueError: if the number of elements differs.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.reshape(np.arange(6), (2, -1)).shape
      (2, 3)
    """
    old = a.aval.shape if type(a) is Tracer else type_of(a).shape
    new = shape_of(shape)
    if -1 in new:
        known = -math.prod(new)
        if new.count(-1) > 1 or (known == 0 or math.prod(old) % known):
            if not (new.count(-1) == 1 and known == 0 and math.prod(old) == 0):
                raise ValueError(
                    f"{called()}: an array of shape {old} ({math.prod(old)} elements) does not fit {new} {here()}. "
                    "At most one size may be -1, and the others must divide the number of elements."
                )
            known = 1
        i = new.index(-1)
        new = (*new[:i], math.prod(old) // known, *new[i + 1 :])
    if order == "F":
        return transpose(ops.reshape(transpose(a), shape=new[::-1]))
    if order not in ("C", "A", "K"):
        raise ValueError(f"{called()}: order={order!r} {here()}. Use 'C' (the last axis varies fastest) or 'F'.")
    return ops.reshape(a, shape=new)


def ravel(a: Any, order: str = "C") -> Any:
    """The elements in one axis."""
    return reshape(a, (math.prod(type_of(a).shape),), order)


def transpose(a: Any, axes: Any = None) -> Any:
    """`a` with its axes in another order, reversed by default."""
    n = a.aval.ndim if type(a) is Tracer else type_of(a).ndim
    if axes is None:
        return ops.transpose(a, axes=tuple(range(n - 1, -1, -1)))
    return ops.transpose(a, axes=order_of(axes, n))


def permute_dims(a: Any, /, axes: Any) -> Any:
    """`a` with its axes in this order."""
    return transpose(a, axes)


def matrix_transpose(x: Any, /) -> Any:
    """`x` with its last two axes exchanged."""
    n = type_of(x).ndim
    if n < 2:
        raise ValueError(f"{called()}: {describe(x)} has no two axes {here()}. Use x[:, None] or x[None, :].")
    return ops.transpose(x, axes=(*range(n - 2), n - 1, n - 2))


def moveaxis(a: Any, source: Any, destination: Any) -> Any:
    """`a` with the axes `source` moved to `destination`; the others keep their order."""
    n = type_of(a).ndim
    src = order_of(source if isinstance(source, (tuple, list)) else (source,), n)
    dst = order_of(destination if isinstance(destination, (tuple, list)) else (destination,), n)
    if len(src) != len(dst) or len(set(src)) != len(src) or len(set(dst)) != len(dst):
        raise ValueError(
            f"{called()}: source {source} and destination {destination} {here()}: give as many of each, no two alike"
        )
    order = [i for i in range(n) if i not in src]
    for d, s in sorted(zip(dst, src, strict=True)):
        order.insert(d, s)
    return ops.transpose(a, axes=tuple(order))


def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    """`a` with two axes exchanged."""
    n = type_of(a).ndim
    i, j = axis_of(axis1, n), axis_of(axis2, n)
    order = list(range(n))
    order[i], order[j] = j, i
    return ops.transpose(a, axes=tuple(order))


rollaxis = borrow(jnp.rollaxis, "`a` with an axis moved to before position `start`.", "axis", "start")


def squeeze(a: Any, axis: Any = None) -> Any:
    """`a` without its axes of size 1, or without those named."""
    s = type_of(a).shape
    if axis is None:
        return ops.reshape(a, shape=tuple(n for n in s if n != 1))
    gone = axes_of(axis, len(s))
    if any(s[i] != 1 for i in gone):
        raise ValueError(f"{called()}: axis {axis} of shape {s} is not of size 1 {here()}. Only axes of size 1 can go.")
    return ops.reshape(a, shape=tuple(n for i, n in enumerate(s) if i not in gone))


def expand_dims(a: Any, axis: Any) -> Any:
    """`a` with new axes of size 1, which stand at the positions `axis` of the result."""
    s = type_of(a).shape
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    new = axes_of(tuple(axes), len(s) + len(axes))
    rest = iter(s)
    return ops.reshape(a, shape=tuple(1 if i in new else next(rest) for i in range(len(s) + len(new))))


def broadcast_to(array: Any, shape: Any) -> Any:
    """`array` in this shape: axes are matched from the right, and those of size 1 repeat."""
    old, new = type_of(array).shape, shape_of(shape)
    if old == new:
        return array_like(array)
    if len(old) > len(new):
        raise ValueError(f"{called()}: an array of shape {old} has more axes than {new} {here()}")
    return ops.broadcast_in_dim(array, shape=new, dims=tuple(range(len(new) - len(old), len(new))))


def broadcast_arrays(*args: Any) -> list[Any]:
    """The arrays in the shape that they have together."""
    together = ops.broadcast_shapes(*[type_of(x) for x in args]) if args else ()
    return [broadcast_to(x, together) for x in args]


def _at_least(name: str, grow: Any) -> Any:
    def at_least(*arys: Any) -> Any:
        out = [ops.reshape(x, shape=grow(type_of(x).shape)) for x in arys]
        return out[0] if len(out) == 1 else out

    at_least.__name__ = at_least.__qualname__ = name
    at_least.__doc__ = f"The arrays with axes of size 1 added, so that they have {name[8]} axes or more."
    return at_least


atleast_1d = _at_least("atleast_1d", lambda s: s or (1,))
atleast_2d = _at_least("atleast_2d", lambda s: s if len(s) > 1 else (1, *(s or (1,))))
atleast_3d = _at_least("atleast_3d", lambda s: s if len(s) > 2 else ((*s, 1) if len(s) == 2 else (1, *(s or (1,)), 1)))


# -- joining


def concatenate(arrays: Any, axis: int | None = 0, dtype: Any = None, *, out: None = None) -> Any:
    """The arrays joined along an axis (flattened first, if it is `None`), in their common dtype.

    Raises:
      ValueError: if their shapes differ along another axis, or there is none.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.concatenate([np.zeros(2), np.ones(1)]).tolist()
      [0.0, 0.0, 1.0]
    """
    if out is not None:
        refuse(out=out)
    avals = types_of(arrays)
    if not avals:
        raise ValueError(f"{called()}: there is no array to join {here()}. Give at least one.")
    if axis is None:
        arrays, axis = [ravel(x) for x in arrays], 0
    else:
        if any(not a.shape for a in avals):
            if not isinstance(arrays, (list, tuple)):
                raise TypeError(
                    f"{called()}: arrays is one array, {describe(arrays)} {here()}. Put those to join in a list: "
                    f"{called()}([a, b])."
                )
            raise ValueError(f"{called()}: scalars have no axis to join along {here()}. Use stack, or asarray([...]).")
        axis = axis_of(axis, avals[0].ndim)
    if dtype is not None:
        arrays = [ops.astype(x, dtype=dtype_of(dtype)) for x in arrays]
    else:
        arrays = promoted(list(arrays), avals)
    return ops.concatenate(*arrays, axis=axis)


def concat(arrays: Any, /, *, axis: int | None = 0) -> Any:
    """The arrays joined along an axis; see `concatenate`."""
    return concatenate(arrays, axis)


def stack(arrays: Any, axis: int = 0, out: None = None, dtype: Any = None) -> Any:
    """Arrays of one shape joined along a new axis."""
    if out is not None:
        refuse(out=out)
    avals = types_of(arrays)
    if not avals:
        raise ValueError(f"{called()}: there is no array to join {here()}. Give at least one.")
    first = avals[0].shape
    for aval in avals:
        if aval.shape != first:
            raise ValueError(f"{called()}: arrays of shapes {first} and {aval.shape} {here()}. Give them one shape.")
    i = axis_of(axis, len(first) + 1)
    new = (*first[:i], 1, *first[i:])
    arrays = promoted([ops.reshape(x, shape=new) for x in arrays], avals)
    out = ops.concatenate(*arrays, axis=i)
    return out if dtype is None else ops.astype(out, dtype=dtype_of(dtype))


def hstack(tup: Any, dtype: Any = None) -> Any:
    """The arrays joined along their second axis, or the first of one-dimensional ones."""
    types_of(tup)
    arrays = [atleast_1d(x) for x in tup]
    return concatenate(arrays, 0 if arrays and arrays[0].ndim == 1 else 1, dtype=dtype)


def vstack(tup: Any, dtype: Any = None) -> Any:
    """The arrays as rows, joined along the first axis."""
    types_of(tup)
    return concatenate([atleast_2d(x) for x in tup], 0, dtype=dtype)


row_stack = vstack


def dstack(tup: Any, dtype: Any = None) -> Any:
    """The arrays joined along the third axis."""
    types_of(tup)
    return concatenate([atleast_3d(x) for x in tup], 2, dtype=dtype)


def column_stack(tup: Any) -> Any:
    """One-dimensional arrays as columns, and matrices as they are, joined along the second axis."""
    avals = types_of(tup)
    columns = [
        ops.reshape(x, shape=(math.prod(a.shape), 1)) if a.ndim < 2 else x for x, a in zip(tup, avals, strict=True)
    ]
    return concatenate(columns, 1)


def append(arr: Any, values: Any, axis: int | None = None) -> Any:
    """`values` joined to the end of `arr`."""
    return concatenate([arr, values], axis)


def block(arrays: Any) -> Any:
    """An array put together from nested lists of blocks."""
    depth = 0
    inner = arrays
    while isinstance(inner, list):
        inner, depth = inner[0], depth + 1

    def join(part: Any, level: int) -> Any:
        if isinstance(part, list):
            return concatenate([join(p, level - 1) for p in part], -level)
        x = array_like(part)
        return ops.reshape(x, shape=(1,) * (depth - x.ndim) + x.shape) if x.ndim < depth else x

    return join(arrays, depth)


# -- splitting


def part_along(a: Any, shape: tuple[int, ...], axis: int, start: int, stop: int, step: int = 1) -> Any:
    """The elements of `a` from `start` to `stop` along an axis."""
    lo = tuple(start if i == axis else 0 for i in range(len(shape)))
    hi = tuple(stop if i == axis else n for i, n in enumerate(shape))
    return ops.slice_(a, start=lo, limit=hi, strides=tuple(step if i == axis else 1 for i in range(len(shape))))


def _split(ary: Any, indices_or_sections: Any, axis: int, even: bool) -> list[Any]:
    s = type_of(ary).shape
    i = axis_of(axis, len(s))
    n = s[i]
    if isinstance(indices_or_sections, (tuple, list)) or np.ndim(indices_or_sections):
        inner = [integer(k, "each index") for k in indices_or_sections]
        cuts = [0, *[builtins.min(builtins.max(k + n if k < 0 else k, 0), n) for k in inner], n]
    else:
        sections = integer(indices_or_sections, "the number of sections")
        if sections < 1 or (even and n % sections):
            raise ValueError(
                f"{called()}: {n} elements along axis {i} do not divide in {sections} equal parts {here()}. "
                "Use array_split."
            )
        each, more = builtins.divmod(n, sections)
        cuts = [k * each + builtins.min(k, more) for k in range(sections + 1)]
    sizes = tuple(hi - lo for lo, hi in itertools.pairwise(cuts))
    if builtins.min(sizes) < 0:  # cuts that go back, whose parts overlap
        return [part_along(ary, s, i, lo, builtins.max(lo, hi)) for lo, hi in itertools.pairwise(cuts)]
    return list(ops.split_op(ary, sizes=sizes, axis=i))


def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """The array in equal parts along an axis, or cut at these indices."""
    return _split(ary, indices_or_sections, axis, True)


def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """As `split`, but the parts may differ in size by one."""
    return _split(ary, indices_or_sections, axis, False)


def hsplit(ary: Any, indices_or_sections: Any) -> list[Any]:
    """The array split along its second axis, or the first of a one-dimensional one."""
    return _split(ary, indices_or_sections, 0 if ndim(ary) == 1 else 1, True)


def vsplit(ary: Any, indices_or_sections: Any) -> list[Any]:
    """The array split along its first axis."""
    return _split(ary, indices_or_sections, 0, True)


def dsplit(ary: Any, indices_or_sections: Any) -> list[Any]:
    """The array split along its third axis."""
    return _split(ary, indices_or_sections, 2, True)


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Any, ...]:
    """The arrays along an axis, which is taken away."""
    s = type_of(x).shape
    i = axis_of(axis, len(s))
    rest = (*s[:i], *s[i + 1 :])
    if not s[i]:
        return ()
    return tuple(ops.reshape(part, shape=rest) for part in ops.split_op(x, sizes=(1,) * s[i], axis=i))


# -- reversing, shifting, repeating


def flip(m: Any, axis: Any = None) -> Any:
    """The array with the order of elements reversed along axes, all by default."""
    return ops.rev(m, axes=axes_of(axis, type_of(m).ndim))


def fliplr(m: Any) -> Any:
    """The array reversed along its second axis."""
    return flip(m, 1)


def flipud(m: Any) -> Any:
    """The array reversed along its first axis."""
    return flip(m, 0)


_roll_by_known = borrow(jnp.roll, "", "shift", "axis")
_roll_by_traced = borrow(jnp.roll, "", "axis")


def roll(a: Any, shift: Any, axis: Any = None) -> Any:
    """The elements moved `shift` places along an axis; those that leave come in at the other end.

    The shifts are integers, which may be traced, or tuples of them with as many axes; without an axis the array is
    rolled flat.
    """
    if type_of(shift).dtype.kind not in "biu":
        raise TypeError(f"{called()}: shift must be of integers, not {describe(shift)} {here()}")
    numbers = all(map(is_known, shift)) if isinstance(shift, (tuple, list)) else is_known(shift)
    return (_roll_by_known if numbers else _roll_by_traced)(a, shift, axis)


rot90 = borrow(
    jnp.rot90, "The array turned by 90 degrees `k` times, from the first of two axes towards the second.", "k", "axes"
)


def tile(A: Any, reps: Any) -> Any:
    """The array repeated whole, `reps` times along each axis."""
    s, times = type_of(A).shape, shape_of(reps)
    n = builtins.max(len(s), len(times))
    sizes, times = (1,) * (n - len(s)) + s, (1,) * (n - len(times)) + times
    apart = tuple(itertools.chain(*zip(times, sizes, strict=True)))
    x = ops.broadcast_in_dim(A, shape=apart, dims=tuple(range(2 * (n - len(s)) + 1, 2 * n, 2)))
    return ops.reshape(x, shape=tuple(map(operator.mul, times, sizes)))


def repeat(a: Any, repeats: Any, axis: int | None = None, *, total_repeat_length: int | None = None) -> Any:
    """Each element repeated along an axis, of the flattened array by default.

    Args:
      repeats: an integer, or integers, one an element along the axis.
      total_repeat_length: the size of that axis in the result, where the values of `repeats` are not known, as under
        `@jit`; what is too much is cut off, and the last element fills what is missing.
    """
    if axis is None:
        a, axis = ravel(a), 0
    s = type_of(a).shape
    i = axis_of(axis, len(s))
    if isinstance(repeats, (tuple, list)):
        repeats = np.asarray(repeats)
    if total_repeat_length is None and not type_of(repeats).ndim:
        n = integer(repeats, "repeats")
        x = ops.broadcast_in_dim(
            a, shape=(*s[: i + 1], n, *s[i + 1 :]), dims=(*range(i + 1), *range(i + 2, len(s) + 1))
        )
        return ops.reshape(x, shape=(*s[:i], s[i] * n, *s[i + 1 :]))
    counts = type_of(repeats)
    if counts.shape not in ((), (1,), (s[i],)) or counts.dtype.kind not in "iu":
        raise ValueError(
            f"{called()}: {s[i]} elements along axis {i}, {describe(repeats)} repeats {here()}. Give one an element."
        )
    if total_repeat_length is None:
        times = known(repeats, "Pass total_repeat_length=")
        return ops.take(a, np.repeat(np.arange(s[i]), times), axis=i)
    total = integer(total_repeat_length, "total_repeat_length")
    if not s[i]:
        raise ValueError(
            f"{called()}: axis {i} of shape {s} is empty {here()}: there is nothing to fill {total} places with."
        )
    ends = ops.cumsum(broadcast_to(ops.astype(repeats, dtype=np.dtype(np.int32)), (s[i],)), axis=0)
    at = ops.searchsorted(ends, ops.iota(dtype=np.dtype(np.int32), shape=(total,), axis=0), "right")
    return ops.take(a, at, i, "clip")


resize = borrow(
    jnp.resize,
    "The elements of the flattened array in a new shape, again from the start if they are too few.",
    "new_shape",
)


# -- diagonals


def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The diagonals along two axes, as a new last axis."""
    s = type_of(a).shape
    if len(s) < 2:
        raise ValueError(f"{called()}: an array of shape {s} has no two axes {here()}. Use diag to make a matrix.")
    i, j = axis_of(axis1, len(s)), axis_of(axis2, len(s))
    k = integer(offset, "offset")
    if i == j:
        raise ValueError(f"{called()}: axis1 and axis2 are both {i} {here()}. Name two axes.")
    order = (*[x for x in range(len(s)) if x not in (i, j)], i, j)
    if order != tuple(range(len(s))):
        a = ops.transpose(a, axes=order)
    outer, n, m = tuple(s[x] for x in order[:-2]), s[i], s[j]
    count = builtins.max(builtins.min(n + builtins.min(k, 0), m - builtins.max(k, 0)), 0)
    # In memory, neighbours on a diagonal are one row and one column apart.
    first = k if k >= 0 else -k * m
    flat = ops.reshape(a, shape=(*outer, n * m))
    if not count:
        return part_along(flat, (*outer, n * m), len(outer), 0, 0)
    return part_along(flat, (*outer, n * m), len(outer), first, first + (count - 1) * (m + 1) + 1, m + 1)


diag = borrow(
    jnp.diag,
    "The `k`-th diagonal of a matrix; of a one-dimensional array, the matrix that has it as its `k`-th diagonal.",
    "k",
)

diagflat = borrow(jnp.diagflat, "The matrix that has the flattened array as its `k`-th diagonal.", "k")


# -- differences


diff = borrow(jnp.diff, "The differences of neighbours along an axis, taken `n` times.", "n", "axis")


def unwrap(p: Any, discont: Any = None, axis: int = -1, period: Any = 2 * math.pi) -> Any:
    """Angles along an axis, with multiples of the period added so that neighbours differ by half of it at most.

    Args:
      discont: differences smaller than this are left; half of the period by default, and at least that.
    """
    aval = type_of(p)
    i = axis_of(axis, aval.ndim)
    whole = not is_inexact(aval.dtype) and type(period) is int
    p = array_like(p) if whole else inexact(array_like(p), aval)
    if not aval.shape[i]:
        return p
    half = ops.floor_divide(period, literal(2)) if whole else ops.div(period, literal(2))
    step = diff(p, axis=i)
    wrapped = ops.sub(ops.remainder(ops.add(step, half), period), half)
    # Half a period up stays up.
    tie = ops.bitwise_and(ops.equal(wrapped, ops.neg(half)), ops.greater(step, literal(0)))
    if not whole or period % 2 == 0:
        wrapped = ops.where(tie, half, wrapped)
    change = ops.sub(wrapped, step)
    change = ops.where(
        ops.less(ops.abs_(step), half if discont is None else ops.maximum(discont, half)), literal(0), change
    )
    turns = ops.pad(ops.cumsum(change, axis=i), literal(0), config=tuple((int(j == i), 0, 0) for j in range(aval.ndim)))
    return ops.add(p, turns)


def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """The integral of `y` along an axis by the trapezoidal rule, at places `x`, or `dx` apart."""
    s = type_of(y).shape
    i = axis_of(axis, len(s))
    if x is not None:
        dx = diff(x) if ndim(x) == 1 else diff(x, axis=i)
        if ndim(x) == 1:
            dx = ops.reshape(dx, shape=tuple(dx.shape[0] if j == i else 1 for j in range(len(s))))
    pairs = ops.add(part_along(y, s, i, 1, s[i]), part_along(y, s, i, 0, s[i] - 1))
    return ops.reduce_sum(ops.mul(ops.mul(pairs, dx), literal(0.5)), axes=(i,))


__all__ = [
    "append", "array_split", "atleast_1d", "atleast_2d", "atleast_3d", "block", "broadcast_arrays", "broadcast_shapes",
    "broadcast_to", "column_stack", "concat", "concatenate", "diag", "diagflat", "diagonal", "diff", "dsplit", "dstack",
    "expand_dims", "flip", "fliplr", "flipud", "hsplit", "hstack", "matrix_transpose", "moveaxis", "ndim",
    "permute_dims", "ravel", "repeat", "reshape", "resize", "roll", "rollaxis", "rot90", "row_stack", "shape", "size",
    "split", "squeeze", "stack", "swapaxes", "tile", "transpose", "trapezoid", "unstack", "unwrap", "vsplit", "vstack",
]  # fmt: skip
