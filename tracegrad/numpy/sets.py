"""Sets: what is distinct in arrays, and what they share.

The shape of these results depends on values, which are read at once, unless `size` says how many elements to give; see
`tracegrad.numpy.nonzero`. Values that are given have a derivative: they are elements of the arguments.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..errors import called, here
from ..ops.gather import Spec
from .arguments import axis_of, dtype_of, is_inexact, literal, promoted, type_of
from .creation import array_like, full, ones, zeros
from .manipulation import concatenate, moveaxis, ravel, reshape
from .selection import argsort, nonzero


class UniqueAll(NamedTuple):
    """What `unique_all` gives."""

    values: Any
    indices: Any
    inverse_indices: Any
    counts: Any


class UniqueCounts(NamedTuple):
    """What `unique_counts` gives."""

    values: Any
    counts: Any


class UniqueInverse(NamedTuple):
    """What `unique_inverse` gives."""

    values: Any
    inverse_indices: Any


def _count(mask: Any) -> Any:
    return ops.reduce_sum(ops.astype(mask, dtype=dtype_of(int)), axes=(0,))


def _below(count: Any, size: int) -> Any:
    """A mask of this size that holds for the first `count`."""
    return ops.less(ops.iota(dtype=dtype_of(int), shape=(size,), axis=0), count)


def _ordered(x: Any, equal_nan: bool) -> tuple[Any, Any, Any]:
    """The slices of `x` along its first axis in order, where each came from, and which differ from the one before."""
    n, width = x.shape[0], math.prod(x.shape[1:])
    if x.ndim == 1:
        rows, order = ops.sort_op(x, axis=0, descending=False, stable=True)
    elif width:
        columns = ops.split_op(ops.reshape(x, shape=(n, width)), sizes=(1,) * width, axis=1)
        *columns, order = ops.sort_op(*columns, axis=0, descending=False, stable=True, keys=width)
        rows = ops.reshape(ops.concatenate(*columns, axis=1), shape=x.shape)
        order = ops.reshape(order, shape=(n,))
    else:
        rows, order = x, ops.iota(dtype=np.dtype(np.int32), shape=(n,), axis=0)
    if not n:
        return rows, order, zeros((0,), bool)
    before, after = rows[:-1], rows[1:]
    differ = before != after
    if equal_nan and is_inexact(x.dtype):
        differ = differ & ~(ops.isnan(before) & ops.isnan(after))
    if x.ndim > 1:
        differ = ops.reduce_any(differ, axes=tuple(range(1, x.ndim)))
    return rows, order, ops.concatenate(ones((1,), bool), differ, axis=0)


def _picked(x: Any, mask: Any, size: int | None, fill_value: Any) -> Any:
    """The slices of `x` along its first axis where the mask holds; `fill_value`, or the first one, fills up."""
    at = nonzero(mask, size=size)[0]
    if not x.shape[0]:
        return full((at.shape[0], *x.shape[1:]), 0 if fill_value is None else fill_value, x.dtype)
    if not size:
        return ops.take(x, at, 0, "clip")
    real = _below(_count(mask), size)
    if fill_value is None:
        return ops.take(x, ops.where(real, at, at[:1]), 0, "clip")
    real = ops.reshape(real, shape=(size, *[1] * (x.ndim - 1)))
    return ops.where(real, ops.take(x, at, 0, "clip"), ops.astype(fill_value, dtype=x.dtype))


def unique(
    ar: Any, return_index: bool = False, return_inverse: bool = False, return_counts: bool = False,
    axis: int | None = None, *, equal_nan: bool = True, size: int | None = None, fill_value: Any = None,
    sorted: bool = True,
) -> Any:  # fmt: skip
    """The distinct elements of an array, or its distinct slices along an axis, in order.

    Args:
      return_index, return_inverse, return_counts: what else to give, in this order: where each occurs first, which of
        them each element of `ar` is, and how often each occurs.
      equal_nan: whether NaNs count as one.
      size: how many to give; otherwise as many as there are, which needs the values of `ar` now.
      fill_value: what fills up to `size`; the first by default.
      sorted: they always are.

    Raises:
      TracerError: without `size` under `@jit` and in bodies, where values are not known yet.
      ValueError: if there is no element and no `fill_value` to fill with.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.jit(lambda x: np.unique(x, size=4, fill_value=-1))(np.array([3, 1, 3, 2])).tolist()
      [1, 2, 3, -1]
    """
    x = array_like(ar)
    shape = x.shape
    i = 0 if axis is None else axis_of(axis, x.ndim)
    x = ravel(x) if axis is None else moveaxis(x, i, 0)
    n, index = x.shape[0], dtype_of(int)
    if not n and size and fill_value is None:
        raise ValueError(f"{called()}: size={size} of no elements {here()}. Pass fill_value.")
    rows, order, first = _ordered(x, equal_nan)
    values = _picked(rows, first, size, fill_value)
    out = [values if axis is None else moveaxis(values, 0, i)]
    order = ops.astype(order, dtype=index)
    if return_index:
        out.append(_picked(order, first, size, None))
    if return_inverse:
        number = ops.cumsum(ops.astype(first, dtype=index), axis=0) - 1
        spec = Spec((0,), mode="promise_in_bounds", unique=True)
        inverse = ops.scatter(zeros((n,), index), number, order, kind="set", spec=spec) if n else number
        out.append(reshape(inverse, shape) if axis is None else inverse)
    if return_counts:
        if size is None:
            ends = ops.concatenate(nonzero(first)[0], full((1,), n, index), axis=0)
        else:
            ends = nonzero(first, size=size + 1, fill_value=n)[0]
        out.append(ends[1:] - ends[:-1])
    return out[0] if len(out) == 1 else tuple(out)


# The standard tells NaNs apart in these.


def unique_all(x: Any, /, *, size: int | None = None, fill_value: Any = None) -> UniqueAll:
    """The distinct elements, where each occurs first, which of them each element is, and how often each occurs."""
    return UniqueAll(*unique(x, True, True, True, equal_nan=False, size=size, fill_value=fill_value))


def unique_counts(x: Any, /, *, size: int | None = None, fill_value: Any = None) -> UniqueCounts:
    """The distinct elements, and how often each occurs."""
    return UniqueCounts(*unique(x, return_counts=True, equal_nan=False, size=size, fill_value=fill_value))


def unique_inverse(x: Any, /, *, size: int | None = None, fill_value: Any = None) -> UniqueInverse:
    """The distinct elements, and which of them each element is."""
    return UniqueInverse(*unique(x, return_inverse=True, equal_nan=False, size=size, fill_value=fill_value))


def unique_values(x: Any, /, *, size: int | None = None, fill_value: Any = None) -> Any:
    """The distinct elements."""
    return unique(x, equal_nan=False, size=size, fill_value=fill_value)


def isin(
    element: Any, test_elements: Any, assume_unique: bool = False, invert: bool = False, *, method: str = "auto"
) -> Any:
    """Whether each element is among `test_elements`; with `invert`, whether it is not.

    Args:
      assume_unique: changes nothing.
      method: as `jax.numpy` has it; the result is the same.
    """
    if method not in ("auto", "compare_all", "binary_search", "sort"):
        raise ValueError(f"{called()}: method={method!r} {here()}. Leave it out.")
    x, among = array_like(element), ravel(array_like(test_elements))
    x, among = promoted((x, among), (type_of(x), type_of(among)))
    # XLA makes one loop of this, without an array of all pairs.
    found = ops.reduce_any(ops.equal(ops.reshape(x, shape=(*x.shape, 1)), among), axes=(x.ndim,))
    return ops.bitwise_not(found) if invert else found


def union1d(ar1: Any, ar2: Any, *, size: int | None = None, fill_value: Any = None) -> Any:
    """The distinct elements of two arrays together, in order; see `unique`."""
    return unique(concatenate([ar1, ar2], None), size=size, fill_value=fill_value)


def setdiff1d(
    ar1: Any, ar2: Any, assume_unique: bool = False, *, size: int | None = None, fill_value: Any = None
) -> Any:
    """The distinct elements of the first array that are not in the second, in order.

    Args:
      assume_unique: says that those of `ar1` are distinct; they are then given in the order they have.
      size, fill_value: as for `unique`; 0 fills by default.
    """
    x = ravel(array_like(ar1))
    if assume_unique:
        return _picked(x, isin(x, ar2, invert=True), size, 0 if fill_value is None else fill_value)
    rows, _, first = _ordered(x, True)
    return _picked(rows, first & isin(rows, ar2, invert=True), size, 0 if fill_value is None else fill_value)


def _both(ar1: Any, ar2: Any) -> tuple[Any, Any]:
    x, y = ravel(array_like(ar1)), ravel(array_like(ar2))
    x, y = promoted((x, y), (type_of(x), type_of(y)))
    return x, y


def setxor1d(
    ar1: Any, ar2: Any, assume_unique: bool = False, *, size: int | None = None, fill_value: Any = None
) -> Any:
    """The distinct elements that are in one of two arrays and not in the other, in order; see `unique`."""
    x, y = _both(ar1, ar2)
    owner = np.repeat(np.asarray([0, 1], np.int32), (x.shape[0], y.shape[0]))
    rows, order, first = _ordered(ops.concatenate(x, y, axis=0), True)
    if not rows.shape[0]:
        return _picked(rows, first, size, fill_value)
    # Of each run of equal elements, the first: if the last one has the same owner.
    owner = ops.take(owner, order, 0, "clip")
    last = ops.concatenate(first[1:], ones((1,), bool), axis=0)
    at = ops.sort(ops.where(last, np.arange(rows.shape[0], dtype=np.int32), literal(rows.shape[0])))
    run = ops.cumsum(ops.astype(first, dtype=np.dtype(np.int32)), axis=0) - 1
    same = owner == ops.take(owner, ops.take(at, run, 0, "clip"), 0, "clip")
    return _picked(rows, first & same, size, fill_value)


def intersect1d(
    ar1: Any, ar2: Any, assume_unique: bool = False, return_indices: bool = False, *, size: int | None = None,
    fill_value: Any = None,
) -> Any:  # fmt: skip
    """The distinct elements that are in both arrays, in order.

    Args:
      assume_unique: changes nothing.
      return_indices: whether to give where each occurs first in either array, too; what fills up to `size` there is the
        number of elements of that array.
      size, fill_value: as for `unique`.
    """
    x, y = _both(ar1, ar2)
    rows, order, first = _ordered(x, True)
    # The test is equality, by which NaN is in no array.
    both = first & isin(rows, y)
    values = _picked(rows, both, size, fill_value)
    if not return_indices:
        return values
    index = dtype_of(int)
    if not x.shape[0] or not y.shape[0]:
        return values, *(full(values.shape, n, index) for n in (x.shape[0], y.shape[0]))
    real = ones(values.shape, bool) if size is None else _below(_count(both), size)
    first_x = _picked(ops.astype(order, dtype=index), both, size, None)
    order_y = argsort(y)
    at = ops.searchsorted(ops.take(y, order_y, 0, "clip"), _picked(rows, both, size, None))
    first_y = ops.take(order_y, at, 0, "clip")
    return (
        values,
        ops.where(real, first_x, literal(x.shape[0])),
        ops.where(real, ops.astype(first_y, dtype=index), literal(y.shape[0])),
    )


__all__ = [
    "UniqueAll", "UniqueCounts", "UniqueInverse", "intersect1d", "isin", "setdiff1d", "setxor1d", "union1d", "unique",
    "unique_all", "unique_counts", "unique_inverse", "unique_values",
]  # fmt: skip
