"""Elementwise functions: most are the ops themselves."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from jax import lax as _lax
from jax.lax import RoundingMethod

from .. import numpy as tnp
from .. import ops
from ..errors import called, describe, here
from ..numpy.arguments import dtype_of, inexact, type_of
from ..op import Op
from ..tape import aval_of
from ..tracer import literal

abs = ops.abs_
acos, acosh, asin, asinh, atan, atan2, atanh = (
    ops.arccos, ops.arccosh, ops.arcsin, ops.arcsinh, ops.arctan, ops.arctan2, ops.arctanh,
)  # fmt: skip
add, sub, neg, sign, square, reciprocal, nextafter = (
    ops.add, ops.sub, ops.neg, ops.sign, ops.square, ops.reciprocal, ops.nextafter,
)  # fmt: skip
bitwise_and, bitwise_not, bitwise_or, bitwise_xor, clz, population_count = (
    ops.bitwise_and, ops.bitwise_not, ops.bitwise_or, ops.bitwise_xor, ops.clz, ops.population_count,
)  # fmt: skip
shift_left, shift_right_arithmetic, shift_right_logical = (
    ops.left_shift, ops.shift_right_arithmetic, ops.shift_right_logical,
)  # fmt: skip
betainc, digamma, erf, erf_inv, erfc, lgamma, polygamma, zeta = (
    ops.betainc, ops.digamma, ops.erf, ops.erf_inv, ops.erfc, ops.lgamma, ops.polygamma, ops.zeta,
)  # fmt: skip
bessel_i0e, bessel_i1e = ops.i0e, ops.i1e
igamma, igammac, igamma_grad_a = ops.gammainc, ops.gammaincc, ops.gammainc_grad_a
ceil, floor, cosh, sinh = ops.ceil, ops.floor, ops.cosh, ops.sinh
complex, real, imag = ops.complex_, ops.real, ops.imag
eq, ne, lt, le, gt, ge = ops.equal, ops.not_equal, ops.less, ops.less_equal, ops.greater, ops.greater_equal
is_finite = ops.isfinite
max, min = ops.maximum, ops.minimum
rem = ops.fmod


def _log2(x: Any, accuracy: Any) -> Any:
    """For versions of JAX whose `jax.lax` has none."""
    return _lax.log(x, accuracy=accuracy) / np.asarray(math.log(2.0), x.dtype)


def _accurate(name: str) -> Callable[..., Any]:
    op, theirs = getattr(ops, name), getattr(_lax, name, _log2)
    chosen: Op = Op(
        name,
        lambda x, *, accuracy: theirs(x, accuracy=accuracy),
        (lambda ct, out, x, *, accuracy: op.vjp[0](ct, out, x),),
        poles=op.poles,
    )

    def function(x: Any, *, accuracy: Any = None) -> Any:
        return op(x) if accuracy is None else chosen(inexact(x, type_of(x)), accuracy=accuracy)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""The op `{name}`; with `accuracy`, in the implementation that XLA has for it, as in `jax.lax`.

    Most backends have one implementation. The derivative is that of the op.
    """
    return function


cbrt, cos, exp, exp2, expm1, log, log1p, log2, logistic, rsqrt, sin, sqrt, tan, tanh = map(
    _accurate,
    ["cbrt", "cos", "exp", "exp2", "expm1", "log", "log1p", "log2", "logistic", "rsqrt", "sin", "sqrt", "tan", "tanh"],
)


def mul(x: Any, y: Any, *, out_dtype: Any = None) -> Any:
    """`x * y`; with `out_dtype`, of operands converted to that dtype."""
    if out_dtype is not None:
        x, y = convert_element_type(x, out_dtype), convert_element_type(y, out_dtype)
    return ops.mul(x, y)


def conj(x: Any) -> Any:
    """The complex conjugate. Of a real number too, it is complex, unlike that of `tracegrad.numpy`.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> tg.lax.conj(np.float32(2.0)).item(), tg.numpy.conj(np.float32(2.0)).item()
      ((2+0j), 2.0)
    """
    aval = type_of(x)
    return ops.conj(x) if aval.dtype.kind == "c" else ops.complex_(inexact(x, aval), literal(0.0))


def pow(x: Any, y: Any) -> Any:
    """`x ** y`; see `tracegrad.numpy.power`."""
    return tnp.power(x, y)


def div(x: Any, y: Any) -> Any:
    """`x / y`; for integers, rounded towards 0."""
    whole = all(type_of(v).dtype.kind in "iub" for v in (x, y))
    return ops.trunc_divide(x, y) if whole else ops.div(x, y)


def one_minus_square(x: Any) -> Any:
    """`1 - x * x`, exact where `x` is near 1 in magnitude; its derivative is `-2 x`."""
    one = literal(1)
    return ops.mul(ops.sub(one, x), ops.add(x, one))


def integer_pow(x: Any, y: int) -> Any:
    """`x ** y` for a Python integer `y`, as a product of factors."""
    return tnp.power(x, operator.index(y))


def round(x: Any, rounding_method: Any = RoundingMethod.AWAY_FROM_ZERO) -> Any:
    """The nearest whole number; a half goes away from zero, or to the even neighbour, as the method says."""
    nearest_even = RoundingMethod(rounding_method) is RoundingMethod.TO_NEAREST_EVEN
    return ops.rint(x) if nearest_even else ops.round_away(x)


def reduce_precision(operand: Any, exponent_bits: int, mantissa_bits: int) -> Any:
    """`operand` rounded to what a float of these many bits holds; its cotangent too."""
    return ops.reduce_precision(operand, exponent_bits=int(exponent_bits), mantissa_bits=int(mantissa_bits))


def clamp(min: Any, x: Any, max: Any) -> Any:
    """`x`, or `min` or `max` where it is beyond them. The derivative is shared equally at a bound."""
    return ops.minimum(ops.maximum(x, min), max)


def select(pred: Any, on_true: Any, on_false: Any) -> Any:
    """`on_true` where `pred` holds, else `on_false`."""
    return ops.where(pred, on_true, on_false)


def select_n(which: Any, *cases: Any) -> Any:
    """The case that `which` says: a boolean chooses between two, an integer among any number, from 0.

    Raises:
      ValueError: if there is no case, or a boolean has not one or two.
      TypeError: if `which` is neither.
    """
    kind = type_of(which).dtype
    if not cases or (kind == np.bool_ and len(cases) > 2):
        raise ValueError(f"{called()}: {len(cases)} cases for a choice of type {kind} {here()}")
    if kind.kind not in "bi":
        raise TypeError(f"{called()}: which is {describe(which)} {here()}: it must be a boolean or an int32")
    if kind == np.bool_ and len(cases) == 2:
        return ops.where(which, cases[1], cases[0])
    out = cases[-1]
    for i in reversed(range(len(cases) - 1)):
        out = ops.where(ops.less(which, literal(i + 1)), cases[i], out)
    return out


def convert_element_type(operand: Any, new_dtype: Any) -> Any:
    """`operand` in another dtype; of a complex number, the real part, if that is real."""
    return ops.astype(operand, dtype=dtype_of(new_dtype))


def bitcast_convert_type(operand: Any, new_dtype: Any) -> Any:
    """The bits of `operand` as another dtype; a last axis appears, or goes, for the difference in width."""
    return ops.bitcast(operand, dtype=dtype_of(new_dtype))


def dtype(x: Any) -> Any:
    """The dtype of an array or a number."""
    return aval_of(x).dtype


__all__ = [
    "abs", "acos", "acosh", "add", "asin", "asinh", "atan", "atan2", "atanh", "bessel_i0e", "bessel_i1e", "betainc",
    "bitcast_convert_type", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "cbrt", "ceil", "clamp", "clz",
    "complex", "conj", "convert_element_type", "cos", "cosh", "digamma", "div", "dtype", "eq", "erf", "erf_inv",
    "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "igamma", "igamma_grad_a", "igammac", "imag", "integer_pow",
    "is_finite", "le", "lgamma", "log", "log1p", "log2", "logistic", "lt", "max", "min", "mul", "ne", "neg",
    "nextafter", "one_minus_square", "polygamma", "population_count", "pow", "real", "reciprocal", "reduce_precision",
    "rem", "round", "rsqrt", "select", "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical",
    "sign", "sin", "sinh", "sqrt", "square", "sub", "tan", "tanh", "zeta",
]  # fmt: skip
