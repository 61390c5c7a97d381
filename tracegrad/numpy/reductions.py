"""Sums and other functions that reduce or scan along axes.

An `axis` is an integer, a tuple of them, or `None` for all, and a `ValueError` where there is none; `keepdims`
leaves the reduced axes with size 1; where `where` is false an element is left out; `initial` is one more element.
"""

from __future__ import annotations

import builtins
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import ops
from ..borrow import borrow, written
from ..errors import called, describe, here
from ..tracer import Tracer
from .arguments import Aval, axes_of, axis_of, dtype_of, inexact, is_inexact, is_known, literal, refuse, type_of
from .creation import asarray
from .manipulation import broadcast_to, ravel

_HALF = (np.dtype(np.float16), jnp.bfloat16.dtype)
_AXIS = ("axis",)


def _kept(out: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """`out`, with the reduced axes back at size 1."""
    return ops.reshape(out, shape=tuple([1 if i in axes else n for i, n in enumerate(shape)]))


def _accumulator(aval: Any) -> Any:
    """The dtype in which integers and booleans are added up: the default integer, if that is wider."""
    wide = jax.dtypes.canonicalize_dtype(np.uint64 if aval.dtype.kind == "u" else np.int64)
    return aval.dtype if aval.dtype.kind != "b" and aval.dtype.itemsize >= wide.itemsize else wide


def _prepared(a: Any, aval: Aval, dtype: Any, promote: bool = True) -> Any:
    if dtype is not None:
        wanted = dtype_of(dtype)
        return a if aval.dtype == wanted else ops.astype(a, dtype=wanted)
    if promote and aval.dtype.kind in "biu":
        wanted = _accumulator(aval)
        return a if aval.dtype == wanted else ops.astype(a, dtype=wanted)
    return a


def _reduced(
    op: Any, a: Any, aval: Aval, axis: Any, keepdims: bool, initial: Any, where: Any, neutral: Any, join: Any
) -> Any:
    axes = axes_of(axis, aval.ndim)
    if where is not None:
        a = ops.where(where, a, neutral)
        if type_of(a).shape != aval.shape:
            raise ValueError(f"{called()}: where={describe(where)} does not broadcast to shape {aval.shape} {here()}")
    if initial is not None and join in (ops.maximum, ops.minimum) and builtins.any(aval.shape[i] == 0 for i in axes):
        rest = tuple(n for i, n in enumerate(aval.shape) if i not in axes)
        out = broadcast_to(asarray(initial, aval.dtype), rest)
    else:
        out = op(a, axes=axes)
        if initial is not None:
            out = join(out, initial)
    return _kept(out, aval.shape, axes) if keepdims else out


def sum(
    a: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False, initial: Any = None,
    where: Any = None, promote_integers: bool = True,
) -> Any:  # fmt: skip
    """The sum along axes. Integers narrower than the default are added up as the default, if `promote_integers`.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.sum(np.array([[1, 2], [3, 4]]), axis=0).tolist()
      [4, 6]
    """
    aval = a.aval if type(a) is Tracer else type_of(a)
    if dtype is where is initial is out is None and aval.dtype.kind == "f":
        axes = axes_of(axis, len(aval.shape))
        total = ops.reduce_sum(a, axes=axes)
        return _kept(total, aval.shape, axes) if keepdims else total
    refuse(out=out)
    a = _prepared(a, aval, dtype, promote_integers)
    return _reduced(ops.reduce_sum, a, aval, axis, keepdims, initial, where, 0, ops.add)


def prod(
    a: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False, initial: Any = None,
    where: Any = None, promote_integers: bool = True,
) -> Any:  # fmt: skip
    """The product along axes. Its derivative is right where elements are 0."""
    refuse(out=out)
    aval = type_of(a)
    a = _prepared(a, aval, dtype, promote_integers)
    return _reduced(ops.reduce_prod, a, aval, axis, keepdims, initial, where, 1, ops.mul)


def _limit(aval: Aval, top: bool) -> Any:
    """The smallest (or largest) value of a dtype."""
    if aval.dtype.kind == "b":
        return top
    if is_inexact(aval.dtype):
        return literal(math.inf if top else -math.inf)
    info: Any = jnp.iinfo(aval.dtype)  # type: ignore[no-untyped-call]
    return np.asarray(info.max if top else info.min, aval.dtype)


def max(
    a: Any, axis: Any = None, out: None = None, keepdims: bool = False, initial: Any = None, where: Any = None
) -> Any:
    """The largest element along axes; elements that tie share the derivative equally. With no element, or `where`, it
    needs `initial`."""
    return _extremum(ops.reduce_max, a, axis, out, keepdims, initial, where, False, ops.maximum)


def min(
    a: Any, axis: Any = None, out: None = None, keepdims: bool = False, initial: Any = None, where: Any = None
) -> Any:
    """The smallest element along axes; elements that tie share the derivative equally. With no element, or `where`, it
    needs `initial`."""
    return _extremum(ops.reduce_min, a, axis, out, keepdims, initial, where, True, ops.minimum)


amax, amin = max, min


def minmax(
    a: Any, axis: Any = None, out: None = None, keepdims: bool = False, initial: Any = None, where: Any = None
) -> tuple[Any, Any]:
    """The smallest and the largest element along axes; `initial` may be a pair, too."""
    low, high = initial if isinstance(initial, tuple) else (initial, initial)
    return min(a, axis, out, keepdims, low, where), max(a, axis, out, keepdims, high, where)


def _extremum(
    op: Any, a: Any, axis: Any, out: None, keepdims: bool, initial: Any, where: Any, top: bool, join: Any
) -> Any:
    if out is not None:
        refuse(out=out)
    aval = a.aval if type(a) is Tracer else type_of(a)
    if where is not None and initial is None:
        raise ValueError(f"{called()}: with `where` there may be no element left {here()}. Pass `initial` too.")
    if 0 in aval.shape and initial is None and builtins.any(aval.shape[i] == 0 for i in axes_of(axis, aval.ndim)):
        raise ValueError(f"{called()}: shape {aval.shape} is empty along axes {axis} {here()}. Pass `initial`.")
    neutral = None if where is None else _limit(aval, top)
    return _reduced(op, a, aval, axis, keepdims, initial, where, neutral, join)


ptp = borrow(jnp.ptp, "The largest less the smallest element along axes.", *_AXIS)


def any(a: Any, axis: Any = None, out: None = None, keepdims: bool = False, *, where: Any = None) -> Any:
    """Whether an element along axes is not 0."""
    refuse(out=out)
    return _reduced(ops.reduce_any, a, type_of(a), axis, keepdims, None, where, False, None)


def all(a: Any, axis: Any = None, out: None = None, keepdims: bool = False, *, where: Any = None) -> Any:
    """Whether all elements along axes are not 0."""
    refuse(out=out)
    return _reduced(ops.reduce_all, a, type_of(a), axis, keepdims, None, where, True, None)


def count_nonzero(a: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """How many elements along axes are not 0."""
    return sum(ops.not_equal(a, literal(0)), axis, keepdims=keepdims)


def _position(op: Any, a: Any, axis: Any, out: None, keepdims: bool | None) -> Any:
    refuse(out=out)
    shape = type_of(a).shape
    if axis is None:
        found = op(ravel(a), axis=0)
        return ops.reshape(found, shape=(1,) * len(shape)) if keepdims else found
    i = axis_of(axis, len(shape))
    found = op(a, axis=i)
    return _kept(found, shape, (i,)) if keepdims else found


def argmax(a: Any, axis: int | None = None, out: None = None, keepdims: bool | None = None) -> Any:
    """The index of the first largest element along an axis, or in the flattened array."""
    return _position(ops.argmax, a, axis, out, keepdims)


def argmin(a: Any, axis: int | None = None, out: None = None, keepdims: bool | None = None) -> Any:
    """The index of the first smallest element along an axis, or in the flattened array."""
    return _position(ops.argmin, a, axis, out, keepdims)


# -- averages


def _count(aval: Aval, axes: tuple[int, ...]) -> int:
    return math.prod([aval.shape[i] for i in axes])


def mean(
    a: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False, *, where: Any = None
) -> Any:
    """The average along axes, as floats; of half precision, taken in float32.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.mean(np.array([1, 2, 3, 4])).item()
      2.5
    """
    if out is not None:
        refuse(out=out)
    aval = a.aval if type(a) is Tracer else type_of(a)
    axes = axes_of(axis, aval.ndim)
    wanted = aval.dtype if dtype is None else dtype_of(dtype)
    if not is_inexact(wanted):
        wanted = ops.inexact_dtype(aval.dtype)
    work = np.dtype(np.float32) if wanted in _HALF else wanted
    if aval.dtype != work:
        a = ops.astype(a, dtype=work)
    if where is None:
        total = ops.div(ops.reduce_sum(a, axes=axes), literal(_count(aval, axes)))
    else:
        total = ops.div(sum(a, axes, where=where), _count_where(where, aval, axes, False))
    if work != wanted:
        total = ops.astype(total, dtype=wanted)
    return _kept(total, aval.shape, axes) if keepdims else total


_mean = mean


def _count_where(where: Any, aval: Aval, axes: tuple[int, ...], keepdims: bool) -> Any:
    """How many elements along axes are taken."""
    return count_nonzero(broadcast_to(where, aval.shape), axes, keepdims)


def var(
    a: Any, axis: Any = None, dtype: Any = None, out: None = None, ddof: float = 0, keepdims: bool = False, *,
    where: Any = None, mean: Any = None, correction: float | None = None,
) -> Any:  # fmt: skip
    """The mean squared distance from the mean along axes; `ddof` (or `correction`) is taken off the count.

    Args:
      mean: the mean, if it is known, with the reduced axes kept at size 1.
    """
    if out is not None:
        refuse(out=out)
    aval = type_of(a)
    axes = axes_of(axis, aval.ndim)
    if dtype is not None:
        aval = type_of(a := ops.astype(a, dtype=dtype_of(dtype)))
    a, ddof = inexact(a, aval), ddof if correction is None else correction
    if where is None and mean is None:
        v = ops.variance(a, axes=axes, ddof=ddof)
    else:
        centered = ops.sub(a, _mean(a, axes, keepdims=True, where=where) if mean is None else mean)
        square = ops.real(ops.mul(centered, ops.conj(centered)))
        count = literal(_count(aval, axes)) if where is None else _count_where(where, aval, axes, False)
        v = ops.div(sum(square, axes, where=where), ops.sub(count, literal(ddof)))
    return _kept(v, aval.shape, axes) if keepdims else v


def std(
    a: Any, axis: Any = None, dtype: Any = None, out: None = None, ddof: float = 0, keepdims: bool = False, *,
    where: Any = None, mean: Any = None, correction: float | None = None,
) -> Any:  # fmt: skip
    """The square root of the variance along axes; its derivative is 0 where it is 0."""
    refuse(out=out)
    return ops.root(var(a, axis, dtype, None, ddof, keepdims, where=where, mean=mean, correction=correction))


def _weights(weights: Any, aval: Aval, axis: Any) -> Any:
    """Weights of the shape of the array that they belong to, from those of that shape or of the axes alone."""
    shape = type_of(weights).shape
    if shape == aval.shape:
        return weights
    axes = [i % aval.ndim for i in axis] if isinstance(axis, (tuple, list)) else axes_of(axis, aval.ndim)
    if shape != tuple(aval.shape[i] for i in axes):
        raise ValueError(
            f"{called()}: weights of shape {shape} for axis {axis} of shape {aval.shape} {here()}. Give them the "
            "shape of the array, or of those axes."
        )
    order = sorted(range(len(axes)), key=axes.__getitem__)
    return ops.broadcast_in_dim(ops.transpose(weights, axes=tuple(order)), shape=aval.shape, dims=tuple(sorted(axes)))


average = borrow(
    jnp.average, "The weighted average along axes; with `returned`, a pair of it and the sum of the weights.", *_AXIS
)


def logsumexp(a: Any, axis: Any = None, keepdims: bool = False, *, where: Any = None) -> Any:
    """`log(sum(exp(a)))` along axes, without overflow; -inf, with derivative 0, where every element is -inf.

    Example:
      >>> import tracegrad.numpy as np
      >>> round(np.logsumexp(np.array([1000.0, 1000.0])).item(), 3)
      1000.693
    """
    aval = type_of(a)
    a = inexact(a, aval)
    neutral = literal(-math.inf)
    return _reduced(ops.reduce_logsumexp, a, aval, axis, keepdims, None, where, neutral, None)


# -- scans


def _scanned(op: Any, a: Any, axis: int | None, dtype: Any, out: None) -> Any:
    refuse(out=out)
    aval = type_of(a)
    if axis is None:
        a, axis = ravel(a), 0
    else:
        axis = axis_of(axis, aval.ndim)
    if dtype is not None or aval.dtype.kind == "b":
        a = _prepared(a, aval, dtype)
    return op(a, axis=axis)


def cumsum(a: Any, axis: int | None = None, dtype: Any = None, out: None = None) -> Any:
    """The running sum along an axis, or of the flattened array."""
    return _scanned(ops.cumsum, a, axis, dtype, out)


def cumprod(a: Any, axis: int | None = None, dtype: Any = None, out: None = None) -> Any:
    """The running product along an axis, or of the flattened array. Its derivative is right where elements are 0."""
    return _scanned(ops.cumprod, a, axis, dtype, out)


cumulative_sum = borrow(
    jnp.cumulative_sum, "The running sum along an axis; with `include_initial`, after a first 0.", *_AXIS
)


@written("axis")
def cumulative_prod(x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Any:
    """The running product along an axis; with `include_initial`, after a first 1."""
    x = jnp.asarray(x)
    # Unlike `cumprod`, as the standard says: small integers are multiplied as the default integer.
    dtype = _accumulator(x) if dtype is None and x.dtype.kind in "biu" else dtype
    return jnp.cumulative_prod(x, axis=axis, dtype=dtype, include_initial=include_initial)


# -- without NaN


def _numbers(a: Any, where: Any = None) -> Any:
    """A mask of what to take: what is not NaN, of what `where` names."""
    if not is_inexact(type_of(a).dtype):
        return where
    mask = ops.bitwise_not(ops.isnan(a))
    return mask if where is None else ops.bitwise_and(mask, where)


nansum = borrow(jnp.nansum, "The sum along axes of what is not NaN.", *_AXIS)
nanprod = borrow(jnp.nanprod, "The product along axes of what is not NaN.", *_AXIS)
nancumsum = borrow(jnp.nancumsum, "The running sum of what is not NaN.", *_AXIS)
nancumprod = borrow(jnp.nancumprod, "The running product of what is not NaN.", *_AXIS)
nanmax = borrow(jnp.nanmax, "The largest element along axes that is not NaN; NaN where there is none.", *_AXIS)
nanmin = borrow(jnp.nanmin, "The smallest element along axes that is not NaN; NaN where there is none.", *_AXIS)
nanargmax = borrow(
    jnp.nanargmax, "The index of the first largest element that is not NaN; -1 where there is none.", *_AXIS
)
nanargmin = borrow(
    jnp.nanargmin, "The index of the first smallest element that is not NaN; -1 where there is none.", *_AXIS
)


def nanmean(
    a: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False, where: Any = None
) -> Any:
    """The average along axes of what is not NaN; NaN where nothing else is."""
    return mean(a, axis, dtype, out, keepdims, where=_numbers(a, where))


def nanvar(
    a: Any, axis: Any = None, dtype: Any = None, out: None = None, ddof: float = 0, keepdims: bool = False,
    where: Any = None, mean: Any = None,
) -> Any:  # fmt: skip
    """The variance along axes of what is not NaN; NaN where there are not more than `ddof`."""
    return var(a, axis, dtype, out, ddof, keepdims, where=_numbers(a, where), mean=mean)


def nanstd(
    a: Any, axis: Any = None, dtype: Any = None, out: None = None, ddof: float = 0, keepdims: bool = False,
    where: Any = None, mean: Any = None,
) -> Any:  # fmt: skip
    """The standard deviation along axes of what is not NaN."""
    return std(a, axis, dtype, out, ddof, keepdims, where=_numbers(a, where), mean=mean)


# -- order statistics

_METHODS = ("linear", "lower", "higher", "midpoint", "nearest", "inverted_cdf")


def quantile(
    a: Any, q: Any, axis: Any = None, out: None = None, overwrite_input: bool = False, method: str = "linear",
    keepdims: bool = False, *, weights: Any = None,
) -> Any:  # fmt: skip
    """The value below which a part `q` of the elements along axes lies, between neighbours by `method`.

    Args:
      q: from 0 to 1, a number or several; several give a new first axis. It has a derivative too, if it is traced.
      method: "linear", "lower", "higher", "midpoint" or "nearest" between two elements, or "inverted_cdf" for the
        first element whose share, with those before it, is `q`.
      weights: what each element counts in "inverted_cdf", the only method for which weights mean something: of the
        shape of `a`, or of the axes alone.

    Raises:
      ValueError: if a `q` of known value is not from 0 to 1, there is no element, or `method` is another.

    Example:
      >>> import tracegrad.numpy as np
      >>> float(np.quantile(np.array([1.0, 2.0, 4.0]), 0.75))
      3.0
      >>> float(np.quantile(np.array([1.0, 2.0, 4.0]), 0.75, weights=np.array([1, 8, 1]), method="inverted_cdf"))
      2.0
    """
    return _quantile(a, q, axis, out, method, keepdims, False, weights)


def nanquantile(
    a: Any, q: Any, axis: Any = None, out: None = None, overwrite_input: bool = False, method: str = "linear",
    keepdims: bool = False, *, weights: Any = None,
) -> Any:  # fmt: skip
    """The quantile of what is not NaN; NaN where nothing else is. The arguments are those of `quantile`."""
    return _quantile(a, q, axis, out, method, keepdims, True, weights)


def _quantile(
    a: Any, q: Any, axis: Any, out: None, method: str, keepdims: bool, skip: bool, weights: Any = None
) -> Any:
    refuse(out=out)
    aval = type_of(a)
    axes = axes_of(axis, aval.ndim)
    n = _count(aval, axes)
    if method not in _METHODS:
        raise ValueError(f"{called()}: method={method!r} {here()}. Use one of {', '.join(_METHODS)}.")
    if weights is not None and method != "inverted_cdf":
        raise ValueError(f"{called()}: weights do not go with method={method!r} {here()}. Pass method='inverted_cdf'.")
    if n == 0:
        raise ValueError(f"{called()}: there is no element along axis {axis} of shape {aval.shape} {here()}")
    fixed = is_known(q) and not (isinstance(q, (tuple, list)) and not builtins.all(map(is_known, q)))
    if fixed:
        parts = np.asarray(q, np.float64)
        if parts.size and not (parts.min() >= 0 and parts.max() <= 1):
            raise ValueError(f"{called()}: q={q} is not from 0 to 1 {here()}")
    rest = tuple(i for i in range(aval.ndim) if i not in axes)
    kept = tuple(aval.shape[i] for i in rest)

    def in_a_row(x: Any) -> Any:
        return ops.reshape(ops.transpose(x, axes=(*rest, *axes)), shape=(*kept, n))

    x = in_a_row(inexact(a, aval))
    counted = method == "inverted_cdf"
    if counted:
        w = ops.broadcast_to(literal(1.0), x.shape) if weights is None else in_a_row(_weights(weights, aval, axis))
        order = ops.argsort(x, axis=len(kept))
        w = ops.take_along_axis(ops.astype(w, dtype=_real_dtype(x.dtype)), order, -1, "promise_in_bounds")
    x = ops.sort(x, axis=len(kept))
    nans = ops.isnan(x)
    host = fixed and not skip and not counted
    dtype = _real_dtype(x.dtype)
    if host:
        # NaN is sorted last, and makes the result NaN. Places are found as Python's floats.
        shape, bad = parts.shape, ops.reduce_any(nans, axes=(len(kept),))
        joined = _at_places(x, parts.ravel() * (n - 1), method, np)
    else:
        parts = asarray(q)
        shape = parts.shape
        parts = ops.astype(ops.reshape(parts, shape=(math.prod(shape),)), dtype=dtype)
        count = ops.reduce_sum(ops.astype(ops.bitwise_not(nans), dtype=dtype), axes=(len(kept),))
        bad = ops.less(count, literal(1 if skip else n))
        if counted:
            joined = _at_shares(x, ops.where(nans, literal(0.0), w), parts)
        else:
            last = ops.maximum(ops.sub(count, literal(1)), literal(0))
            joined = _at_places(x, ops.mul(ops.reshape(last, shape=(*kept, 1)), parts), method, ops)
    joined = ops.where(ops.reshape(bad, shape=(*kept, 1)), literal(math.nan), joined)
    joined = ops.transpose(joined, axes=(len(kept), *range(len(kept))))
    inner = tuple(1 if i in axes else n for i, n in enumerate(aval.shape)) if keepdims else kept
    return ops.reshape(joined, shape=(*shape, *inner))


def _real_dtype(dtype: Any) -> Any:
    return np.finfo(dtype).dtype if dtype.kind == "c" else dtype


def _at_places(x: Any, places: Any, method: str, host: Any) -> Any:
    """The sorted `x` at places between the elements of its last axis; `host` is NumPy where they are known."""
    low, high = host.floor(places), host.ceil(places)
    if method == "nearest":
        low = high = host.rint(places)
    elif method in ("lower", "higher"):
        low = high = low if method == "lower" else high

    def at(k: Any) -> Any:
        if host is np:
            whole, strides = x.shape[:-1], (1,) * x.ndim
            parts = [
                ops.slice_(x, start=(*[0] * len(whole), i), limit=(*whole, i + 1), strides=strides) for i in map(int, k)
            ]
            return parts[0] if len(parts) == 1 else ops.concatenate(*parts, axis=len(whole)) if parts else x[..., :0]
        k = ops.minimum(ops.astype(k, dtype=np.dtype(np.int32)), literal(x.shape[-1] - 1))
        return ops.take_along_axis(x, ops.maximum(k, literal(0)), -1, "promise_in_bounds")

    if low is high or (host is np and (low == high).all()):
        return at(low)
    weight: Any = 0.5 if method == "midpoint" else places - low
    if host is np and method != "midpoint":
        weight = weight.astype(_real_dtype(x.dtype))
    below = at(low)
    between = below * (1 - weight) + at(high) * weight
    if host is np and (low != high).all():
        return between
    # At a place that is an element there is nothing between, even if it is infinite.
    return ops.where(low == high, below, between)


def _at_shares(x: Any, weights: Any, parts: Any) -> Any:
    """The first elements of the sorted `x` up to which the weights add up to these parts of their sum."""
    n = x.shape[-1]
    share = ops.cumsum(weights, axis=x.ndim - 1)
    share = share / share[..., -1:]
    # What counts nothing is no quantile, not even at 0.
    before = ops.bitwise_or(ops.less(share[..., None, :], parts[:, None]), ops.equal(share, literal(0.0))[..., None, :])
    index = ops.reduce_sum(ops.astype(before, dtype=np.dtype(np.int32)), axes=(x.ndim,))
    return ops.take_along_axis(x, ops.minimum(index, literal(n - 1)), -1, "promise_in_bounds")


def _hundredths(q: Any) -> Any:
    if isinstance(q, (tuple, list)):
        q = asarray(q)
    return np.asarray(q, np.float64) / 100 if is_known(q) else ops.div(q, literal(100))


def percentile(
    a: Any, q: Any, axis: Any = None, out: None = None, overwrite_input: bool = False, method: str = "linear",
    keepdims: bool = False, *, weights: Any = None,
) -> Any:  # fmt: skip
    """The quantile at `q` hundredths."""
    return _quantile(a, _hundredths(q), axis, out, method, keepdims, False, weights)


def nanpercentile(
    a: Any, q: Any, axis: Any = None, out: None = None, overwrite_input: bool = False, method: str = "linear",
    keepdims: bool = False, *, weights: Any = None,
) -> Any:  # fmt: skip
    """The quantile, at `q` hundredths, of what is not NaN."""
    return _quantile(a, _hundredths(q), axis, out, method, keepdims, True, weights)


def median(a: Any, axis: Any = None, out: None = None, overwrite_input: bool = False, keepdims: bool = False) -> Any:
    """The middle element along axes, or the mean of the two in the middle."""
    return _quantile(a, 0.5, axis, out, "midpoint", keepdims, False)


def nanmedian(
    a: Any, axis: Any = None, out: None = None, overwrite_input: bool = False, keepdims: bool = False
) -> Any:  # fmt: skip
    """The median of what is not NaN; NaN where nothing else is."""
    return _quantile(a, 0.5, axis, out, "midpoint", keepdims, True)


__all__ = [
    "all", "amax", "amin", "any", "argmax", "argmin", "average", "count_nonzero", "cumprod", "cumsum",
    "cumulative_prod", "cumulative_sum", "logsumexp", "max", "mean", "median", "min", "minmax", "nanargmax",
    "nanargmin", "nancumprod", "nancumsum", "nanmax", "nanmean", "nanmedian", "nanmin", "nanpercentile", "nanprod",
    "nanquantile", "nanstd", "nansum", "nanvar", "percentile", "prod", "ptp", "quantile", "std", "sum", "var",
]  # fmt: skip
