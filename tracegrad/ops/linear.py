"""Contractions: `dot_general`, of which every product of matrices is made."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..op import Op
from ..tape import Aval, make_aval
from .shape import transpose

Dims = tuple[tuple[tuple[int, ...], tuple[int, ...]], tuple[tuple[int, ...], tuple[int, ...]]]


def _dot_general(x: Any, y: Any, *, dims: Dims, precision: Any = None, dtype: Any = None) -> Any:
    if x.dtype != y.dtype:
        common = jax.dtypes.result_type(x, y)
        x, y = lax.convert_element_type(x, common), lax.convert_element_type(y, common)
    return lax.dot_general(x, y, dims, precision=precision, preferred_element_type=dtype)


def _free(ndim: int, contract: tuple[int, ...], batch: tuple[int, ...]) -> list[int]:
    return [i for i in range(ndim) if i not in contract and i not in batch]


def _dot_shape(x: Aval, y: Aval, *, dims: Dims, precision: Any = None, dtype: Any = None) -> Aval:
    (xc, yc), (xb, yb) = dims
    for kind, xs, ys in (("contracted", xc, yc), ("batch", xb, yb)):
        for i, j in zip(xs, ys, strict=True):
            if x.shape[i] != y.shape[j]:
                raise ValueError(
                    f"shapes {x.shape} and {y.shape} do not fit: the {kind} sizes differ, axis {i} of the first is "
                    f"{x.shape[i]} and axis {j} of the second is {y.shape[j]}. Transpose or reshape one of them."
                )
    shape = [x.shape[i] for i in xb]
    shape += [x.shape[i] for i in _free(x.ndim, xc, xb)] + [y.shape[i] for i in _free(y.ndim, yc, yb)]
    if dtype is not None:
        return make_aval(tuple(shape), np.dtype(dtype))
    if x.dtype == y.dtype:
        return make_aval(tuple(shape), x.dtype, x.weak_type and y.weak_type)
    return make_aval(tuple(shape), jnp.promote_types(x.dtype, y.dtype))


def _cotangent(ct: Any, y: Any, ct_dims: Any, y_dims: Any, axes: list[int], axes_swapped: list[int], extra: Any) -> Any:
    """The product of `ct` and the other operand, in whichever order needs no transposition of the result.

    `axes` says which axis of the wanted operand each axis of `dot_general(ct, y)` is, and `axes_swapped`
    the same for `dot_general(y, ct)`.
    """
    (ct_contract, ct_batch), (y_contract, y_batch) = ct_dims, y_dims
    if axes_swapped == sorted(axes_swapped):
        return dot_general(y, ct, dims=((y_contract, ct_contract), (y_batch, ct_batch)), **extra)
    product = dot_general(ct, y, dims=((ct_contract, y_contract), (ct_batch, y_batch)), **extra)
    order = tuple(int(i) for i in np.argsort(axes))
    return product if axes == sorted(axes) else transpose(product, axes=order)


def _dot_x(ct: Any, out: Any, x: Any, y: Any, *, dims: Dims, precision: Any = None, dtype: Any = None) -> Any:
    (xc, yc), (xb, yb) = dims
    nb, xf, yf = len(xb), _free(x.ndim, xc, xb), _free(y.ndim, yc, yb)
    ct_dims = (tuple(range(nb + len(xf), ct.ndim)), tuple(range(nb)))
    rest = [xc[yc.index(j)] for j in sorted(yc)]
    extra = {} if precision is None else {"precision": precision}
    return _cotangent(ct, y, ct_dims, (tuple(yf), yb), [*xb, *xf, *rest], [*xb, *rest, *xf], extra)


def _dot_y(ct: Any, out: Any, x: Any, y: Any, *, dims: Dims, precision: Any = None, dtype: Any = None) -> Any:
    (xc, yc), (xb, yb) = dims
    nb, xf, yf = len(xb), _free(x.ndim, xc, xb), _free(y.ndim, yc, yb)
    ct_dims = (tuple(range(nb, nb + len(xf))), tuple(range(nb)))
    rest = [yc[xc.index(i)] for i in sorted(xc)]
    extra = {} if precision is None else {"precision": precision}
    return _cotangent(ct, x, ct_dims, (tuple(xf), xb), [*yb, *yf, *rest], [*yb, *rest, *yf], extra)


dot_general: Op = Op("dot_general", _dot_general, (_dot_x, _dot_y), shape=_dot_shape)
