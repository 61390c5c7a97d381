"""Functions that act element by element. Most are the ops themselves."""

# ruff: noqa: F403, F405
from __future__ import annotations

import builtins
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import ops
from ..borrow import borrow
from ..errors import called, here
from ..ops.elementwise import *
from .arguments import (
    axis_of,
    dtype_of,
    inexact,
    integer,
    is_inexact,
    known,
    literal,
    refuse,
    type_of,
)
from .creation import array_like

abs = absolute = fabs = ops.abs_
acos, acosh, asin, asinh, atan, atan2, atanh = arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh
bitwise_invert = invert = bitwise_not
bitwise_left_shift, bitwise_right_shift = left_shift, right_shift
conjugate = conj
fix = trunc
mod = remainder
divide = true_divide = ops.div
multiply, negative, subtract = ops.mul, ops.neg, ops.sub

MAX_INTEGER_POWER = 64
"""Beyond this a power with a whole float exponent is no longer a product of factors."""


bitwise_count = borrow(jnp.bitwise_count, "How many bits of the absolute value of an integer are set, as uint8.")

packbits = borrow(
    jnp.packbits,
    """Whether elements are not 0, eight of them along an axis, or of the flattened array, as the bits of a uint8.

    Args:
      bitorder: "big" if the first element is the highest bit, "little" if it is the lowest; zeros fill the last byte.
    """,
    "axis",
)

_unpacked = borrow(jnp.unpackbits, "", "axis")


def unpackbits(a: Any, axis: int | None = None, count: int | None = None, bitorder: str = "big") -> Any:
    """The bits of uint8 along an axis, or of the flattened array, as elements that are 0 or 1.

    Args:
      count: how many to give, zeros after the last; if negative, how many to leave off.
      bitorder: "big" if the first element is the highest bit, "little" if it is the lowest.
    """
    bits = _unpacked(a, axis, bitorder=bitorder)
    if count is None:
        return bits
    i = axis_of(axis or 0, bits.ndim)
    more = count - bits.shape[i] if count >= 0 else builtins.max(count, -bits.shape[i])
    return ops.pad(bits, 0, config=tuple((0, more if j == i else 0, 0) for j in range(bits.ndim)))


def positive(x: Any, /) -> Any:
    """`x` itself."""
    return array_like(x)


def power(x1: Any, x2: Any, /) -> Any:
    """`x1 ** x2`, element by element.

    A Python integer as exponent is part of the program: the result is a product of factors, of the dtype of
    `x1`. So are whole Python floats, and 0.5, which is a square root. `x ** 0` is 1, for NaN too.

    Raises:
      TypeError: for integers to a negative Python integer.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.power(np.array([1.0, 2.0, 3.0]), 2).tolist()
      [1.0, 4.0, 9.0]
    """
    kind = type(x2)
    if kind is int or kind is bool:
        aval = type_of(x1)
        if aval.dtype.kind == "b":
            x1 = ops.astype(x1, dtype=np.dtype(np.int32))
        elif x2 < 0 and not is_inexact(aval.dtype):
            raise TypeError(
                f"{called()}: integers ({aval}) to the power {x2} {here()}. Write {float(x2)}, or convert to float."
            )
        return ops.integer_pow(x1, n=int(x2))
    if kind is float:
        aval = type_of(x1)
        if not is_inexact(aval.dtype):
            return ops.pow_(x1, x2)
        if x2.is_integer() and -MAX_INTEGER_POWER <= x2 <= MAX_INTEGER_POWER:
            return ops.integer_pow(x1, n=int(x2))
        if x2 == 0.5:
            return sqrt(x1)
    if type(x1) in (float, complex):
        exponent = type_of(x2)
        if exponent.dtype.kind in "iu" and not exponent.weak_type:
            # As in jax.numpy: no weak type comes of an array of integers here.
            x1 = ops.astype(x1, dtype=dtype_of(type(x1)))
    return ops.pow_(x1, x2)


pow = power


def float_power(x1: Any, x2: Any, /) -> Any:
    """`x1 ** x2` as floats, whatever the dtypes."""
    return power(inexact(x1, type_of(x1)), x2)


def divmod(x1: Any, x2: Any, /) -> tuple[Any, Any]:
    """`x1 // x2` and `x1 % x2`."""
    return floor_divide(x1, x2), remainder(x1, x2)


def modf(x: Any, /, out: None = None) -> tuple[Any, Any]:
    """The fractional and the whole part, both with the sign of `x`."""
    refuse(out=out)
    whole = trunc(x)
    # An infinity has fraction 0.
    return copysign(ops.where(isinf(x), 0.0, subtract(x, whole)), x), whole


def ldexp(x1: Any, x2: Any, /) -> Any:
    """`x1 * 2**x2`, for integers `x2`, exactly."""
    x, n = type_of(x1), type_of(x2)
    if n.dtype.kind not in "biu" or x.dtype.kind == "c":
        raise TypeError(f"{called()}: {x} and {n} {here()}. The first is real, the exponents are integers.")
    x1 = inexact(x1, x)
    # In steps, since a power of two may be out of range where the result is not.
    half = right_shift(x2 if n.dtype.kind != "b" else ops.astype(x2, dtype=dtype_of(int)), literal(1))
    for step in (half, subtract(x2, half)):
        x1 = multiply(x1, ops.pow_(literal(2.0), ops.astype(step, dtype=type_of(x1).dtype)))
    return x1


def _real(x: Any) -> Any:
    aval = type_of(x)
    if aval.dtype.kind == "c":
        raise TypeError(f"{called()}: {aval} {here()}. Give real numbers.")
    return inexact(x, aval)


def frexp(x: Any, /) -> tuple[Any, Any]:
    """`x` as `m * 2**e`: `m`, from 0.5 up to 1 in size, and the integer `e`; 0, infinities and NaN have `e` 0."""
    e = ops.exponent(_real(x))
    return ldexp(x, negative(e)), e


def spacing(x: Any, /) -> Any:
    """The distance from `x` to the next number away from 0, with the sign of `x`."""
    x = ops.stop_gradient(_real(x))
    step = subtract(nextafter(x, copysign(literal(math.inf), x)), x)
    info: Any = jnp.finfo(type_of(x).dtype)  # type: ignore[no-untyped-call]
    # A processor that knows no numbers so small takes them for 0.
    return ops.where(equal(step, literal(0)), copysign(literal(float(info.smallest_subnormal)), x), step)


def round(a: Any, decimals: int = 0, out: None = None) -> Any:
    """`a` rounded to this many decimals, halves to the even neighbour. The derivative is 0."""
    refuse(out=out)
    decimals = integer(decimals, "decimals")
    aval = type_of(a)
    if not is_inexact(aval.dtype):
        if decimals < 0:
            scale = 10**-decimals
            return ops.astype(multiply(rint(divide(a, literal(scale))), literal(scale)), dtype=aval.dtype)
        return array_like(a)
    if decimals == 0:
        return rint(a)
    factor = literal(10.0 ** builtins.abs(decimals))
    return divide(rint(multiply(a, factor)), factor) if decimals > 0 else multiply(rint(divide(a, factor)), factor)


around = round


def clip(
    arr: Any, /, min: Any = None, max: Any = None, out: None = None, *, a_min: Any = None, a_max: Any = None
) -> Any:
    """`arr` with values below `min` or above `max` replaced by them; a bound that is `None` is none.

    The derivative is 1 inside, 0 outside, and shared equally at a bound.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.clip(np.array([-2.0, 0.5, 2.0]), -1, 1).tolist()
      [-1.0, 0.5, 1.0]
    """
    if out is not None:
        refuse(out=out)
    low, high = a_min if min is None else min, a_max if max is None else max
    if low is not None:
        arr = maximum(arr, low)
    if high is not None:
        arr = minimum(arr, high)
    return arr if low is not None or high is not None else positive(arr)


# -- logic


def truth(x: Any) -> Any:
    """Whether each element is not 0."""
    return x if type_of(x).dtype == np.bool_ else not_equal(x, literal(0))


def logical_and(x1: Any, x2: Any, /) -> Any:
    """Whether both are not 0."""
    return bitwise_and(truth(x1), truth(x2))


def logical_or(x1: Any, x2: Any, /) -> Any:
    """Whether one of them is not 0."""
    return bitwise_or(truth(x1), truth(x2))


def logical_xor(x1: Any, x2: Any, /) -> Any:
    """Whether exactly one of them is not 0."""
    return bitwise_xor(truth(x1), truth(x2))


def logical_not(x: Any, /) -> Any:
    """Whether it is 0."""
    return bitwise_not(truth(x))


def isclose(a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> Any:
    """Whether `|a - b| <= atol + rtol * |b|`; infinities are close to themselves alone."""
    a, b = inexact(a, type_of(a)), inexact(b, type_of(b))
    near = less_equal(abs(subtract(a, b)), add(multiply(abs(b), rtol), atol))
    out = ops.where(bitwise_and(isfinite(a), isfinite(b)), near, equal(a, b))
    return bitwise_or(out, bitwise_and(isnan(a), isnan(b))) if equal_nan else out


def allclose(a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> Any:
    """Whether all elements are close, as `isclose` has it."""
    close = isclose(a, b, rtol, atol, equal_nan)
    return ops.reduce_all(close, axes=tuple(range(close.ndim)))


array_equal = borrow(jnp.array_equal, "Whether the two have one shape and the same elements.")


def array_equiv(a1: Any, a2: Any) -> Any:
    """Whether the two broadcast together and have the same elements then."""
    a, b = type_of(a1), type_of(a2)
    try:
        shape = np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        return array_like(False)
    return ops.reduce_all(equal(a1, a2), axes=tuple(range(len(shape))))


isposinf = borrow(jnp.isposinf, "Whether it is positive infinity.")

isneginf = borrow(jnp.isneginf, "Whether it is negative infinity.")


def isreal(x: Any) -> Any:
    """Whether its imaginary part is 0."""
    return equal(imag(x), literal(0))


def iscomplex(x: Any) -> Any:
    """Whether its imaginary part is not 0."""
    return not_equal(imag(x), literal(0))


def iscomplexobj(x: Any) -> bool:
    """Whether the dtype is complex."""
    return bool(type_of(x).dtype.kind == "c")


def isrealobj(x: Any) -> bool:
    """Whether the dtype is not complex."""
    return not iscomplexobj(x)


# -- formulas


def sinc(x: Any, /) -> Any:
    """`sin(pi x) / (pi x)`, and its limit 1 at 0; so too for all derivatives, by the series around 0."""
    return ops.sine_over(multiply(x, literal(math.pi)))


heaviside = borrow(jnp.heaviside, "0 below 0, 1 above 0, `x2` at 0.")


def deg2rad(x: Any, /) -> Any:
    """Degrees in radians."""
    return multiply(x, literal(math.pi / 180))


def rad2deg(x: Any, /) -> Any:
    """Radians in degrees."""
    return multiply(x, literal(180 / math.pi))


radians, degrees = deg2rad, rad2deg


def angle(z: Any, deg: bool = False) -> Any:
    """The argument of a complex number, in radians, or degrees with `deg`."""
    phase = arctan2(imag(z), real(z))
    return rad2deg(phase) if deg else phase


def nan_to_num(  # type: ignore[no-redef]
    x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None
) -> Any:
    """`x` with NaN and infinities replaced: by 0 and the largest and smallest finite numbers by default."""
    if not is_inexact(type_of(x).dtype):
        return array_like(x)
    return ops.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)


def real_if_close(a: Any, tol: float = 100) -> Any:
    """The real part, if every imaginary part is smaller than `tol` machine epsilons (`tol` itself, if it is at most 1).

    Raises:
      TracerError: of complex values under `@jit` and in bodies, where they are not known yet.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.real_if_close(np.array([2.1 + 0j, 5.2 + 1e-7j]), tol=1000).dtype.name
      'float32'
    """
    aval = type_of(a)
    if aval.dtype.kind != "c":
        return array_like(a)
    limit = tol * float(np.finfo(aval.dtype).eps) if tol > 1 else tol
    largest = known(ops.less(abs(imag(a)), limit), "Write real(x)")
    return real(a) if largest.all() else array_like(a)


__all__ = [
    "abs", "absolute", "acos", "acosh", "add", "allclose", "angle", "arccos", "arccosh", "arcsin", "arcsinh", "arctan",
    "arctan2", "arctanh", "around", "array_equal", "array_equiv", "asin", "asinh", "atan", "atan2", "atanh",
    "bitwise_and", "bitwise_count", "bitwise_invert", "bitwise_left_shift", "bitwise_not", "bitwise_or",
    "bitwise_right_shift", "bitwise_xor", "cbrt", "ceil", "clip", "conj", "conjugate", "copysign", "cos", "cosh",
    "deg2rad", "degrees", "divide", "divmod", "equal", "exp", "exp2", "expm1", "fabs", "fix", "float_power", "floor",
    "floor_divide", "fmax", "fmin", "fmod", "frexp", "gcd", "greater", "greater_equal", "heaviside", "hypot", "imag",
    "invert", "isclose", "iscomplex", "iscomplexobj", "isfinite", "isinf", "isnan", "isneginf", "isposinf", "isreal",
    "isrealobj", "lcm", "ldexp", "left_shift", "less", "less_equal", "log", "log10", "log1p", "log2", "logaddexp",
    "logaddexp2", "logical_and", "logical_not", "logical_or", "logical_xor", "maximum", "minimum", "mod", "modf",
    "multiply", "nan_to_num", "negative", "nextafter", "not_equal", "packbits", "positive", "pow", "power", "rad2deg",
    "radians", "real", "real_if_close", "reciprocal", "remainder", "right_shift", "rint", "round", "sign", "signbit",
    "sin", "sinc", "sinh", "spacing", "sqrt", "square", "subtract", "tan", "tanh", "true_divide", "trunc", "unpackbits",
]  # fmt: skip
