"""Losses of numbers: errors, distances, and the negative log-likelihoods of distributions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from ...names import listed
from ...numpy.arguments import axis_of
from ...numpy.linalg import norm
from ...ops import (
    abs_,
    add,
    astype,
    div,
    equal,
    exp,
    exp2,
    exponent,
    greater,
    less_equal,
    lgamma,
    log,
    maximum,
    minimum,
    mul,
    mul_no_nan,
    neg,
    reduce_max,
    reduce_sum,
    reshape,
    square,
    stop_gradient,
    sub,
    transpose,
    where,
)
from ...ops.arraylike import type_of
from ...tracer import literal
from .arguments import array, pair, reduced, same_shape, sure, within


def squared_error(predictions: Any, targets: Any, *, weights: Any = None, reduction: str = "mean") -> Any:
    """(p - t)^2, element by element.

    Args:
      predictions: any shape.
      targets: of the same shape.
      weights, reduction: as the module says.

    Raises:
      ValueError: for shapes that differ.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> float(nn.squared_error(np.array([1.0, 2.0]), np.array([1.0, 4.0])))
      2.0
    """
    predictions, targets = pair(predictions, targets)
    return reduced(square(sub(predictions, targets)), weights, reduction)


def absolute_error(predictions: Any, targets: Any, *, weights: Any = None, reduction: str = "mean") -> Any:
    """|p - t|, element by element; derivative 0 at 0. Arguments and errors as of `squared_error`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> float(nn.absolute_error(np.array([1.0, 2.0]), np.array([1.0, 4.0])))
      1.0
    """
    predictions, targets = pair(predictions, targets)
    return reduced(abs_(sub(predictions, targets)), weights, reduction)


def huber(predictions: Any, targets: Any, delta: Any = 1.0, *, weights: Any = None, reduction: str = "mean") -> Any:
    """e^2 / 2 for an error |e| <= delta, else delta (|e| - delta / 2). Huber (1964).

    Arguments and errors as of `squared_error`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> nn.huber(np.array([0.5, 3.0]), np.array([0.0, 0.0]), reduction="none").tolist()
      [0.125, 2.5]
    """
    predictions, targets = pair(predictions, targets)
    error = sub(predictions, targets)
    e = abs_(error)
    inside = less_equal(e, delta)
    # The square of the error itself: that of its absolute value has a second derivative of 0 at 0.
    loss = where(inside, mul(square(error), literal(0.5)), mul(delta, sub(e, mul(delta, literal(0.5)))))
    return reduced(loss, weights, reduction)


# -- distances


def _scaled(x: Any) -> tuple[Any, Any]:
    """`x` times a power of 2 that brings its largest element along the last axis near 1, and the exponent of that.

    Squares of what is large or small then neither overflow nor vanish. Where the size of `x` cancels, the factor may
    be held constant: the derivatives of all orders are the same. A product, since XLA takes the square of a quotient
    for a quotient of squares.
    """
    a = type_of(x)
    most = float(jnp.finfo(a.dtype).maxexp - 2)  # type: ignore[no-untyped-call]
    power = exponent(reduce_max(abs_(stop_gradient(x)), axes=(a.ndim - 1,)))
    power = minimum(maximum(astype(power, dtype=np.dtype(a.dtype)), literal(-most)), literal(most))
    return mul(x, reshape(exp2(neg(power)), shape=(*a.shape[:-1], 1))), power


def distance(difference: Any, squared: bool) -> Any:
    """The length of vectors along the last axis, or its square."""
    if squared:
        return reduce_sum(square(difference), axes=(type_of(difference).ndim - 1,))
    unit, power = _scaled(difference)
    return mul(norm(unit, axis=-1), exp2(power))


def cosine_distance(
    predictions: Any, targets: Any, *, axis: int = -1, weights: Any = None, reduction: str = "mean"
) -> Any:
    """1 - p . t / (|p| |t|), for vectors along `axis`; 1, with derivative 0, where one of them is 0.

    Args:
      predictions: shape `(..., H)`.
      targets: of the same shape. Both have a gradient.
      axis: the axis of the vectors.
      weights, reduction: as the module says; the loss has the shape without `axis`.

    Raises:
      ValueError: for shapes that differ.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> nn.cosine_distance(np.array([[1e30, 0], [3, 4]]), np.array([[0, 2.0], [3, 4]]), reduction="none").tolist()
      [1.0, 0.0]
    """
    predictions, targets = pair(predictions, targets)
    ndim = type_of(predictions).ndim
    axis = axis_of(axis, ndim)
    order = [*(i for i in range(ndim) if i != axis), axis]
    directions = []
    for x in (predictions, targets):
        unit, _ = _scaled(transposed(x, order))
        length = norm(unit, axis=-1, keepdims=True)
        zero = equal(length, 0)
        # A vector of 0 has no direction.
        directions.append(div(where(zero, 0, unit), where(zero, 1, length)))
    return reduced(sub(1, reduce_sum(mul(*directions), axes=(ndim - 1,))), weights, reduction)


def transposed(x: Any, order: list[int]) -> Any:
    return x if order == sorted(order) else transpose(x, axes=tuple(order))


# -- distributions


def poisson_nll(
    predictions: Any,
    targets: Any,
    *,
    log_input: bool = False,
    full: bool = False,
    weights: Any = None,
    reduction: str = "mean",
) -> Any:
    """r - t log r for rates r and counts t, element by element: the negative log-likelihood of Poisson's distribution.

    Args:
      predictions: rates, at least 0, or their logarithms with `log_input=True`; any shape.
      targets: counts, at least 0; of the same shape.
      log_input: whether the predictions are logarithms of rates.
      full: whether to add log t!, which no prediction changes.
      weights, reduction: as the module says.

    Raises:
      ValueError: for shapes that differ, and for known rates or counts below 0. Under `@jit` their loss is NaN.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> nn.poisson_nll(np.array([2.0, 0.0]), np.array([0.0, 0.0]), reduction="none").tolist()
      [2.0, 0.0]
    """
    predictions, targets = pair(predictions, targets)
    within("targets", targets, 0, math.inf, "Targets are counts, and come second: (predictions, targets)")
    if log_input:
        loss = sub(exp(predictions), mul(targets, predictions))
    else:
        within("predictions", predictions, 0, math.inf, "Pass log_input=True if these are logarithms of rates")
        loss = sure(sub(predictions, mul_no_nan(targets, log(predictions))), predictions, 0, math.inf)
    if full:
        loss = add(loss, lgamma(add(targets, 1)))
    return reduced(sure(loss, targets, 0, math.inf), weights, reduction)


def gaussian_nll(
    predictions: Any,
    targets: Any,
    variance: Any = 1.0,
    *,
    full: bool = False,
    weights: Any = None,
    reduction: str = "mean",
) -> Any:
    """((p - t)^2 / v + log v) / 2, element by element: the negative log-likelihood of a normal distribution.

    Nix and Weigend, "Estimating the mean and variance of the target probability distribution" (1994).

    Args:
      predictions: means; any shape.
      targets: of the same shape.
      variance: above 0; a number, or an array of the same shape, or one that broadcasts to it. It has a gradient.
      full: whether to add log(2 pi) / 2, which no prediction changes.
      weights, reduction: as the module says.

    Raises:
      ValueError: for shapes that differ, and for a known variance that is 0 or less. Under `@jit` its loss is NaN.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> nn.gaussian_nll(np.array([1.0, 3.0]), np.array([1.0, 1.0]), np.ones(2), reduction="none").tolist()
      [0.0, 2.0]
    """
    predictions, targets = pair(predictions, targets)
    variance = array("variance", variance)
    p, v = type_of(predictions).shape, type_of(variance).shape
    if len(v) > len(p) or any(m not in (1, n) for m, n in zip(v[::-1], p[::-1], strict=False)):
        same_shape(predictions, variance, ("predictions", "variance"))
    remedy = "Let the network give its logarithm, and pass variance=exp(...)"
    within("variance", variance, math.nextafter(0.0, 1.0), math.inf, remedy, exact=True)
    loss = mul(add(div(square(sub(predictions, targets)), variance), log(variance)), literal(0.5))
    if full:
        loss = add(loss, literal(0.5 * math.log(2 * math.pi)))
    loss = mul(loss, where(greater(variance, 0), 1, literal(math.nan)))
    return reduced(loss, weights, reduction)


__all__ = ["absolute_error", "cosine_distance", "gaussian_nll", "huber", "poisson_nll", "squared_error"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
