"""Ops that reduce or scan along axes, and those that normalise along them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..op import Op
from ..tape import Aval, Node, make_aval
from .elementwise import (
    astype,
    conj,
    difference,
    div,
    elementwise,
    equal,
    exp,
    mul,
    sub,
    where,
)
from .shape import pad, reduce_sum, reduced_shape, reshape, restore_axes, transpose

_HALF = (np.dtype(np.float16), np.dtype(jnp.bfloat16))


def _widened(x: Any) -> Any:
    """Half-precision sums and products are taken in float32, as `jax.numpy` does."""
    return lax.convert_element_type(x, np.float32) if x.dtype in _HALF else x


def _same_type(x: Aval, *, axes: tuple[int, ...]) -> Aval:
    return make_aval(reduced_shape(x, axes), x.dtype, x.weak_type)


# -- the largest and the smallest


def _extremum_vjp(ct: Any, out: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    """Ties share the cotangent equally."""
    hit = equal(x, restore_axes(out, x.shape, axes))
    count = reduce_sum(astype(hit, dtype=out.dtype), axes=axes)
    return where(hit, restore_axes(div(ct, count), x.shape, axes), 0.0)


def _extremum_shape(x: Aval, *, axes: tuple[int, ...]) -> Aval:
    if any(x.shape[a] == 0 for a in axes):
        raise ValueError(
            f"the largest or smallest of no elements: shape {x.shape} is empty along axes {axes}. "
            "Pass `initial`, or do not reduce an empty array."
        )
    return _same_type(x, axes=axes)


reduce_max = Op(
    "max",
    lambda x, *, axes: lax.reduce_max(x, axes) if x.dtype.kind != "c" else jnp.max(x, axes),
    (_extremum_vjp,),
    shape=_extremum_shape,
)
reduce_min = Op(
    "min",
    lambda x, *, axes: lax.reduce_min(x, axes) if x.dtype.kind != "c" else jnp.min(x, axes),
    (_extremum_vjp,),
    shape=_extremum_shape,
)


def _index_type(x: Aval, *, axis: int) -> Aval:
    if x.shape[axis] == 0:
        raise ValueError(f"the position of the largest or smallest of no elements: shape {x.shape}, axis {axis}")
    return make_aval(reduced_shape(x, (axis,)), jax.dtypes.canonicalize_dtype(np.int64))


argmax = Op(
    "argmax", lambda x, *, axis: lax.argmax(x, axis, jax.dtypes.canonicalize_dtype(np.int64)), None, shape=_index_type
)
argmin = Op(
    "argmin", lambda x, *, axis: lax.argmin(x, axis, jax.dtypes.canonicalize_dtype(np.int64)), None, shape=_index_type
)


# -- logic


def _truth(x: Any) -> Any:
    return x if x.dtype == np.bool_ else lax.ne(x, np.asarray(0, x.dtype))


def _logical(x: Aval, *, axes: tuple[int, ...]) -> Aval:
    return make_aval(reduced_shape(x, axes), np.dtype(np.bool_))


reduce_any = Op("any", lambda x, *, axes: lax.reduce_or(_truth(x), axes), None, shape=_logical)
reduce_all = Op("all", lambda x, *, axes: lax.reduce_and(_truth(x), axes), None, shape=_logical)


# -- products: their derivatives divide by nothing, so that they are right where elements are 0


def _shift(x: Any, axis: int, by: int, fill: float) -> Any:
    """`x` moved one place along an axis, up (`by=1`) or down (`by=-1`), with `fill` at the free end."""
    return pad(x, fill, config=tuple((by, -by, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)))


def _prod_vjp(ct: Any, out: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    # For each element, the product of those before it times the product of those after it.
    kept = tuple(i for i in range(x.ndim) if i not in axes)
    order = (*kept, *axes)
    in_order = order == tuple(range(x.ndim))
    flat = x if in_order else transpose(x, axes=order)
    moved = flat.shape
    flat = reshape(flat, shape=(*moved[: len(kept)], math.prod(moved[len(kept) :])))
    last = len(kept)
    before = _shift(cumprod(flat, axis=last), last, 1, 1.0)
    after = _shift(cumprod(flat, axis=last, reverse=True), last, -1, 1.0)
    others = reshape(mul(before, after), shape=moved)
    if not in_order:
        others = transpose(others, axes=tuple(int(i) for i in np.argsort(order)))
    return mul(restore_axes(ct, x.shape, axes), others)


reduce_prod = Op(
    "prod",
    lambda x, *, axes: lax.convert_element_type(lax.reduce_prod(_widened(x), axes), x.dtype),
    (_prod_vjp,),
    shape=_same_type,
)


def _cumprod_vjp(ct: Any, out: Any, x: Any, *, axis: int, reverse: bool = False) -> Any:
    # d out[k] / d x[i] is the product before i times that of i+1..k: the second is summed over k, weighted by
    # ct, in a recurrence that runs the other way.
    step = -1 if reverse else 1
    before = _shift(out, axis, step, 1.0)
    return mul(before, linear_recurrence(_shift(x, axis, -step, 1.0), ct, axis=axis, reverse=not reverse))


cumprod: Op = Op(
    "cumprod",
    lambda x, *, axis, reverse=False: lax.cumprod(x, axis, reverse=reverse),
    (_cumprod_vjp,),
    shape=lambda x, *, axis, reverse=False: x,
)


def _recurrence(a: Any, b: Any, *, axis: int, reverse: bool = False) -> Any:
    def combine(left: Any, right: Any) -> Any:
        return lax.mul(left[0], right[0]), lax.add(lax.mul(right[0], left[1]), right[1])

    common = jnp.promote_types(a.dtype, b.dtype)
    a, b = lax.convert_element_type(a, common), lax.convert_element_type(b, common)
    return lax.associative_scan(combine, (a, b), reverse=reverse, axis=axis)[1]


def _recurrence_shape(a: Aval, b: Aval, *, axis: int, reverse: bool = False) -> Aval:
    if a.shape != b.shape:
        raise ValueError(f"the factors have shape {a.shape}, the terms {b.shape}: give them one shape")
    return make_aval(a.shape, jnp.promote_types(a.dtype, b.dtype))


def _recurrence_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    a, _ = node.inputs
    axis, reverse = node.params["axis"], node.params.get("reverse", False)
    step = -1 if reverse else 1
    total = linear_recurrence(_shift(a, axis, -step, 0.0), cts[0], axis=axis, reverse=not reverse)
    return [mul(total, _shift(node.outputs[0], axis, step, 0.0)) if needs[0] else None, total]


linear_recurrence: Op = Op("linear_recurrence", _recurrence, _recurrence_vjp, shape=_recurrence_shape)
"""`h[i] = a[i] * h[i - 1] + b[i]` along an axis, with `h[-1] = 0`, in a logarithmic number of steps."""


# -- sums


cumsum: Op = Op(
    "cumsum",
    lambda x, *, axis, reverse=False: lax.cumsum(x, axis, reverse=reverse),
    (lambda ct, out, x, *, axis, reverse=False: cumsum(ct, axis=axis, reverse=not reverse),),
    shape=lambda x, *, axis, reverse=False: x,
)


# -- running extrema and sums of exponentials


def _running_extremum_vjp(ct: Any, out: Any, x: Any, *, axis: int, reverse: bool = False) -> Any:
    # Along the stretch on which the extremum stays the same, each result's cotangent is shared equally by the elements
    # so far that tie for it: a count runs with the extremum, and the shares are summed against it.
    step, dtype = -1 if reverse else 1, np.dtype(np.float32) if out.dtype in _HALF else out.dtype
    hit = equal(x, out)
    same = astype(equal(out, _shift(out, axis, step, 0.0)), dtype=dtype)
    ties = linear_recurrence(same, astype(hit, dtype=dtype), axis=axis, reverse=reverse)
    total = linear_recurrence(_shift(same, axis, -step, 0.0), div(ct, ties), axis=axis, reverse=not reverse)
    return where(hit, total, 0.0)


cummax: Op = Op(
    "cummax",
    lambda x, *, axis, reverse=False: lax.cummax(x, axis, reverse=reverse),
    (_running_extremum_vjp,),
    shape=lambda x, *, axis, reverse=False: x,
)
cummin: Op = Op(
    "cummin",
    lambda x, *, axis, reverse=False: lax.cummin(x, axis, reverse=reverse),
    (_running_extremum_vjp,),
    shape=lambda x, *, axis, reverse=False: x,
)


def _cumlogsumexp_vjp(ct: Any, out: Any, x: Any, *, axis: int, reverse: bool = False) -> Any:
    # d out[k] / d x[i] is exp(x[i] - out[k]): summed over k in steps of exp(out[k - 1] - out[k]), which is at most 1.
    step = -1 if reverse else 1
    later = _shift(out, axis, -step, math.inf)
    ratio = exp(difference(out, later))
    total = linear_recurrence(ratio, ct, axis=axis, reverse=not reverse)
    return mul(total, exp(sub(x, where(equal(out, -math.inf), 0.0, out))))


cumlogsumexp: Op = Op(
    "cumlogsumexp",
    lambda x, *, axis, reverse=False: lax.cumlogsumexp(x, axis, reverse=reverse),
    (_cumlogsumexp_vjp,),
    shape=lambda x, *, axis, reverse=False: x,
)


def _variance(x: Any, *, axes: tuple[int, ...], ddof: float) -> Any:
    wide = _widened(x)
    n = math.prod(x.shape[a] for a in axes)
    mean = lax.div(lax.reduce_sum(wide, axes), np.asarray(n, wide.dtype))
    kept = [i for i in range(x.ndim) if i not in axes]
    centered = lax.sub(wide, lax.broadcast_in_dim(mean, x.shape, kept))
    square = lax.real(lax.mul(centered, lax.conj(centered))) if x.dtype.kind == "c" else lax.mul(centered, centered)
    out = lax.div(lax.reduce_sum(square, axes), np.asarray(n - ddof, square.dtype))
    return lax.convert_element_type(out, _real_dtype(x.dtype))


def _real_dtype(dtype: Any) -> Any:
    return np.finfo(dtype).dtype if dtype.kind == "c" else dtype


def _variance_vjp(ct: Any, out: Any, x: Any, *, axes: tuple[int, ...], ddof: float) -> Any:
    # The derivative through the mean is 0: deviations from it sum to 0.
    if x.dtype in _HALF:
        x = astype(x, dtype=np.dtype(np.float32))
    n = math.prod(x.shape[a] for a in axes)
    kept = tuple(1 if i in axes else size for i, size in enumerate(x.shape))
    centered = sub(x, reshape(div(reduce_sum(x, axes=axes), float(n)), shape=kept))
    scale = 2.0 / (n - ddof) if n != ddof else math.nan
    return mul(mul(restore_axes(ct, x.shape, axes), scale), conj(centered) if x.dtype.kind == "c" else centered)


variance = Op(
    "var",
    _variance,
    (_variance_vjp,),
    shape=lambda x, *, axes, ddof: make_aval(reduced_shape(x, axes), _real_dtype(x.dtype), x.weak_type),
)


def _root_vjp(ct: Any, out: Any, x: Any) -> Any:
    zero = equal(out, 0)
    return mul(ct, where(zero, 0.0, div(0.5, where(zero, 1.0, out))))


root = elementwise("root", lax.sqrt, _root_vjp, inexact=True)
"""The square root, with derivative 0 at 0: of a sum of squares, so that a norm has derivative 0 at 0."""


def _logsumexp(x: Any, *, axes: tuple[int, ...]) -> Any:
    wide = _widened(x)
    top = lax.reduce_max(lax.real(wide) if wide.dtype.kind == "c" else wide, axes)
    top = lax.select(lax.is_finite(top), top, lax.full_like(top, 0))
    top = lax.convert_element_type(top, wide.dtype)
    kept = [i for i in range(x.ndim) if i not in axes]
    total = lax.reduce_sum(lax.exp(lax.sub(wide, lax.broadcast_in_dim(top, x.shape, kept))), axes)
    return lax.convert_element_type(lax.add(lax.log(total), top), x.dtype)


def _logsumexp_vjp(ct: Any, out: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    # Where every element is -inf, so is the result: its derivative is 0.
    out = where(equal(out, -math.inf), 0.0, out)
    return mul(restore_axes(ct, x.shape, axes), exp(sub(x, restore_axes(out, x.shape, axes))))


reduce_logsumexp = Op("logsumexp", _logsumexp, (_logsumexp_vjp,), shape=_same_type)


# -- normalisation


def _softmax(x: Any, *, axis: int) -> Any:
    top = lax.reduce_max(x, (axis,))
    e = lax.exp(lax.sub(x, _keep(top, x, axis)))
    return lax.div(e, _keep(lax.reduce_sum(e, (axis,)), x, axis))


def _keep(v: Any, x: Any, axis: int) -> Any:
    return lax.broadcast_in_dim(v, x.shape, [i for i in range(x.ndim) if i != axis])


def _softmax_vjp(ct: Any, out: Any, x: Any, *, axis: int) -> Any:
    product = mul(ct, out)
    return sub(product, mul(out, restore_axes(reduce_sum(product, axes=(axis,)), x.shape, (axis,))))


softmax = Op("softmax", _softmax, (_softmax_vjp,), shape=lambda x, *, axis: x)


def _log_softmax(x: Any, *, axis: int) -> Any:
    top = lax.reduce_max(x, (axis,))
    shifted = lax.sub(x, _keep(top, x, axis))
    return lax.sub(shifted, _keep(lax.log(lax.reduce_sum(lax.exp(shifted), (axis,))), x, axis))


log_softmax = Op(
    "log_softmax",
    _log_softmax,
    (lambda ct, out, x, *, axis: sub(ct, mul(exp(out), restore_axes(reduce_sum(ct, axes=(axis,)), x.shape, (axis,)))),),
    shape=lambda x, *, axis: x,
)
