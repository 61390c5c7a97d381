"""Polynomials as vectors of coefficients, the highest power first."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import ops
from ..errors import called, describe, here
from . import linalg
from .arguments import Aval, common_type, inexact, integer, known, literal, promoted, type_of
from .creation import array_like, asarray, full, ones, zeros
from .manipulation import concatenate, part_along, ravel
from .statistics import convolve


def _coefficients(p: Any) -> Any:
    p = asarray(p) if isinstance(p, (list, tuple)) else array_like(p)
    if p.ndim > 1:
        raise ValueError(f"{called()}: coefficients {describe(p)} {here()}. Give a vector, the highest power first.")
    return ops.reshape(p, shape=(1,)) if not p.ndim else p


def _cut(p: Any, start: int, stop: int) -> Any:
    return part_along(p, p.shape, 0, start, stop)


def _longer(p: Any, n: int) -> Any:
    """A vector with zeros before it, so that it has `n` elements."""
    return ops.pad(p, literal(0), config=((n - p.shape[0], 0, 0),)) if p.shape[0] < n else p


def _added(a1: Any, a2: Any, op: Any) -> Any:
    a, b = _coefficients(a1), _coefficients(a2)
    a, b = promoted((a, b), (type_of(a), type_of(b)))
    n = max(a.shape[0], b.shape[0])
    return op(_longer(a, n), _longer(b, n))


def polyadd(a1: Any, a2: Any) -> Any:
    """The sum of two polynomials."""
    return _added(a1, a2, ops.add)


def polysub(a1: Any, a2: Any) -> Any:
    """The difference of two polynomials."""
    return _added(a1, a2, ops.sub)


def _trimmed(p: Any) -> Any:
    """Without leading zeros; its value must be known."""
    found = np.flatnonzero(known(p, "Leave trim_leading_zeros out"))
    return _cut(p, int(found[0]) if found.size else p.shape[0] - 1, p.shape[0])


def polymul(a1: Any, a2: Any, *, trim_leading_zeros: bool = False) -> Any:
    """The product of two polynomials; `trim_leading_zeros` takes zeros off first, and needs their values now."""
    a, b = _coefficients(a1), _coefficients(a2)
    if trim_leading_zeros:
        a, b = _trimmed(a), _trimmed(b)
    return convolve(a, b) if a.shape[0] and b.shape[0] else zeros((0,))


def polydiv(u: Any, v: Any, *, trim_leading_zeros: bool = False) -> tuple[Any, Any]:
    """The quotient and the remainder of two polynomials.

    The remainder has as many coefficients as `u`; `trim_leading_zeros` takes zeros off it, and needs its value now.
    """
    a, b = _coefficients(u), _coefficients(v)
    dtype, _ = common_type([type_of(a), type_of(b)])
    dtype = ops.inexact_dtype(dtype)
    a, b = (x if x.dtype == dtype else ops.astype(x, dtype=dtype) for x in (a, b))
    m, n = a.shape[0], b.shape[0]
    if not n:
        raise ValueError(f"{called()}: the divisor has no coefficient {here()}. Give at least one.")
    quotient: list[Any] = []
    lead = _cut(b, 0, 1)
    for k in range(m - n + 1):
        factor = ops.div(_cut(a, k, k + 1), lead)
        quotient.append(factor)
        # The product is taken off, and leaves exactly 0 where the leading coefficients were.
        rest = ops.sub(_cut(a, k + 1, k + n), ops.mul(factor, _cut(b, 1, n)))
        a = ops.concatenate(
            *[x for x in (_cut(a, 0, k), zeros((1,), dtype), rest, _cut(a, k + n, m)) if x.shape[0]], axis=0
        )
    q = ops.concatenate(*quotient, axis=0) if quotient else zeros((1,), dtype)
    return q, _trimmed(a) if trim_leading_zeros else a


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
    x = array_like(x)
    c, x = promoted((c, x), (type_of(c), type_of(x)))
    out = zeros(x.shape, x.dtype)
    for k, part in enumerate(ops.split_op(c, sizes=(1,) * c.shape[0], axis=0) if c.shape[0] else ()):
        part = ops.reshape(part, shape=())
        out = ops.add(out, part) if not k else ops.add(ops.mul(out, x), part)
    return out


def polyder(p: Any, m: int = 1) -> Any:
    """The `m`-th derivative of a polynomial."""
    c, m = _coefficients(p), integer(m, "m")
    if m < 0:
        raise ValueError(f"{called()}: m={m} is negative {here()}. Use polyint.")
    c = inexact(c, type_of(c))
    n = c.shape[0]
    factors = [float(math.perm(k, m)) for k in range(n - 1, m - 1, -1)]
    return ops.mul(_cut(c, 0, n - m), asarray(factors, c.dtype)) if factors else zeros((0,), c.dtype)


def polyint(p: Any, m: int = 1, k: Any = None) -> Any:
    """The polynomial whose `m`-th derivative is `p`.

    Args:
      k: the constants of integration, one for all of them or `m`, the first integration's first; 0 by default.
    """
    c, m = _coefficients(p), integer(m, "m")
    if m < 0:
        raise ValueError(f"{called()}: m={m} is negative {here()}. Use polyder.")
    constants = ravel(asarray(0.0 if k is None else k))
    if constants.shape[0] not in (1, m):
        raise ValueError(f"{called()}: {constants.shape[0]} constants for {m} integrations {here()}. Give one, or {m}.")
    c, constants = promoted((c, constants), (type_of(c), type_of(constants)))
    c = inexact(c, type_of(c))
    if not m:
        return c
    if constants.shape[0] != m:
        constants = ops.broadcast_in_dim(constants, shape=(m,), dims=(0,))
    c = concatenate([c, constants], 0)
    n = c.shape[0]
    # A coefficient that becomes that of x**j went through powers j, j - 1, ...; the i-th constant through i less.
    powers = range(n - 1, -1, -1)
    scale = [1.0 / math.perm(j, m if j >= m else j) for j in powers]
    return ops.mul(c, asarray(scale, c.dtype))


def poly(seq_of_zeros: Any) -> Any:
    """The polynomial with these zeros and the leading coefficient 1; of a matrix, its characteristic polynomial."""
    x = asarray(seq_of_zeros) if isinstance(seq_of_zeros, (list, tuple)) else array_like(seq_of_zeros)
    x = inexact(x, type_of(x))
    if x.ndim == 2 and x.shape[0] == x.shape[1]:
        x = linalg.eigvals(x)
    elif x.ndim > 1:
        raise ValueError(f"{called()}: {describe(x)} {here()}. Give a vector of zeros, or a square matrix.")
    out = ones((1,), x.dtype)
    for zero in ops.split_op(ravel(x), sizes=(1,) * x.size, axis=0) if x.size else ():
        n = out.shape[0]
        out = ops.sub(
            ops.pad(out, literal(0), config=((0, 1, 0),)), ops.mul(ops.pad(out, literal(0), config=((1, 0, 0),)), zero)
        )
        assert out.shape[0] == n + 1
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
    if strip_zeros:
        found = np.flatnonzero(known(asarray(p), "Pass strip_zeros=False"))
        if not found.size:
            return zeros((0,), _complex(type_of(c)))
        trailing = c.shape[0] - 1 - int(found[-1])
        c = _cut(c, int(found[0]), int(found[-1]) + 1)
    n = c.shape[0] - 1
    end = zeros((trailing,), _complex(type_of(c)))
    if n < 1:
        return end
    row = ops.reshape(ops.neg(ops.div(_cut(c, 1, n + 1), _cut(c, 0, 1))), shape=(1, n))
    companion = ops.concatenate(row, asarray(np.eye(n - 1, n), c.dtype), axis=0) if n > 1 else row
    return ops.concatenate(linalg.eigvals(companion), end, axis=0) if trailing else linalg.eigvals(companion)


def _complex(aval: Aval) -> Any:
    return common_type([aval, literal(1j).aval])[0]


def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    """The powers of a vector: columns `x**(N - 1)`, ..., `x`, 1, or the other way round if `increasing`."""
    x = _coefficients(x)
    n = x.shape[0] if N is None else integer(N, "N")
    if n < 0:
        raise ValueError(f"{called()}: N={n} is negative {here()}. Give the number of columns.")
    if x.dtype.kind == "b":
        x = ops.astype(x, dtype=np.dtype(np.int32))
    if not n:
        return zeros((x.shape[0], 0), x.dtype)
    column = ops.reshape(x, shape=(x.shape[0], 1))
    one = full((x.shape[0], 1), 1, x.dtype)
    if n == 1:
        return one
    powers = ops.cumprod(ops.broadcast_in_dim(column, shape=(x.shape[0], n - 1), dims=(0, 1)), axis=1)
    out = ops.concatenate(one, powers, axis=1)
    return out if increasing else ops.rev(out, axes=(1,))


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
    places, values = array_like(x), array_like(y)
    places, values = promoted((places, values), (type_of(places), type_of(values)))
    places, values = inexact(places, type_of(places)), inexact(values, type_of(values))
    if (
        deg < 0
        or places.ndim != 1
        or values.ndim not in (1, 2)
        or places.shape[0] != values.shape[0]
        or not places.shape[0]
    ):
        raise ValueError(
            f"{called()}: places {describe(places)}, values {describe(values)}, deg={deg} {here()}. Give as many "
            "values as places, at least one, and a degree of 0 or more."
        )
    n = places.shape[0]
    if rcond is None:
        rcond = n * float(np.finfo(places.dtype).eps)
    matrix = vander(places, deg + 1)
    if w is not None:
        weights = inexact(array_like(w), type_of(w))
        if weights.shape != (n,):
            raise ValueError(f"{called()}: weights {describe(weights)} for {n} points {here()}. Give one a point.")
        column = ops.reshape(weights, shape=(n, 1))
        matrix = ops.mul(matrix, column)
        values = ops.mul(values, column if values.ndim == 2 else weights)
    # Columns of one length, for a better condition.
    scale = ops.root(ops.reduce_sum(ops.real(ops.mul(matrix, ops.conj(matrix))), axes=(0,)))
    c, residuals, rank, s = linalg.lstsq(ops.div(matrix, scale), values, rcond)
    c = ops.div(c, ops.reshape(scale, shape=(deg + 1, 1)) if values.ndim == 2 else scale)
    if full:
        return c, residuals, rank, s, asarray(rcond)
    if not cov:
        return c
    scaled = ops.div(matrix, scale)
    inverse = linalg.inv(ops.dot_general(scaled, scaled, dims=(((0,), (0,)), ((), ()))))
    spread = ops.mul(scale, ops.reshape(scale, shape=(deg + 1, 1)))
    base = ops.div(inverse, spread)
    if cov == "unscaled":
        return c, base
    if n <= deg + 1:
        raise ValueError(
            f"{called()}: {n} points for {deg + 1} coefficients and cov=True {here()}. Pass cov='unscaled'."
        )
    factor = ops.div(residuals, literal(n - deg - 1))
    if values.ndim == 2:
        return c, ops.mul(ops.reshape(base, shape=(*base.shape, 1)), factor)
    return c, ops.mul(base, factor)


__all__ = [
    "poly", "polyadd", "polyder", "polydiv", "polyfit", "polyint", "polymul", "polysub", "polyval", "roots", "vander",
]  # fmt: skip
