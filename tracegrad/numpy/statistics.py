"""Correlation, histograms, interpolation, and differences along an axis."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .. import ops
from ..borrow import borrow, written
from ..errors import called, describe, here
from ..ops.gather import Spec
from .arguments import axis_of, common_type, dtype_of, inexact, integer, is_inexact, known, literal, promoted, type_of
from .creation import array_like, asarray, full, linspace, zeros
from .manipulation import diff, reshape
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


@written("ddof")
def cov(
    m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: int | None = None, fweights: Any = None,
    aweights: Any = None, dtype: Any = None,
) -> Any:  # fmt: skip
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
    if ddof is not None and ddof != int(ddof):
        raise ValueError(f"{called()}: ddof={ddof} {here()}. Give an integer.")
    given = [jnp.asarray(v, None if dtype is None else dtype_of(dtype)) for v in (m, y) if v is not None]
    for v in given:
        if v.ndim > 2:
            raise ValueError(f"{called()}: {describe(v)} {here()}. Give an array of at most two axes.")
    common = ops.inexact_dtype(jnp.result_type(*given))
    parts = [jnp.atleast_2d(v if rowvar or v.ndim < 2 else v.T).astype(common) for v in given]
    x = parts[0] if len(parts) == 1 else jnp.concatenate(parts)
    n = x.shape[1]
    less = (0 if bias else 1) if ddof is None else ddof
    weights = None
    for name, w in (("fweights", fweights), ("aweights", aweights)):
        if w is not None and jnp.shape(w) != (n,):
            raise ValueError(
                f"{called()}: {name}={describe(w)} for {n} observations {here()}. Give one an observation."
            )
        if w is not None:
            weights = w if weights is None else weights * w
    if weights is None:
        count: Any = n - less
        weighted = centered = x - x.sum(1, keepdims=True) / n
    else:
        weights = jnp.asarray(weights, ops.inexact_dtype(jnp.result_type(weights)))
        total = weights.sum()
        share = 1 if aweights is None else (weights * aweights).sum() / total
        count = total - less * share if less else total
        centered = x - (x * weights).sum(1, keepdims=True) / total
        weighted = centered * weights
    return (weighted @ centered.T.conj() / count).squeeze()


@written()
def corrcoef(x: Any, y: Any = None, rowvar: bool = True, dtype: Any = None) -> Any:
    """The correlation coefficients of variables, a row each (a column, if not `rowvar`): `cov` of them standardised."""
    c = cov(x, y, rowvar, dtype=dtype)
    if not c.ndim:
        return c / c
    spread = jnp.sqrt(jnp.diagonal(c).real)
    c = c / spread[:, None] / spread

    def bounded(part: Any) -> Any:
        return jnp.maximum(jnp.minimum(part, 1.0), -1.0)

    return jax.lax.complex(bounded(c.real), bounded(c.imag)) if c.dtype.kind == "c" else bounded(c)


# -- sliding products


def _check_slid(a: Any, v: Any, mode: str) -> None:
    for x in (a, v):
        if jnp.ndim(x) != 1:
            raise ValueError(f"{called()}: {describe(x)} {here()}. Give a vector.")
    if not len(a) or not len(v):
        raise ValueError(f"{called()}: vectors of {len(a)} and {len(v)} elements {here()}. Neither may be empty.")
    if mode not in ("full", "same", "valid"):
        raise ValueError(f"{called()}: mode={mode!r} {here()}. Use 'full', 'same' or 'valid'.")


@written()
def convolve(a: Any, v: Any, mode: str = "full", *, precision: Any = None, preferred_element_type: Any = None) -> Any:
    """The convolution of two vectors, `sum_k a[k] v[n - k]`.

    Args:
      mode: "full" for every overlap, "same" for as many as the longer one has, "valid" for complete overlaps.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.convolve(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 0.5])).tolist()
      [0.0, 1.0, 2.5, 4.0, 1.5]
    """
    _check_slid(a, v, mode)
    return jnp.convolve(a, v, mode, precision=precision, preferred_element_type=preferred_element_type)


@written()
def correlate(a: Any, v: Any, mode: str = "valid", *, precision: Any = None, preferred_element_type: Any = None) -> Any:
    """The correlation of two vectors, `sum_n a[n + k] conj(v[n])`; `mode` as for `convolve`."""
    _check_slid(a, v, mode)
    return jnp.correlate(a, v, mode, precision=precision, preferred_element_type=preferred_element_type)


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
    half = ops.where(low == high, literal(0.5), literal(0.0))
    return linspace(low - half, high + half, n + 1, dtype=dtype)


def _bin(edges: Any, x: Any) -> Any:
    """The number of the bin of each element, counted from 1; the last bin has its upper edge."""
    at = searchsorted(edges, x, "right")
    return ops.where(x == edges[-1], literal(edges.shape[0] - 1), at)


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
    if weights is not None and type_of(a).shape != type_of(weights).shape:
        raise ValueError(f"{called()}: weights {describe(weights)} for {describe(a)} {here()}. Give them one shape.")
    x = inexact(array_like(a), type_of(a))
    weights = full(x.shape, 1, x.dtype) if weights is None else array_like(weights)
    points = ops.reshape(x, shape=(x.size, 1))
    counts, (edges,) = histogramdd(points, [bins], [range], ops.reshape(weights, shape=(x.size,)), density)
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
    if weights is not None and type_of(weights).shape != (n,):
        raise ValueError(f"{called()}: weights {describe(weights)} for {n} points {here()}. Give one a point.")
    x, *given = _inexact_together((sample,) if weights is None else (sample, weights))
    weights = given[0] if given else None
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
    at: Any = 0
    for column, e, size in zip(columns, edges, shape, strict=True):
        at = _bin(e, column) + at * size
    counts = ops.reshape(bincount(at, weights, length=math.prod(shape)), shape=shape)[(slice(1, -1),) * d]
    if density:
        counts = ops.astype(counts, dtype=type_of(x).dtype)
        counts = counts / sum_(counts)
        for i, e in enumerate(edges):
            counts = counts / reshape(diff(e), tuple(-1 if j == i else 1 for j in builtins.range(d)))
    return counts, edges


# -- interpolation and differences


@written()
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
    if jnp.ndim(xp) != 1 or jnp.shape(xp) != jnp.shape(fp) or not len(xp):
        raise ValueError(
            f"{called()}: points {describe(xp)} and {describe(fp)} {here()}. Give vectors of one length, at least 1."
        )
    for name, end in (("left", left), ("right", right)):
        if isinstance(end, str) and end != "extrapolate":
            raise ValueError(f"{called()}: {name}={end!r} {here()}. Give a number, or 'extrapolate'.")
    return jnp.interp(x, xp, fp, left, right, period)


@written("axis", "edge_order")
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
    arbitrarily spaced grids" (1988), for three points: the derivative of the parabola through them.
    """
    f = jnp.asarray(f)
    f = f.astype(ops.inexact_dtype(f.dtype))
    several = isinstance(axis, (tuple, list))
    axes = [axis_of(i, f.ndim) for i in (range(f.ndim) if axis is None else axis if several else (axis,))]
    order = 1 if edge_order is None else edge_order
    if order not in (1, 2):
        raise ValueError(f"{called()}: edge_order={edge_order} {here()}. Use 1 or 2.")
    spacing = [jnp.asarray(h) for h in varargs or (1.0,)]
    if len(spacing) == 1 and not spacing[0].ndim:
        spacing = spacing * len(axes)
    if len(spacing) != len(axes):
        raise ValueError(
            f"{called()}: {len(spacing)} spacings for {len(axes)} axes {here()}. Give one, or one an axis."
        )
    for i, h in zip(axes, spacing, strict=True):
        n = f.shape[i]
        if n < order + 1:
            raise ValueError(f"{called()}: {n} values along axis {i} {here()}. Give at least {order + 1}.")
        if h.ndim and h.shape != (n,):
            raise ValueError(
                f"{called()}: places {describe(h)} for {n} values along axis {i} {here()}. Give one a value."
            )
    out = [_derivative(f, i, h, order) for i, h in zip(axes, spacing, strict=True)]
    return out[0] if len(out) == 1 and not several else out


def _derivative(f: Any, axis: int, h: Any, order: int) -> Any:
    f = jnp.moveaxis(f, axis, -1)
    step = jnp.diff(h) if h.ndim else jnp.full((f.shape[-1] - 1,), h)
    slope = jnp.diff(f) / step
    bend = jnp.diff(slope) / (step[1:] + step[:-1])
    middle = slope[..., :-1] + bend * step[:-1] if h.ndim else (f[..., 2:] - f[..., :-2]) / (2 * h)
    first, last = slope[..., :1], slope[..., -1:]
    if order == 2:
        first, last = first - bend[..., :1] * step[0], last + bend[..., -1:] * step[-1]
    return jnp.moveaxis(jnp.concatenate([first, middle, last], -1), -1, axis)


ediff1d = borrow(jnp.ediff1d, "The differences of neighbours in the flattened array, between `to_begin` and `to_end`.")


__all__ = [
    "bincount", "convolve", "corrcoef", "correlate", "cov", "ediff1d", "gradient", "histogram", "histogram2d",
    "histogram_bin_edges", "histogramdd", "interp",
]  # fmt: skip
