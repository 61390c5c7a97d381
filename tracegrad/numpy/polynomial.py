"""Polynomials as vectors of coefficients, the highest power first."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import ops
from ..borrow import written
from ..errors import called, describe, here
from . import linalg
from .arguments import common_type, inexact, integer, known, literal, promoted, type_of
from .creation import array_like, asarray, eye, zeros
from .manipulation import concatenate
from .statistics import convolve


def _coefficients(p: Any) -> Any:
    p = asarray(p) if isinstance(p, (list, tuple)) else array_like(p)
    if p.ndim > 1:
        raise ValueError(f"{called()}: coefficients {describe(p)} {here()}. Give a vector, the highest power first.")
    return ops.reshape(p, shape=(1,)) if not p.ndim else p


def _inexact(*xs: Any) -> list[Any]:
    """The operands as floats of one dtype."""
    dtype = ops.inexact_dtype(jnp.result_type(*xs))
    return [x.astype(dtype) for x in xs]


def _aligned(a1: Any, a2: Any) -> list[Any]:
    """Two vectors with zeros before the shorter one."""
    parts = [_coefficients(a1), _coefficients(a2)]
    n = max(len(c) for c in parts)
    return [jnp.pad(c, (n - len(c), 0)) for c in parts]


@written()
def polyadd(a1: Any, a2: Any) -> Any:
    """The sum of two polynomials."""
    a, b = _aligned(a1, a2)
    return a + b


@written()
def polysub(a1: Any, a2: Any) -> Any:
    """The difference of two polynomials."""
    a, b = _aligned(a1, a2)
    return a - b


def _trimmed(p: Any) -> Any:
    """Without leading zeros; its value must be known."""
    p = _coefficients(p)
    found = np.flatnonzero(known(p, "Leave trim_leading_zeros out"))
    return p[int(found[0]) if found.size else p.shape[0] - 1 :]


def polymul(a1: Any, a2: Any, *, trim_leading_zeros: bool = False) -> Any:
    """The product of two polynomials; `trim_leading_zeros` takes zeros off first, and needs their values now."""
    a, b = (_trimmed(a1), _trimmed(a2)) if trim_leading_zeros else (_coefficients(a1), _coefficients(a2))
    return convolve(a, b) if a.shape[0] and b.shape[0] else zeros((0,))


def polydiv(u: Any, v: Any, *, trim_leading_zeros: bool = False) -> tuple[Any, Any]:
    """The quotient and the remainder of two polynomials.

    The remainder has as many coefficients as `u`; `trim_leading_zeros` takes zeros off it, and needs its value now.
    """
    quotient, rest = _divided(u, v)
    return quotient, _trimmed(rest) if trim_leading_zeros else rest


@written()
def _divided(u: Any, v: Any) -> tuple[Any, Any]:
    rest, b = _inexact(_coefficients(u), _coefficients(v))
    m, n = len(rest), len(b)
    if not n:
        raise ValueError(f"{called()}: the divisor has no coefficient {here()}. Give at least one.")
    quotient: list[Any] = []
    for _ in range(m - n + 1):
        quotient.append(rest[:1] / b[:1])
        # The product is taken off; the leading coefficient, which becomes 0, is left out.
        rest = jnp.concatenate([rest[1:n] - quotient[-1] * b[1:], rest[n:]])
    return jnp.concatenate(quotient or [jnp.zeros(1, b.dtype)]), jnp.pad(rest, (m - len(rest), 0))


@written("unroll")
def polyval(p: Any, x: Any, *, unroll: int = 16) -> Any:
    """The value of a polynomial at `x`, by Horner's scheme.

    Args:
      unroll: changes nothing; the scheme is always written out.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.grad(lambda x: np.polyval(np.array([1.0, 0.0, 2.0]), x))(3.0).item()
      6.0
    """
    c = _coefficients(p)
    x = jnp.asarray(x)
    out = jnp.zeros(x.shape, jnp.result_type(c, x))
    for k in range(len(c)):
        out = out * x + c[k] if k else out + c[k]
    return out


def _order(m: Any, inverse: str) -> int:
    n = integer(m, "m")
    if n < 0:
        raise ValueError(f"{called()}: m={n} is negative {here()}. Use {inverse}.")
    return n


@written("m")
def polyder(p: Any, m: int = 1) -> Any:
    """The `m`-th derivative of a polynomial."""
    (c,), m = _inexact(_coefficients(p)), _order(m, "polyint")
    factors = np.array([math.perm(k, m) for k in range(len(c) - 1, m - 1, -1)], float)
    return c[: factors.size] * factors.astype(c.dtype)


@written("m")
def polyint(p: Any, m: int = 1, k: Any = None) -> Any:
    """The polynomial whose `m`-th derivative is `p`.

    Args:
      k: the constants of integration, one for all of them or `m`, the first integration's first; 0 by default.
    """
    m, constants = _order(m, "polyder"), jnp.ravel(jnp.asarray(0.0 if k is None else k))
    if len(constants) not in (1, m):
        raise ValueError(f"{called()}: {len(constants)} constants for {m} integrations {here()}. Give one, or {m}.")
    c, constants = _inexact(_coefficients(p), constants)
    c = jnp.concatenate([c, jnp.broadcast_to(constants, (m,)) if m else constants[:0]])
    # A coefficient that becomes that of x**j went through powers j, j - 1, ...; the i-th constant through i less.
    scale = np.array([1.0 / math.perm(j, min(j, m)) for j in range(len(c) - 1, -1, -1)])
    return c * scale.astype(c.dtype)


def poly(seq_of_zeros: Any) -> Any:
    """The polynomial with these zeros and the leading coefficient 1; of a matrix, its characteristic polynomial."""
    x = array_like(seq_of_zeros)
    if x.ndim == 2 and x.shape[0] == x.shape[1]:
        x = linalg.eigvals(x)
    elif x.ndim > 1:
        raise ValueError(f"{called()}: {describe(x)} {here()}. Give a vector of zeros, or a square matrix.")
    return _with_zeros(x)


@written()
def _with_zeros(x: Any) -> Any:
    (x,) = _inexact(jnp.ravel(x))
    out = jnp.ones(1, x.dtype)
    for k in range(len(x)):
        out = jnp.pad(out, (0, 1)) - jnp.pad(out, (1, 0)) * x[k]
    return out


def roots(p: Any, *, strip_zeros: bool = True) -> Any:
    """The zeros of a polynomial, complex, as the eigenvalues of its companion matrix.

    Args:
      strip_zeros: whether leading and trailing zeros are taken off first, which needs the value of `p` now.
        Otherwise the first coefficient is not 0.
    """
    c = _coefficients(p)
    c = inexact(c, type_of(c))
    trailing = 0
    dtype = common_type([type_of(c), literal(1j).aval])[0]
    if strip_zeros:
        found = np.flatnonzero(known(c, "Pass strip_zeros=False"))
        if not found.size:
            return zeros((0,), dtype)
        trailing = c.shape[0] - 1 - int(found[-1])
        c = c[int(found[0]) : int(found[-1]) + 1]
    n = c.shape[0] - 1
    end = zeros((trailing,), dtype)
    if n < 1:
        return end
    companion = concatenate([(-c[1:] / c[:1])[None], eye(n - 1, n, dtype=c.dtype)])
    return concatenate([linalg.eigvals(companion), end])


@written("N")
def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    """The powers of a vector: columns `x**(N - 1)`, ..., `x`, 1, or the other way round if `increasing`."""
    x = _coefficients(x)
    n = len(x) if N is None else integer(N, "N")
    if n < 0:
        raise ValueError(f"{called()}: N={n} is negative {here()}. Give the number of columns.")
    x = x.astype(np.int32) if x.dtype.kind == "b" else x
    if not n:
        return jnp.zeros((len(x), 0), x.dtype)
    powers = jnp.cumprod(jnp.broadcast_to(x[:, None], (len(x), n - 1)), 1)
    out = jnp.concatenate([jnp.ones((len(x), 1), x.dtype), powers], 1)
    return out if increasing else out[:, ::-1]


def polyfit(
    x: Any, y: Any, deg: int, rcond: float | None = None, full: bool = False, w: Any = None, cov: Any = False
) -> Any:  # fmt: skip
    """The polynomial of degree `deg` closest to the points `(x, y)` in the sum of squares.

    Args:
      x: the places, a vector.
      y: the values, one or several columns.
      rcond: singular values below this part of the largest count as 0.
      full: whether to give the residuals, the rank, the singular values and `rcond` too.
      w: the weight of each difference, before it is squared.
      cov: whether to give the covariance matrix of the coefficients too: `True`, or "unscaled" if the weights are
        inverse standard deviations.
    """
    deg = integer(deg, "deg")
    places, values = promoted((x, y), (type_of(x), type_of(y)))
    places, values = (array_like(inexact(v, type_of(v))) for v in (places, values))
    fits = places.ndim == 1 and values.ndim in (1, 2) and places.shape[0] == values.shape[0] > 0
    if deg < 0 or not fits:
        raise ValueError(
            f"{called()}: places {describe(places)}, values {describe(values)}, deg={deg} {here()}. Give as many "
            "values as places, at least one, and a degree of 0 or more."
        )
    n = places.shape[0]
    if rcond is None:
        rcond = n * float(np.finfo(places.dtype).eps)
    matrix = vander(places, deg + 1)
    if w is not None:
        weights = array_like(inexact(w, type_of(w)))
        if weights.shape != (n,):
            raise ValueError(f"{called()}: weights {describe(weights)} for {n} points {here()}. Give one a point.")
        matrix = matrix * weights[:, None]
        values = values * (weights[:, None] if values.ndim == 2 else weights)
    # Columns of one length, for a better condition.
    scale = ops.root(ops.reduce_sum(ops.real(ops.mul(matrix, ops.conj(matrix))), axes=(0,)))
    c, residuals, rank, s = linalg.lstsq(matrix / scale, values, rcond)
    c = c / (scale[:, None] if values.ndim == 2 else scale)
    if full:
        return c, residuals, rank, s, asarray(rcond)
    if not cov:
        return c
    scaled = matrix / scale
    base = linalg.inv(scaled.T @ scaled) / (scale * scale[:, None])
    if cov == "unscaled":
        return c, base
    if n <= deg + 1:
        raise ValueError(
            f"{called()}: {n} points for {deg + 1} coefficients and cov=True {here()}. Pass cov='unscaled'."
        )
    return c, (base[..., None] if values.ndim == 2 else base) * (residuals / (n - deg - 1))


__all__ = [
    "poly", "polyadd", "polyder", "polydiv", "polyfit", "polyint", "polymul", "polysub", "polyval", "roots", "vander",
]  # fmt: skip
