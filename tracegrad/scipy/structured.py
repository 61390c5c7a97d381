"""Matrices of a structure, made of vectors or of a size alone: public in `tracegrad.scipy.linalg`."""

from __future__ import annotations

import math
from typing import Any

import jax.scipy.linalg as jlinalg
import numpy as np

from .. import numpy as tnp
from .. import ops
from ..borrow import borrow
from ..errors import called, describe, here
from ..numpy.arguments import inexact, integer, promoted, type_of, types_of
from ..numpy.creation import array_like
from ..ops import linalg as la
from ..ops.shape import broadcast_to
from ..tracer import literal

_PLACE = "tracegrad.scipy.linalg"


def block_diag(*arrs: Any) -> Any:
    """The matrix with the given ones along its diagonal.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.scipy.linalg.block_diag(np.ones((1, 2)), np.ones((1, 1))).tolist()
      [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    if not arrs:
        return tnp.zeros((1, 0))
    avals = types_of(arrs)
    if any(a.ndim > 2 for a in avals):
        raise ValueError(f"{called()}: arrays of shapes {[a.shape for a in avals]} {here()}. Give matrices.")
    blocks = [tnp.atleast_2d(x) for x in promoted(arrs, avals)]
    width = sum(x.shape[1] for x in blocks)
    rows, start = [], 0
    for x in blocks:
        end = start + x.shape[1]
        rows.append(tnp.pad(x, ((0, 0), (start, width - end))))
        start = end
    return tnp.concatenate(rows, axis=0)


def _vector(x: Any) -> Any:
    aval = type_of(x)
    if not aval.ndim:
        raise ValueError(f"{called()}: {describe(x)} {here()}. Give a vector.")
    return array_like(x)


def _of_offsets(elements: Any, index: Any) -> Any:
    """Matrices made of the elements of vectors at these positions."""
    return ops.take(elements, index, axis=-1, mode="promise_in_bounds")


def toeplitz(c: Any, r: Any = None) -> Any:
    """Matrices with constant diagonals, from the first column and the first row (by default, the conjugate of it).

    Example:
      >>> import tracegrad as tg, numpy as np
      >>> tg.scipy.linalg.toeplitz(np.array([1, 2, 3]), np.array([1, 4])).tolist()
      [[1, 4], [2, 1], [3, 2]]
    """
    c = _vector(c)
    r = la.conjugate(c) if r is None else _vector(r)
    n, m = c.shape[-1], r.shape[-1]
    elements = tnp.concatenate([tnp.flip(c, -1), r[..., 1:]], axis=-1)
    return _of_offsets(elements, n - 1 - np.arange(n)[:, None] + np.arange(m))


def hankel(c: Any, r: Any = None) -> Any:
    """Matrices with constant anti-diagonals, from the first column and the last row (by default, 0)."""
    c = _vector(c)
    r = ops.mul(c, literal(0)) if r is None else _vector(r)
    n, m = c.shape[-1], r.shape[-1]
    return _of_offsets(tnp.concatenate([c, r[..., 1:]], axis=-1), np.arange(n)[:, None] + np.arange(m))


def circulant(c: Any) -> Any:
    """Matrices whose columns are a vector, turned by one place more in each."""
    c = _vector(c)
    n = c.shape[-1]
    return _of_offsets(c, (np.arange(n)[:, None] - np.arange(n)) % n)


def companion(a: Any) -> Any:
    """The companion matrix of a polynomial, given by its coefficients, the one of the highest power first."""
    a = _vector(a)
    n = a.shape[-1] - 1
    if n < 1:
        raise ValueError(f"{called()}: coefficients of shape {a.shape} {here()}. Give two or more.")
    a = inexact(a, type_of(a))
    first = ops.neg(ops.div(a[..., 1:], a[..., :1]))
    below = broadcast_to(tnp.eye(n - 1, n, dtype=a.dtype), (*a.shape[:-1], n - 1, n))
    return tnp.concatenate([la.row(first), below], axis=-2)


def hilbert(n: int) -> Any:
    """The matrix with elements `1 / (i + j + 1)`.

    Example:
      >>> import tracegrad as tg
      >>> tg.scipy.linalg.hilbert(2).round(3).tolist()[0]
      [1.0, 0.5]
    """
    i = tnp.arange(1.0, 2 * integer(n, "n"))
    return _of_offsets(ops.div(literal(1.0), i), np.arange(n)[:, None] + np.arange(n))


def hadamard(n: int, dtype: Any = int) -> Any:
    """The Hadamard matrix of size `n`, a power of 2: its elements are 1 and -1, its rows orthogonal."""
    n = integer(n, "n")
    if n < 1 or n & (n - 1):
        raise ValueError(f"{called()}: n={n} {here()} is no power of 2")
    out = np.ones((1, 1), np.int8)
    while len(out) < n:
        out = np.block([[out, out], [out, -out]])
    return tnp.asarray(out, dtype)


def dft(n: int, scale: str | None = None, *, dtype: Any = None) -> Any:
    """The matrix of the discrete Fourier transform of `n` elements; `scale` is None, "sqrtn" or "n"."""
    if scale not in (None, "sqrtn", "n"):
        raise ValueError(f"{called()}: scale={scale!r} {here()}. Use None, 'sqrtn' or 'n'.")
    n = integer(n, "n")
    out = np.exp(-2j * np.pi * (np.outer(np.arange(n), np.arange(n)) % max(n, 1)) / max(n, 1))
    out = out / (np.sqrt(n) if scale == "sqrtn" else n) if scale else out
    return tnp.asarray(out, complex if dtype is None else dtype)


convolution_matrix = borrow(
    jlinalg.convolution_matrix,
    """The matrices whose product with a vector of `n` elements is its convolution with `a`.

    Args:
      a: vectors, `(..., m)`.
      n: the number of columns, positive.
      mode: which of the rows, as in `tracegrad.numpy.convolve`: "full", "valid" or "same".

    Example:
      >>> import tracegrad as tg, numpy as np
      >>> tg.scipy.linalg.convolution_matrix(np.array([1, 2]), 2).tolist()
      [[1, 0], [2, 1], [0, 2]]
    """,
    "n",
    "mode",
    module=_PLACE,
)

fiedler = borrow(
    jlinalg.fiedler,
    """The matrices of the distances `abs(a[i] - a[j])`.

    Args:
      a: vectors, `(..., n)`.

    Example:
      >>> import tracegrad as tg, numpy as np
      >>> tg.scipy.linalg.fiedler(np.array([1, 4])).tolist()
      [[0, 3], [3, 0]]
    """,
    module=_PLACE,
)

fiedler_companion = borrow(
    jlinalg.fiedler_companion,
    """A matrix of five diagonals with the roots of a polynomial as eigenvalues, as `companion` has.

    Args:
      a: coefficients, the one of the highest power first, `(..., n)`.

    Example:
      >>> import tracegrad as tg, numpy as np
      >>> tg.scipy.linalg.fiedler_companion(np.array([1.0, -3.0, 2.0])).tolist()
      [[3.0, -2.0], [1.0, 0.0]]
    """,
    module=_PLACE,
)

leslie = borrow(
    jlinalg.leslie,
    """The matrix of a population's growth: the fecundities in the first row, the survivals below the diagonal.

    Args:
      f: fecundities, `(..., n)`, two or more.
      s: survivals, `(..., n - 1)`.

    Example:
      >>> import tracegrad as tg, numpy as np
      >>> tg.scipy.linalg.leslie(np.array([0.5, 2.0]), np.array([0.25])).tolist()
      [[0.5, 2.0], [0.25, 0.0]]
    """,
    module=_PLACE,
)

helmert = borrow(
    jlinalg.helmert,
    """The Helmert matrix `(n - 1, n)`: orthonormal rows that sum to 0; with `full`, a first row of equal elements.

    Example:
      >>> import tracegrad as tg
      >>> tg.scipy.linalg.helmert(3).shape
      (2, 3)
    """,
    "n",
    "full",
    module=_PLACE,
)

invhilbert = borrow(
    jlinalg.invhilbert,
    """The inverse of `hilbert(n)`, in floats.

    Example:
      >>> import tracegrad as tg
      >>> tg.scipy.linalg.invhilbert(2).round(2).tolist()
      [[4.0, -6.0], [-6.0, 12.0]]
    """,
    "n",
    module=_PLACE,
)


def _pascal(n: Any, kind: str | None, sign: int) -> np.ndarray:
    n = integer(n, "n")
    if kind not in (None, "symmetric", "lower", "upper"):
        raise ValueError(f"{called()}: kind={kind!r} {here()}. Use 'symmetric', 'lower' or 'upper'.")
    lower = np.array([[sign ** (i + j) * math.comb(i, j) for j in range(n)] for i in range(n)], float).reshape(n, n)
    if kind in ("lower", "upper"):
        return lower if kind == "lower" else lower.T
    whole: np.ndarray = lower @ lower.T if sign > 0 else lower.T @ lower
    return whole


def pascal(n: int, kind: str | None = None) -> Any:
    """The matrix of binomial coefficients of size `n`, in floats: `kind` is "symmetric" (None), "lower" or "upper".

    Example:
      >>> import tracegrad as tg
      >>> tg.scipy.linalg.pascal(3, "lower").tolist()
      [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 2.0, 1.0]]
    """
    return tnp.asarray(_pascal(n, kind, 1))


def invpascal(n: int, kind: str | None = None) -> Any:
    """The inverse of `pascal(n, kind)`.

    Example:
      >>> import tracegrad as tg
      >>> tg.scipy.linalg.invpascal(2).tolist()
      [[2.0, -1.0], [-1.0, 1.0]]
    """
    return tnp.asarray(_pascal(n, kind, -1))


__all__ = [
    "block_diag", "circulant", "companion", "convolution_matrix", "dft", "fiedler", "fiedler_companion", "hadamard",
    "hankel", "helmert", "hilbert", "invhilbert", "invpascal", "leslie", "pascal", "toeplitz",
]  # fmt: skip
