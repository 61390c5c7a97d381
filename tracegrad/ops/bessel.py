"""Bessel functions (DLMF chapter 10).

Each is computed by the recurrence in the order, in the direction in which it is stable, from values that Hankel's
expansion gives for large arguments and sums over all orders for others. The time grows with the order, and with the
argument up to half the square of the order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..op import Op
from ..tracer import Literal
from .elementwise import add, div, equal, mul, mul_no_nan, neg, no_rule, sign, sub, where
from .special import special_op

# -- orders 0 and 1 of the modified functions


def _over(value: Any, x: Any, at_zero: Any) -> Any:
    """`value / x`, and its limit at 0: a number, or the first terms of a series, which have its derivatives."""
    zero = equal(x, 0)
    return where(zero, at_zero, div(value, where(zero, 1.0, x)))


def _scaled(x: Any, fn: Callable[..., Any]) -> Any:
    return lax.mul(lax.exp(lax.abs(x)), fn(x))


i0e: Op = special_op("i0e", lax.bessel_i0e, lambda ct, out, x: mul(ct, sub(i1e(x), mul(sign(x), out))))
i1e: Op = special_op(
    "i1e", lax.bessel_i1e, lambda ct, out, x: mul(ct, sub(sub(i0e(x), mul(sign(x), out)), _over(out, x, 0.5)))
)
i0: Op = special_op("i0", lambda x: _scaled(x, lax.bessel_i0e), lambda ct, out, x: mul(ct, i1(x)))
i1: Op = special_op(
    "i1",
    lambda x: _scaled(x, lax.bessel_i1e),
    lambda ct, out, x: mul(ct, sub(i0(x), _over(out, x, add(mul(mul(x, x), 1 / 16), 0.5)))),
)


# -- any order

_FAR = 25.0
"""From here up the 30th term of Hankel's expansion is less than rounding, where the square of the order is less than
twice the argument."""

_MOST = 2.0**30
"""An order from here up gives NaN."""

_INT = np.dtype(np.int32)


def _split(v: Any) -> tuple[Any, ...]:
    """The order, its whole part, the rest, whether it is usable, whole, and odd; another order where it is unusable."""
    usable = jnp.abs(v) < _MOST
    v = jnp.where(usable, v, 0)
    n = jnp.floor(v)
    return v, n, v - n, usable, v == n, (v == n) & (jnp.mod(n, 2) == 1)


def _negligible(v: Any, x: Any) -> Any:
    """Where (x / 2)**v / gamma(v + 1), which bounds J and I exp(-x) (DLMF 10.14.4), is less than the smallest number.

    It is so even times exp(x), if that does not overflow.
    """
    above = jnp.where((v > x) & (v > 1), v, 1)
    return (v > x) & (v > 1) & (above * (jnp.log(x / (2 * above)) + 1) < -800 - jnp.minimum(x, 800))


def _is_small(x: Any) -> Any:
    """Where the first term of a power series is all of it, to rounding."""
    return x < (1e-4 if x.dtype == np.float32 else 1e-8)


def _first_term(v: Any, x: Any) -> Any:
    """`(x / 2)**v / gamma(v + 1)`."""
    size = jnp.exp(jnp.where(v == 0, 0, v * jnp.log(x / 2)) - lax.lgamma(v + 1))
    return jnp.where((v < -1) & (jnp.mod(jnp.floor(v + 1), 2) != 0), -size, size)


def _expansion(v: Any, x: Any, turns: bool) -> tuple[Any, Any]:
    """The sums of the even and of the odd terms of Hankel's expansion, DLMF 10.17.1; each alternates if `turns`."""

    def step(i: Any, carry: tuple[Any, ...]) -> tuple[Any, ...]:
        term, even, odd = carry
        k = lax.convert_element_type(i, x.dtype)
        first = term * ((4 * v * v - (4 * k + 1) ** 2) / (8 * (2 * k + 1) * x))
        second = first * ((4 * v * v - (4 * k + 3) ** 2) / (8 * (2 * k + 2) * x))
        return (-second if turns else second), even + term, odd + first

    zero = lax.full_like(x, 0)
    _, even, odd = lax.fori_loop(0, 15, step, (lax.full_like(x, 1), zero, zero))
    return even, odd


def _hankel(v: Any, x: Any) -> tuple[Any, Any]:
    """J and Y of a large argument: DLMF 10.17.3."""
    p, q = _expansion(v, x, turns=True)
    # The cosine of x - a is exact where x is large, unlike x - a.
    a = math.pi * jnp.mod(v / 2 + 0.25, 2)
    cos = jnp.cos(x) * jnp.cos(a) + jnp.sin(x) * jnp.sin(a)
    sin = jnp.sin(x) * jnp.cos(a) - jnp.cos(x) * jnp.sin(a)
    size = jnp.sqrt(2 / math.pi / x)
    return size * (p * cos - q * sin), size * (p * sin + q * cos)


def _down(
    n: Any, rest: Any, x: Any, top: Any, sign: int, sums: int, add_term: Callable[..., tuple[Any, ...]]
) -> tuple[Any, ...]:
    """The recurrence in the order downwards, from any value at the order `top`: Miller's algorithm, DLMF 3.6(iii).

    Args:
      n, rest: the values kept are those of the orders `rest`, `rest + 1` and `rest + n`.
      sign: -1 for J, 1 for I.
      sums: how many sums over the orders are made: `add_term(j, k, value, *sums)` adds the value of order `rest + j`;
        `k` is `j` as a float.

    Returns:
      The three values, the logarithm of a factor that the third lacks, and the sums, all with one unknown factor.
    """
    top = lax.convert_element_type(jnp.max(top, initial=0), _INT)
    n = lax.convert_element_type(n, _INT)

    large = 1e10 if x.dtype == np.float32 else 1e100

    def step(i: Any, carry: tuple[Any, ...]) -> tuple[Any, ...]:
        here, above, kept, scalings, *sums = carry
        j = top - i
        k = lax.convert_element_type(j, x.dtype)
        value = 2 * (rest + (k + 1)) / x * here + sign * above
        kept, scalings = jnp.where(n == j, value, kept), jnp.where(n == j, 0, scalings)
        grown = jnp.abs(value) > large
        scaled = [jnp.where(grown, y / large, y) for y in (value, here, *add_term(j, k, value, *sums))]
        return (*scaled[:2], kept, scalings + grown, *scaled[2:])

    zero = lax.full_like(x, 0)
    start = (lax.full_like(x, 1 / large), zero, zero, zero, *[zero] * sums)
    here, above, kept, scalings, *totals = lax.fori_loop(0, top + 1, step, start)
    return here, above, kept, scalings * -math.log(large), *totals


def _walk(here: Any, before: Any, order: Any, direction: Any, steps: Any, x: Any) -> Any:
    """The value so many steps of the recurrence of J and Y from `here`, at this order: up (1) or down (-1)."""
    count = lax.convert_element_type(jnp.max(steps, initial=0), _INT)

    def step(i: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        here, before = carry
        k = lax.convert_element_type(i, x.dtype)
        on = 2 * (order + direction * k) / x * here
        on = jnp.where(jnp.isinf(here), on, on - before)
        return jnp.where(k < steps, on, here), jnp.where(k < steps, here, before)

    return lax.fori_loop(0, count, step, (here, before))[0]


def _jn_sum(rest: Any) -> Callable[..., Any]:
    """DLMF 10.23.15 without its first term, from the largest order down, and without a factor `gamma(rest + 1)`."""

    def add_term(j: Any, k: Any, value: Any, total: Any) -> tuple[Any, ...]:
        half = k / 2
        added = (rest + k) * value + (rest + half) / (half + 1) * total
        return (jnp.where((j > 0) & (j % 2 == 0), added, total),)

    return add_term


def _turning(v: Any, x: Any) -> Any:
    """Where to start downwards, to have J of the order `v` to rounding: past the order, and the turning point `x`."""
    larger = jnp.maximum(v, x)
    return larger + 10 * jnp.cbrt(larger) + 30


def _jn(v: Any, x: Any) -> Any:
    v, n, rest, usable, whole, odd = _split(v)
    turned = odd & ((v < 0) != (x < 0))
    usable &= whole | ~(x < 0)
    v, n, x = jnp.where(whole, abs(v), v), jnp.where(whole, abs(n), n), abs(x)
    small, none = _is_small(x), _negligible(v, x) | jnp.isinf(x)
    other = ~small & ~none & usable & (x == x)
    z = jnp.where(other, x, 1)
    v, n = jnp.where(other | small, v, 0), jnp.where(other | small, n, 0)

    # By one expansion; upwards (or to negative orders) from two; else downwards, scaled by two or by a sum.
    far = z >= _FAR
    direct = far & (v * v <= 2 * z)
    up = far & ~direct & (v <= z)
    down = other & ~direct & ~up
    first, second, kept, shift, total = _down(n, rest, z, jnp.where(down, _turning(v, z), 0), -1, 1, _jn_sum(rest))
    w = jnp.where(far, z, _FAR)
    here, above = _hankel(jnp.where(direct, v, rest), w)[0], _hankel(rest + 1, w)[0]
    by_two = (here * first + above * second) / (first * first + second * second)
    factor = jnp.where(far, by_two, _first_term(rest, z) / (first + total))
    here, above = jnp.where(far, here, factor * first), jnp.where(far, above, factor * second)

    below = other & ~direct & (n < 0)
    walks = below | (up & (n > 0))
    walked = _walk(
        jnp.where(below, here, above),
        jnp.where(below, above, here),
        jnp.where(below, rest, rest + 1),
        jnp.where(below, -1, 1),
        jnp.where(walks, jnp.where(below, -n, n - 1), 0),
        z,
    )
    out = jnp.where(walks, walked, jnp.where(direct | up, here, factor * kept * jnp.exp(shift)))
    out = jnp.where(small, _first_term(v, jnp.where(small, x, 1)), jnp.where(none, 0, out))
    return jnp.where(usable & (x == x), jnp.where(turned, -out, out), math.nan).astype(x.dtype)


def _yn_sums(j: Any, k: Any, value: Any, total: Any, sum0: Any, sum1: Any) -> tuple[Any, ...]:
    even, half = j % 2 == 0, jnp.where(j > 1, jnp.floor(k / 2), 1)
    term = jnp.where((j // 2) % 2 == 0, value, -value)
    return (
        *_jn_sum(0.0)(j, k, value, total),
        jnp.where((j > 1) & even, sum0 + 2 * term / half, sum0),
        jnp.where((j > 1) & ~even, sum1 + k * term / (half * (half + 1)), sum1),
    )


def _yn(n: Any, x: Any) -> Any:
    n, _, _, usable, whole, odd = _split(n)
    turned = odd & (n < 0)
    usable &= whole & (x >= 0)
    n, x = jnp.where(usable, abs(n), 0), abs(x)
    other = usable & ~_is_small(x) & ~jnp.isinf(x)
    z, zero = jnp.where(other, x, 1), lax.full_like(x, 0)

    # Orders 0 and 1 by sums over J, A&S 9.1.88, with those of tiny arguments, or by an expansion; others upwards.
    far = z >= _FAR
    top = jnp.where(far | ~other, 0, _turning(zero, z))
    first, second, _, _, total, sum0, sum1 = _down(zero, zero, z, top, -1, 3, _yn_sums)
    factor = 1 / (first + total)
    j0, j1, sum0, sum1 = (jnp.where(other, y * factor, at) for y, at in ((first, 1), (second, 0), (sum0, 0), (sum1, 0)))
    log = jnp.log(x / 2) + np.euler_gamma
    y0 = 2 / math.pi * (log * j0 - sum0)
    y1 = 2 / math.pi * (jnp.where(other, (log - 1) * j1 - sum1, 0) - j0 / x)
    w = jnp.where(far, z, _FAR)
    direct = far & (n * n <= 2 * z)
    far0, far1 = _hankel(jnp.where(direct, n, 0), w)[1], _hankel(lax.full_like(w, 1), w)[1]
    y0, y1 = jnp.where(far, far0, y0), jnp.where(far, far1, y1)
    walked = _walk(y1, y0, lax.full_like(x, 1), 1, jnp.where(direct, 0, n - 1), jnp.where(other, z, x))
    out = jnp.where(direct | (n == 0), y0, walked)
    out = jnp.where(jnp.isinf(x), 0, out)
    return jnp.where(usable, jnp.where(turned, -out, out), math.nan).astype(x.dtype)


def _kv(v: Any, x: Any, shift: Any) -> Any:
    """`K exp(x + shift)`, by the trapezoidal rule for DLMF 10.32.9, which converges exponentially."""
    end = lax.full_like(x, 1)
    for _ in range(6):
        end = jnp.arccosh(1 + (50 + v * end) / x)
    end = 1.1 * end
    count = 256

    def step(i: Any, total: Any) -> Any:
        t = end * (lax.convert_element_type(i, x.dtype) / count)
        fall = shift - 2 * x * jnp.sinh(t / 2) ** 2 + jnp.log(end / count)
        return total + jnp.where(i == 0, 0.5, 1) * (jnp.exp(fall + v * t) + jnp.exp(fall - v * t)) / 2

    return lax.fori_loop(0, count, step, lax.full_like(x, 0))


def _iv(v: Any, x: Any, scaled: bool) -> Any:
    v, n, rest, usable, whole, odd = _split(v)
    turned = odd & (x < 0)
    usable &= whole | ~(x < 0)
    mirrored, signed = (v < 0) & ~whole, v
    v, x = abs(v), abs(x)
    n = jnp.floor(v)
    rest = v - n
    small, none = _is_small(x), _negligible(v, x)
    other = ~small & ~none & usable & (x == x) & ~jnp.isinf(x)
    z = jnp.where(other, x, 1)

    def sum_(j: Any, k: Any, value: Any, total: Any) -> tuple[Any, ...]:
        # DLMF 10.35.6 at an angle of 0, without its first term, as for J.
        return (jnp.where(j > 0, (rest + k) * value + (2 * rest + k) / (k + 1) * total, total),)

    direct = (z >= _FAR) & (v * v <= 2 * z)
    top = jnp.where(other & ~direct, n + 9.2 * jnp.sqrt(z) + 30, 0)
    first, _, kept, shift, total = _down(jnp.where(other, n, 0), rest, z, top, 1, 1, sum_)
    even, uneven = _expansion(jnp.where(direct, v, 0), jnp.where(direct, z, _FAR), turns=False)
    value = jnp.where(
        direct, (even - uneven) / jnp.sqrt(2 * math.pi * z), _first_term(rest, z) * (kept / (first + 2 * total))
    )
    # By halves, of which neither overflows alone.
    shift = jnp.where(direct, 0, shift)
    half = jnp.exp((shift if scaled else shift + z) / 2)
    out = jnp.where(none, 0, value * half * half)

    def mirror(out: Any) -> Any:
        # DLMF 10.27.2
        sine = jnp.sin(math.pi * jnp.mod(v, 2))
        y = jnp.where(small, 1, jnp.where(jnp.isinf(x), 1, x))
        return jnp.where(mirrored, out + 2 / math.pi * sine * _kv(v, y, -2 * y if scaled else -y), out)

    out = lax.cond(jnp.any(mirrored), mirror, lambda out: out, out)
    out = jnp.where(small, _first_term(jnp.where(whole, v, signed), jnp.where(small, x, 1)), out)
    out = jnp.where(jnp.isinf(x), 0 if scaled else math.inf, out)
    return jnp.where(usable & (x == x), jnp.where(turned, -out, out), math.nan).astype(x.dtype)


def _beside(op: Callable[[Any, Any], Any], v: Any, x: Any, combine: Op, mirrored: int) -> Any:
    """Half the difference or the sum of the values of the orders before and after, DLMF 10.6.1 and 10.29.1.

    These have no division by `x`. At the order 0, known as a number, both are the same but for a sign.
    """
    if isinstance(v, (int, float, Literal)) and float(getattr(v, "value", v)) == 0:
        after = op(1, x)
        return after if mirrored > 0 else neg(after)
    return mul(combine(op(sub(v, 1), x), op(add(v, 1), x)), 0.5)


jn: Op = special_op(
    "jn", _jn, no_rule("jn", "v"), lambda ct, out, v, x: mul_no_nan(ct, _beside(jn, v, x, sub, -1)), poles=True
)
yn: Op = special_op(
    "yn", _yn, no_rule("yn", "n"), lambda ct, out, n, x: mul_no_nan(ct, _beside(yn, n, x, sub, -1)), poles=True
)
iv: Op = special_op(
    "iv",
    lambda v, x: _iv(v, x, scaled=False),
    no_rule("iv", "v"),
    lambda ct, out, v, x: mul_no_nan(ct, _beside(iv, v, x, add, 1)),
    poles=True,
)
ive: Op = special_op(
    "ive",
    lambda v, x: _iv(v, x, scaled=True),
    no_rule("ive", "v"),
    lambda ct, out, v, x: mul_no_nan(ct, sub(_beside(ive, v, x, add, 1), mul(sign(x), out))),
    poles=True,
)

__all__ = ["i0", "i0e", "i1", "i1e", "iv", "ive", "jn", "yn"]
