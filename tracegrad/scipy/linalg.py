"""Linear algebra, with the signatures of `jax.scipy.linalg`: matrices are in the last two axes, the others a batch.

Arguments that only say what memory may be used, or what SciPy is to check (`overwrite_a`, `check_finite`, ...), change
nothing here. Shapes that do not fit, and options that there are not, are a `ValueError`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import jax.scipy.linalg as jlinalg
import numpy as np
from jax import lax

from .. import numpy as tnp
from .. import ops
from ..borrow import borrow
from ..errors import called, describe, here
from ..names import listed
from ..numpy.arguments import integer
from ..numpy.linalg import det as _det
from ..numpy.linalg import eigh as _eigh
from ..numpy.linalg import from_triangle, matrices, one_batch, right_side, solve_with, symmetrized, together
from ..numpy.linalg import inv as _inv
from ..numpy.linalg import solve as _solve
from ..numpy.linalg import svd as _svd
from ..ops import linalg as la
from ..ops.shape import broadcast_to
from ..tracer import literal
from .structured import (
    block_diag,
    circulant,
    companion,
    convolution_matrix,
    dft,
    fiedler,
    fiedler_companion,
    hadamard,
    hankel,
    helmert,
    hilbert,
    invhilbert,
    invpascal,
    leslie,
    pascal,
    toeplitz,
)

# -- Cholesky


def cholesky(a: Any, lower: bool = False, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """The triangular factor of Hermitian positive definite matrices: `a = L @ L^H` if `lower`, else `a = U^H @ U`.

    The lower triangle of `a` is read if `lower`, else the upper. Where a matrix is not positive definite the result is
    NaN.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.scipy.linalg.cholesky(np.array([[4.0, 2.0], [2.0, 5.0]])).tolist()
      [[2.0, 1.0], [0.0, 2.0]]
    """
    factor = la.lower_part(la.cholesky_op(from_triangle(matrices(a, square=True), lower)))
    return factor if lower else la.adjoint(factor)


def cho_factor(a: Any, lower: bool = False, overwrite_a: bool = False, check_finite: bool = True) -> tuple[Any, bool]:
    """The factor of `cholesky`, and whether it is the lower one, for `cho_solve`."""
    return cholesky(a, lower), lower


def cho_solve(c_and_lower: tuple[Any, bool], b: Any, overwrite_b: bool = False, check_finite: bool = True) -> Any:
    """`x` with `a @ x = b`, from `cho_factor(a)`.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> factor = tg.scipy.linalg.cho_factor(np.array([[4.0, 0.0], [0.0, 1.0]]))
      >>> tg.scipy.linalg.cho_solve(factor, np.array([4.0, 3.0])).tolist()
      [1.0, 3.0]
    """
    c, lower = c_and_lower
    c, b, vector = right_side(c, b)

    def run(c: Any, b: Any) -> Any:
        x = la.triangular_solve(c, b, lower=lower, transpose_a=not lower, conjugate_a=not lower)
        return la.triangular_solve(c, x, lower=lower, transpose_a=lower, conjugate_a=lower)

    return solve_with(run, c, b, vector)


# -- LU


def lu_factor(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> tuple[Any, Any]:
    """One matrix with `L` below the diagonal and `U` on and above it, and the row swapped with each, for `lu_solve`."""
    lu, pivots, _ = la.lu_op(matrices(a))
    return lu, pivots


def lu_solve(
    lu_and_piv: tuple[Any, Any], b: Any, trans: int = 0, overwrite_b: bool = False, check_finite: bool = True
) -> Any:
    """`x` with `a @ x = b`, from `lu_factor(a)`; `trans=1` for the transpose of `a`, 2 for the conjugate transpose.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> factors = tg.scipy.linalg.lu_factor(np.array([[0.0, 2.0], [1.0, 0.0]]))
      >>> tg.scipy.linalg.lu_solve(factors, np.array([2.0, 3.0])).tolist()
      [3.0, 1.0]
    """
    lu, pivots = lu_and_piv
    if trans not in (0, 1, 2):
        raise ValueError(f"{called()}: trans={trans!r} {here()}. Use 0, 1 or 2.")
    lu, b, vector = right_side(lu, b)
    order = la.pivots_op(pivots, permutation_size=lu.shape[-1])

    def run(lu: Any, b: Any) -> Any:
        rows = broadcast_to(order, b.shape[:-1])
        if not trans:
            x = la.triangular_solve(lu, la.take_rows(b, rows), lower=True, unit=True)
            return la.triangular_solve(lu, x, lower=False)
        turned = {"transpose_a": True, "conjugate_a": trans == 2}
        x = la.triangular_solve(lu, la.triangular_solve(lu, b, lower=False, **turned), lower=True, unit=True, **turned)
        return la.take_rows(x, la.inverse_order(rows))

    return solve_with(run, lu, b, vector)


def lu(a: Any, permute_l: bool = False, overwrite_a: bool = False, check_finite: bool = True) -> tuple[Any, ...]:
    """The factors of `a = P @ L @ U`: a permutation, a unit lower triangular matrix and an upper triangular one.

    Args:
      a: matrices, `(..., m, n)`.
      permute_l: whether to return `(P @ L, U)`.
    """
    a = matrices(a)
    m, n = a.shape[-2:]
    k = min(m, n)
    factors, _, order = la.lu_op(a)
    lower = la.on_diagonal(la.lower_part(factors[..., :k], -1), literal(1.0))
    upper = la.upper_part(factors[..., :k, :])
    if permute_l:
        return la.take_rows(lower, la.inverse_order(order)), upper
    places = ops.iota(dtype=np.dtype(np.int32), shape=(m, m), axis=0)
    permutation = ops.astype(ops.equal(la.row(order), places), dtype=np.finfo(a.dtype).dtype)
    return permutation, lower, upper


# -- QR, singular values, eigenvalues


def qr(
    a: Any,
    overwrite_a: bool = False,
    lwork: None = None,
    mode: str = "full",
    pivoting: bool = False,
    check_finite: bool = True,
) -> tuple[Any, ...]:
    """The factors of `a = Q @ R`: `Q` with orthonormal columns, `R` upper triangular.

    Args:
      a: matrices, `(..., m, n)`.
      mode: "full" for `m` columns of `Q`, "economic" for `min(m, n)`, "r" for `(R,)` alone.
      pivoting: whether the columns are taken in the order that makes the diagonal of `R` descend; the order is returned
        last. On a CPU or GPU.
    """
    if mode not in ("full", "economic", "r"):
        raise ValueError(f"{called()}: mode={mode!r} {here()}. Use 'full', 'economic' or 'r'.")
    out = la.qr_op(matrices(a), full_matrices=mode != "economic", pivoting=bool(pivoting))
    return tuple(out[1:] if mode == "r" else out)


def svd(
    a: Any,
    full_matrices: bool = True,
    compute_uv: bool = True,
    overwrite_a: bool = False,
    check_finite: bool = True,
    lapack_driver: str = "gesdd",
) -> Any:
    """The singular value decomposition; see `tracegrad.numpy.linalg.svd`."""
    out = _svd(a, full_matrices, compute_uv)
    return tuple(out) if compute_uv else out


def eigh(
    a: Any,
    b: Any = None,
    lower: bool = True,
    eigvals_only: bool = False,
    overwrite_a: bool = False,
    overwrite_b: bool = False,
    turbo: bool = True,
    eigvals: None = None,
    type: int = 1,
    check_finite: bool = True,
) -> Any:
    """The eigenvalues, ascending, and eigenvectors of Hermitian matrices: `a @ v = b @ v * w`.

    Args:
      a: matrices, `(..., n, n)`.
      b: positive definite matrices, by default the identity.
      lower: which triangle of both is read.
      eigvals_only: whether to return the eigenvalues alone.

    Raises:
      ValueError: if the matrices are not square, or the shapes differ.
      NotImplementedError: for `eigvals` and `type`.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.scipy.linalg.eigh(np.array([[1.0, 0.0], [0.0, 3.0]]), eigvals_only=True).tolist()
      [1.0, 3.0]
    """
    if eigvals is not None or type != 1:
        raise NotImplementedError(f"{called()}: eigvals={eigvals}, type={type} {here()}. Slice the result; use type 1.")
    if b is None:
        w, v = _eigh(a, "L" if lower else "U", symmetrize_input=False)
        return w if eigvals_only else (w, v)
    a, b = (matrices(x, square=True) for x in together((a, b)))
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(
            f"{called()}: matrices of shapes {a.shape} and {b.shape} {here()}: their sizes must be the same"
        )
    a, b = one_batch(from_triangle(a, lower), b)
    # With b = L L^H, the eigenvalues are those of L^-1 a L^-H.
    root = cholesky(b, lower)
    if not lower:
        root = la.adjoint(root)
    inner = la.triangular_solve(root, a, lower=True)
    inner = la.triangular_solve(root, inner, lower=True, transpose_a=True, conjugate_a=True, left_side=False)
    w, v = _eigh(inner)
    return w if eigvals_only else (w, la.triangular_solve(root, v, lower=True, transpose_a=True, conjugate_a=True))


def schur(a: Any, output: str = "real") -> tuple[Any, Any]:
    """The factors of `a = Z @ T @ Z^H`: `T` triangular ("real": but for blocks of two rows), `Z` unitary. On a CPU.

    It has no derivative.
    """
    if output not in ("real", "complex"):
        raise ValueError(f"{called()}: output={output!r} {here()}. Use 'real' or 'complex'.")
    return tuple(ops.schur_op(matrices(a, square=True), output=output))


def hessenberg(a: Any, *, calc_q: bool = False, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """The matrix `H`, 0 below its first subdiagonal, of `a = Q @ H @ Q^H`; `(H, Q)` with `calc_q`. On a CPU.

    It has no derivative.
    """
    h, q = ops.hessenberg_op(matrices(a, square=True))
    return (h, q) if calc_q else h


def polar(a: Any, side: str = "right", *, method: str = "svd", eps: None = None, max_iterations: None = None) -> Any:
    """The factors of `a = u @ p` (or `p @ u` for `side="left"`): `u` with orthonormal columns or rows, `p` positive.

    Differentiable where `a` has full rank. The derivative is computed on a CPU.

    Args:
      a: matrices, `(..., m, n)`.
      side: "right" or "left".
      method: "svd".
    """
    if side not in ("right", "left") or method != "svd" or eps is not None or max_iterations is not None:
        raise ValueError(
            f"{called()}: side={side!r}, method={method!r} {here()}. Use 'right' or 'left', and method 'svd'."
        )
    a = matrices(a)
    u, _, vh = _svd(a, full_matrices=False)
    unitary = la.product(u, vh)
    if a.shape[-2] >= a.shape[-1]:
        unitary = ops.polar_op(a, unitary)
    else:
        unitary = la.adjoint(ops.polar_op(la.adjoint(a), la.adjoint(unitary)))
    other = la.adjoint(unitary)
    return unitary, symmetrized(la.product(other, a) if side == "right" else la.product(a, other))


# -- solving


def solve(
    a: Any,
    b: Any,
    lower: bool = False,
    overwrite_a: bool = False,
    overwrite_b: bool = False,
    debug: bool = False,
    check_finite: bool = True,
    assume_a: str = "gen",
) -> Any:
    """`x` with `a @ x = b`.

    Args:
      a: square matrices, `(..., n, n)`.
      b: a vector `(n,)`, or matrices `(..., n, k)`.
      assume_a: "pos" for Hermitian positive definite matrices, which Cholesky's factors solve in half the time; "gen",
        "sym" and "her" are solved by LU.
      lower: which triangle of positive definite matrices is read.
    """
    if assume_a not in ("gen", "sym", "her", "pos"):
        raise ValueError(f"{called()}: assume_a={assume_a!r} {here()}. Use 'gen', 'sym', 'her' or 'pos'.")
    if assume_a != "pos":
        return _solve(a, b)
    a, b, vector = right_side(a, b)
    return solve_with(lambda a, b: la.solve(from_triangle(a, lower), b, positive=True), a, b, vector)


def solve_triangular(
    a: Any,
    b: Any,
    trans: int | str = 0,
    lower: bool = False,
    unit_diagonal: bool = False,
    overwrite_b: bool = False,
    debug: Any = None,
    check_finite: bool = True,
) -> Any:
    """`x` with `a @ x = b` for triangular `a`.

    Args:
      a: square matrices, `(..., n, n)`, of which one triangle is read.
      b: a vector `(n,)`, or matrices `(..., n, k)`.
      trans: 0 or "N"; 1 or "T" for the transpose of `a`; 2 or "C" for the conjugate transpose.
      lower: which triangle.
      unit_diagonal: whether the diagonal is taken to be 1.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.scipy.linalg.solve_triangular(np.array([[1.0, 1.0], [0.0, 2.0]]), np.array([3.0, 4.0])).tolist()
      [1.0, 2.0]
    """
    known = {0: 0, "N": 0, 1: 1, "T": 1, 2: 2, "C": 2}
    if trans not in known:
        raise ValueError(f"{called()}: trans={trans!r} {here()}. Use 0, 1, 2, 'N', 'T' or 'C'.")
    turned = {"transpose_a": known[trans] > 0, "conjugate_a": known[trans] == 2}
    a, b, vector = right_side(a, b)

    def run(a: Any, b: Any) -> Any:
        return la.triangular_solve(a, b, lower=bool(lower), unit=bool(unit_diagonal), **turned)

    return solve_with(run, a, b, vector)


def solve_sylvester(A: Any, B: Any, C: Any, *, method: str = "schur", tol: float = 1e-8) -> Any:
    """`x` with `A @ x + x @ B = C`, by Schur's factors. On a CPU.

    Args:
      A, B, C: matrices, `(..., m, m)`, `(..., n, n)` and `(..., m, n)`.
      method: "schur".
      tol: where the sum of an eigenvalue of `A` and one of `B` is smaller than this, the result is NaN.
    """
    if method != "schur":
        raise ValueError(f"{called()}: method={method!r} {here()}. Use 'schur'.")
    A, B, C = (matrices(x) for x in together((A, B, C)))
    for _ in range(2):  # The second time, all have the axes of C.
        A, B = one_batch(A, B)
        A, C = one_batch(A, C)
    return ops.sylvester_op(A, B, C, tol=float(tol))


def eigh_tridiagonal(
    d: Any,
    e: Any,
    *,
    eigvals_only: bool = False,
    select: str = "a",
    select_range: tuple[int, int] | None = None,
    tol: float | None = None,
    key: Any = None,
) -> Any:
    """The eigenvalues, ascending, and eigenvectors of a Hermitian tridiagonal matrix, by `eigh` of the whole matrix.

    Args:
      d: the diagonal, `(n,)`.
      e: the elements next to it, `(n - 1,)`; if complex, those below.
      eigvals_only: whether to return the eigenvalues alone.
      select: "a" for all, "i" for those from the first to the last index of `select_range`.
      tol, key: not needed.

    Raises:
      ValueError: if the shapes do not fit, or for another `select`.
      NotImplementedError: for `select="v"`.

    Example:
      >>> import tracegrad as tg, numpy as np
      >>> w = tg.scipy.linalg.eigh_tridiagonal(np.array([2.0, 2.0]), np.array([1.0]), eigvals_only=True)
      >>> np.allclose(w, [1.0, 3.0])
      True
    """
    if select == "v":
        raise NotImplementedError(f"{called()}: select='v' {here()}. Select among all eigenvalues.")
    if select not in ("a", "i"):
        raise ValueError(f"{called()}: select={select!r} {here()}. Use 'a' or 'i'.")
    d, e = together((d, e))
    if d.ndim != 1 or e.ndim != 1 or e.shape[0] != d.shape[0] - 1:
        raise ValueError(f"{called()}: shapes {d.shape} and {e.shape} {here()}. Give vectors of n and n - 1 elements.")
    n = d.shape[0]
    chosen = slice(None)
    if select == "i":
        if select_range is None or not 0 <= select_range[0] <= select_range[1] < n:
            raise ValueError(
                f"{called()}: select_range={select_range} {here()}. Give a first and a last index below {n}."
            )
        chosen = slice(integer(select_range[0], "select_range"), integer(select_range[1], "select_range") + 1)
    # The columns with the elements below the diagonal, of which `eigh` reads the lower triangle.
    below = tnp.pad(la.diagonal_matrix(e), ((1, 0), (0, 1))) if n > 1 else tnp.zeros((1, 1), d.dtype)
    w, v = _eigh(from_triangle(ops.add(la.diagonal_matrix(d), below), True))
    return w[chosen] if eigvals_only else (w[chosen], v[:, chosen])


def qr_multiply(
    a: Any,
    c: Any,
    mode: str = "right",
    pivoting: bool = False,
    conjugate: bool = False,
    overwrite_a: bool = False,
    overwrite_c: bool = False,
) -> tuple[Any, ...]:
    """The product of `c` with the `Q` of `qr(a, mode="economic")`, and `R`; with `pivoting`, the order too.

    Args:
      a: matrices, `(..., m, n)`.
      c: matrices, or a vector, which is a row for "right" and a column for "left".
      mode: "right" for `c @ Q`, "left" for `Q @ c`.
      conjugate: whether `Q` is conjugated.

    Example:
      >>> import tracegrad as tg, numpy as np
      >>> a = np.array([[3.0, 1.0], [4.0, 2.0]])
      >>> np.allclose(tg.scipy.linalg.qr_multiply(a, a.T)[0].T, tg.scipy.linalg.qr(a)[1], atol=1e-5)
      True
    """
    if mode not in ("right", "left"):
        raise ValueError(f"{called()}: mode={mode!r} {here()}. Use 'right' or 'left'.")
    a, c = together((a, c))
    q, *rest = qr(a, mode="economic", pivoting=pivoting)
    q = la.conjugate(q) if conjugate else q
    vector = c.ndim == 1
    if vector:
        c = la.column(c) if mode == "left" else la.row(c)
    left, right = (q, c) if mode == "left" else (c, q)
    if c.ndim < 2 or left.shape[-1] != right.shape[-2]:
        raise ValueError(
            f"{called()}: Q is of shape {q.shape}, c of shape {c.shape} {here()}: their product is not defined"
        )
    out = la.product(*one_batch(left, right))
    return (ops.reshape(out, shape=(out.size,)) if vector and out.ndim == 2 else out, *rest)


def _solve_banded_shapes(lower: int, upper: int, ab: Any, b: Any) -> None:
    rows = lower + upper + 1
    if lower < 0 or upper < 0:
        raise ValueError(f"{called()}: l_and_u=({lower}, {upper}) {here()}. Neither is negative.")
    if ab.ndim < 2 or ab.shape[-2] != rows:
        raise ValueError(
            f"{called()}: ab of shape {ab.shape} {here()}. With l_and_u=({lower}, {upper}), its last but one axis has "
            f"{rows} elements, one for each diagonal."
        )
    if not b.ndim or b.shape[-1 if b.ndim == 1 else -2] != ab.shape[-1]:
        raise ValueError(
            f"{called()}: ab of shape {ab.shape} and b of shape {b.shape} do not fit {here()}. Give b "
            f"{ab.shape[-1]} rows."
        )


def solve_banded(
    l_and_u: tuple[int, int],
    ab: Any,
    b: Any,
    overwrite_ab: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
) -> Any:
    """`x` with `a @ x = b` for a banded matrix, by Gaussian elimination with partial pivoting within the band.

    Time and memory are in proportion to the number of rows. Where `a` is singular the result is not finite.

    Args:
      l_and_u: how many diagonals below and above the main one there are.
      ab: the diagonals as rows, the uppermost first, `(..., l + u + 1, n)`: `ab[u + i - j, j] = a[i, j]`. The elements
        that are outside of the matrix are not read.
      b: a vector `(n,)`, or matrices `(..., n, k)`.

    Example:
      >>> import tracegrad as tg, numpy as np
      >>> ab = np.array([[0.0, 1.0], [2.0, 2.0], [0.0, 0.0]])  # [[2, 1], [0, 2]]
      >>> tg.scipy.linalg.solve_banded((1, 1), ab, np.array([4.0, 4.0])).tolist()
      [1.0, 2.0]
    """
    if not isinstance(l_and_u, (tuple, list)) or len(l_and_u) != 2:
        raise TypeError(f"{called()}: l_and_u={l_and_u!r} {here()}. Give two integers.")
    lower, upper = (integer(n, "l_and_u") for n in l_and_u)
    ab, b = together((ab, b))
    _solve_banded_shapes(lower, upper, ab, b)
    ab = ops.where(ops.band_places(lower, upper, ab.shape[-1])[1], ab, literal(0.0))
    vector = b.ndim == 1
    if vector:
        b = la.column(b)
    if not b.size:
        return ops.reshape(b, shape=b.shape[:-1]) if vector else b

    def run(ab: Any, b: Any) -> Any:
        return ops.solve_banded_op(ab, b, lower=lower, upper=upper)

    return solve_with(run, ab, b, vector)


def inv(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """The inverse of square matrices; see `tracegrad.numpy.linalg.inv`."""
    return _inv(a)


def det(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """The determinants of square matrices; see `tracegrad.numpy.linalg.det`."""
    return _det(a)


# -- functions of matrices


def expm(A: Any, *, upper_triangular: bool = False, max_squarings: int = 16) -> Any:
    """The exponential of square matrices.

    Args:
      A: matrices, `(..., n, n)`.
      upper_triangular: whether they are upper triangular, which is not needed to be known here.
      max_squarings: a matrix whose norm would need more than this gives NaN.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.scipy.linalg.expm(np.array([[0.0, 1.0], [0.0, 0.0]])).tolist()
      [[1.0, 1.0], [0.0, 1.0]]
    """
    return ops.expm_op(matrices(A, square=True), max_squarings=integer(max_squarings, "max_squarings"))


def expm_frechet(A: Any, E: Any, *, method: str | None = None, compute_expm: bool = True) -> Any:
    """The exponential of square matrices `A`, and its derivative in the direction `E`.

    Args:
      A, E: matrices, `(..., n, n)`.
      method: None or "SPS", scaling and squaring.
      compute_expm: whether to return the exponential, before its derivative.
    """
    if method not in (None, "SPS"):
        raise ValueError(f"{called()}: method={method!r} {here()}. Use 'SPS'.")
    A, E = (matrices(x, square=True) for x in together((A, E)))
    derivative = ops.expm_frechet_op(A, E)
    return (expm(A), derivative) if compute_expm else derivative


def sqrtm(A: Any, blocksize: int = 1) -> Any:
    """The principal square root of square matrices, complex. On a CPU.

    Differentiable where no eigenvalue is 0 or a negative number.
    """
    if blocksize != 1:
        raise NotImplementedError(f"{called()}: blocksize={blocksize} {here()}. Leave it out.")
    return ops.sqrtm_op(matrices(A, square=True))


rsf2csf = borrow(
    jlinalg.rsf2csf,
    """Schur's complex factors from the real ones, of `schur(a)`.

    Args:
      T, Z: matrices, `(..., n, n)`.

    Example:
      >>> import tracegrad as tg, numpy as np
      >>> t, z = tg.scipy.linalg.rsf2csf(*tg.scipy.linalg.schur(np.array([[0.0, -1.0], [1.0, 0.0]])))
      >>> bool(abs(t[1, 0]) < 1e-6)
      True
    """,
    "check_finite",
    module="tracegrad.scipy.linalg",
)


def _parlett(values: Any, t: Any) -> tuple[Any, Any]:
    """A function of a triangular matrix, by Parlett's recurrence (Higham, "Functions of Matrices", 2008, 4.6).

    Args:
      values: those of the function on the diagonal.
      t: an upper triangular matrix.

    Returns:
      The matrix, and the least distance between two elements of the diagonal.
    """
    n = t.shape[0]
    diagonal = jnp.diag(t)
    distance = diagonal - diagonal[:, None]
    offset = np.arange(n) - np.arange(n)[:, None]
    safe = jnp.where(distance == 0, 1, distance)

    def step(p: Any, f: Any) -> Any:
        rest = jnp.matmul(t, f, precision="highest") - jnp.matmul(f, t, precision="highest")
        # f commutes with t: what is missing of both products is the element times this distance.
        return jnp.where(offset == p, rest / safe, f)

    f = lax.fori_loop(1, n, step, jnp.diag(values).astype(t.dtype))
    return f, jnp.min(jnp.where(offset > 0, jnp.abs(distance), math.inf), initial=math.inf)


_function_of_triangle = borrow(_parlett, "", module="tracegrad.scipy.linalg")


def funm(A: Any, func: Any, disp: bool = True) -> Any:
    """A function of a square matrix, complex, by Schur's factors. On a CPU. It has no derivative.

    It is imprecise where eigenvalues are close to each other; `expm` and `sqrtm` are not.

    Args:
      A: a matrix, `(n, n)`.
      func: the function, of vectors of complex numbers.
      disp: whether to return the matrix alone, without an estimate of its relative error.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.scipy.linalg.funm(np.array([[1.0, 1.0], [0.0, 3.0]]), lambda x: x * x).real.round(3).tolist()
      [[1.0, 4.0], [0.0, 9.0]]
    """
    A = matrices(A, square=True)
    if A.ndim != 2:
        raise ValueError(f"{called()}: {describe(A)} {here()}. Give one matrix; for several, use tracegrad.vmap.")
    t, z = schur(A, output="complex")
    f, distance = _function_of_triangle(func(la.diagonal_of(t)), t)
    out = la.product(la.product(z, f), la.adjoint(z))
    if disp:
        return out
    tol = float(np.finfo(A.dtype).eps)
    size = tnp.max(tnp.sum(tnp.abs(la.upper_part(t, 1)), axis=0))
    error = tnp.clip(tol / tnp.where(distance == 0, tol, distance) * size, tol, 1.0)
    return out, tnp.where(tnp.any(tnp.isinf(out)), np.inf, error)


__all__ = [
    "block_diag", "cho_factor", "cho_solve", "cholesky", "circulant", "companion", "convolution_matrix", "det", "dft",
    "eigh", "eigh_tridiagonal", "expm", "expm_frechet", "fiedler", "fiedler_companion", "funm", "hadamard", "hankel",
    "helmert", "hessenberg", "hilbert", "inv", "invhilbert", "invpascal", "leslie", "lu", "lu_factor", "lu_solve",
    "pascal", "polar", "qr", "qr_multiply", "rsf2csf", "schur", "solve", "solve_banded", "solve_sylvester",
    "solve_triangular", "sqrtm", "svd", "toeplitz",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
