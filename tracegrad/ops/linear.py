"""Contractions: `dot_general`, of which every product of matrices is made."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..op import Op
from ..tape import Aval, make_aval
from .elementwise import astype
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


class _Product(NamedTuple):
    """How to multiply a cotangent with the other operand: in which order, and what to do with the result."""

    swapped: bool
    dims: Dims
    order: tuple[int, ...] | None


@functools.lru_cache(maxsize=4096)
def _product(dims: Dims, ndim: int, other_ndim: int, first: bool) -> _Product:
    """How an operand of `dot_general` gets its cotangent, in whichever order needs no transposition if one does.

    `first` says whether it is the first operand; `dims` has its own axes first.
    """
    (contract, other_contract), (batch, other_batch) = dims
    nb, free, other_free = len(batch), _free(ndim, contract, batch), _free(other_ndim, other_contract, other_batch)
    start = nb + len(free) if first else nb
    ct_contract, ct_batch = tuple(range(start, start + len(other_free))), tuple(range(nb))
    rest = [contract[other_contract.index(j)] for j in sorted(other_contract)]
    axes, axes_swapped = [*batch, *free, *rest], [*batch, *rest, *free]
    if axes_swapped == sorted(axes_swapped):
        return _Product(True, ((tuple(other_free), ct_contract), (other_batch, ct_batch)), None)
    order = None if axes == sorted(axes) else tuple(sorted(range(len(axes)), key=axes.__getitem__))
    return _Product(False, ((ct_contract, tuple(other_free)), (ct_batch, other_batch)), order)


def _cotangent(ct: Any, other: Any, product: _Product, precision: Any) -> Any:
    params: dict[str, Any] = {"dims": product.dims}
    if jnp.finfo(other.dtype).bits < 16:
        # Dtypes as narrow as this promote with no other.
        other = astype(other, dtype=ct.dtype)
    if precision is not None:
        params["precision"] = precision
    out = dot_general(other, ct, **params) if product.swapped else dot_general(ct, other, **params)
    return out if product.order is None else transpose(out, axes=product.order)


def _dot_x(ct: Any, out: Any, x: Any, y: Any, *, dims: Dims, precision: Any = None, dtype: Any = None) -> Any:
    return _cotangent(ct, y, _product(dims, x.ndim, y.ndim, True), precision)


def _dot_y(ct: Any, out: Any, x: Any, y: Any, *, dims: Dims, precision: Any = None, dtype: Any = None) -> Any:
    (xc, yc), (xb, yb) = dims
    return _cotangent(ct, x, _product(((yc, xc), (yb, xb)), y.ndim, x.ndim, False), precision)


dot_general: Op = Op("dot_general", _dot_general, (_dot_x, _dot_y), shape=_dot_shape)
