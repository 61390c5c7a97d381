"""Ops that act element by element. Operands broadcast and promote as in `jax.numpy`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..errors import describe_source
from ..op import Op
from ..recording import state
from ..tape import Aval, make_aval
from ..tracer import Literal

_NUMBERS = (bool, int, float, complex)


def _convert(x: Any, dtype: Any, weak: bool = False) -> Any:
    if isinstance(x, _NUMBERS):
        x = np.asarray(x, dtype)
    if weak:
        return lax.convert_element_type_p.bind(x, new_dtype=np.dtype(dtype), weak_type=True, sharding=None)
    return x if x.dtype == dtype else lax.convert_element_type(x, dtype)


def inexact_dtype(dtype: Any) -> Any:
    """The dtype in which a function of real numbers is taken of values of this one."""
    if jnp.issubdtype(dtype, jnp.inexact):
        return dtype
    return np.dtype(np.float64 if np.dtype(dtype).itemsize == 8 else np.float32)


def _promote(xs: tuple[Any, ...], inexact: bool = False) -> list[Any]:
    """The operands in the dtype that `jax.numpy` would give them."""
    dtype = None
    for x in xs:
        if isinstance(x, _NUMBERS):
            if isinstance(x, bool | complex):
                break
        elif dtype is None:
            dtype = x.dtype
            if not isinstance(dtype, np.dtype) or (
                dtype.kind not in "fc" and (inexact or len(xs) > 1) and not jnp.issubdtype(dtype, jnp.inexact)
            ):
                break
        elif x.dtype != dtype:
            break
    else:
        if dtype is not None:
            if dtype == np.float32 and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
                return [float(x) if isinstance(x, int) else x for x in xs]
            weak = all(isinstance(x, _NUMBERS) or getattr(x, "weak_type", False) for x in xs)
            return [_convert(x, dtype, weak) if isinstance(x, _NUMBERS) else x for x in xs]
    if len(xs) == 1 and not inexact and not isinstance(xs[0], _NUMBERS):
        return list(xs)
    common, weak = jax.dtypes.result_type(*xs, return_weak_type_flag=True)
    if inexact and not jnp.issubdtype(common, jnp.inexact):
        common = inexact_dtype(common)
    if not all(not isinstance(x, _NUMBERS) and x.dtype == common for x in xs):
        xs = tuple(_convert(x, common, weak) for x in xs)
    return list(xs)


def _zero(x: Any) -> Any:
    return lax.full_like(x, 0, shape=()) if getattr(x, "weak_type", False) else np.asarray(0, x.dtype)


def _broadcast(xs: list[Any]) -> list[Any]:
    """The operands with as many axes as each other; scalars and axes of size 1 are left to `jax.lax`."""
    shapes = [x.shape for x in xs if not isinstance(x, _NUMBERS) and x.ndim]
    if len(shapes) < 2 or all(len(s) == len(shapes[0]) for s in shapes):
        return xs
    shape = np.broadcast_shapes(*shapes)
    return [x if isinstance(x, _NUMBERS) or x.ndim in (0, len(shape)) else broadcast_to(x, shape) for x in xs]


def broadcast_to(x: Any, shape: tuple[int, ...]) -> Any:
    return lax.broadcast_in_dim(x, shape, range(len(shape) - x.ndim, len(shape)))


def _strong(x: Any) -> Any:
    """Not weakly typed: for functions of `jax.numpy` whose weak types depend on shapes."""
    return lax.convert_element_type(x, x.dtype)


def broadcast_shapes(*avals: Aval) -> tuple[int, ...]:
    """The shape that operands of these types broadcast to.

    Raises:
      ValueError: if they do not.
    """
    shape = avals[0].shape
    for a in avals[1:]:
        if a.shape != shape:
            try:
                return np.broadcast_shapes(*(b.shape for b in avals))
            except ValueError:
                shapes = " and ".join(str(b.shape) for b in avals)
                raise ValueError(
                    f"the shapes {shapes} do not broadcast together: counted from the right, sizes must be equal or 1. "
                    "Reshape an operand, or add an axis with x[:, None]."
                ) from None
    return shape


def elementwise(
    name: str,
    fn: Callable[..., Any],
    *vjp: Callable[..., Any] | None,
    inexact: bool = False,
    arity: int | None = None,
    poles: bool = False,
) -> Op:
    """An op that applies `fn`, a function over `jax.lax` for operands of one dtype, to each element.

    The dtype of the result is that of `fn` on scalars, so that it is stated nowhere twice. Static parameters, which an
    op of two operands may have, do not change it.
    """
    arity = arity or len(vjp)

    def lower1(x: Any) -> Any:
        return fn(*_promote((x,), inexact))

    def lower2(x: Any, y: Any, **params: Any) -> Any:
        return fn(*_broadcast(_promote((x, y), inexact)), **params)

    def lower3(x: Any, y: Any, z: Any) -> Any:
        return fn(*_broadcast(_promote((x, y, z), inexact)))

    lower = (lower1, lower2, lower3)[arity - 1]
    scalar: dict[Any, tuple[Any, bool]] = {}

    def shape(*avals: Aval, **params: Any) -> Aval:
        key = (jax.config.jax_enable_x64, *[(a.dtype, a.weak_type) for a in avals])  # type: ignore[attr-defined]
        known = scalar.get(key)
        if known is None:
            structs = [jax.ShapeDtypeStruct((), a.dtype, weak_type=a.weak_type) for a in avals]
            out = jax.eval_shape(lambda *xs: lower(*xs, **params), *structs)
            known = scalar[key] = (out.dtype, out.weak_type)
        return make_aval(avals[0].shape if len(avals) == 1 else broadcast_shapes(*avals), *known)

    return Op(name, lower, vjp if any(vjp) else None, shape=shape, numbers=True, poles=poles)


# A gradient is never NaN because of a path that was not taken: where the incoming cotangent is 0, so is
# the product, whatever the other factor.


def _where_nonzero(ct: Any, value: Any) -> Any:
    if isinstance(ct, _NUMBERS):
        return value if ct != 0 else lax.full_like(value, 0)
    taken = lax.ne(ct, np.asarray(0, ct.dtype))
    if ct.shape == value.shape and ct.dtype == value.dtype:
        return _strong(
            lax.select_n(taken, ct, value)
        )  # where it is not taken, the cotangent is the zero that is wanted
    zero = lax.broadcast(np.asarray(0, value.dtype), value.shape)
    return lax.select_n(broadcast_to(taken, value.shape), zero, value)


mul_no_nan_op: Op = elementwise(
    "mul_no_nan",
    lambda c, d: _where_nonzero(c, lax.mul(c, d)),
    lambda ct, out, c, d: mul_no_nan(_unbounded(ct), d),
    lambda ct, out, c, d: mul_no_nan(c, ct),
)
div_no_nan_op: Op = elementwise(
    "div_no_nan",
    lambda c, d: _where_nonzero(c, lax.div(c, d)),
    lambda ct, out, c, d: div_no_nan(_unbounded(ct), d),
    lambda ct, out, c, d: neg(_either(ct, div_no_nan(out, d))),
)


def mul_no_nan(ct: Any, d: Any) -> Any:
    """`ct * d`, but 0 where `ct` is 0 even if `d` is infinite or NaN."""
    return mul_no_nan_op(ct, d) if state.no_nan else mul(ct, d)


def div_no_nan(ct: Any, d: Any) -> Any:
    """`ct / d`, but 0 where `ct` is 0 even if `d` is 0 or NaN."""
    if not state.no_nan or (type(d) is Literal and d.value != 0):
        return div(ct, d)
    return div_no_nan_op(ct, d)


def _product(ct: Any, d: Any) -> Any:
    """`ct * d`, safe where `d` may be infinite because of what computed it."""
    return mul_no_nan(ct, d) if d.tape is not None and d in d.tape.poles else mul(ct, d)


# The derivative of a derivative: of `c * d` in the cotangent `c` it is `d`, infinite even where `c` is 0. What it meets
# next on its way is what made `c`: products whose first factor is a cotangent, 0 too where the path was not taken.


def _unbounded(ct: Any) -> Any:
    """`ct`, noting on the tape that from here on cotangents of cotangents may be infinite."""
    if state.tape is not None:
        state.tape.unbounded = True
    return ct


def _other_factor(ct: Any, c: Any) -> Any:
    """The cotangent `c * ct` of the second factor of a product whose first is `c`, itself a cotangent or not."""
    tape = state.tape
    if tape is not None and tape.unbounded and tape.blame is not None and tape.blame.grad:
        return _either(ct, c) if c in tape.poles else mul_no_nan(c, ct)
    return _product(ct, c)


def _either(ct: Any, d: Any) -> Any:
    """`ct * d`, 0 where `ct` is, and where `d` is and `ct` may be infinite."""
    if state.no_nan and state.tape is not None and state.tape.unbounded:
        return mul_either_op(ct, d)
    return mul_no_nan(ct, d)


mul_either_op: Op = elementwise(
    "mul_either",
    lambda c, d: _where_nonzero(c, _where_nonzero(d, lax.mul(c, d))),
    lambda ct, out, c, d: mul_either_op(ct, d),
    lambda ct, out, c, d: mul_either_op(ct, c),
)
"""`c * d`, 0 where either is."""


# -- arithmetic

add: Op = elementwise(
    "add",
    lambda x, y: lax.bitwise_or(x, y) if _bool(x) else lax.add(x, y),
    lambda ct, out, x, y: ct,
    lambda ct, out, x, y: ct,
)
sub: Op = elementwise("sub", lax.sub, lambda ct, out, x, y: ct, lambda ct, out, x, y: neg(ct))
mul: Op = elementwise(
    "mul",
    lambda x, y: lax.bitwise_and(x, y) if _bool(x) else lax.mul(x, y),
    lambda ct, out, x, y: _product(ct, y),
    lambda ct, out, x, y: _other_factor(ct, x),
)
div: Op = elementwise(
    "div",
    lax.div,
    lambda ct, out, x, y: div_no_nan(ct, y),
    lambda ct, out, x, y: neg(mul_no_nan(ct, div(out, y))),
    inexact=True,
    poles=True,
)
neg: Op = elementwise("neg", lax.neg, lambda ct, out, x: neg(ct))


def _signed_zeros(out: Any, like: Any) -> Any:
    """`out`, whose zeros have the sign of `like`, as the array API standard has it."""
    return jnp.where(out == _zero(out), jnp.copysign(_zero(out), like), out)


def _has_sign(x: Any) -> bool:
    """Whether `jax.numpy` reads the sign of a zero of this dtype: not of floats of 8 bits."""
    return jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize > 1


def _floor_divide(x: Any, y: Any) -> Any:
    out = jnp.floor_divide(x, y)
    if not _has_sign(out):
        return out
    # Python pairs the quotient with the remainder, which makes NaN of inf // 2 and -1 of 1 // -inf. The array API
    # standard prefers the floor of the quotient.
    quotient = lax.div(*jnp.broadcast_arrays(x, y))
    return _signed_zeros(jnp.where(jnp.isinf(x) | jnp.isinf(y), quotient, out), quotient)


def _remainder(x: Any, y: Any) -> Any:
    out = jnp.remainder(x, y)
    return _signed_zeros(out, y) if _has_sign(out) else out


floor_divide: Op = elementwise("floor_divide", _floor_divide, arity=2)
trunc_divide: Op = elementwise("trunc_divide", lax.div, arity=2)
remainder: Op = elementwise(
    "remainder", _remainder, lambda ct, out, x, y: ct, lambda ct, out, x, y: neg(mul(ct, floor_divide(x, y)))
)
fmod: Op = elementwise("fmod", jnp.fmod, lambda ct, out, x, y: ct, lambda ct, out, x, y: neg(mul(ct, trunc(div(x, y)))))


def _bool(x: Any) -> bool:
    return isinstance(x, bool) or (not isinstance(x, _NUMBERS) and x.dtype == np.bool_)


def _pow_x(ct: Any, out: Any, x: Any, y: Any) -> Any:
    return mul_no_nan(ct, _times_power(x, y, 0))


def _times_power(x: Any, y: Any, n: int) -> Any:
    """`y * x**(y - 1) * log(x)**n`: where `y` is 0, so is the product, though the power has a pole at 0."""
    power = power_log(x, sub(y, 1.0), n=n)
    return mul(y, power) if type(y) is Literal and y.value != 0 else mul_no_nan_op(y, power)


def _pow(x: Any, y: Any) -> Any:
    dtype = y.dtype if isinstance(x, _NUMBERS) else x.dtype
    return lax.pow(*_same(x, y)) if jnp.issubdtype(dtype, jnp.inexact) else jnp.power(x, y)


pow_: Op = elementwise(
    "pow", _pow, _pow_x, lambda ct, out, x, y: mul_no_nan(ct, power_log(x, y, n=1, jump=True)), poles=True
)


def _same(x: Any, y: Any) -> tuple[Any, Any]:
    dtype = y.dtype if isinstance(x, _NUMBERS) else x.dtype
    return _convert(x, dtype), _convert(y, dtype)


def _power_log(x: Any, y: Any, *, n: int, jump: bool = False) -> Any:
    x, y = _same(x, y)
    power = lax.pow(x, y)
    if not n:
        return power
    # A power that is 0 outweighs any power of a logarithm.
    flat = lax.eq(power, lax.full_like(power, 0))
    if jump:
        flat = lax.bitwise_or(flat, lax.bitwise_and(*(lax.eq(v, _zero(v)) for v in (x, y))))
    out = lax.mul(power, lax.integer_pow(lax.log(x), n))
    return lax.select(flat, lax.full_like(out, 0), out)


def _power_log_x(ct: Any, out: Any, x: Any, y: Any, *, n: int, jump: bool = False) -> Any:
    total = _times_power(x, y, n)
    if n:
        total = add(total, mul(power_log(x, sub(y, 1.0), n=n - 1), float(n)))
    return mul_no_nan(ct, total)


power_log: Op = elementwise(
    "power_log",
    _power_log,
    _power_log_x,
    lambda ct, out, x, y, *, n, jump=False: mul_no_nan(ct, power_log(x, y, n=n + 1, jump=jump)),
    inexact=True,
    poles=True,
)
"""`x**y * log(x)**n`, and its limit where x is 0: the derivatives of a power are made of these.

With `jump` it is 0 where both are 0: that is where `0**y` jumps, and its derivative is taken as 0.
"""


def _integer_pow_vjp(ct: Any, out: Any, x: Any, *, n: int) -> Any:
    if n == 0:
        return mul(ct, 0.0)
    if n == 1:
        return ct
    if n == 2:
        return mul(ct, mul(x, 2.0))
    factor = mul(integer_pow(x, n=n - 1), float(n))
    return mul_no_nan(ct, factor) if n < 1 else mul(ct, factor)


integer_pow: Op = Op(
    "integer_pow",
    lambda x, *, n: lax.integer_pow(x, n) if n != 2 else lax.mul(x, x),
    (_integer_pow_vjp,),
    shape=lambda x, *, n: x,
)

square: Op = elementwise(
    "square",
    lambda x: lax.mul(x, x) if not _bool(x) else lax.convert_element_type(x, int),
    lambda ct, out, x: mul(ct, mul(x, 2.0)),
)
sqrt: Op = elementwise("sqrt", lax.sqrt, lambda ct, out, x: mul_no_nan(ct, div(0.5, out)), inexact=True, poles=True)
rsqrt: Op = elementwise(
    "rsqrt", lax.rsqrt, lambda ct, out, x: mul_no_nan(ct, mul(div(out, x), -0.5)), inexact=True, poles=True
)
cbrt: Op = elementwise("cbrt", lax.cbrt, lambda ct, out, x: mul_no_nan(ct, div(1 / 3, mul(out, out))), inexact=True)
reciprocal: Op = elementwise(
    "reciprocal",
    lambda x: lax.integer_pow(x, -1),
    lambda ct, out, x: neg(mul_no_nan(ct, div(out, x))),
    inexact=True,
    poles=True,
)

# -- exponentials and logarithms

exp: Op = elementwise("exp", lax.exp, lambda ct, out, x: mul(ct, out), inexact=True)
exp2: Op = elementwise("exp2", lax.exp2, lambda ct, out, x: mul(ct, mul(out, math.log(2))), inexact=True)
expm1: Op = elementwise("expm1", lax.expm1, lambda ct, out, x: mul(ct, add(out, 1.0)), inexact=True)


def _share(out: Any, x: Any, y: Any) -> Any:
    """`exp(x) / exp(out)` with `out = log(exp(x) + exp(y))`."""
    if type(y) is Literal and y.value == 0:
        return _logistic_of(out)
    return logistic(difference(x, y))


def _logistic_of(out: Any) -> Any:
    """`logistic(x)` from `out = softplus(x)`, as 1 - exp(-out).

    A loss is then done with before its gradient begins, and what went into it is let go of.
    """
    return neg(expm1(neg(out)))


log: Op = elementwise("log", lax.log, lambda ct, out, x: div_no_nan(ct, x), inexact=True, poles=True)
log2: Op = elementwise(
    "log2", jnp.log2, lambda ct, out, x: div_no_nan(ct, mul(x, math.log(2))), inexact=True, poles=True
)
log10: Op = elementwise(
    "log10", jnp.log10, lambda ct, out, x: div_no_nan(ct, mul(x, math.log(10))), inexact=True, poles=True
)
log1p: Op = elementwise("log1p", lax.log1p, lambda ct, out, x: div_no_nan(ct, add(x, 1.0)), inexact=True, poles=True)
logaddexp: Op = elementwise(
    "logaddexp",
    jnp.logaddexp,
    lambda ct, out, x, y: mul_no_nan(ct, _share(out, x, y)),
    lambda ct, out, x, y: mul_no_nan(ct, _share(out, y, x)),
    inexact=True,
)
logaddexp2: Op = elementwise(
    "logaddexp2",
    lambda x, y: _strong(jnp.logaddexp2(x, y)),
    lambda ct, out, x, y: mul_no_nan(ct, logistic(mul(difference(x, y), math.log(2)))),
    lambda ct, out, x, y: mul_no_nan(ct, logistic(mul(difference(y, x), math.log(2)))),
    inexact=True,
)


def _difference(x: Any, y: Any) -> Any:
    out = lax.sub(x, y)
    same = lax.eq(x, y)
    return lax.select(same, lax.full_like(out, 0), out)


difference: Op = elementwise("difference", _difference, lambda ct, out, x, y: ct, lambda ct, out, x, y: neg(ct))
"""`x - y`, 0 where the two are the same infinity."""


# -- trigonometric and hyperbolic

sin: Op = elementwise("sin", lax.sin, lambda ct, out, x: mul(ct, cos(x)), inexact=True)
cos: Op = elementwise("cos", lax.cos, lambda ct, out, x: neg(mul(ct, sin(x))), inexact=True)
tan: Op = elementwise("tan", lax.tan, lambda ct, out, x: mul(ct, add(mul(out, out), 1.0)), inexact=True)
one_minus_square: Op = elementwise(
    "one_minus_square",
    lambda x: lax.mul(lax.sub(lax.full_like(x, 1), x), lax.add(lax.full_like(x, 1), x)),
    lambda ct, out, x: mul(ct, mul(x, -2.0)),
    inexact=True,
)
"""`1 - x * x`, precise where x is near 1."""
arcsin: Op = elementwise(
    "arcsin",
    lax.asin,
    lambda ct, out, x: mul_no_nan(ct, rsqrt(one_minus_square(x))),
    inexact=True,
    poles=True,
)
arccos: Op = elementwise(
    "arccos",
    lax.acos,
    lambda ct, out, x: neg(mul_no_nan(ct, rsqrt(one_minus_square(x)))),
    inexact=True,
    poles=True,
)
arctan: Op = elementwise("arctan", lax.atan, lambda ct, out, x: div(ct, add(mul(x, x), 1.0)), inexact=True)
arctan2: Op = elementwise(
    "arctan2",
    lax.atan2,
    lambda ct, out, y, x: mul(ct, _over_square_norm(x, x, y)),
    lambda ct, out, y, x: neg(mul(ct, _over_square_norm(y, x, y))),
    inexact=True,
)
sinh: Op = elementwise("sinh", lax.sinh, lambda ct, out, x: mul(ct, cosh(x)), inexact=True)
cosh: Op = elementwise("cosh", lax.cosh, lambda ct, out, x: mul(ct, sinh(x)), inexact=True)
tanh: Op = elementwise("tanh", lax.tanh, lambda ct, out, x: mul(ct, sub(1.0, mul(out, out))), inexact=True)
arcsinh: Op = elementwise("arcsinh", lax.asinh, lambda ct, out, x: mul(ct, rsqrt(add(mul(x, x), 1.0))), inexact=True)
arccosh: Op = elementwise(
    "arccosh",
    lax.acosh,
    lambda ct, out, x: mul_no_nan(mul_no_nan(ct, rsqrt(sub(x, 1.0))), rsqrt(add(x, 1.0))),
    inexact=True,
    poles=True,
)
arctanh: Op = elementwise(
    "arctanh", lax.atanh, lambda ct, out, x: div_no_nan(ct, one_minus_square(x)), inexact=True, poles=True
)
hypot: Op = elementwise(
    "hypot",
    lambda x, y: _strong(jnp.hypot(x, y)),
    lambda ct, out, x, y: mul(ct, _over_norm(x, out)),
    lambda ct, out, x, y: mul(ct, _over_norm(y, out)),
    inexact=True,
)


def _over_square_norm(v: Any, x: Any, y: Any) -> Any:
    """`v / (x**2 + y**2)`, 0 at the origin."""
    return _over_norm(v, add(mul(x, x), mul(y, y)))


def _over_norm(v: Any, norm: Any) -> Any:
    """`v / norm`, 0 with all its derivatives where the norm is 0."""
    zero = equal(norm, 0)
    return div(where(zero, 0.0, v), where(zero, 1.0, norm))


# -- special functions and activations that are one op because their derivative is known in closed form

logistic: Op = elementwise("logistic", lax.logistic, lambda ct, out, x: mul(ct, mul(out, sub(1.0, out))), inexact=True)
softplus: Op = elementwise(
    "softplus",
    lambda x: lax.add(lax.max(x, _zero(x)), lax.log1p(lax.exp(lax.neg(lax.abs(x))))),
    lambda ct, out, x: mul(ct, _logistic_of(out)),
    inexact=True,
)
erf: Op = elementwise(
    "erf", lax.erf, lambda ct, out, x: mul(ct, mul(exp(neg(mul(x, x))), 2 / math.sqrt(math.pi))), inexact=True
)
erfc: Op = elementwise(
    "erfc", lax.erfc, lambda ct, out, x: mul(ct, mul(exp(neg(mul(x, x))), -2 / math.sqrt(math.pi))), inexact=True
)
erf_inv: Op = elementwise(
    "erf_inv",
    lax.erf_inv,
    lambda ct, out, x: div_no_nan(mul(ct, math.sqrt(math.pi) / 2), exp(neg(mul(out, out)))),
    inexact=True,
    poles=True,
)


def no_rule(name: str, argument: str) -> Callable[..., Any]:
    """The rule of an operand in which there is no derivative in closed form: it says so, with the user's line."""

    def rule(ct: Any, out: Any, *operands: Any, **params: Any) -> Any:
        blame = state.tape.blame if state.tape is not None else None
        raise NotImplementedError(
            f"{name} at {describe_source(blame.source if blame is not None else None)}: it has no derivative in "
            f"{argument} in closed form, and none is implemented. Hold {argument} constant with "
            "tracegrad.stop_gradient, or make an op with tracegrad.Op that knows the derivative."
        )

    return rule


def _digamma(x: Any) -> Any:
    # At a zero, the pole's side is that of its sign.
    pole = lax.div(lax.full_like(x, -1), x)
    return lax.select(lax.eq(x, lax.full_like(x, 0)), pole, lax.digamma(x))


digamma: Op = elementwise(
    "digamma", _digamma, lambda ct, out, x: mul_no_nan(ct, polygamma(1.0, x)), inexact=True, poles=True
)
polygamma: Op = elementwise(
    "polygamma",
    lax.polygamma,
    no_rule("polygamma", "n"),
    lambda ct, out, m, x: mul_no_nan(ct, polygamma(add(m, 1.0), x)),
    inexact=True,
)
lgamma: Op = elementwise("lgamma", lax.lgamma, lambda ct, out, x: mul_no_nan(ct, digamma(x)), inexact=True, poles=True)
relu: Op = elementwise(
    "relu",
    lambda x: lax.max(x, _zero(x)),
    lambda ct, out, x: _where_zero(greater(out, 0), ct),
)

# -- sign, rounding, complex parts


def _abs_vjp(ct: Any, out: Any, x: Any) -> Any:
    if np.issubdtype(x.dtype, np.complexfloating):
        return mul(ct, conj(sign(x)))
    return mul(ct, sign(x))


abs_: Op = elementwise("abs", lambda x: x if x.dtype == np.bool_ or x.dtype.kind == "u" else lax.abs(x), _abs_vjp)
sign: Op = elementwise(
    "sign",
    lambda x: jnp.where(x == _zero(x), _zero(x), lax.sign(x)) if _has_sign(x) else lax.sign(x),
    lambda ct, out, x: _sign_vjp(ct, out, x),
)
"""Of a zero of either sign it is +0."""
floor: Op = elementwise("floor", jnp.floor, arity=1)
ceil: Op = elementwise("ceil", jnp.ceil, arity=1)
trunc: Op = elementwise("trunc", jnp.trunc, arity=1)
rint: Op = elementwise("rint", jnp.rint, arity=1)
round_away: Op = elementwise("round_away", lax.round, arity=1)
conj: Op = elementwise("conj", lambda x: lax.conj(x) if x.dtype.kind == "c" else x, lambda ct, out, x: conj(ct))
real: Op = elementwise("real", lambda x: lax.real(x) if x.dtype.kind == "c" else x, lambda ct, out, x: ct)
imag: Op = elementwise(
    "imag",
    lambda x: lax.imag(x) if x.dtype.kind == "c" else lax.full_like(x, 0),
    lambda ct, out, x: mul(ct, -1j) if np.issubdtype(x.dtype, np.complexfloating) else mul(ct, 0.0),
)
complex_: Op = elementwise(
    "complex", lax.complex, lambda ct, out, x, y: real(ct), lambda ct, out, x, y: neg(imag(ct)), inexact=True
)
copysign: Op = elementwise(
    "copysign", jnp.copysign, lambda ct, out, x, y: mul(ct, _signs_agree(x, y)), None, inexact=True
)
nextafter: Op = elementwise("nextafter", lambda x, y: lax.nextafter(x, y), arity=2, inexact=True)
exponent: Op = elementwise("exponent", lambda x: jnp.frexp(x)[1], arity=1, inexact=True)
"""The integer `e` for which `x / 2**e` is from 0.5 up to 1, and 0 for 0, infinities and NaN."""
nan_to_num: Op = Op(
    "nan_to_num",
    lambda x, *, nan, posinf, neginf: jnp.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf),
    (lambda ct, out, x, **params: _where_zero(isfinite(x), ct),),
    shape=lambda x, **params: make_aval(x.shape, x.dtype, x.weak_type and x.dtype.kind not in "fc"),
)


def _sign_vjp(ct: Any, out: Any, x: Any) -> Any:
    if not np.issubdtype(x.dtype, np.complexfloating):
        return mul(ct, 0.0)
    # sign(z) = z / |z|, with |z| real: differentiate the quotient.
    size = abs_(x)
    zero = equal(size, 0)
    ct, size = where(zero, 0.0, ct), where(zero, 1.0, size)
    return sub(div(ct, size), mul(conj(out), real(div(mul(ct, out), size))))


def _signs_agree(x: Any, y: Any) -> Any:
    return mul(sign(x), copysign(1.0, y))


# -- comparison and logic

equal: Op = elementwise("equal", lax.eq, arity=2)
not_equal: Op = elementwise("not_equal", lax.ne, arity=2)
less: Op = elementwise("less", lambda x, y: _lexicographic(lax.lt, x, y), arity=2)
less_equal: Op = elementwise("less_equal", lambda x, y: _lexicographic(lax.le, x, y), arity=2)
greater: Op = elementwise("greater", lambda x, y: _lexicographic(lax.gt, x, y), arity=2)
greater_equal: Op = elementwise("greater_equal", lambda x, y: _lexicographic(lax.ge, x, y), arity=2)
bitwise_and: Op = elementwise("bitwise_and", lax.bitwise_and, arity=2)
bitwise_or: Op = elementwise("bitwise_or", lax.bitwise_or, arity=2)
bitwise_xor: Op = elementwise("bitwise_xor", lax.bitwise_xor, arity=2)
bitwise_not: Op = elementwise("bitwise_not", lax.bitwise_not, arity=1)
left_shift: Op = elementwise("left_shift", lax.shift_left, arity=2)
right_shift: Op = elementwise("right_shift", jnp.right_shift, arity=2)
shift_right_arithmetic: Op = elementwise("shift_right_arithmetic", lax.shift_right_arithmetic, arity=2)
shift_right_logical: Op = elementwise("shift_right_logical", lax.shift_right_logical, arity=2)
population_count: Op = elementwise("population_count", lax.population_count, arity=1)
clz: Op = elementwise("clz", lax.clz, arity=1)
gcd: Op = elementwise("gcd", lambda x, y: _strong(jnp.gcd(x, y)), arity=2)
lcm: Op = elementwise("lcm", lambda x, y: _strong(jnp.lcm(x, y)), arity=2)
isfinite: Op = elementwise("isfinite", jnp.isfinite, arity=1)
isnan: Op = elementwise("isnan", jnp.isnan, arity=1)
isinf: Op = elementwise("isinf", jnp.isinf, arity=1)
signbit: Op = elementwise("signbit", jnp.signbit, arity=1)


def _lexicographic(compare: Callable[..., Any], x: Any, y: Any) -> Any:
    """NumPy's order: complex numbers by real part, then by imaginary part."""
    z = y if isinstance(x, _NUMBERS) else x
    if isinstance(z, _NUMBERS) or z.dtype.kind != "c":
        return compare(x, y)
    x, y = _convert(x, z.dtype), _convert(y, z.dtype)
    same = lax.eq(lax.real(x), lax.real(y))
    return jnp.where(same, compare(lax.imag(x), lax.imag(y)), compare(lax.real(x), lax.real(y)))


# -- selection


def _where(p: Any, x: Any, y: Any) -> Any:
    shape = np.broadcast_shapes(*(() if isinstance(v, _NUMBERS) else v.shape for v in (p, x, y)))
    x, y = _promote((x, y))
    if isinstance(x, _NUMBERS):
        x = _convert(x, y.dtype, getattr(y, "weak_type", False))
    elif isinstance(y, _NUMBERS):
        y = _convert(y, x.dtype, getattr(x, "weak_type", False))
    p = np.asarray(p, np.bool_) if isinstance(p, _NUMBERS) else p
    p = p if p.dtype == np.bool_ else lax.ne(p, np.asarray(0, p.dtype))
    if p.shape != shape and p.ndim:
        p = broadcast_to(p, shape)
    return lax.select_n(p, *(v if v.shape == shape else broadcast_to(v, shape) for v in (y, x)))


def _where_zero(p: Any, x: Any) -> Any:
    return where(p, x, 0)


_where_avals: dict[Any, Any] = {}


def _where_shape(p: Aval, x: Aval, y: Aval) -> Aval:
    key = (jax.config.jax_enable_x64, x.dtype, x.weak_type, y.dtype, y.weak_type)  # type: ignore[attr-defined]
    known = _where_avals.get(key)
    if known is None:
        structs = [jax.ShapeDtypeStruct((), a.dtype, weak_type=a.weak_type) for a in (x, y)]
        out = jax.eval_shape(lambda x, y: _where(True, x, y), *structs)
        known = _where_avals[key] = (out.dtype, out.weak_type)
    return make_aval(broadcast_shapes(p, x, y), *known)


where: Op = Op(
    "where",
    _where,
    (None, lambda ct, out, p, x, y: _where_zero(p, ct), lambda ct, out, p, x, y: where(p, 0, ct)),
    shape=_where_shape,
    numbers=True,
)


def _tie(ct: Any, out: Any, x: Any, y: Any) -> Any:
    """The share of `x` in max(x, y) or min(x, y): all, none, or half of it at a tie."""
    return mul(ct, where(equal(x, y), 0.5, where(equal(x, out), 1.0, 0.0)))


maximum: Op = elementwise("maximum", lax.max, _tie, lambda ct, out, x, y: _tie(ct, out, y, x))
minimum: Op = elementwise("minimum", lax.min, _tie, lambda ct, out, x, y: _tie(ct, out, y, x))
fmax: Op = elementwise("fmax", jnp.fmax, _tie, lambda ct, out, x, y: _tie(ct, out, y, x))
fmin: Op = elementwise("fmin", jnp.fmin, _tie, lambda ct, out, x, y: _tie(ct, out, y, x))

# -- dtype, and what changes no value


def _astype(x: Any, *, dtype: Any) -> Any:
    if jnp.issubdtype(x.dtype, jnp.complexfloating) and not jnp.issubdtype(dtype, jnp.complexfloating):
        x = lax.ne(x, np.asarray(0, x.dtype)) if dtype == np.bool_ else lax.real(x)
    return lax.convert_element_type(x, dtype)


astype: Op = Op(
    "astype",
    _astype,
    (lambda ct, out, x, *, dtype: ct,),
    shape=lambda x, *, dtype: make_aval(x.shape, jax.dtypes.canonicalize_dtype(dtype)),
)
reduce_precision: Op = Op(
    "reduce_precision",
    lambda x, *, exponent_bits, mantissa_bits: lax.reduce_precision(x, exponent_bits, mantissa_bits),
    (lambda ct, out, x, **bits: reduce_precision(ct, **bits),),
)
alias: Op = Op("alias", lambda x: x, (lambda ct, out, x: ct,), shape=lambda x: x)
stop_gradient: Op = Op("stop_gradient", lambda x: x, None, shape=lambda x: x)
