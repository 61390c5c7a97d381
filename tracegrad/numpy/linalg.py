"""Linear algebra: norms, and the products under their names in `numpy.linalg`."""

from __future__ import annotations

import math
from typing import Any

from .. import ops
from ..errors import here
from ..tracer import literal
from .arguments import axes_of, inexact, integer, order_of, type_of
from .manipulation import matrix_transpose
from .products import cross, matmul, outer, tensordot, vecdot
from .reductions import _kept
from .reductions import max as max_
from .reductions import min as min_
from .reductions import sum as sum_


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """The norm of vectors (`axis` an integer) or matrices (a pair); of the whole array by default.

    The derivative is 0 where the norm is 0.

    Args:
      ord: for vectors 2 (the default), 1, 0, inf, -inf or any other number; for matrices "fro" (the default), 1, -1,
        inf or -inf.

    Raises:
      ValueError: for another `ord`, or other than one or two axes.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.linalg.norm(np.array([3.0, 4.0])).item()
      5.0
    """
    aval = type_of(x, "norm")
    x = inexact(x, aval)
    if axis is None:
        axes = tuple(range(aval.ndim))
        if ord is None:
            return _root_of_squares(x, aval.shape, axes, keepdims)
    elif isinstance(axis, (tuple, list)):
        axes = order_of(axis, aval.ndim, "norm")
    else:
        axes = axes_of(axis, aval.ndim, "norm")
    if len(axes) == 1:
        return _vector_norm(x, aval.shape, 2 if ord is None else ord, axes, keepdims)
    if len(axes) != 2:
        raise ValueError(
            f"norm: ord={ord!r} over {len(axes)} axes of shape {aval.shape} {here()}. Name one axis or two."
        )
    if ord in (None, "fro"):
        return _root_of_squares(x, aval.shape, axes, keepdims)
    if ord not in (1, -1, math.inf, -math.inf):
        raise ValueError(f"norm: ord={ord!r} of matrices {here()}. Use 'fro', 1, -1, inf or -inf.")
    rows, columns = axes
    summed, other = (rows, columns) if ord in (1, -1) else (columns, rows)
    sums = sum_(ops.abs_(x), summed, keepdims=True)
    best = (max_ if ord > 0 else min_)(sums, other, keepdims=True)
    return best if keepdims else ops.reshape(best, shape=tuple(n for i, n in enumerate(aval.shape) if i not in axes))


def _root_of_squares(x: Any, shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> Any:
    square = ops.real(ops.mul(x, ops.conj(x))) if x.dtype.kind == "c" else ops.mul(x, x)
    out = ops.root(ops.reduce_sum(square, axes=axes))
    return _kept(out, shape, axes) if keepdims else out


def _vector_norm(x: Any, shape: tuple[int, ...], ord: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    if isinstance(ord, str):
        raise ValueError(f"norm: ord={ord!r} of vectors {here()}. Use a number, or name two axes.")
    if ord == 2:
        return _root_of_squares(x, shape, axes, keepdims)
    if ord == math.inf:
        return max_(ops.abs_(x), axes, keepdims=keepdims)
    if ord == -math.inf:
        return min_(ops.abs_(x), axes, keepdims=keepdims)
    size = ops.abs_(x)
    if ord == 0:
        out = ops.reduce_sum(ops.astype(ops.not_equal(x, literal(0)), dtype=size.dtype), axes=axes)
    elif ord == 1:
        out = ops.reduce_sum(size, axes=axes)
    else:
        p = literal(float(ord))
        total = ops.reduce_sum(ops.pow_(size, p), axes=axes)
        zero = ops.equal(total, literal(0))
        # For a negative `ord` an element that is 0 makes the sum infinite and the norm 0.
        out = ops.where(zero, literal(0.0), ops.pow_(ops.where(zero, literal(1.0), total), literal(1 / float(ord))))
    return _kept(out, shape, axes) if keepdims else out


def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    """The norm of vectors along axes, over all of them by default."""
    aval = type_of(x, "vector_norm")
    return _vector_norm(inexact(x, aval), aval.shape, ord, axes_of(axis, aval.ndim, "vector_norm"), keepdims)


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    """The norm of matrices in the last two axes."""
    return norm(x, ord, (-2, -1), keepdims)


def matrix_power(a: Any, n: int) -> Any:
    """A matrix multiplied by itself, `n` times in all, by repeated squaring; `n` is not negative."""
    from .creation import eye

    n, aval = integer(n, "matrix_power", "n"), type_of(a, "matrix_power")
    if n < 0 or aval.ndim < 2 or aval.shape[-1] != aval.shape[-2]:
        raise ValueError(f"matrix_power: {aval} to the power {n} {here()}. Give square matrices, and n from 0 up.")
    if n == 0:
        return ops.broadcast_to(eye(aval.shape[-1], dtype=aval.dtype), aval.shape)
    out = None
    while n:
        if n % 2:
            out = a if out is None else matmul(out, a)
        n //= 2
        if n:
            a = matmul(a, a)
    return out


__all__ = [
    "cross", "matmul", "matrix_norm", "matrix_power", "matrix_transpose", "norm", "outer", "tensordot", "vecdot",
    "vector_norm",
]  # fmt: skip
