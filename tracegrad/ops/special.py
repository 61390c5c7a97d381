"""Special functions whose value or derivative is better as one op than composed of others.

The derivatives are those of the NIST Digital Library of Mathematical Functions (DLMF, https://dlmf.nist.gov); each
rule names its equation there. Half-precision operands are computed in float32.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy import special as jsp

from ..op import Op
from ..tape import Node
from .elementwise import (
    _broadcast,
    _promote,
    add,
    bitwise_and,
    broadcast_to,
    cos,
    digamma,
    div,
    div_no_nan,
    elementwise,
    equal,
    erf,
    exp,
    less,
    less_equal,
    lgamma,
    log,
    log1p,
    maximum,
    mul,
    mul_no_nan,
    mul_no_nan_op,
    neg,
    no_rule,
    power_log,
    sin,
    sub,
    where,
)

_HALF = (np.dtype(np.float16), np.dtype(jnp.bfloat16))


def on_arrays(fn: Callable[..., Any], takes_complex: bool = False) -> Callable[..., Any]:
    """`fn`, given arrays of one shape and of a dtype that JAX's special functions take."""

    def call(*xs: Any) -> Any:
        dtype = next(x.dtype for x in xs if hasattr(x, "dtype"))
        if dtype.kind == "c" and not takes_complex:
            raise TypeError(f"it takes real numbers, not {dtype}: take .real or .imag first")
        work = np.dtype(np.float32) if dtype in _HALF else dtype
        xs = tuple(x if getattr(x, "dtype", None) == work else lax.convert_element_type(x, work) for x in xs)
        shape = np.broadcast_shapes(*[x.shape for x in xs])
        out = fn(*[x if x.shape == shape else broadcast_to(x, shape) for x in xs])
        return out if work == dtype else jax.tree.map(lambda out: lax.convert_element_type(out, dtype), out)

    return call


def special_op(
    name: str, fn: Callable[..., Any], *vjp: Callable[..., Any] | None, arity: int | None = None, poles: bool = False
) -> Op:
    """An elementwise op over `fn`, a function of real arrays of one shape."""
    return elementwise(name, on_arrays(fn), *vjp, inexact=True, arity=arity, poles=poles)


def _jsp(name: str) -> Callable[..., Any]:
    """The value of a function of `jax.scipy.special`, found when it is called: some are not in every version."""

    def call(*xs: Any) -> Any:
        if not hasattr(jsp, name):
            raise NotImplementedError(f"this version of jax has no {name}: install a newer one")
        return jax.tree.map(lambda out: lax.convert_element_type(out, xs[0].dtype), getattr(jsp, name)(*xs))

    return call


# -- products with logarithms

xlogy: Op = elementwise(
    "xlogy",
    lambda x, y: _x_times(x, lax.log, y),
    lambda ct, out, x, y: mul_no_nan(ct, log(y)),
    lambda ct, out, x, y: div_no_nan(mul(ct, x), y),
    inexact=True,
)
xlog1py: Op = elementwise(
    "xlog1py",
    lambda x, y: _x_times(x, lax.log1p, y),
    lambda ct, out, x, y: mul_no_nan(ct, log1p(y)),
    lambda ct, out, x, y: div_no_nan(mul(ct, x), add(y, 1.0)),
    inexact=True,
)
logit: Op = special_op(
    "logit",
    lambda x: lax.log(lax.div(x, lax.sub(lax.full_like(x, 1), x))),
    lambda ct, out, x: div_no_nan(ct, mul(x, sub(1.0, x))),
)


def _x_times(x: Any, fn: Callable[..., Any], y: Any) -> Any:
    """`x * fn(y)`, 0 where `x` is 0, unless `y` is NaN."""
    dtype = y.dtype if not hasattr(x, "dtype") else x.dtype
    x, y = (np.asarray(v, dtype) if not hasattr(v, "dtype") else v for v in (x, y))
    zero = lax.bitwise_and(lax.eq(x, np.zeros((), dtype)), lax.eq(y, y))
    out = lax.mul(x, fn(y))
    return lax.select(broadcast_to(zero, out.shape), lax.full_like(out, 0), out)


def _series(x: Any, coefficients: Sequence[float]) -> Any:
    """The sum of `coefficients[k] * x**k`."""
    total: Any = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        total = add(mul(total, x), c)
    return total


def _expm1_over(x: Any, y: Any) -> Any:
    zero = lax.eq(y, lax.full_like(y, 0))
    return lax.select(zero, x, lax.div(lax.expm1(lax.mul(x, y)), lax.select(zero, lax.full_like(y, 1), y)))


def _boxcox_order(ct: Any, out: Any, log_x: Any, base: Any, y: Any) -> Any:
    # (base**y log(base) - out) / y, which cancels where y log(base) is small: there by its series.
    u = mul(log_x, y)
    near = less(mul(u, u), 0.01)
    small = where(near, log_x, 0.0)
    series = _series(where(near, u, 0.0), [1 / (math.factorial(k) * (k + 2)) for k in range(11)])
    rest = div(sub(power_log(base, y, n=1), out), where(near, 1.0, y))
    return mul_no_nan(ct, where(near, mul(mul(small, small), series), rest))


boxcox: Op = special_op(
    "boxcox",
    lambda x, y: _expm1_over(lax.log(x), y),
    lambda ct, out, x, y: mul_no_nan(ct, power_log(x, sub(y, 1.0), n=0)),
    lambda ct, out, x, y: _boxcox_order(ct, out, log(x), x, y),
)
"""`(x**y - 1) / y`, and its limit log(x) where y is 0: the transform of Box and Cox (1964)."""

boxcox1p: Op = special_op(
    "boxcox1p",
    lambda x, y: _expm1_over(lax.log1p(x), y),
    lambda ct, out, x, y: mul_no_nan(ct, power_log(add(x, 1.0), sub(y, 1.0), n=0)),
    lambda ct, out, x, y: _boxcox_order(ct, out, log1p(x), add(x, 1.0), y),
)
"""`boxcox(1 + x, y)`, precise for small `x`."""


# -- relative entropy


def _rel_entr(p: Any, q: Any) -> Any:
    inside = (p > 0) & (q > 0)
    one = lax.full_like(p, 1)
    value = jnp.where(inside, p, one) * jnp.log(jnp.where(inside, p, one) / jnp.where(inside, q, one))
    outside = jnp.where(jnp.isnan(p) | jnp.isnan(q), math.nan, jnp.where((p == 0) & (q >= 0), 0.0, math.inf))
    return jnp.where(inside, value, outside.astype(p.dtype))


def _in_domain(p: Any, q: Any) -> Any:
    """Where the relative entropy has a derivative: not where it is infinite, nor where both are 0."""
    return bitwise_and(less_equal(0, p), less(0, q))


def _rel_entr_q(ct: Any, out: Any, p: Any, q: Any) -> Any:
    inside = _in_domain(p, q)
    return neg(div(mul(where(inside, ct, 0.0), p), where(inside, q, 1.0)))


rel_entr: Op = special_op(
    "rel_entr",
    _rel_entr,
    lambda ct, out, p, q: mul_no_nan(where(_in_domain(p, q), ct, 0.0), add(sub(log(p), log(q)), 1.0)),
    _rel_entr_q,
)
"""`p log(p / q)`; 0 where `p` is 0 and `q` is not negative, else inf where one is not positive."""


# -- the error function and the normal distribution (DLMF 7.2, 7.10)


def _erfcx(x: Any) -> Any:
    # DLMF 7.9.1: at 5 the continued fraction is exact to rounding in 12 steps, and below it exp(x**2) is no larger
    # than erfc(x) is small.
    far = lax.gt(x, lax.full_like(x, 5))
    z = lax.select(far, x, lax.full_like(x, 5))
    fraction = z
    for k in range(12, 0, -1):
        fraction = lax.add(z, lax.div(lax.full_like(z, k / 2), fraction))
    near = lax.mul(lax.exp(lax.mul(x, x)), lax.erfc(x))
    return lax.select(far, lax.div(lax.full_like(z, 1 / math.sqrt(math.pi)), fraction), near)


erfcx: Op = special_op("erfcx", _erfcx, lambda ct, out, x: mul(ct, sub(mul(mul(x, 2.0), out), 2 / math.sqrt(math.pi))))
dawsn: Op = special_op("dawsn", _jsp("dawsn"), lambda ct, out, x: mul(ct, sub(1.0, mul(mul(x, 2.0), out))))
wofz: Op = elementwise(
    "wofz",
    lambda z: jsp.wofz(z),
    lambda ct, out, z: mul(ct, add(mul(mul(z, -2.0), out), 2j / math.sqrt(math.pi))),
    inexact=True,
)
ndtri: Op = elementwise(
    "ndtri",
    on_arrays(_jsp("ndtri")),
    lambda ct, out, p: div_no_nan(mul(ct, math.sqrt(2 * math.pi)), exp(mul(mul(out, out), -0.5))),
    inexact=True,
    poles=True,
)
# The density over the distribution function, of which both underflow far to the left; their quotient does not.
log_ndtr: Op = special_op(
    "log_ndtr",
    lambda x: _log_ndtr(x),
    lambda ct, out, x: mul(ct, div(math.sqrt(2 / math.pi), erfcx(mul(x, -math.sqrt(0.5))))),
)


def _log_ndtr(x: Any) -> Any:
    left = lax.lt(x, lax.full_like(x, -1))
    z = lax.mul(x, lax.full_like(x, -math.sqrt(0.5)))
    scaled = _erfcx(lax.select(left, z, lax.full_like(x, 1)))
    below = lax.sub(lax.log(lax.mul(scaled, lax.full_like(x, 0.5))), lax.mul(z, z))
    above = lax.log1p(lax.mul(lax.erfc(lax.neg(z)), lax.full_like(x, -0.5)))
    return lax.select(left, below, above)


# Owen (1956), Tables for computing bivariate normal probabilities.
owens_t: Op = special_op(
    "owens_t",
    lambda h, a: jnp.where(h == 0, jnp.arctan(a) / (2 * math.pi), _jsp("owens_t")(h, a)),
    lambda ct, out, h, a: mul(
        ct, mul(mul(exp(mul(mul(h, h), -0.5)), erf(mul(mul(a, h), math.sqrt(0.5)))), -1 / math.sqrt(8 * math.pi))
    ),
    lambda ct, out, h, a: _owens_t_a(ct, h, add(mul(a, a), 1.0)),
)


def _owens_t_a(ct: Any, h: Any, wide: Any) -> Any:
    return mul(ct, div(mul(exp(mul(mul(mul(h, h), wide), -0.5)), 1 / (2 * math.pi)), wide))


# -- gamma and beta (DLMF 5.2, 5.12, 8.8.13, 8.17, 25.11.17)

STIRLING = [1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400]
"""`B(2k) / (2k (2k - 1))`, the coefficients of Stirling's series (DLMF 5.11.1)."""


def _gammasgn(x: Any) -> Any:
    low = jnp.floor(x)
    pole = (x < 0) & (x == low) | jnp.isnan(x)
    negative = (x < 0) & (jnp.mod(low, 2) != 0) | (x == 0) & jnp.signbit(x)
    return jnp.where(pole, np.asarray(np.nan, x.dtype), jnp.where(negative, -1, 1).astype(x.dtype))


gammasgn: Op = special_op("gammasgn", _gammasgn, arity=1)


def _betaln(a: Any, b: Any) -> Any:
    # lgamma(b) - lgamma(a + b) cancels where b is large: there by Stirling's series for both, DLMF 5.11.1.
    a, b = jnp.minimum(a, b), jnp.maximum(a, b)
    stirling = (a > 0) & (b >= 10)
    p, q = jnp.where(stirling, a, 1), jnp.where(stirling, b, 10)
    rest = _stirling_rest(q) - _stirling_rest(p + q)
    large = lax.lgamma(p) - p * jnp.log(q) - (p + q - 0.5) * jnp.log1p(p / q) + p + rest
    large = jnp.where(jnp.isinf(q), np.asarray(-np.inf, q.dtype), large)
    small = jnp.where(a == 0, math.inf, lax.lgamma(a) + lax.lgamma(b) - lax.lgamma(a + b))
    return jnp.where(stirling, large, small)


def _stirling_rest(x: Any) -> Any:
    """`lgamma(x) - ((x - 1/2) log(x) - x + log(2 pi) / 2)`, for `x` from 8 up."""
    total: Any = 0.0
    for c in reversed(STIRLING):
        total = total / (x * x) + c
    return total / x


betaln: Op = special_op(
    "betaln",
    _betaln,
    lambda ct, out, a, b: mul_no_nan(ct, sub(digamma(a), digamma(add(a, b)))),
    lambda ct, out, a, b: mul_no_nan(ct, sub(digamma(b), digamma(add(a, b)))),
)
gamma: Op = special_op(
    "gamma",
    lambda x: lax.mul(_gammasgn(x), lax.exp(lax.lgamma(x))),
    lambda ct, out, x: mul_no_nan(ct, mul(out, digamma(x))),
)
beta: Op = special_op(
    "beta",
    lambda a, b: _gammasgn(a) * _gammasgn(b) * _gammasgn(a + b) * lax.exp(_betaln(a, b)),
    lambda ct, out, a, b: mul_no_nan(ct, mul(out, sub(digamma(a), digamma(add(a, b))))),
    lambda ct, out, a, b: mul_no_nan(ct, mul(out, sub(digamma(b), digamma(add(a, b))))),
)
# Densities: powers of x, of 1 - x and an exponential, whose logarithms are added so that none over- or underflows
# alone. Each derivative lowers a power by one or raises a power of a logarithm, so that all are right where x is 0 or
# 1 too.


def _falling(p: Any, density: Any) -> Any:
    """`p * density`, 0 where `p` is, though the density may have a pole there."""
    return mul_no_nan_op(p, density)


def _with_logarithms(density: Any, *powers: tuple[Any, int]) -> Any:
    """The density times powers of logarithms, which one that is 0 outweighs."""
    out = density
    for log_x, n in powers:
        out = lax.mul(out, lax.integer_pow(log_x, n)) if n else out
    return out if out is density else lax.select(lax.eq(density, lax.full_like(density, 0)), density, out)


def _gamma_density_value(x: Any, p: Any, c: Any, *, n: int = 0) -> Any:
    return _with_logarithms(lax.exp(lax.add(_x_times(p, lax.log, x), c)), (lax.log(x), n))


def _gamma_density_x(ct: Any, out: Any, x: Any, p: Any, c: Any, *, n: int = 0) -> Any:
    lower = sub(p, 1.0)
    slope = _falling(p, gamma_density(x, lower, c, n=n))
    return mul_no_nan(ct, add(slope, mul(gamma_density(x, lower, c, n=n - 1), float(n))) if n else slope)


gamma_density: Op = Op(
    "gamma_density",
    lambda x, p, c, *, n=0: _of_arrays(_gamma_density_value, x, p, c, n=n),
    (
        _gamma_density_x,
        lambda ct, out, x, p, c, *, n=0: mul_no_nan(ct, gamma_density(x, p, c, n=n + 1)),
        lambda ct, out, x, p, c, *, n=0: mul_no_nan(ct, out),
    ),
    numbers=True,
)
"""`x**p exp(c) log(x)**n`."""


def _of_arrays(fn: Callable[..., Any], *xs: Any, **params: Any) -> Any:
    return on_arrays(functools.partial(fn, **params))(*_broadcast(_promote(xs, inexact=True)))


def _beta_density_value(x: Any, p: Any, q: Any, c: Any, *, n: int = 0, m: int = 0) -> Any:
    rest = lax.neg(x)
    density = lax.exp(lax.add(lax.add(_x_times(p, lax.log, x), _x_times(q, lax.log1p, rest)), c))
    return _with_logarithms(density, (lax.log(x), n), (lax.log1p(rest), m))


def _beta_density_x(ct: Any, out: Any, x: Any, p: Any, q: Any, c: Any, *, n: int = 0, m: int = 0) -> Any:
    left, right = (sub(p, 1.0), q), (p, sub(q, 1.0))
    slope = sub(_falling(p, beta_density(x, *left, c, n=n, m=m)), _falling(q, beta_density(x, *right, c, n=n, m=m)))
    if n:
        slope = add(slope, mul(beta_density(x, *left, c, n=n - 1, m=m), float(n)))
    if m:
        slope = sub(slope, mul(beta_density(x, *right, c, n=n, m=m - 1), float(m)))
    return mul_no_nan(ct, slope)


beta_density: Op = Op(
    "beta_density",
    lambda x, p, q, c, *, n=0, m=0: _of_arrays(_beta_density_value, x, p, q, c, n=n, m=m),
    (
        _beta_density_x,
        lambda ct, out, x, p, q, c, *, n=0, m=0: mul_no_nan(ct, beta_density(x, p, q, c, n=n + 1, m=m)),
        lambda ct, out, x, p, q, c, *, n=0, m=0: mul_no_nan(ct, beta_density(x, p, q, c, n=n, m=m + 1)),
        lambda ct, out, x, p, q, c, *, n=0, m=0: mul_no_nan(ct, out),
    ),
    numbers=True,
)
"""`x**p (1 - x)**q exp(c) log(x)**n log(1 - x)**m`."""

betainc: Op = special_op(
    "betainc",
    lambda a, b, x: lax.betainc(a, b, x),
    no_rule("betainc", "a"),
    no_rule("betainc", "b"),
    lambda ct, out, a, b, x: mul_no_nan(ct, beta_density(x, sub(a, 1.0), sub(b, 1.0), neg(betaln(a, b)))),
)


def _gamma_density(a: Any, x: Any) -> Any:
    """`x**(a - 1) exp(-x) / gamma(a)`."""
    return gamma_density(x, sub(a, 1.0), neg(add(x, lgamma(a))))


def _at_limit(a: Any, x: Any, at_zero: float, out: Any) -> Any:
    """The incomplete gamma functions where `a` is 0 or infinite."""
    out = jnp.where((a == 0) & (x > 0), at_zero, out)
    return jnp.where(jnp.isposinf(a) & (x >= 0), jnp.where(jnp.isposinf(x), math.nan, 1 - at_zero), out)


gammainc: Op = special_op(
    "gammainc",
    lambda a, x: _at_limit(a, x, 1.0, lax.igamma(a, x)),
    lambda ct, out, a, x: mul_no_nan(ct, gammainc_grad_a(a, x)),
    lambda ct, out, a, x: mul_no_nan(ct, _gamma_density(a, x)),
)
gammaincc: Op = special_op(
    "gammaincc",
    lambda a, x: _at_limit(a, x, 0.0, lax.igammac(a, x)),
    lambda ct, out, a, x: neg(mul_no_nan(ct, gammainc_grad_a(a, x))),
    lambda ct, out, a, x: neg(mul_no_nan(ct, _gamma_density(a, x))),
)
gammainc_grad_a: Op = special_op(
    "gammainc_grad_a",
    lambda a, x: lax.igamma_grad_a(a, x),
    no_rule("the derivative of gammainc in a", "a"),
    lambda ct, out, a, x: mul_no_nan(ct, mul(_gamma_density(a, x), sub(log(x), digamma(a)))),
)
"""The derivative of `gammainc` in its first operand."""


def _zeta(x: Any, q: Any) -> Any:
    pole = (q <= 0) & (q == jnp.floor(q))
    limit = jnp.where(x > 1, jnp.where(pole, math.inf, 0.0), math.nan)
    return jnp.where(pole | jnp.isposinf(q), limit.astype(x.dtype), lax.zeta(x, q))


zeta: Op = special_op(
    "zeta",
    _zeta,
    no_rule("zeta", "x"),
    lambda ct, out, x, q: neg(mul_no_nan(ct, mul(x, zeta(add(x, 1.0), q)))),
)

# -- exponential, trigonometric and Fresnel integrals, the dilogarithm (DLMF 6.2, 7.2.7, 8.19.13, 25.12)


def _expn(n: Any, x: Any) -> Any:
    """The exponential integral of whole order `n`, for `x >= 0`."""
    one, order0 = lax.full_like(x, 1), lax.div(lax.exp(lax.neg(x)), x)

    # x > 1: the continued fraction DLMF 8.19.17, from its 80th step, which is exact to rounding at x = 1.
    far = jnp.where(x > 1, x, one)

    def step(i: Any, below: Any) -> Any:
        k = lax.convert_element_type(80 - i, x.dtype)
        return far + n + 2 * k - (k + 1) * (n + k) / below

    large = jnp.exp(-far) / lax.fori_loop(0, 81, step, far + n + 162)

    # 0 < x <= 1: the series DLMF 8.19.8, whose 20th term is less than rounding.
    near = jnp.where((x > 0) & (x <= 1), x, one)
    special = jnp.exp((n - 1) * jnp.log(near) - lax.lgamma(n)) * (lax.digamma(n) - jnp.log(near))

    def term(i: Any, carry: Any) -> Any:
        k = lax.convert_element_type(i + 1, x.dtype)
        total, power = carry
        total = total - jnp.where(k == n, 0, power / jnp.where(k == n, 1, k - n))
        return total, -power * near / k

    start = (jnp.where(jnp.mod(n, 2) == 1, special, -special), one)
    total, _ = lax.fori_loop(0, 20, term, start)

    at_zero = jnp.where(n > 1, 1 / jnp.where(n > 1, n - 1, one), np.asarray(np.inf, x.dtype))
    out = jnp.where(n == 0, order0, jnp.where(x > 1, large, total))
    out = jnp.where(x == 0, at_zero, out)
    return jnp.where((x >= 0) & (n >= 0), out, np.asarray(np.nan, x.dtype))


def _expi(x: Any) -> Any:
    one = lax.full_like(x, 1)

    # 0 < x <= 40: the series DLMF 6.6.1, which is positive but for its logarithm; its 150th term is less than rounding.
    near = jnp.where((x > 0) & (x <= 40), x, one)

    def step(i: Any, carry: Any) -> Any:
        k = lax.convert_element_type(i, x.dtype)
        term = carry[1] * near / k
        return carry[0] + term / k, term

    series = lax.fori_loop(1, 150, step, (jnp.log(near) + float(np.euler_gamma), one))[0]

    # x > 40: the asymptotic series DLMF 6.12.2, up to its smallest term.
    far = jnp.where(x > 40, x, 40 * one)
    rest = one
    for k in range(39, 0, -1):
        rest = 1 + rest * k / far
    out = jnp.where(x > 40, jnp.exp(far - jnp.log(far)) * rest, series)
    out = jnp.where(x < 0, -_expn(one, jnp.where(x < 0, -x, one)), out)
    return jnp.where(jnp.isnan(x) | jnp.isposinf(x), x, jnp.where(x == 0, np.asarray(-np.inf, x.dtype), out))


expi: Op = special_op("expi", _expi, lambda ct, out, x: mul_no_nan(ct, div(exp(x), x)))


def _expn_x(ct: Any, out: Any, n: Any, x: Any) -> Any:
    # d E_n / dx = -E_{n - 1}, and E_0 = exp(-x) / x.
    order0 = div_no_nan(mul(out, add(x, 1.0)), x)
    return neg(mul_no_nan(ct, where(equal(n, 0), order0, expn(maximum(sub(n, 1.0), 0.0), x))))


expn: Op = special_op("expn", _expn, no_rule("expn", "n"), _expn_x)


def _log_over(x: Any) -> Any:
    """`log(x) / (1 - x)`, by its series around 1: the next term, 0.01**8 / 9, is less than a rounding."""
    u = sub(x, 1.0)
    near = less(mul(u, u), 1e-4)
    safe = where(near, 0.5, x)
    series = _series(where(near, u, 0.0), [(-1) ** (k + 1) / (k + 1) for k in range(8)])
    return where(near, series, div(log(safe), sub(1.0, safe)))


spence: Op = special_op("spence", _jsp("spence"), lambda ct, out, x: mul_no_nan(ct, _log_over(x)))


def _pair(name: str, first: Callable[..., Any], second: Callable[..., Any]) -> Op:
    """An op with two results, functions of one operand with these derivatives."""

    def lower(x: Any) -> Any:
        return on_arrays(_jsp(name))(*_promote((x,), inexact=True))

    def vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
        (x,) = node.inputs
        parts = [mul_no_nan(ct, rule(x)) for ct, rule in zip(cts, (first, second), strict=True) if ct is not None]
        return [parts[0] if len(parts) == 1 else add(*parts)]

    return Op(name, lower, vjp, multiple=True)


def _half_turn(x: Any) -> Any:
    return mul(mul(x, x), math.pi / 2)


fresnel: Op = _pair("fresnel", lambda x: sin(_half_turn(x)), lambda x: cos(_half_turn(x)))
"""The Fresnel integrals S and C."""

sici: Op = _pair("sici", lambda x: sine_over(x), lambda x: div(cos(x), x))
"""The sine and the cosine integral."""


def sine_over(x: Any) -> Any:
    """`sin(x) / x`, and its limit 1 at 0; so too for all derivatives, by the series around 0."""
    near = less(mul(x, x), 0.0004)
    safe = where(near, 1.0, x)
    z = mul(x, x)
    # Four terms: the next one is 0.02**8 / 9!, less than the rounding of float64.
    series: Any = -1 / 5040
    for coefficient in (1 / 120, -1 / 6, 1.0):
        series = add(mul(series, z), coefficient)
    return where(near, series, div(sin(safe), safe))


# -- hypergeometric functions (DLMF 13.3.15, 15.5.1)

hyp1f1: Op = special_op(
    "hyp1f1",
    _jsp("hyp1f1"),
    no_rule("hyp1f1", "a"),
    no_rule("hyp1f1", "b"),
    lambda ct, out, a, b, x: mul(ct, mul(div(a, b), hyp1f1(add(a, 1.0), add(b, 1.0), x))),
)


def _hyp2f1_x(ct: Any, out: Any, a: Any, b: Any, c: Any, x: Any) -> Any:
    return mul(ct, mul(div(mul(a, b), c), hyp2f1(add(a, 1.0), add(b, 1.0), add(c, 1.0), x)))


hyp2f1: Op = Op(
    "hyp2f1",
    lambda a, b, c, x: on_arrays(_jsp("hyp2f1"))(*_broadcast(_promote((a, b, c, x), inexact=True))),
    (no_rule("hyp2f1", "a"), no_rule("hyp2f1", "b"), no_rule("hyp2f1", "c"), _hyp2f1_x),
    numbers=True,
)


__all__ = [
    "STIRLING",
    "beta",
    "beta_density",
    "betainc",
    "betaln",
    "boxcox",
    "boxcox1p",
    "dawsn",
    "erfcx",
    "expi",
    "expn",
    "fresnel",
    "gamma",
    "gamma_density",
    "gammainc",
    "gammainc_grad_a",
    "gammaincc",
    "gammasgn",
    "hyp1f1",
    "hyp2f1",
    "log_ndtr",
    "logit",
    "ndtri",
    "owens_t",
    "rel_entr",
    "sici",
    "sine_over",
    "spence",
    "wofz",
    "xlog1py",
    "xlogy",
    "zeta",
]
