"""Indices made of shapes: of triangles, diagonals and grids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy import index_exp, ndindex, s_

from .. import ops
from ..borrow import borrow
from ..errors import called, describe, here
from .arguments import axis_of, dtype_of, from_list, integer, known, literal, shape_of, type_of
from .creation import arange, array_like, asarray, linspace, meshgrid, tril_indices, triu_indices
from .manipulation import concatenate, stack
from .selection import nonzero


def diag_indices(n: int, ndim: int = 2) -> tuple[Any, ...]:
    """The indices of the diagonal of an array of `ndim` axes of size `n`."""
    n, ndim = integer(n, "n"), integer(ndim, "ndim")
    if n < 0 or ndim < 0:
        raise ValueError(f"{called()}: n={n}, ndim={ndim} {here()}. Neither is negative.")
    return (ops.iota(dtype=dtype_of(int), shape=(n,), axis=0),) * ndim


def diag_indices_from(arr: Any) -> tuple[Any, ...]:
    """The indices of the diagonal of an array whose axes have one size."""
    shape = type_of(arr).shape
    if len(shape) < 2 or len(set(shape)) > 1:
        raise ValueError(f"{called()}: shape {shape} {here()}. Give an array of two axes or more, of one size.")
    return diag_indices(shape[0], len(shape))


def _matrix(arr: Any) -> tuple[int, int]:
    shape = type_of(arr).shape
    if len(shape) != 2:
        raise ValueError(f"{called()}: an array of shape {shape} {here()}. Give a matrix.")
    return shape[0], shape[1]


def tril_indices_from(arr: Any, k: int = 0) -> tuple[Any, ...]:
    """The indices of the lower triangle of a matrix."""
    n, m = _matrix(arr)
    return tril_indices(n, k, m)


def triu_indices_from(arr: Any, k: int = 0) -> tuple[Any, ...]:
    """The indices of the upper triangle of a matrix."""
    n, m = _matrix(arr)
    return triu_indices(n, k, m)


def mask_indices(n: int, mask_func: Callable[..., Any], k: int = 0, *, size: int | None = None) -> tuple[Any, ...]:
    """The indices where `mask_func(ones, k)`, of an `n` by `n` matrix, is not 0; `size` as for `nonzero`."""
    n = integer(n, "n")
    return nonzero(mask_func(np.ones((n, n), np.int32), k), size=size)


def ix_(*args: Any) -> tuple[Any, ...]:
    """Vectors as indices of a grid: the `i`-th along the `i`-th axis. A mask stands for the indices where it holds.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.arange(6).reshape(2, 3)[np.ix_(np.array([1]), np.array([0, 2]))].tolist()
      [[3, 5]]
    """
    out = []
    for i, x in enumerate(args):
        x = from_list(x, np.int32 if isinstance(x, (list, tuple)) and not x else None)
        aval = type_of(x)
        if aval.ndim != 1:
            raise ValueError(f"{called()}: argument {i} is {aval} {here()}. Give vectors.")
        x = nonzero(x)[0] if aval.dtype.kind == "b" else array_like(x)
        out.append(ops.reshape(x, shape=tuple(x.shape[0] if j == i else 1 for j in range(len(args)))))
    return tuple(out)


_unraveled = borrow(jnp.unravel_index, "", "shape")


def unravel_index(indices: Any, shape: Any) -> tuple[Any, ...]:
    """Indices into a flattened array of this shape as indices along each axis.

    Negative ones count from the end; those out of bounds are moved to the nearest.
    """
    if type_of(indices).dtype.kind not in "iu":
        raise TypeError(f"{called()}: the indices are {describe(indices)} {here()}. Convert them with .astype(int).")
    return _unraveled(indices, shape)  # type: ignore[no-any-return]


def ravel_multi_index(
    multi_index: Any, dims: Sequence[int], mode: str = "raise", order: str = "C", *, dtype: Any = None
) -> Any:  # fmt: skip
    """Indices along each axis as indices into the flattened array of shape `dims`.

    Args:
      mode: what an index out of bounds does: "raise" (not under `@jit`), "wrap" or "clip".
      order: "C", or "F" if the first axis varies fastest.
      dtype: that of the result, the default integer type by default.
    """
    sizes = shape_of(dims)
    parts = [from_list(i) for i in multi_index]
    if len(parts) != len(sizes):
        raise ValueError(f"{called()}: {len(parts)} indices for shape {sizes} {here()}. Give one an axis.")
    if mode not in ("raise", "wrap", "clip") or order not in ("C", "F"):
        raise ValueError(
            f"{called()}: mode={mode!r}, order={order!r} {here()}. Use 'raise', 'wrap' or 'clip'; 'C' or 'F'."
        )
    if any(type_of(i).dtype.kind not in "iu" for i in parts):
        raise TypeError(f"{called()}: indices {', '.join(map(describe, parts))} {here()}. Give integers.")
    if mode == "raise":
        for i, n in zip(parts, sizes, strict=True):
            value = known(i, "Pass mode='wrap' or mode='clip'")
            if value.size and not (value.min() >= 0 and value.max() < n):
                raise ValueError(
                    f"{called()}: indices from {value.min()} to {value.max()} for an axis of size {n} {here()}. "
                    "Pass mode='wrap' or 'clip'."
                )
    out: Any = None
    for i, n in zip(parts, sizes, strict=True) if order == "C" else [*zip(parts, sizes, strict=True)][::-1]:
        if mode == "wrap":
            i = ops.remainder(i, literal(n))
        elif mode == "clip":
            i = ops.maximum(ops.minimum(i, literal(n - 1)), literal(0))
        i = ops.astype(i, dtype=dtype_of(int if dtype is None else dtype))
        out = i if out is None else ops.add(ops.mul(out, literal(n)), i)
    return asarray(0) if out is None else out


# -- grids in the notation of slices


def _steps(s: slice) -> Any:
    """The numbers of `start:stop:step`; an imaginary step is how many there are, `stop` included."""
    start = 0 if s.start is None else s.start
    if isinstance(s.step, complex):
        return linspace(start, s.stop, int(abs(s.step)))
    return arange(start, s.stop, s.step)


class _Grid:
    """Coordinates of a grid by slices: `mgrid[0:2, 0:3]` whole, `ogrid[0:2, 0:3]` open."""

    def __init__(self, sparse: bool) -> None:
        self.sparse = sparse

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return _steps(key)
        axes = meshgrid(*[_steps(s) for s in key], indexing="ij", sparse=self.sparse)
        if self.sparse:
            return axes
        return stack(axes)

    def __repr__(self) -> str:
        return "ogrid" if self.sparse else "mgrid"


mgrid, ogrid = _Grid(False), _Grid(True)


class _Join:
    """Arrays, numbers and slices joined along an axis: `r_[1:3, 7, x]` along the first, `c_[x, y]` as columns.

    A first element such as `"0,2,1"` gives the axis, the least number of axes, and where among them those of an array
    with fewer stand.
    """

    def __init__(self, axis: int, ndim: int, where: int) -> None:
        self.defaults = axis, ndim, where

    def __getitem__(self, key: Any) -> Any:
        axis, least, place = self.defaults
        parts = list(key) if isinstance(key, tuple) else [key]
        if parts and isinstance(parts[0], str):
            text = parts.pop(0)
            numbers = text.split(",")
            if not all(part.strip().lstrip("-").isdigit() for part in numbers) or len(numbers) > 3:
                raise ValueError(
                    f"{self!r}: {text!r} {here()}. Give the axis, the number of axes and the place, as '0,2,1'."
                )
            axis, least, place = (*map(int, numbers), *(axis, least, place)[len(numbers) :])
        arrays = []
        for part in parts:
            x = _steps(part) if isinstance(part, slice) else asarray(part)
            shape = type_of(x).shape
            new = max(least - len(shape), 0)
            before = axis_of(place, new + 1)
            arrays.append(ops.reshape(x, shape=(*[1] * before, *shape, *[1] * (new - before))))
        return concatenate(arrays, axis)

    def __repr__(self) -> str:
        return "r_" if self.defaults[1] == 1 else "c_"


r_, c_ = _Join(0, 1, -1), _Join(-1, 2, 0)


def ndenumerate(arr: Any) -> Iterator[tuple[tuple[int, ...], Any]]:
    """The index of each element, and the element.

    Example:
      >>> import tracegrad.numpy as np
      >>> [(i, float(x)) for i, x in np.ndenumerate(np.array([[1.0, 2.0]]))]
      [((0, 0), 1.0), ((0, 1), 2.0)]
    """
    x = array_like(arr)
    return ((index, x[index]) for index in ndindex(x.shape))


__all__ = [
    "c_", "diag_indices", "diag_indices_from", "index_exp", "ix_", "mask_indices", "mgrid", "ndenumerate", "ndindex",
    "ogrid", "r_", "ravel_multi_index", "s_", "tril_indices_from", "triu_indices_from", "unravel_index",
]  # fmt: skip
