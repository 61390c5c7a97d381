"""Ops that reduce or scan along axes, and those that normalise along them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..op import Op
from ..tape import Aval, make_aval
from .elementwise import div, equal, exp, mul, sub, where
from .shape import reduce_sum, reduced_shape, restore_axes, rev


def _extremum_vjp(ct: Any, out: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    """Ties share the cotangent equally."""
    hit = equal(x, restore_axes(out, x.shape, axes))
    count = reduce_sum(where(hit, np.ones((), out.dtype)[()], 0.0), axes=axes)
    return where(hit, restore_axes(div(ct, count), x.shape, axes), 0.0)


def _extremum_shape(x: Aval, *, axes: tuple[int, ...]) -> Aval:
    if any(x.shape[a] == 0 for a in axes):
        raise ValueError(f"the largest or smallest of no elements: shape {x.shape} is empty along axes {axes}")
    return make_aval(reduced_shape(x, axes), x.dtype, x.weak_type)


reduce_max = Op("max", lambda x, *, axes: jnp.max(x, axes), (_extremum_vjp,), shape=_extremum_shape)
reduce_min = Op("min", lambda x, *, axes: jnp.min(x, axes), (_extremum_vjp,), shape=_extremum_shape)


def _softmax(x: Any, *, axis: int) -> Any:
    top = lax.reduce_max(x, (axis,))
    e = lax.exp(lax.sub(x, _keep(lax.select(lax.is_finite(top), top, lax.full_like(top, 0)), x, axis)))
    return lax.div(e, _keep(lax.reduce_sum(e, (axis,)), x, axis))


def _keep(v: Any, x: Any, axis: int) -> Any:
    return lax.broadcast_in_dim(v, x.shape, [i for i in range(x.ndim) if i != axis])


def _softmax_vjp(ct: Any, out: Any, x: Any, *, axis: int) -> Any:
    product = mul(ct, out)
    return sub(product, mul(out, restore_axes(reduce_sum(product, axes=(axis,)), x.shape, (axis,))))


softmax = Op("softmax", _softmax, (_softmax_vjp,), shape=lambda x, *, axis: x)


def _log_softmax(x: Any, *, axis: int) -> Any:
    top = lax.reduce_max(x, (axis,))
    shifted = lax.sub(x, _keep(lax.select(lax.is_finite(top), top, lax.full_like(top, 0)), x, axis))
    return lax.sub(shifted, _keep(lax.log(lax.reduce_sum(lax.exp(shifted), (axis,))), x, axis))


log_softmax = Op(
    "log_softmax",
    _log_softmax,
    (
        lambda ct, out, x, *, axis: sub(
            ct, mul(exp(out), restore_axes(reduce_sum(ct, axes=(axis,)), x.shape, (axis,)))
        ),
    ),
    shape=lambda x, *, axis: x,
)

cumsum = Op(
    "cumsum",
    lambda x, *, axis, reverse=False: lax.cumsum(x, axis, reverse=reverse),
    (lambda ct, out, x, *, axis, reverse=False: cumsum(ct, axis=axis, reverse=not reverse),),
    shape=lambda x, *, axis, reverse=False: x,
)

_ = rev
