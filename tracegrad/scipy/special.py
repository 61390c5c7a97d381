"""Special functions with the names, the arguments and the dtypes of `jax.scipy.special`.

Arguments broadcast; integers become floats, and half-precision floats are computed in float32. A derivative that has no
closed form (in a parameter of `betainc`, `zeta`, `hyp1f1`, in the order of a Bessel function, ...) raises
`NotImplementedError` when it is asked for.

Example:
  >>> import tracegrad as tg
  >>> from tracegrad.scipy import special
  >>> round(float(tg.grad(special.gammaln)(3.0)), 4)  # digamma(3)
  0.9228
"""

# ruff: noqa: F403, F405
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import activations, ops
from .. import numpy as tnp
from ..activations import logsumexp
from ..errors import called, describe, here
from ..names import listed
from ..numpy.arguments import inexact, integer, literal, type_of
from ..numpy.creation import array_like, asarray
from ..ops import digamma, erf, erfc, log_ndtr, logit, polygamma, xlog1py, xlogy
from ..ops.bessel import i0, i0e, i1, i1e, iv, ive, jn, yn
from ..ops.special import *

erfinv, expit, gammaln, psi = ops.erf_inv, ops.logistic, ops.lgamma, digamma


def _float(x: Any) -> Any:
    """`x` as an array of floats or complex numbers."""
    return array_like(inexact(x, type_of(x)))


# -- products with logarithms


def entr(x: Any) -> Any:
    """`-x log(x)`, 0 at 0, -inf below.

    Example:
      >>> from tracegrad.scipy import special
      >>> special.entr(0.0).item()
      0.0
    """
    x = array_like(x)
    below = x < 0
    safe = tnp.where(below, 1.0, x)
    return tnp.where(below, -math.inf, 0.0 - xlogy(safe, safe))


def kl_div(p: Any, q: Any) -> Any:
    """`p log(p / q) - p + q`; `q` where `p` is 0 and `q` is not negative, else inf where one is not positive."""
    p, q = array_like(p), array_like(q)
    relative = rel_entr(p, q)
    outside = (p < 0) | (q < 0) | ((q <= 0) & (p != 0))
    return tnp.where(outside, relative, relative - p + q)


def softmax(x: Any, /, *, axis: Any = None) -> Any:
    """`exp(x) / sum(exp(x))` over `axis`: an axis, a tuple of them, or all by default."""
    return activations.softmax(x, axis)


def log_softmax(x: Any, /, *, axis: Any = None) -> Any:
    """The logarithm of `softmax(x, axis=axis)`, without overflow."""
    return activations.log_softmax(x, axis)


# -- the normal distribution


def ndtr(x: Any) -> Any:
    """The distribution function of the standard normal distribution.

    Example:
      >>> from tracegrad.scipy import special
      >>> special.ndtr(0.0).item()
      0.5
    """
    return erfc(array_like(x) * -math.sqrt(0.5)) * 0.5


def erfcinv(y: Any) -> Any:
    """The inverse of `erfc`: precise where `y` is small, unlike `erfinv(1 - y)`.

    Example:
      >>> from tracegrad.scipy import special
      >>> round(special.erfcinv(1e-20).item(), 3)
      6.602
    """
    return ndtri(_float(y) * 0.5) * -math.sqrt(0.5)


# -- gamma and beta

_SHIFT = 8
"""From here up Stirling's series is exact to rounding."""


def _loggamma_right(z: Any) -> Any:
    """`loggamma` of complex numbers with real parts from 0.5 up: 8 steps up, and Stirling's series there."""
    product = tnp.sum(tnp.log(z[..., None] + np.arange(_SHIFT, dtype=np.int32)), axis=-1)
    w = z + float(_SHIFT)
    square = 1.0 / w * (1.0 / w)
    series: Any = STIRLING[-1]
    for c in reversed(STIRLING[:-1]):
        series = series * square + c
    return (w - 0.5) * tnp.log(w) - w + 0.5 * math.log(2 * math.pi) + series * (1.0 / w) - product


def loggamma(x: Any) -> Any:
    """The logarithm of the gamma function, continued from the positive axis: NaN for a negative real number.

    Args:
      x: real or complex; complex numbers have one branch cut, along the negative axis.

    Example:
      >>> from tracegrad.scipy import special
      >>> abs(special.loggamma(1 + 0j).item()) < 1e-6
      True
    """
    z = _float(x)
    if z.dtype.kind != "c":
        below = z < 0
        return tnp.where(below, math.nan, gammaln(tnp.where(below, 1.0, z)))
    # Above the real axis by the reflection formula (DLMF 5.5.3), where log(sin(pi z)) is
    # -pi i z + log(1 - exp(2 pi i z)) - log(2) + pi i / 2, which has no branch to choose; below it by conjugation.
    lower = z.imag < 0
    z = tnp.where(lower, z.conj(), z)
    left = z.real < 0.5
    inner = _loggamma_right(tnp.where(left, 1.0 - z, z))
    turned = tnp.where(left, z, 0.5) * (1j * math.pi)
    log_sin = tnp.log1p(-tnp.exp(turned * 2.0)) - turned + (-math.log(2) + 0.5j * math.pi)
    out = tnp.where(left, math.log(math.pi) - log_sin - inner, inner)
    return tnp.where(lower, out.conj(), out)


def gamma(x: Any) -> Any:  # type: ignore[no-redef]
    """The gamma function, of real or complex numbers: inf or -inf at 0 by its sign, NaN at negative integers."""
    x = _float(x)
    return tnp.exp(loggamma(x)) if x.dtype.kind == "c" else ops.gamma(x)


def factorial(n: Any, exact: bool = False) -> Any:
    """`n!` as a float: `gamma(n + 1)`, and 0 below 0.

    Raises:
      NotImplementedError: for `exact=True`.
    """
    _refuse_exact(exact, "math.factorial")
    n = _float(n)
    below = n < 0
    return tnp.where(below, 0.0, ops.gamma(tnp.where(below, 0.0, n) + 1.0))


def _refuse_exact(exact: bool, instead: str) -> None:
    if exact:
        raise NotImplementedError(
            f"{called()}: exact=True is not supported {here()}. Use {instead} for Python integers."
        )


def comb(N: Any, k: Any, *, exact: bool = False, repetition: bool = False) -> Any:
    """The number of ways to choose `k` of `N` things, as a float; with `repetition`, each more than once.

    Example:
      >>> from tracegrad.scipy import special
      >>> round(special.comb(5, 2).item(), 4)
      10.0
    """
    _refuse_exact(exact, "math.comb")
    N, k = _float(N), _float(k)
    if repetition:
        return comb(N + k - 1.0, k)
    inside = (k <= N) & (k >= 0)
    n, k = tnp.where(inside, N, 1.0), tnp.where(inside, k, 0.0)
    # DLMF 5.12.1: precise where N is large, as the logarithm of the beta function is.
    return tnp.where(inside, tnp.exp(-betaln(n - k + 1.0, k + 1.0)) / (n + 1.0), 0.0)


def poch(z: Any, m: Any) -> Any:
    """Pochhammer's symbol `gamma(z + m) / gamma(z)`: `z (z + 1) ... (z + m - 1)` for a whole `m`."""
    z, m = _float(z), _float(m)
    end = z + m
    starts, ends = ((v <= 0) & (v == tnp.floor(v)) for v in (z, end))
    # Where both gammas have a pole, by reflection: (-1)**m gamma(1 - z) / gamma(1 - z - m).
    both, zero = starts & ends, starts & ~ends
    up = tnp.where(both, 1.0 - z, end)
    down = tnp.where(both, 1.0 - end, tnp.where(zero, 1.0, z))
    sign = tnp.where(both, _alternating(m), gammasgn(up) * gammasgn(down))
    size = tnp.exp(gammaln(up) - gammaln(down))
    out = tnp.where(size == 0, 0.0, tnp.where(sign == sign, sign, 1.0) * size)
    # Where only gamma(z) has one, 1 / gamma(z) is 0 but not its derivative: gamma(1 - z) sin(pi z) / pi.
    whole = tnp.where(zero, z, 0.0)
    sine = tnp.sin((whole - tnp.rint(whole)) * math.pi)
    inverse = ops.gamma(1.0 - whole) * _alternating(whole) * (sine * (1 / math.pi))
    out = tnp.where(zero, out * inverse, out)
    return tnp.where((m == 0) & ~tnp.isfinite(out), 1.0, out)


def _alternating(m: Any) -> Any:
    """`(-1)**m` for whole `m`."""
    half = m * 0.5
    return tnp.where(half == tnp.floor(half), 1.0, -1.0)


def rgamma(z: Any) -> Any:
    """`1 / gamma(z)` of real numbers, with its derivatives where it is 0 too: at 0 and the negative integers.

    Example:
      >>> import tracegrad as tg
      >>> from tracegrad.scipy import special
      >>> special.rgamma(0.0).item(), round(float(tg.grad(special.rgamma)(0.0)), 4)
      (0.0, 1.0)
    """
    z = _float(z)
    left = z < 0.5
    right = tnp.exp(-gammaln(tnp.where(left, 1.0, z)))
    # DLMF 5.5.3, with the sine of the distance to the nearest integer.
    z = tnp.where(left, z, 0.0)
    sine = tnp.sin((z - tnp.rint(z)) * math.pi) * _alternating(tnp.rint(z))
    return tnp.where(left, ops.mul_no_nan_op(sine * (1 / math.pi), ops.gamma(1.0 - z)), right)


def multigammaln(a: Any, d: int) -> Any:
    """The logarithm of the multivariate gamma function of order `d`, an integer; `a > (d - 1) / 2`."""
    d = integer(d, "d")
    a = _float(a)
    terms = gammaln(a[..., None] - ops.mul(np.arange(d, dtype=np.int32), literal(0.5)))
    return tnp.sum(terms, axis=-1) + d * (d - 1) / 4 * math.log(math.pi)


def zeta(x: Any, q: Any = None) -> Any:  # type: ignore[no-redef]
    """Hurwitz's zeta function `sum over k of 1 / (k + q)**x` for `x > 1` (NaN below); Riemann's by default, `q` = 1.

    Example:
      >>> from tracegrad.scipy import special
      >>> round(special.zeta(2.0).item(), 4)  # pi**2 / 6
      1.6449
    """
    return ops.zeta(x, literal(1.0) if q is None else q)


def bernoulli(n: int) -> Any:
    """The Bernoulli numbers B(0) to B(n), with B(1) = -1/2.

    Example:
      >>> from tracegrad.scipy import special
      >>> special.bernoulli(2)[:2].tolist()
      [1.0, -0.5]
    """
    n = integer(n, "n")
    if n < 0:
        raise ValueError(f"{called()}: n={n} {here()}. It must not be negative.")
    numbers = np.zeros(n + 1)
    numbers[:2] = [1.0, -0.5][: n + 1]
    # DLMF 25.6.2: |B(2k)| = 2 (2k)! zeta(2k) / (2 pi)**(2k).
    factor = 2.0
    for k in range(2, n + 1, 2):
        factor *= k * (k - 1) / (2 * math.pi) ** 2
        series = {2: math.pi**2 / 6, 4: math.pi**4 / 90}.get(k) or math.fsum(i**-k for i in range(1, 1000))
        numbers[k] = factor * series if k % 4 == 2 else -factor * series
    return asarray(numbers)


# -- integrals, Bessel functions and spherical harmonics


def exp1(x: Any) -> Any:
    """The exponential integral `E_1`, NaN of negative numbers."""
    return expn(literal(1.0), x)


def j0(z: Any) -> Any:
    """The Bessel function of the first kind of order 0, of real numbers.

    Example:
      >>> import tracegrad as tg
      >>> from tracegrad.scipy import special
      >>> abs(tg.grad(special.j0)(1.0) + special.j1(1.0)).item() < 1e-6
      True
    """
    return jn(literal(0), z)


def j1(z: Any) -> Any:
    """The Bessel function of the first kind of order 1, of real numbers."""
    return jn(literal(1), z)


def y0(z: Any) -> Any:
    """The Bessel function of the second kind of order 0: -inf at 0, NaN of negative numbers."""
    return yn(literal(0), z)


def y1(z: Any) -> Any:
    """The Bessel function of the second kind of order 1: -inf at 0, NaN of negative numbers."""
    return yn(literal(1), z)


def bessel_jn(z: Any, *, v: int, n_iter: int = 50) -> Any:
    """The Bessel functions of the first kind of orders 0 to `v`, along a new first axis.

    Args:
      z: real.
      v: an integer.
      n_iter: not needed.

    Example:
      >>> import numpy as np
      >>> from tracegrad.scipy import special
      >>> special.bessel_jn(np.array([0.5, 1.0]), v=2).shape
      (3, 2)
    """
    v = integer(v, "v")
    if v < 0:
        raise ValueError(f"{called()}: v={v} {here()}. The order must not be negative.")
    z = array_like(z)
    return jn(np.arange(v + 1, dtype=np.int32).reshape(v + 1, *[1] * z.ndim), z)


def sph_harm_y(n: Any, m: Any, theta: Any, phi: Any, diff_n: None = None, n_max: int | None = None) -> Any:
    """The spherical harmonics of degree `n` and order `m`, orthonormal on the sphere (DLMF 14.30.1); complex.

    Args:
      n, m: integers with concrete values, `|m| <= n`; they broadcast.
      theta, phi: the angles from the pole and around it, which broadcast with them.
      diff_n: not supported; the function is differentiable instead.
      n_max: not needed: the largest `n` is known.

    Example:
      >>> from tracegrad.scipy import special
      >>> round(special.sph_harm_y(0, 0, 0.3, 0.1).real.item(), 4)  # 1 / sqrt(4 pi)
      0.2821
    """
    if diff_n is not None:
        raise NotImplementedError(f"{called()}: diff_n={diff_n} {here()}. Differentiate in theta and phi instead.")
    for name, value in (("n", n), ("m", m)):
        if type_of(value).dtype.kind not in "iu":
            raise TypeError(f"{called()}: {name} must be of integers, not {describe(value)} {here()}")
    degrees, orders = np.broadcast_arrays(np.asarray(n), np.asarray(m))
    if np.any(np.abs(orders) > degrees):
        raise ValueError(f"{called()}: n={n}, m={m} {here()}. The order lies between -n and n, and n is not negative.")
    theta, phi = _float(theta), _float(phi)
    x, s = tnp.cos(theta), tnp.sin(theta)
    out: Any = 0.0
    for order in sorted(set(np.abs(orders).ravel().tolist())):
        wanted = degrees[np.abs(orders) == order]
        angle = phi * float(order)
        wave = ops.complex_(tnp.cos(angle), tnp.sin(angle))
        for degree, value in enumerate(_legendre(x, s, order, int(wanted.max())), order):
            here_ = (degrees == degree) & (np.abs(orders) == order)
            if not here_.any():
                continue
            term = value * wave
            if (orders[here_] < 0).any():
                # Y of order -m is (-1)**m times the conjugate of that of m.
                term = tnp.where(orders < 0, term.conj() * float((-1) ** order), term)
            out = tnp.where(here_, term, out)
    return out


def _legendre(x: Any, s: Any, m: int, n_max: int) -> list[Any]:
    """The associated Legendre functions of order m and degrees m to n_max, normalised on the sphere.

    By the recurrence in the degree (DLMF 14.10.3), which is stable upwards.
    """
    norm = math.sqrt(math.prod((2 * k + 1) / (2 * k) for k in range(1, m + 1)) / (4 * math.pi))
    values = [s**m * ((-1) ** m * norm)]
    for n in range(m + 1, n_max + 1):
        a = math.sqrt((4 * n * n - 1) / (n * n - m * m))
        value = x * values[-1] * a
        if n > m + 1:
            b = a * math.sqrt(((n - 1) ** 2 - m * m) / (4 * (n - 1) ** 2 - 1))
            value = value - values[-2] * b
        values.append(value)
    return values


__all__ = [
    "bernoulli", "bessel_jn", "beta", "betainc", "betaln", "boxcox", "boxcox1p", "comb", "dawsn", "digamma", "entr",
    "erf", "erfc", "erfcinv", "erfcx", "erfinv", "exp1", "expi", "expit", "expn", "factorial", "fresnel", "gamma",
    "gammainc", "gammaincc", "gammaln", "gammasgn", "hyp1f1", "hyp2f1", "i0", "i0e", "i1", "i1e", "iv", "ive", "j0",
    "j1", "jn", "kl_div", "log_ndtr", "log_softmax", "loggamma", "logit", "logsumexp", "multigammaln", "ndtr", "ndtri",
    "owens_t", "poch", "polygamma", "psi", "rel_entr", "rgamma", "sici", "softmax", "spence", "sph_harm_y", "wofz",
    "xlog1py", "xlogy", "y0", "y1", "yn", "zeta",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
