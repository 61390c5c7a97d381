"""Reading and writing at indices, order, and choice: NumPy's signatures over the ops.

Where the shape of a result depends on values, these are read at once; `size` makes the shape known instead, as under
`@jit` it must be: the result is cut there, or filled up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import ops
from ..borrow import borrow
from ..errors import called, describe, here
from ..ops import pick
from ..ops.at import At
from .arguments import (
    axes_of,
    axis_of,
    dtype_of,
    from_list,
    holds_arrays,
    integer,
    is_known,
    known,
    literal,
    promoted,
    refuse,
    type_of,
    types_of,
)
from .creation import array_like, asarray, full, zeros
from .elementwise import truth
from .manipulation import atleast_1d, broadcast_arrays, broadcast_to, moveaxis, part_along, ravel, reshape, resize

# -- reading


def take(
    a: Any, indices: Any, axis: int | None = None, out: None = None, mode: str | None = None,
    unique_indices: bool = False, indices_are_sorted: bool = False, fill_value: Any = None,
) -> Any:  # fmt: skip
    """The slices of `a` at `indices` along an axis, or elements of the flattened array; see `tracegrad.ops.take`."""
    refuse(out=out)
    type_of(a)
    if mode == "raise":
        mode = None
    if mode == "clip":
        # As NumPy clips: a negative index is the first, and does not count from the end.
        indices = ops.maximum(array_like(asarray(indices)), literal(0))
    return ops.take(a, indices, axis, mode, unique_indices, indices_are_sorted, fill_value)


def take_along_axis(arr: Any, indices: Any, axis: int | None = -1, mode: Any = None, fill_value: Any = None) -> Any:
    """The elements of `arr` at `indices` along an axis, the other axes of the two walked together."""
    type_of(arr)
    return ops.take_along_axis(arr, indices, axis, mode, fill_value)


def where(
    condition: Any, x: Any = None, y: Any = None, /, *, size: int | None = None, fill_value: Any = None
) -> Any:  # fmt: skip
    """`x` where `condition` holds, else `y`; with the condition alone, `nonzero(condition)`.

    No gradient flows to the value that was not chosen.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.where(np.array([True, False]), 1.0, 2.0).tolist()
      [1.0, 2.0]
    """
    if x is None and y is None:
        return nonzero(condition, size=size, fill_value=fill_value)
    if x is None or y is None:
        raise TypeError(
            f"{called()}: one value is {describe(x)}, the other {describe(y)} {here()}. Give both values or neither."
        )
    refuse(size=size, fill_value=fill_value)
    return ops.where(condition, x, y)


def _on_host(x: Any) -> bool:
    """Whether the value is there at once, and stays so while a tape records."""
    if type(x) is list or type(x) is tuple:
        return not holds_arrays(x)
    return isinstance(x, (np.ndarray, np.generic, int, float))


def nonzero(a: Any, *, size: int | None = None, fill_value: Any = None) -> tuple[Any, ...]:
    """The indices of the elements that are not 0, an array an axis.

    Args:
      size: how many indices to give; otherwise as many as there are, which needs the values of `a` now.
      fill_value: what fills up to `size`, a number or one an axis; 0 by default.

    Raises:
      TracerError: without `size` under `@jit` and in bodies, where values are not known yet.
      ValueError: of an array without axes.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.jit(lambda x: np.nonzero(x, size=3, fill_value=-1))(np.array([0, 5, 7]))[0].tolist()
      [1, 2, -1]
    """
    shape = type_of(a).shape
    if not shape:
        raise ValueError(f"{called()}: {describe(a)} has no axes {here()}. Write x != 0, or give atleast_1d(x).")
    if size is None:
        return tuple(asarray(i, int) for i in np.nonzero(known(a, "Pass size=")))
    fills = fill_value if isinstance(fill_value, tuple) else (0 if fill_value is None else fill_value,) * len(shape)
    if len(fills) != len(shape):
        raise ValueError(f"{called()}: {len(fills)} fill values for {len(shape)} axes {here()}. Give one an axis.")
    size = integer(size, "size")
    return tuple(full((size,), x, int) for x in fills) if 0 in shape else tuple(_nonzero(a, size, *fills))


def _padded_nonzero(a: Any, size: int, *fills: Any) -> Any:
    return jnp.nonzero(a, size=size, fill_value=tuple([jnp.asarray(x).astype(int) for x in fills]))


_nonzero = borrow(_padded_nonzero, "", "size")


def flatnonzero(a: Any, *, size: int | None = None, fill_value: Any = None) -> Any:
    """The indices, into the flattened array, of the elements that are not 0; see `nonzero`."""
    return nonzero(np.ravel(a) if _on_host(a) else ravel(a), size=size, fill_value=fill_value)[0]


def argwhere(a: Any, *, size: int | None = None, fill_value: Any = None) -> Any:
    """The indices of the elements that are not 0, a row an element; see `nonzero`."""
    shape = type_of(a).shape
    found = nonzero(a if shape else atleast_1d(a), size=size, fill_value=fill_value)
    if not shape:
        return zeros((found[0].shape[0], 0), int)
    return ops.concatenate(*[ops.reshape(i, shape=(i.shape[0], 1)) for i in found], axis=1)


def compress(
    condition: Any, a: Any, axis: int | None = None, *, size: int | None = None, fill_value: Any = 0, out: None = None
) -> Any:  # fmt: skip
    """The slices of `a` along an axis (the flattened array by default) for which the condition holds.

    Args:
      condition: a vector, not longer than the axis.
      size, fill_value: see `nonzero`; the fill is of slices.
    """
    refuse(out=out)
    condition = from_list(condition)
    type_of(a)
    if axis is None:
        a, axis = ravel(a), 0
    shape = type_of(a).shape
    i = axis_of(axis, len(shape))
    if type_of(condition).ndim != 1:
        raise ValueError(f"{called()}: the condition is {describe(condition)} {here()}. Give a vector.")
    if size is None:
        return ops.take(a, np.flatnonzero(known(condition, "Pass size=")), i)
    at = nonzero(condition, size=size, fill_value=shape[i])[0]
    chosen = ops.take(a, at, i, "clip")
    real = ops.reshape(ops.less(at, literal(shape[i])), shape=(size, *[1] * (len(shape) - i - 1)))
    return ops.where(real, chosen, ops.astype(fill_value, dtype=chosen.dtype))


def extract(condition: Any, arr: Any, *, size: int | None = None, fill_value: Any = 0) -> Any:
    """The elements of the flattened array for which the condition holds; see `compress`."""
    condition = from_list(condition)
    type_of(condition)
    return compress(
        np.ravel(condition) if _on_host(condition) else ravel(condition), arr, size=size, fill_value=fill_value
    )


# -- choice


def select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    """For each element, the choice of the first condition that holds."""
    if len(condlist) != len(choicelist) or not len(condlist):
        raise ValueError(
            f"{called()}: {len(condlist)} conditions and {len(choicelist)} choices {here()}. "
            "Give as many of each, at least one."
        )
    out = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        out = ops.where(condition, choice, out)
    return out


def choose(a: Any, choices: Any, out: None = None, mode: str = "raise") -> Any:
    """For each element, the choice of that number; all broadcast together.

    Args:
      a: integers.
      mode: what a number that no choice has does: "raise", "wrap" or "clip". Under `@jit` it is not "raise".
    """
    refuse(out=out)
    n = len(choices)
    if type_of(a).dtype.kind not in "iu":
        raise TypeError(f"{called()}: the numbers are {describe(a)} {here()}. Convert them with .astype(int).")
    if mode == "raise":
        found = known(a, "Pass mode='wrap' or mode='clip'")
        if found.size and not (found.min() >= 0 and found.max() < n):
            raise ValueError(
                f"{called()}: numbers from {found.min()} to {found.max()} for {n} choices {here()}. "
                "Give numbers of choices, or pass mode='wrap' or 'clip'."
            )
    elif mode not in ("wrap", "clip"):
        raise ValueError(f"{called()}: mode={mode!r} {here()}. Use 'raise', 'wrap' or 'clip'.")
    parts = promoted(list(choices), types_of(list(choices)))
    a, *parts = broadcast_arrays(a, *parts)
    stacked = ops.concatenate(*[ops.reshape(p, shape=(1, *p.shape)) for p in parts], axis=0)
    a = ops.remainder(a, literal(n)) if mode == "wrap" else a
    return ops.pick(stacked, ops.maximum(ops.minimum(a, literal(n - 1)), literal(0)), 0)


def piecewise(x: Any, condlist: Any, funclist: Sequence[Any], *args: Any, **kw: Any) -> Any:
    """For each element, the value of the function of the last condition that holds.

    Every function is applied to all of `x`; the gradient flows through the chosen one alone.

    Args:
      condlist: conditions of the shape of `x`.
      funclist: a function or a number for each, and, if there is one more, for where no condition holds (0 by default).
      args, kw: what the functions take besides.

    Example:
      >>> import tracegrad.numpy as np
      >>> x = np.array([-2.0, 3.0])
      >>> np.piecewise(x, [x < 0, x >= 0], [lambda x: -x, lambda x: x * x]).tolist()
      [2.0, 9.0]
    """
    aval = type_of(x)
    if not isinstance(condlist, (list, tuple)):
        condlist = [condlist] if type_of(condlist).shape == aval.shape else list(condlist)
    if len(funclist) not in (len(condlist), len(condlist) + 1):
        raise ValueError(
            f"{called()}: {len(condlist)} conditions and {len(funclist)} functions {here()}. "
            "Give one a condition, and perhaps one more for where none holds."
        )

    def value(f: Any) -> Any:
        return ops.astype(f(x, *args, **kw) if callable(f) else f, dtype=aval.dtype)

    out = broadcast_to(value(funclist[-1] if len(funclist) > len(condlist) else 0), aval.shape)
    for condition, f in zip(condlist, funclist, strict=False):
        out = ops.where(condition, value(f), out)
    return out


# -- writing: copies, since arrays never change


def _copies(inplace: bool) -> None:
    if inplace:
        raise ValueError(
            f"{called()} changes its argument unless inplace=False {here()}, and arrays never change. "
            f"Write `x = {called()}(x, ..., inplace=False)`."
        )


def place(arr: Any, mask: Any, vals: Any, *, inplace: bool = True) -> Any:
    """A copy of `arr` with the elements where `mask` holds replaced by `vals`, in order, again from the start at need.

    Raises:
      ValueError: unless `inplace=False`; arrays never change.
    """
    _copies(inplace)
    aval = type_of(arr)
    n = math.prod(aval.shape)
    vals = ravel(vals)
    if math.prod(type_of(mask).shape) != n:
        raise ValueError(f"{called()}: {describe(mask)} for {aval} {here()}. Give the mask the shape of the array.")
    if not vals.shape[0]:
        raise ValueError(f"{called()}: there is no value {here()}. Give at least one.")
    if not n:
        return asarray(arr)
    index = dtype_of(int)
    flag = ravel(truth(mask))
    number = ops.sub(ops.cumsum(ops.astype(flag, dtype=index), axis=0), literal(1))
    new = ops.take(vals, ops.remainder(number, literal(vals.shape[0])), 0, "clip")
    return reshape(ops.where(flag, ops.astype(new, dtype=aval.dtype), ravel(arr)), aval.shape)


def put(a: Any, ind: Any, v: Any, mode: str | None = None, *, inplace: bool = True) -> Any:
    """A copy of `a` with the elements at `ind` of the flattened array replaced by `v`, again from the start at need.

    Args:
      mode: what an index out of bounds does: "clip", "wrap", or, by default, nothing is written for it.

    Raises:
      ValueError: unless `inplace=False`; arrays never change.
    """
    _copies(inplace)
    if mode not in (None, "clip", "wrap"):
        raise ValueError(
            f"{called()}: mode={mode!r} {here()}. Use 'clip', 'wrap', or None to write nothing out of bounds."
        )
    x, ind, v = asarray(a), ravel(asarray(ind)), ravel(asarray(v))
    if not (x.size and ind.size and v.size):
        return x
    v = ops.astype(resize(v, ind.shape), dtype=x.dtype)
    if mode is not None:
        ind = ops.remainder(ind, literal(x.size)) if mode == "wrap" else ops.maximum(ind, literal(0))
    return reshape(At(ravel(x))[ind].set(v, mode="clip" if mode == "clip" else "drop"), x.shape)


def put_along_axis(
    arr: Any, indices: Any, values: Any, axis: int | None, inplace: bool = True, *, mode: Any = None
) -> Any:
    """A copy of `arr` with the elements at `indices` along an axis replaced, the other axes walked together.

    Args:
      indices: integers, with as many axes as `arr`.
      values: what is written; broadcasts to `indices`.
      mode: as for `x.at[...]`.

    Raises:
      ValueError: unless `inplace=False`; arrays never change.
    """
    _copies(inplace)
    aval = type_of(arr)
    x = array_like(arr)
    if axis is None:
        x, axis = ravel(x), 0
    i = axis_of(axis, x.ndim)
    indices = array_like(indices)
    if indices.ndim != x.ndim:
        raise ValueError(
            f"{called()}: indices {describe(indices)} for an array {describe(x)} {here()}. "
            "Give them as many axes as the array has."
        )
    grid = tuple(
        indices if j == i else ops.iota(dtype=np.dtype(np.int32), shape=_only(n, j, x.ndim), axis=j)
        for j, n in enumerate(x.shape)
    )
    values = ops.astype(values, dtype=aval.dtype)
    return reshape(At(x)[grid].set(values, mode=mode), aval.shape)


def _only(n: int, axis: int, ndim: int) -> tuple[int, ...]:
    return tuple(n if j == axis else 1 for j in range(ndim))


def fill_diagonal(a: Any, val: Any, wrap: bool = False, *, inplace: bool = True) -> Any:
    """A copy of `a` with the elements whose indices are all equal replaced by `val`, in order.

    Args:
      a: an array of two axes or more; of more than two, all of one size.
      val: a number, or as many as there are places, again from the start at need.
      wrap: whether the diagonal of a tall matrix begins anew below.

    Raises:
      ValueError: unless `inplace=False`; arrays never change.
    """
    _copies(inplace)
    aval = type_of(a)
    shape = aval.shape
    if len(shape) < 2 or (len(shape) > 2 and len(set(shape)) > 1):
        raise ValueError(
            f"{called()}: an array of shape {shape} {here()}. Give one of two axes, or of more that have one size."
        )
    step = shape[1] + 1 if len(shape) == 2 else 1 + sum(math.prod(shape[k:]) for k in range(1, len(shape)))
    stop = math.prod(shape) if wrap or len(shape) > 2 else min(math.prod(shape), shape[1] * shape[1])
    places = np.arange(0, stop, step)
    if not places.size:
        return asarray(a)
    values = ops.astype(resize(val, (places.size,)), dtype=aval.dtype)
    return reshape(At(ravel(a))[places].set(values, unique_indices=True, indices_are_sorted=True), shape)


def insert(arr: Any, obj: Any, values: Any, axis: int | None = None) -> Any:
    """The array with `values` inserted before the indices `obj` along an axis, or in the flattened array.

    Args:
      obj: an integer, before which all of `values` goes; or several, or a slice, each of which takes one value.
      values: broadcasts to what is inserted.

    Raises:
      IndexError: if an index of known value is out of bounds.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.insert(np.array([1, 2, 3]), 1, 9).tolist()
      [1, 9, 2, 3]
    """
    if axis is None:
        arr, axis = ravel(arr), 0
    aval = type_of(arr)
    i, n = axis_of(axis, aval.ndim), aval.shape[axis]
    at, single = _places(obj, n, n + 1)
    values = array_like(asarray(values))
    values = ops.reshape(values, shape=(1,) * (aval.ndim - values.ndim) + values.shape)
    if single:
        # NumPy tells an integer, whose values have the axis first, from a list of one integer.
        values = values if isinstance(obj, (list, tuple)) or type_of(obj).ndim else moveaxis(values, 0, i)
        count = values.shape[i]
    else:
        count = at.shape[0]
    shape = tuple(count if j == i else m for j, m in enumerate(aval.shape))
    values = ops.astype(broadcast_to(values, shape), dtype=aval.dtype)
    # Between neighbours k - 1 and k of the array, whose keys are odd, lies what is inserted before k, of key 2k.
    at = ops.astype(at, dtype=np.dtype(np.int32))
    inserted = broadcast_to(ops.mul(at, literal(2)), (count,))
    own = ops.add(ops.mul(ops.iota(dtype=np.dtype(np.int32), shape=(n,), axis=0), literal(2)), literal(1))
    order = ops.argsort(ops.concatenate(own, inserted, axis=0))
    return ops.take(ops.concatenate(array_like(arr), values, axis=i), order, i, "clip")


def _places(obj: Any, n: int, end: int) -> tuple[Any, bool]:
    """Indices, counted from the start, and whether `obj` was a single one; `end` is one more than the largest."""
    if isinstance(obj, slice):
        return np.arange(n)[obj], False
    if isinstance(obj, (list, tuple)):
        obj = asarray(obj) if any(not is_known(x) for x in obj) else np.asarray(obj, None if obj else np.int32)
    aval = type_of(obj)
    if aval.dtype.kind == "b":
        obj = np.flatnonzero(known(obj, "Pass integers"))
    elif aval.dtype.kind not in "iu" or aval.ndim > 1:
        raise TypeError(
            f"{called()}: the indices are {aval} {here()}. Give integers, a vector of them at most, or a slice."
        )
    single = not aval.ndim or (aval.dtype.kind != "b" and aval.shape == (1,))
    if is_known(obj):
        index = np.atleast_1d(np.asarray(obj))
        if index.size and not (index.min() >= -n and index.max() < end):
            raise IndexError(f"{called()}: index {index.tolist()} is out of bounds for {n} elements {here()}")
        return np.where(index < 0, index + n, index), single
    return reshape(ops.where(ops.less(obj, literal(0)), ops.add(obj, literal(n)), obj), (-1,)), single


def delete(arr: Any, obj: Any, axis: int | None = None, *, assume_unique_indices: bool = False) -> Any:
    """The array without the slices at the indices `obj` along an axis, or without elements of the flattened array.

    Args:
      obj: integers, a slice, or a mask. Several integers may name a slice twice, so their values must be known, unless
        `assume_unique_indices`.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.delete(np.array([5, 6, 7, 8]), [0, 2]).tolist()
      [6, 8]
    """
    if axis is None:
        arr, axis = ravel(arr), 0
    shape = type_of(arr).shape
    i, n = axis_of(axis, len(shape)), shape[axis]
    at, single = _places(obj, n, n)
    if not is_known(at) and not single and not assume_unique_indices:
        at = known(at, "Pass assume_unique_indices=True")
    if is_known(at):
        return ops.take(arr, np.delete(np.arange(n), np.asarray(at)), i)
    # What is left counts up, over the indices that are gone: the k-th of these has k elements less before it.
    count = at.shape[0]
    gone = ops.sub(ops.sort(at), ops.iota(dtype=type_of(at).dtype, shape=(count,), axis=0))
    left = ops.iota(dtype=type_of(at).dtype, shape=(n - count,), axis=0)
    return ops.take(arr, ops.add(left, ops.searchsorted(gone, left, "right")), i, "clip")


def trim_zeros(filt: Any, trim: str = "fb", axis: Any = None) -> Any:
    """The array without the zeros at its ends.

    Args:
      filt: an array whose value is known.
      trim: where: "f" at the front, "b" at the back, "fb" both.
      axis: along which axes; all by default.
    """
    mask = known(filt, "Use where") != 0
    if not trim or set(trim.lower()) - set("fb"):
        raise ValueError(f"{called()}: trim={trim!r} {here()}. Use 'f', 'b' or 'fb'.")
    x = array_like(filt)
    for i in axes_of(axis, mask.ndim):
        found = np.flatnonzero(mask.any(axis=tuple(j for j in range(mask.ndim) if j != i)))
        start, stop = (int(found[0]), int(found[-1]) + 1) if found.size else (mask.shape[i], 0)
        start, stop = start if "f" in trim.lower() else 0, stop if "b" in trim.lower() else mask.shape[i]
        x = part_along(x, x.shape, i, start, max(start, stop))
    return x


# -- order


def sort(
    a: Any, axis: int | None = -1, *, stable: bool = True, descending: bool = False, kind: None = None,
    order: None = None,
) -> Any:  # fmt: skip
    """The elements in order along an axis, or of the flattened array; NaN comes last."""
    refuse(kind=kind, order=order)
    type_of(a)
    return ops.sort(a, axis, descending=descending, stable=stable)


def argsort(
    a: Any, axis: int | None = -1, *, stable: bool = True, descending: bool = False, kind: None = None,
    order: None = None, dtype: Any = None,
) -> Any:  # fmt: skip
    """The indices that put the elements in order along an axis, of the default integer type unless `dtype` is given."""
    refuse(kind=kind, order=order)
    type_of(a)
    return _as_index(ops.argsort(a, axis, descending=descending, stable=stable), dtype)


def _as_index(x: Any, dtype: Any = None) -> Any:
    wanted = dtype_of(int if dtype is None else dtype)
    return x if type_of(x).dtype == wanted else ops.astype(x, dtype=wanted)


def lexsort(keys: Any, axis: int = -1) -> Any:
    """The indices that put several keys in order along an axis, the last key being the first in importance.

    Args:
      keys: arrays of one shape, in a list or along the first axis of an array.
    """
    avals = types_of(keys)
    if not avals or len({a.shape for a in avals}) > 1:
        raise ValueError(
            f"{called()}: keys of shapes {[a.shape for a in avals]} {here()}. Give at least one, all of one shape."
        )
    if not avals[0].ndim:
        return zeros((), int)
    i = axis_of(axis, avals[0].ndim)
    columns = [array_like(k) for k in keys][::-1]
    return _as_index(ops.sort_op(*columns, axis=i, descending=False, stable=True, keys=len(columns))[-1])


sort_complex = borrow(jnp.sort_complex, "The elements in order along the last axis, as complex numbers.")


def top_k(a: Any, k: int, /, *, axis: int = -1, mode: str = "largest", sorted: bool = True) -> tuple[Any, Any]:
    """The `k` largest elements along an axis, the largest first, and their indices.

    Args:
      mode: "largest", or "smallest" for the smallest elements, the smallest first.
      sorted: they always are.

    Raises:
      ValueError: if the axis has fewer than `k` elements.

    Example:
      >>> import tracegrad.numpy as np
      >>> values, indices = np.top_k(np.array([3.0, 1.0, 2.0]), 2)
      >>> values.tolist(), indices.tolist()
      ([3.0, 2.0], [0, 2])
    """
    aval = type_of(a)
    i, k = axis_of(axis, aval.ndim), integer(k, "k")
    if mode == "largest":
        return ops.top_k(a, k, axis=i)
    if mode != "smallest" or not 0 <= k <= aval.shape[i]:
        raise ValueError(
            f"{called()}: k={k} of {aval.shape[i]} elements, mode={mode!r} {here()}. Use 'largest' or 'smallest', "
            "and no more than there are."
        )
    values, indices = ops.sort_op(array_like(a), axis=i, descending=False, stable=True)
    return part_along(values, aval.shape, i, 0, k), part_along(indices, aval.shape, i, 0, k)


def _axis_of_kth(a: Any, kth: int, axis: int) -> int:
    aval = type_of(a)
    i = axis_of(axis, aval.ndim)
    axis_of(integer(kth, "kth"), aval.shape[i])
    return i


def partition(a: Any, kth: int, axis: int = -1) -> Any:
    """The elements with the `kth` smallest in its place along an axis, none after it smaller, none before it larger.

    They are sorted: one order of the many that will do.
    """
    return ops.sort(a, _axis_of_kth(a, kth, axis))


def argpartition(a: Any, kth: int, axis: int = -1) -> Any:
    """The indices that put the elements in the order of `partition`."""
    return argsort(a, _axis_of_kth(a, kth, axis))


def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None, *, method: str = "scan") -> Any:
    """Where the elements of `v` would go in the sorted vector `a` to keep it sorted.

    Args:
      side: "left" for the first such place, "right" for the last.
      sorter: the indices that put `a` in order, if it is not.
      method: as `jax.numpy` has it ("scan", "sort", "compare_all", ...); the result is the same.
    """
    type_of(a), type_of(v)
    if method not in ("default", "scan", "scan_unrolled", "sort", "compare_all"):
        raise ValueError(f"{called()}: method={method!r} {here()}. Leave it out.")
    if sorter is not None:
        a = ops.take(a, sorter, 0, "clip")
    a, v = promoted((a, v), (type_of(a), type_of(v)))
    return _as_index(ops.searchsorted(a, v, side))


def digitize(x: Any, bins: Any, right: bool = False, *, method: str | None = None) -> Any:
    """The number of the bin of each element, for bins with increasing or decreasing edges.

    Each is closed below, or above if `right`.
    """
    x = array_like(x)
    aval = type_of(bins)
    if aval.ndim != 1:
        raise ValueError(f"{called()}: the edges are {aval} {here()}. Give a vector.")
    if not aval.shape[0]:
        return zeros(x.shape, int)
    bins = array_like(bins)
    upwards = searchsorted(bins, x, "left" if right else "right")
    backwards = ops.rev(bins, axes=(0,))
    downwards = ops.sub(literal(aval.shape[0]), searchsorted(backwards, x, "left" if right else "right"))
    rising = ops.greater_equal(ops.getitem(bins, -1), ops.getitem(bins, 0))
    return ops.where(rising, upwards, downwards)


__all__ = [
    "argpartition", "argsort", "argwhere", "choose", "compress", "delete", "digitize", "extract", "fill_diagonal",
    "flatnonzero", "insert", "lexsort", "nonzero", "partition", "pick", "piecewise", "place", "put", "put_along_axis",
    "searchsorted", "select", "sort", "sort_complex", "take", "take_along_axis", "top_k", "trim_zeros", "where",
]  # fmt: skip
