"""Activations: `jax.nn`'s names, arguments and values, each element by itself unless it says more. Use ops.

Each takes an array of any shape and returns one of the same shape and dtype. No gradient is NaN where the
value is finite: the branch of a function that is not taken adds 0, however large the argument.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import ops
from .errors import called, here
from .numpy.arguments import axes_of, axis_of
from .ops import (
    abs_,
    add,
    div,
    equal,
    erfc,
    exp,
    expm1,
    greater,
    greater_equal,
    less,
    log,
    logistic,
    minimum,
    mul,
    mul_no_nan,
    neg,
    reduce_logsumexp,
    reduce_max,
    reduce_sum,
    reshape,
    rsqrt,
    sign,
    softplus,
    square,
    stop_gradient,
    sub,
    tanh,
    where,
)
from .ops.elementwise import elementwise
from .tape import aval_of
from .tracer import literal

# -- smooth


def _silu_vjp(ct: Any, out: Any, x: Any) -> Any:
    s = logistic(x)
    return mul(ct, add(s, mul(out, sub(1.0, s))))


_silu = elementwise("silu", lambda x: lax.mul(x, lax.logistic(x)), _silu_vjp, inexact=True)

_SQRT_HALF, _SQRT_2_OVER_PI, _CUBIC = math.sqrt(0.5), math.sqrt(2 / math.pi), 0.044715


def _gelu_erf(x: Any) -> Any:
    half, root = np.asarray(0.5, x.dtype), np.asarray(-_SQRT_HALF, x.dtype)
    return lax.mul(lax.mul(half, x), lax.erfc(lax.mul(x, root)))


def _gelu_erf_vjp(ct: Any, out: Any, x: Any) -> Any:
    density = mul(exp(mul(mul(x, x), -0.5)), 1 / math.sqrt(2 * math.pi))
    return mul(ct, add(mul(erfc(mul(x, -_SQRT_HALF)), 0.5), mul_no_nan(density, x)))


def _gelu_tanh(x: Any) -> Any:
    def number(value: float) -> Any:
        return np.asarray(value, x.dtype)

    # The terms are those of the derivative below, so that XLA computes the hyperbolic tangent once for both.
    inner = lax.mul(x, lax.add(lax.mul(lax.mul(x, x), number(_SQRT_2_OVER_PI * _CUBIC)), number(_SQRT_2_OVER_PI)))
    return lax.mul(x, lax.add(lax.mul(lax.tanh(inner), number(0.5)), number(0.5)))


def _gelu_tanh_vjp(ct: Any, out: Any, x: Any) -> Any:
    squared = mul(x, x)
    t = tanh(mul(x, add(mul(squared, _SQRT_2_OVER_PI * _CUBIC), _SQRT_2_OVER_PI)))
    slope = mul(x, add(mul(squared, 1.5 * _SQRT_2_OVER_PI * _CUBIC), 0.5 * _SQRT_2_OVER_PI))
    return mul(ct, add(add(mul(t, 0.5), 0.5), mul_no_nan(sub(1.0, mul(t, t)), slope)))


_gelu_exact = elementwise("gelu", _gelu_erf, _gelu_erf_vjp, inexact=True)
_gelu_approximate = elementwise("gelu_tanh", _gelu_tanh, _gelu_tanh_vjp, inexact=True)


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)); derivative s (1 - s).

    Example:
      >>> from tracegrad import nn
      >>> float(nn.sigmoid(0.0))
      0.5
    """
    return logistic(x)


def silu(x: Any) -> Any:
    """x sigmoid(x). Elfwing, Uchibe and Doya, "Sigmoid-weighted linear units" (2017)."""
    return _silu(x)


def swish(x: Any, beta: Any = 1.0) -> Any:
    """x sigmoid(beta x), `silu` for beta = 1. Ramachandran, Zoph and Le, "Searching for activation functions" (2017).

    Example:
      >>> from tracegrad import nn
      >>> float(nn.swish(2.0, beta=0.0))
      1.0
    """
    if isinstance(beta, (int, float)) and beta == 1:
        return _silu(x)
    return mul(x, logistic(mul(beta, x)))


def gelu(x: Any, approximate: bool = True) -> Any:
    """x Phi(x), with Phi the normal distribution function. Hendrycks and Gimpel, "Gaussian error linear units" (2016).

    Args:
      x: any shape.
      approximate: whether to take Phi(x) as (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, or exactly, by erf.

    Example:
      >>> from tracegrad import nn
      >>> round(float(nn.gelu(1.0)), 4), round(float(nn.gelu(1.0, approximate=False)), 4)
      (0.8412, 0.8413)
    """
    return _gelu_approximate(x) if approximate else _gelu_exact(x)


def log_sigmoid(x: Any) -> Any:
    """log(sigmoid(x)) = -softplus(-x), without underflow."""
    return neg(softplus(neg(x)))


def soft_sign(x: Any) -> Any:
    """x / (1 + |x|); derivative 1 / (1 + |x|)^2."""
    return div(x, add(abs_(x), literal(1.0)))


def mish(x: Any) -> Any:
    """x tanh(softplus(x)). Misra, "Mish: a self regularized non-monotonic activation function" (2019)."""
    return mul(x, tanh(softplus(x)))


# -- piecewise


def relu(x: Any) -> Any:
    """max(x, 0); derivative 1 for x > 0, and 0 at 0."""
    return ops.relu(x)


def relu6(x: Any) -> Any:
    """min(max(x, 0), 6). Krizhevsky, "Convolutional deep belief networks on CIFAR-10" (2010)."""
    return minimum(ops.relu(x), literal(6.0))


def leaky_relu(x: Any, negative_slope: Any = 1e-2) -> Any:
    """x for x >= 0, else negative_slope x. Maas, Hannun and Ng, "Rectifier nonlinearities" (2013)."""
    return where(greater_equal(x, 0), x, mul(negative_slope, x))


def prelu(x: Any, negative_slope: Any) -> Any:
    """`leaky_relu` whose slope is a parameter: a number or an array that broadcasts to `x`.

    He et al., "Delving deep into rectifiers" (2015).

    Example:
      >>> import tracegrad as tg
      >>> from tracegrad import nn
      >>> float(tg.grad(lambda slope: nn.prelu(-3.0, slope))(0.25))
      -3.0
    """
    return leaky_relu(x, negative_slope)


def _negative(x: Any, positive: Any) -> Any:
    """`x` where it is not positive, else 0: what the exponential of a branch not taken sees."""
    return where(positive, 0, x)


def elu(x: Any, alpha: Any = 1.0) -> Any:
    """x for x > 0, else alpha (exp(x) - 1). Clevert, Unterthiner and Hochreiter, "ELU" (2015)."""
    positive = greater(x, 0)
    return where(positive, x, mul(alpha, expm1(_negative(x, positive))))


def celu(x: Any, alpha: Any = 1.0) -> Any:
    """x for x > 0, else alpha (exp(x / alpha) - 1). Barron, "Continuously differentiable ELU" (2017)."""
    positive = greater(x, 0)
    return where(positive, x, mul(alpha, expm1(div(_negative(x, positive), alpha))))


def selu(x: Any) -> Any:
    """1.0507 elu(x, 1.6733). Klambauer et al., "Self-normalizing neural networks" (2017)."""
    return mul(literal(1.0507009873554805), elu(x, literal(1.6732632423543772)))


def hard_tanh(x: Any) -> Any:
    """x clipped to [-1, 1]; derivative 1 inside, 0 outside."""
    return where(greater(x, 1), 1, where(less(x, literal(-1)), literal(-1), x))


def hard_sigmoid(x: Any) -> Any:
    """relu6(x + 3) / 6."""
    return div(relu6(add(x, literal(3.0))), literal(6.0))


def hard_silu(x: Any) -> Any:
    """x hard_sigmoid(x), also `hard_swish`. Howard et al., "Searching for MobileNetV3" (2019)."""
    return mul(x, hard_sigmoid(x))


hard_swish = hard_silu


def glu(x: Any, axis: int = -1) -> Any:
    """a sigmoid(b) for the two halves a, b of `x` along an axis. Dauphin et al., "Gated convolutional networks" (2017).

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> nn.glu(np.array([3.0, 0.0], np.float32)).tolist()
      [1.5]
    """
    shape = aval_of(x).shape
    axis = axis_of(axis, len(shape))
    half, odd = divmod(shape[axis], 2)
    if odd:
        raise ValueError(
            f"{called()}: shape {shape} has size {shape[axis]} along axis {axis} {here()}: it must be even"
        )
    a, b = (
        ops.slice_(
            x,
            start=tuple(lo if i == axis else 0 for i in range(len(shape))),
            limit=tuple(lo + half if i == axis else n for i, n in enumerate(shape)),
            strides=(1,) * len(shape),
        )
        for lo in (0, half)
    )
    return mul(a, logistic(b))


# -- along axes


def _float(x: Any) -> Any:
    """`x`, integers and booleans as floats."""
    dtype = aval_of(x).dtype
    return x if jnp.issubdtype(dtype, jnp.inexact) else ops.astype(x, dtype=jax.dtypes.canonicalize_dtype(float))


def _keep_axes(x: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """The result of a reduction over `axes` with these as axes of size 1."""
    return reshape(x, shape=tuple(1 if i in axes else n for i, n in enumerate(shape)))


def _lowest(x: Any) -> Any:
    """The value of masked elements: so low that its exponential is 0, finite so that nothing becomes NaN."""
    return literal(float(jnp.finfo(aval_of(x).dtype).min))  # type: ignore[no-untyped-call]


def softmax(x: Any, axis: Any = -1, where: Any = None) -> Any:
    """exp(x_i) / sum_j exp(x_j) along `axis`.

    Args:
      x: any shape.
      axis: an axis, a tuple of them, or `None` for all.
      where: a boolean mask that broadcasts to `x`: others have value and gradient 0, and so has all of a
        row in which it is nowhere True.

    Returns:
      The shape of `x`; it sums to 1 along `axis`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> nn.softmax(np.array([0.0, 0.0, 9.0], np.float32), where=np.array([True, True, False])).tolist()
      [0.5, 0.5, 0.0]
    """
    x = _float(x)
    if where is not None:
        return ops.where(where, softmax(ops.where(where, x, _lowest(x)), axis), 0)
    if isinstance(axis, int):
        return ops.softmax(x, axis=axis_of(axis, aval_of(x).ndim))
    return exp(log_softmax(x, axis))


def log_softmax(x: Any, axis: Any = -1, where: Any = None) -> Any:
    """x_i - log(sum_j exp(x_j)) along `axis`, without overflow.

    Args:
      x: any shape.
      axis: an axis, a tuple of them, or `None` for all.
      where: a boolean mask that broadcasts to `x`: others have value -inf and gradient 0.
    """
    x = _float(x)
    if where is not None:
        return ops.where(where, log_softmax(ops.where(where, x, _lowest(x)), axis), literal(-math.inf))
    shape = aval_of(x).shape
    if isinstance(axis, int):
        return ops.log_softmax(x, axis=axis_of(axis, len(shape)))
    axes = axes_of(axis, len(shape))
    return sub(x, _keep_axes(reduce_logsumexp(x, axes=axes), shape, axes))


def logsumexp(
    a: Any, axis: Any = None, b: Any = None, keepdims: bool = False, return_sign: bool = False, where: Any = None
) -> Any:
    """log(sum(b exp(a))) over `axis`, without overflow; -inf, with gradient 0, for no terms or all -inf.

    Args:
      a: any shape.
      axis: an axis, a tuple of them, or `None` for all.
      b: factors that broadcast to `a`; may be 0 or negative.
      keepdims: whether the reduced axes stay, with size 1.
      return_sign: whether to return the sign of the sum too, and the logarithm of its absolute value.
      where: a boolean mask of the terms, which broadcasts to `a`.

    Returns:
      The reduced array, or a pair of it and the signs.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> float(nn.logsumexp(np.array([1000.0, 1000.0], np.float32), b=np.array([2.0, -1.0], np.float32)))
      1000.0
    """
    a = _float(a)
    if b is not None:
        a = ops.where(equal(b, 0), literal(-math.inf), a)
    if where is not None:
        a = ops.where(where, a, literal(-math.inf))
    shape = aval_of(a).shape
    axes = axes_of(axis, len(shape))
    if b is None:
        out = reduce_logsumexp(a, axes=axes)
        signs = sign(exp(stop_gradient(out))) if return_sign else None
    else:
        top = stop_gradient(reduce_max(a, axes=axes))
        top = ops.where(ops.isfinite(top), top, 0)
        total = reduce_sum(mul(b, exp(sub(a, _keep_axes(top, shape, axes)))), axes=axes)
        signs = sign(stop_gradient(total))
        out = add(log(abs_(total) if return_sign else total), top)
    if keepdims:
        out = _keep_axes(out, shape, axes)
        signs = _keep_axes(signs, shape, axes) if return_sign else None
    return (out, signs) if return_sign else out


def standardize(
    x: Any, axis: Any = -1, mean: Any = None, variance: Any = None, epsilon: Any = 1e-5, where: Any = None
) -> Any:
    """(x - mean) / sqrt(variance + epsilon), the statistics taken along `axis`.

    Args:
      x: any shape.
      axis: an axis, a tuple of them, or `None` for all.
      mean, variance: statistics to use in place of those of `x`; they broadcast to `x`.
      epsilon: added to the variance.
      where: a boolean mask of the elements that the statistics are taken of.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> nn.standardize(np.array([1.0, 3.0], np.float32), epsilon=0.0).tolist()
      [-1.0, 1.0]
    """
    x = _float(x)
    shape = aval_of(x).shape
    axes = axes_of(axis, len(shape))

    def average(values: Any) -> Any:
        if where is None:
            total, count = reduce_sum(values, axes=axes), literal(float(math.prod(shape[i] for i in axes)))
        else:
            total = reduce_sum(ops.where(where, values, 0), axes=axes)
            mask = ops.broadcast_to(where, shape)
            count = reduce_sum(ops.astype(mask, dtype=np.dtype(aval_of(x).dtype)), axes=axes)
        return _keep_axes(div(total, count), shape, axes)

    own_mean = mean is None
    if own_mean:
        mean = average(x)
    if variance is None:
        if where is None and own_mean:
            variance = _keep_axes(ops.variance(x, axes=axes, ddof=0), shape, axes)
        else:
            variance = average(square(sub(x, mean)))
    return mul(sub(x, mean), rsqrt(add(variance, epsilon)))


def one_hot(x: Any, num_classes: int, *, dtype: Any = float, axis: int = -1) -> Any:
    """One where the position along the new `axis` is the label, zero elsewhere, and for a label out of range.

    Args:
      x: integer labels, any shape.
      num_classes: the size of the new axis.
      dtype: of the result.
      axis: where in the result the new axis is.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> nn.one_hot(np.array([0, 2]), 3).tolist()
      [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    aval = aval_of(x)
    axis = axis_of(axis, aval.ndim + 1)
    hit = equal(reshape(x, shape=(*aval.shape[:axis], 1, *aval.shape[axis:])), _classes(aval, num_classes, axis))
    return ops.astype(hit, dtype=jax.dtypes.canonicalize_dtype(dtype))


def _classes(labels: Any, num_classes: int, axis: int) -> Any:
    """The numbers of the classes along `axis`, to compare labels with, which may be too narrow for them."""
    shape = tuple(int(num_classes) if i == axis else 1 for i in range(labels.ndim + 1))
    dtype = np.dtype(labels.dtype)
    return ops.iota(dtype=dtype if dtype.itemsize >= 4 else np.dtype(np.int32), shape=shape, axis=axis)


__all__ = [
    "celu", "elu", "gelu", "glu", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "leaky_relu", "log_sigmoid",
    "log_softmax", "logsumexp", "mish", "one_hot", "prelu", "relu", "relu6", "selu", "sigmoid", "silu", "soft_sign",
    "softmax", "softplus", "standardize", "swish", "tanh",
]  # fmt: skip
