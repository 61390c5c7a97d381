"""Correlation, histograms, interpolation, and differences along an axis."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

from .. import ops
from ..errors import called, describe, here
from ..ops.gather import Spec
from .arguments import (
    axes_of,
    axis_of,
    common_type,
    dtype_of,
    inexact,
    integer,
    is_inexact,
    known,
    literal,
    promoted,
    type_of,
)
from .creation import array_like, asarray, full, linspace, zeros
from .manipulation import concatenate, diagonal, diff, matrix_transpose, part_along, ravel, squeeze
from .products import matmul
from .reductions import average
from .reductions import max as max_
from .reductions import min as min_
from .reductions import sum as sum_
from .selection import searchsorted


def _vector(x: Any) -> Any:
    x = array_like(x)
    if x.ndim != 1:
        raise ValueError(f"{called()}: {describe(x)} {here()}. Give a vector.")
    return x


def _inexact_together(xs: Sequence[Any]) -> list[Any]:
    """The operands as floats of one dtype."""
    avals = [type_of(x) for x in xs]
    dtype, _ = common_type(avals)
    xs = promoted(xs, avals)
    return xs if is_inexact(dtype) else [ops.astype(x, dtype=ops.inexact_dtype(dtype)) for x in xs]


# -- covariance


def cov(
    m: Any,
    y: Any = None,
    rowvar: bool = True,
    bias: bool = False,
    ddof: int | None = None,
    fweights: Any = None,
    aweights: Any = None,
    dtype: Any = None,
) -> Any:
    """The covariance matrix of variables, a row each.

    Args:
      m: observations: a variable a row (a column, if not `rowvar`), or one variable.
      y: more variables.
      bias: whether to divide by the number of observations, instead of one less.
      ddof: what is taken off that number, instead of `bias`.
      fweights: how often each observation was made; integers.
      aweights: the weight of each observation.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.cov(np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])).tolist()
      [[1.0, -1.0], [-1.0, 1.0]]
    """

    def rows(x: Any) -> Any:
        aval = type_of(x)
        if aval.ndim > 2:
            raise ValueError(f"{called()}: {aval} {here()}. Give an array of at most two axes.")
        x = array_like(x)
        if aval.ndim < 2:
            return ops.reshape(x, shape=(1, math.prod(aval.shape)))
        return x if rowvar else matrix_transpose(x)

    if ddof is not None and ddof != int(ddof):
        raise ValueError(f"{called()}: ddof={ddof} {here()}. Give an integer.")
    both = [m] if y is None else [m, y]
    parts = [
        rows(x) for x in _inexact_together([ops.astype(x, dtype=dtype_of(dtype)) for x in both] if dtype else both)
    ]
    x = parts[0] if len(parts) == 1 else concatenate(parts, 0)
    n = x.shape[1]
    less = (0 if bias else 1) if ddof is None else ddof
    weights = None
    for name, w in (("fweights", fweights), ("aweights", aweights)):
        if w is None:
            continue
        if type_of(w).shape != (n,):
            raise ValueError(
                f"{called()}: {name}={describe(w)} for {n} observations {here()}. Give one an observation."
            )
        weights = w if weights is None else ops.mul(weights, w)
    if weights is None:
        mean, count = ops.div(ops.reduce_sum(x, axes=(1,)), literal(n)), literal(float(n - less))
        weighted = centered = ops.sub(x, ops.reshape(mean, shape=(x.shape[0], 1)))
    else:
        weights = inexact(weights, type_of(weights))
        mean, total = average(x, 1, weights, True)
        total = ops.getitem(total, 0)
        if not less:
            count = total
        elif aweights is None:
            count = ops.sub(total, literal(less))
        else:
            share = ops.div(sum_(ops.mul(weights, aweights)), total)
            count = ops.sub(total, ops.mul(share, literal(less)))
        centered = ops.sub(x, ops.reshape(mean, shape=(x.shape[0], 1)))
        weighted = ops.mul(centered, weights)
    return squeeze(ops.div(matmul(weighted, ops.conj(matrix_transpose(centered))), count))


def corrcoef(x: Any, y: Any = None, rowvar: bool = True, dtype: Any = None) -> Any:
    """The correlation coefficients of variables, a row each (a column, if not `rowvar`): `cov` of them standardised."""
    c = cov(x, y, rowvar, dtype=dtype)
    if not c.ndim:
        return ops.div(c, c)
    n = c.shape[0]
    spread = ops.sqrt(ops.real(ops.reshape(diagonal(c), shape=(n, 1))))
    c = ops.div(ops.div(c, spread), ops.reshape(spread, shape=(1, n)))

    def bounded(part: Any) -> Any:
        return ops.maximum(ops.minimum(part, literal(1.0)), literal(-1.0))

    return ops.complex_(bounded(ops.real(c)), bounded(ops.imag(c))) if c.dtype.kind == "c" else bounded(c)


# -- sliding products


def _slid(a: Any, v: Any, mode: str, flipped: bool, precision: Any, dtype: Any) -> Any:
    a, v = _vector(a), _vector(v)
    if not a.shape[0] or not v.shape[0]:
        raise ValueError(
            f"{called()}: vectors of {a.shape[0]} and {v.shape[0]} elements {here()}. Neither may be empty."
        )
    if dtype is None:
        a, v = _inexact_together((a, v))
    else:
        a, v = promoted((a, v), (type_of(a), type_of(v)))
    if not flipped:
        v = ops.conj(v)
    swapped = a.shape[0] < v.shape[0]
    if swapped:
        a, v = v, a
    if flipped:
        v = ops.rev(v, axes=(0,))
    n = v.shape[0]
    if mode not in ("full", "same", "valid"):
        raise ValueError(f"{called()}: mode={mode!r} {here()}. Use 'full', 'same' or 'valid'.")
    padding = {"full": (n - 1, n - 1), "same": (n // 2, n - n // 2 - 1), "valid": (0, 0)}[mode]
    out = ops.conv_general_dilated(
        ops.reshape(a, shape=(1, 1, a.shape[0])), ops.reshape(v, shape=(1, 1, n)), (1,), (padding,),
        precision=precision, preferred_element_type=None if dtype is None else dtype_of(dtype),
    )  # fmt: skip
    out = ops.reshape(out, shape=(out.shape[-1],))
    return ops.rev(out, axes=(0,)) if swapped and not flipped else out


def convolve(
    a: Any, v: Any, mode: str = "full", *, precision: Any = None, preferred_element_type: Any = None
) -> Any:  # fmt: skip
    """The convolution of two vectors, `sum_k a[k] v[n - k]`.

    Args:
      mode: "full" for every overlap, "same" for as many as the longer one has, "valid" for complete overlaps.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.convolve(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 0.5])).tolist()
      [0.0, 1.0, 2.5, 4.0, 1.5]
    """
    return _slid(a, v, mode, True, precision, preferred_element_type)


def correlate(
    a: Any, v: Any, mode: str = "valid", *, precision: Any = None, preferred_element_type: Any = None
) -> Any:  # fmt: skip
    """The correlation of two vectors, `sum_n a[n + k] conj(v[n])`; `mode` as for `convolve`."""
    return _slid(a, v, mode, False, precision, preferred_element_type)


# -- histograms


def bincount(x: Any, weights: Any = None, minlength: int = 0, *, length: int | None = None) -> Any:
    """How often each number from 0 up occurs in a vector of integers, or the sum of the weights that belong to it.

    Args:
      minlength: the least number of counts.
      length: the number of counts; otherwise one more than the largest number, which needs the values of `x` now.
        Larger numbers are left out. Negative ones count as 0.

    Raises:
      TracerError: without `length` under `@jit` and in bodies, where values are not known yet.
    """
    if type_of(x).dtype.kind not in "iub":
        raise TypeError(f"{called()}: {describe(x)} {here()}. Convert it with .astype(int).")
    if length is None:
        found = known(x, "Pass length=")
        length = builtins.max(integer(minlength, "minlength"), int(found.max()) + 1 if found.size else 0)
    x = _vector(x)
    if weights is None:
        weights = full(x.shape, 1, int)
    elif type_of(weights).shape != x.shape:
        raise ValueError(f"{called()}: weights {describe(weights)} for {describe(x)} {here()}. Give one a number.")
    dtype = type_of(weights).dtype
    if not length or not x.shape[0]:
        return zeros((length,), dtype)
    at = ops.maximum(x if x.dtype.kind != "b" else ops.astype(x, dtype=dtype_of(int)), literal(0))
    weights = array_like(weights)
    return ops.scatter(zeros((length,), dtype), weights, at, kind="add", spec=Spec((0,), mode="fill"))


def histogram_bin_edges(a: Any, bins: Any = 10, range: Any = None, weights: Any = None) -> Any:
    """The edges of the bins of `histogram`.

    Args:
      bins: how many bins of one width, or their edges.
      range: the first and the last edge; by default the smallest and the largest element.
    """
    aval = type_of(a)
    dtype = ops.inexact_dtype(aval.dtype)
    if isinstance(bins, str):
        raise NotImplementedError(
            f"{called()}: bins={bins!r} {here()}: no rule is built in. Give a number, or the edges."
        )
    if isinstance(bins, (list, tuple)) or type_of(bins).ndim:
        return asarray(bins, dtype)
    n = integer(bins, "bins")
    if n < 1:
        raise ValueError(f"{called()}: bins={n} {here()}. Give at least 1.")
    if range is None:
        low, high = (min_(a), max_(a)) if 0 not in aval.shape else (0.0, 1.0)
    else:
        if (not isinstance(range, (tuple, list)) and type_of(range).shape != (2,)) or len(range) != 2:
            raise ValueError(f"{called()}: range={describe(range)} {here()}. Give the first and the last edge.")
        low, high = range[0], range[1]
    low, high = asarray(low, dtype), asarray(high, dtype)
    flat = ops.equal(low, high)
    half = literal(0.5)
    return linspace(
        ops.where(flat, ops.sub(low, half), low), ops.where(flat, ops.add(high, half), high), n + 1, dtype=dtype
    )


def _bin(edges: Any, x: Any) -> Any:
    """The number of the bin of each element, counted from 1; the last bin has its upper edge."""
    n = edges.shape[0]
    at = searchsorted(edges, x, "right")
    return ops.where(ops.equal(x, ops.getitem(edges, n - 1)), literal(n - 1), at)


def histogram(
    a: Any, bins: Any = 10, range: Any = None, weights: Any = None, density: bool | None = None
) -> tuple[Any, Any]:
    """How many elements lie in each bin, and the edges of the bins; all but the last bin are open above.

    Counts are floats, as in `jax.numpy`.

    Args:
      bins, range: see `histogram_bin_edges`.
      weights: what each element counts.
      density: whether to divide by the total and the width of each bin.
    """
    if weights is None:
        x = ravel(inexact(array_like(a), type_of(a)))
        weights = full(x.shape, 1, x.dtype)
    else:
        if type_of(a).shape != type_of(weights).shape:
            raise ValueError(
                f"{called()}: weights {describe(weights)} for {describe(a)} {here()}. Give them one shape."
            )
        x, weights = (ravel(v) for v in _inexact_together((a, weights)))
    edges = histogram_bin_edges(x, bins, range)
    n = edges.shape[0]
    counts = part_along(bincount(_bin(edges, x), weights, length=n), (n,), 0, 1, n)
    if density:
        counts = ops.div(ops.div(counts, diff(edges)), sum_(counts))
    return counts, edges


def histogram2d(
    x: Any, y: Any, bins: Any = 10, range: Any = None, weights: Any = None, density: bool | None = None
) -> tuple[Any, Any, Any]:
    """How many points of a plane lie in each bin, and the edges along both axes; see `histogramdd`."""
    x, y = _inexact_together((_vector(x), _vector(y)))
    sample = ops.concatenate(*[ops.reshape(v, shape=(v.shape[0], 1)) for v in (x, y)], axis=1)
    if not isinstance(bins, int) and (len(bins) == 1 or len(bins) > 2):
        bins = [bins, bins]
    counts, (first, second) = histogramdd(sample, bins, range, weights, density)
    return counts, first, second


def histogramdd(
    sample: Any, bins: Any = 10, range: Any = None, weights: Any = None, density: bool | None = None
) -> tuple[Any, list[Any]]:
    """How many points lie in each bin of a grid, and the edges along each axis.

    Args:
      sample: the points, a row each.
      bins: as for `histogram`, or such an argument an axis.
      range: the first and the last edge, or `None`, for each axis.
      weights: what each point counts.
      density: whether to divide by the total and the volume of each bin.
    """
    aval = type_of(sample)
    if aval.ndim != 2:
        raise ValueError(f"{called()}: points {aval} {here()}. Give a matrix, a row a point.")
    n, d = aval.shape
    if weights is None:
        (x,) = _inexact_together((sample,))
    else:
        if type_of(weights).shape != (n,):
            raise ValueError(f"{called()}: weights {describe(weights)} for {n} points {here()}. Give one a point.")
        x, weights = _inexact_together((sample, weights))
    each = [bins] * d if isinstance(bins, int) else list(bins)
    spans = [None] * d if range is None else list(range)
    if len(each) != d or len(spans) != d:
        raise ValueError(
            f"{called()}: {len(each)} bins and {len(spans)} ranges for points of {d} coordinates {here()}. "
            "Give one an axis."
        )
    columns = [ops.reshape(c, shape=(n,)) for c in ops.split_op(array_like(x), sizes=(1,) * d, axis=1)]
    edges = [histogram_bin_edges(c, b, s) for c, b, s in zip(columns, each, spans, strict=True)]
    # Bins of the points that lie outside, below and above, frame the grid.
    shape = tuple(e.shape[0] + 1 for e in edges)
    at: Any = literal(0)
    for column, e, size in zip(columns, edges, shape, strict=True):
        at = ops.add(ops.mul(at, literal(size)), _bin(e, column))
    counts = ops.reshape(bincount(at, weights, length=math.prod(shape)), shape=shape)
    counts = ops.slice_(counts, start=(1,) * d, limit=tuple(s - 1 for s in shape), strides=(1,) * d)
    if density:
        counts = ops.astype(counts, dtype=type_of(x).dtype)
        counts = ops.div(counts, sum_(counts))
        for i, e in enumerate(edges):
            width = diff(e)
            counts = ops.div(
                counts, ops.reshape(width, shape=tuple(width.shape[0] if j == i else 1 for j in builtins.range(d)))
            )
    return counts, edges


# -- interpolation and differences


def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Any:
    """The piecewise linear function through the points `(xp, fp)`, at `x`.

    Args:
      xp: increasing numbers, unless there is a `period`.
      left, right: the value below the first and above the last of them; by default the first and last of `fp`, and
        "extrapolate" for the line that goes on.
      period: the length after which the function repeats.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.grad(np.interp)(1.5, np.array([1.0, 2.0, 4.0]), np.array([0.0, 3.0, 1.0])).item()
      3.0
    """
    x, xp, fp = array_like(x), _vector(xp), _vector(fp)
    if xp.shape != fp.shape or not xp.shape[0]:
        raise ValueError(
            f"{called()}: points {describe(xp)} and {describe(fp)} {here()}. Give as many of each, at least one."
        )
    for name, end in (("left", left), ("right", right)):
        if isinstance(end, str) and end != "extrapolate":
            raise ValueError(f"{called()}: {name}={end!r} {here()}. Give a number, or 'extrapolate'.")
    x, xp = _inexact_together((x, xp))
    (fp,) = _inexact_together((fp,))
    if period is not None:
        period = ops.abs_(period)
        x, xp = ops.remainder(x, period), ops.remainder(xp, period)
        order = ops.argsort(xp)
        xp, fp = (ops.take(v, order, 0, "clip") for v in (xp, fp))
        n = xp.shape[0]
        xp = ops.concatenate(
            ops.sub(part_along(xp, (n,), 0, n - 1, n), period),
            xp,
            ops.add(part_along(xp, (n,), 0, 0, 1), period),
            axis=0,
        )
        fp = ops.concatenate(part_along(fp, (n,), 0, n - 1, n), fp, part_along(fp, (n,), 0, 0, 1), axis=0)
    n = xp.shape[0]
    first, last = ops.getitem(fp, 0), ops.getitem(fp, n - 1)
    if n == 1:
        value = ops.add(ops.mul(x, literal(0.0)), first)
    else:
        i = ops.searchsorted(xp, x, "right")
        i = ops.maximum(ops.minimum(i, literal(n - 1)), literal(1))
        before = ops.sub(i, literal(1))
        x0, x1, f0, f1 = (ops.take(v, at, 0, "clip") for v, at in ((xp, before), (xp, i), (fp, before), (fp, i)))
        width = ops.sub(x1, x0)
        # Where two points fall together there is a step, and no slope.
        step = ops.equal(width, literal(0))
        slope = ops.div(ops.sub(f1, f0), ops.where(step, literal(1.0), width))
        value = ops.where(step, f0, ops.add(f0, ops.mul(ops.sub(x, x0), slope)))
    if period is not None:
        return value
    if not isinstance(left, str):
        value = ops.where(ops.less(x, ops.getitem(xp, 0)), first if left is None else left, value)
    if not isinstance(right, str):
        value = ops.where(ops.greater(x, ops.getitem(xp, n - 1)), last if right is None else right, value)
    return value


def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int | None = None) -> Any:
    """The derivative of a function from its values on a grid, along each axis: central differences of second order.

    Args:
      f: the values, at least `edge_order + 1` along each axis.
      varargs: how far apart they are: one number, or for each axis a number or a vector of places; 1 by default.
      axis: along which axes; all by default.
      edge_order: the order, 1 (the default) or 2, of the differences at the ends.

    Returns:
      An array for one axis, a list of them for several.

    The formula for places that are not evenly spaced is that of Fornberg, "Generation of finite difference formulas on
    arbitrarily spaced grids" (1988), for three points.
    """
    f = inexact(array_like(f), type_of(f))
    axes = axes_of(axis, f.ndim) if not isinstance(axis, (tuple, list)) else tuple(
        axis_of(a, f.ndim) for a in axis
    )  # fmt: skip
    order = 1 if edge_order is None else edge_order
    if order not in (1, 2):
        raise ValueError(f"{called()}: edge_order={edge_order} {here()}. Use 1 or 2.")
    spacing = list(varargs) or [1.0]
    if len(spacing) == 1 and not (isinstance(spacing[0], (list, tuple)) or type_of(spacing[0]).ndim):
        spacing = spacing * len(axes)
    if len(spacing) != len(axes):
        raise ValueError(
            f"{called()}: {len(spacing)} spacings for {len(axes)} axes {here()}. Give one, or one an axis."
        )
    for i in axes:
        if f.shape[i] < order + 1:
            raise ValueError(f"{called()}: {f.shape[i]} values along axis {i} {here()}. Give at least {order + 1}.")
    out = [_derivative(f, i, asarray(h), order) for i, h in zip(axes, spacing, strict=True)]
    return out[0] if len(out) == 1 and not isinstance(axis, (tuple, list)) else out


def _derivative(f: Any, axis: int, h: Any, order: int) -> Any:
    shape = f.shape
    n = shape[axis]

    def at(start: int, stop: int) -> Any:
        return part_along(f, shape, axis, start, stop)

    def combined(*terms: tuple[Any, Any]) -> Any:
        total: Any = None
        for weight, value in terms:
            term = ops.mul(value, weight)
            total = term if total is None else ops.add(total, term)
        return total

    if type_of(h).ndim:
        if type_of(h).shape != (n,):
            raise ValueError(
                f"{called()}: places {describe(h)} for {n} values along axis {axis} {here()}. Give one a value."
            )
        steps = ops.reshape(diff(h), shape=tuple(n - 1 if j == axis else 1 for j in range(len(shape))))

        def step(start: int, stop: int) -> Any:
            return part_along(steps, steps.shape, axis, start, stop)
    else:

        def step(start: int, stop: int) -> Any:
            return h

    def three(a: Any, b: Any, where: int) -> list[Any]:
        """The weights of three points, `a` and `b` apart, for the derivative at the `where`-th of them."""
        both = ops.add(a, b)
        if where == 0:
            last = ops.neg(ops.div(a, ops.mul(b, both)))
            return [
                ops.neg(ops.div(ops.add(ops.mul(a, literal(2)), b), ops.mul(a, both))),
                ops.div(both, ops.mul(a, b)),
                last,
            ]
        if where == 1:
            first = ops.neg(ops.div(b, ops.mul(a, both)))
            return [first, ops.div(ops.sub(b, a), ops.mul(a, b)), ops.div(a, ops.mul(b, both))]
        return [ops.neg(weight) for weight in three(b, a, 0)[::-1]]

    parts = []
    if order == 1:
        parts.append(ops.div(ops.sub(at(1, 2), at(0, 1)), step(0, 1)))
    else:
        parts.append(combined(*zip(three(step(0, 1), step(1, 2), 0), (at(0, 1), at(1, 2), at(2, 3)), strict=True)))
    if n > 2 and not type_of(h).ndim:
        parts.append(ops.div(ops.sub(at(2, n), at(0, n - 2)), ops.mul(h, literal(2))))
    elif n > 2:
        weights = three(step(0, n - 2), step(1, n - 1), 1)
        parts.append(combined(*zip(weights, (at(0, n - 2), at(1, n - 1), at(2, n)), strict=True)))
    if order == 1:
        parts.append(ops.div(ops.sub(at(n - 1, n), at(n - 2, n - 1)), step(n - 2, n - 1)))
    else:
        ends = at(n - 3, n - 2), at(n - 2, n - 1), at(n - 1, n)
        parts.append(combined(*zip(three(step(n - 3, n - 2), step(n - 2, n - 1), 2), ends, strict=True)))
    return ops.concatenate(*parts, axis=axis)


def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    """The differences of neighbours in the flattened array, between `to_begin` and `to_end`."""
    x = ravel(array_like(ary))
    parts = [diff(x) if x.shape[0] else x]
    for end, place in ((to_begin, 0), (to_end, len(parts) + 1)):
        if end is not None:
            parts.insert(place, ops.astype(ravel(asarray(end)), dtype=x.dtype))
    return ops.concatenate(*parts, axis=0)


__all__ = [
    "bincount", "convolve", "corrcoef", "correlate", "cov", "ediff1d", "gradient", "histogram", "histogram2d",
    "histogram_bin_edges", "histogramdd", "interp",
]  # fmt: skip
