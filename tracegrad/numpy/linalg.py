"""Linear algebra, with the signatures of `jax.numpy.linalg`: matrices are in the last two axes, the others a batch.

Integers become floats. Matrices that should be square and are not, shapes that do not fit and options that there are
not raise `ValueError`, half precision `TypeError`. Where a derivative does not exist, the docstring says what the rule
gives. The rules are beside the ops, in `tracegrad.ops.linalg`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import ops
from ..errors import called, here
from ..names import listed
from ..ops import linalg as la
from ..ops.shape import broadcast_to
from ..spectrum import eigh_op
from ..tracer import literal
from . import products
from .arguments import axes_of, axis_of, inexact, integer, order_of, promoted, type_of, types_of
from .creation import array_like, eye, zeros
from .manipulation import diagonal as diagonal_
from .manipulation import expand_dims, matrix_transpose, moveaxis, ravel
from .products import matmul, tensordot, vecdot
from .reductions import _kept
from .reductions import any as any_
from .reductions import max as max_
from .reductions import min as min_
from .reductions import sum as sum_


class EighResult(NamedTuple):
    """The eigenvalues of Hermitian matrices, in ascending order, and the eigenvectors as columns."""

    eigenvalues: Any
    eigenvectors: Any


class EigResult(NamedTuple):
    """The eigenvalues of matrices, and the eigenvectors as columns."""

    eigenvalues: Any
    eigenvectors: Any


class QRResult(NamedTuple):
    """A matrix with orthonormal columns, and an upper triangular one."""

    Q: Any
    R: Any


class SlogdetResult(NamedTuple):
    """The sign of determinants, and the logarithm of their absolute value."""

    sign: Any
    logabsdet: Any


class SVDResult(NamedTuple):
    """Left singular vectors as columns, singular values in descending order, right singular vectors as rows."""

    U: Any
    S: Any
    Vh: Any


# -- arguments


def matrices(a: Any, square: bool = False) -> Any:
    """`a` as an array of matrices of a dtype that can be factorised.

    Raises:
      ValueError: if it has fewer than two axes, or the matrices are to be square and are not.
      TypeError: for half precision.
    """
    aval = type_of(a)
    a = array_like(inexact(a, aval))
    try:
        la.check_matrices(a, square)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{called()}: {aval} {here()}: {error}") from None
    return a


def together(xs: Sequence[Any]) -> list[Any]:
    """Arrays of one float or complex dtype."""
    xs = promoted(xs, [type_of(x) for x in xs])
    return [array_like(inexact(x, type_of(x))) for x in xs]


def symmetrized(a: Any) -> Any:
    """The Hermitian part."""
    return ops.mul(ops.add(a, la.adjoint(a)), literal(0.5))


def from_triangle(a: Any, lower: bool) -> Any:
    """The Hermitian matrices of which `a` has one triangle."""
    if not lower:
        a = la.adjoint(a)
    out = ops.add(la.lower_part(a), la.adjoint(la.lower_part(a, -1)))
    return la.on_diagonal(out, ops.real(out)) if a.dtype.kind == "c" else out


def right_side(a: Any, b: Any) -> tuple[Any, Any, bool]:
    """Square matrices and right-hand sides of one dtype, in matrices, and whether `b` was one vector.

    Raises:
      ValueError: if their shapes do not fit.
    """
    a, b = together((a, b))
    a = matrices(a, square=True)
    vector = b.ndim == 1
    if vector:
        b = la.column(b)
    if b.ndim < 2 or b.shape[-2] != a.shape[-1]:
        raise ValueError(
            f"{called()}: matrices of shape {a.shape} and a right-hand side of shape "
            f"{b.shape[:-1] if vector else b.shape} "
            f"do not fit {here()}. Give a vector of {a.shape[-1]} elements, or matrices of {a.shape[-1]} rows; for a "
            "batch of vectors, add an axis with b[..., None]."
        )
    return a, b, vector


def one_batch(a: Any, b: Any) -> tuple[Any, Any]:
    """Matrices broadcast to the same axes before the last two.

    Raises:
      ValueError: if they do not.
    """
    if a.shape[:-2] == b.shape[:-2]:
        return a, b
    try:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(
            f"{called()}: the axes before the last two of shapes {a.shape} and {b.shape} do not broadcast {here()}. "
            "Reshape one, or add an axis with x[:, None]."
        ) from None
    return broadcast_to(a, (*batch, *a.shape[-2:])), broadcast_to(b, (*batch, *b.shape[-2:]))


def solve_with(run: Any, a: Any, b: Any, vector: bool) -> Any:
    """`run(a, b)` for matrices of any batch; for one `a` and many `b`, all the columns at once."""
    if a.ndim == 2 and b.ndim > 2:
        moved = moveaxis(b, -2, 0)
        out = run(a, ops.reshape(moved, shape=(b.shape[-2], math.prod(moved.shape[1:]))))
        return moveaxis(ops.reshape(out, shape=moved.shape), 0, -2)
    out = run(*one_batch(a, b))
    return ops.reshape(out, shape=out.shape[:-1]) if vector else out


def _eps(dtype: Any) -> float:
    return float(np.finfo(dtype).eps)


# -- factorisations


def cholesky(a: Any, *, upper: bool = False, symmetrize_input: bool = True) -> Any:
    """The triangular factor `L` of Hermitian positive definite matrices, `a = L @ L^H`.

    Where a matrix is not positive definite the result is NaN.

    Args:
      a: matrices, `(..., n, n)`.
      upper: whether to return `L^H` instead.
      symmetrize_input: whether the Hermitian part of `a` is taken; without it, the lower triangle is.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.linalg.cholesky(np.array([[4.0, 2.0], [2.0, 5.0]])).tolist()
      [[2.0, 0.0], [1.0, 2.0]]
    """
    a = matrices(a, square=True)
    out = la.lower_part(la.cholesky_op(symmetrized(a) if symmetrize_input else from_triangle(a, True)))
    return la.adjoint(out) if upper else out


def qr(a: Any, mode: str = "reduced") -> Any:
    """The factors of `a = Q @ R`: `Q` with orthonormal columns, `R` upper triangular.

    Differentiable where the first `min(m, n)` columns are linearly independent.

    Args:
      a: matrices, `(..., m, n)`.
      mode: "reduced" for `min(m, n)` columns of `Q`, "complete" for `m`, "r" for `R` alone.

    Example:
      >>> import tracegrad.numpy as np
      >>> Q, R = np.linalg.qr(np.ones((3, 2)))
      >>> Q.shape, R.shape
      ((3, 2), (2, 2))
    """
    if mode not in ("reduced", "complete", "r"):
        raise ValueError(f"{called()}: mode={mode!r} {here()}. Use 'reduced', 'complete' or 'r'.")
    q, r = la.qr_op(matrices(a), full_matrices=mode == "complete")
    return r if mode == "r" else QRResult(q, r)


def svd(
    a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False, subset_by_index: None = None
) -> Any:
    """The singular value decomposition `a = U @ diag(S) @ Vh`.

    The singular values are differentiable where they are distinct and not 0, and functions of them in which equal ones
    may change places are so everywhere. The derivative of the vectors is not finite where singular values are equal.
    The vectors that `full_matrices` adds have none.

    Args:
      a: matrices, `(..., m, n)`.
      full_matrices: whether `U` and `Vh` are square.
      compute_uv: whether to return the vectors, or the singular values alone.
      hermitian: whether the matrices are Hermitian, which is quicker.

    Returns:
      `(U, S, Vh)`, or `S`, which is real and in descending order.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.linalg.svd(np.array([[3.0, 0.0], [0.0, -4.0]]), compute_uv=False).tolist()
      [4.0, 3.0]
    """
    if subset_by_index is not None:
        raise NotImplementedError(f"{called()}: subset_by_index={subset_by_index} {here()}. Slice the result instead.")
    a = matrices(a, square=hermitian)
    if hermitian:
        w, v = eigh(a)
        s = ops.abs_(w)
        if not compute_uv:
            return ops.sort(s, descending=True)
        order = ops.argsort(s, descending=True)
        s, w = (ops.take_along_axis(x, order) for x in (s, w))
        v = ops.take_along_axis(v, la.row(order), axis=-1)
        signs = ops.where(w < 0, literal(-1.0), literal(1.0))
        return SVDResult(v, s, ops.mul(la.adjoint(v), la.column(signs)))
    s, *vectors = la.svd_op(a, full_matrices=bool(full_matrices and compute_uv), compute_uv=bool(compute_uv))
    return SVDResult(vectors[0], s, vectors[1]) if compute_uv else s


def svdvals(x: Any, /) -> Any:
    """The singular values of matrices, in descending order."""
    return svd(x, compute_uv=False)


def eigh(a: Any, UPLO: str | None = None, symmetrize_input: bool = True) -> EighResult:
    """The eigenvalues, ascending, and eigenvectors of Hermitian matrices: `a @ v = v * w`.

    Eigenvalues are differentiable where they are distinct, and functions of them in which equal ones may change places
    are so everywhere, twice: by reverse mode, `hvp`, or `jvp` of a gradient or of a `jvp`. A second derivative that is
    taken through a pushforward inside `vmap` or another body (`jacfwd` of `jacfwd`) is NaN where eigenvalues are equal.
    The derivative of the vectors is not finite there.

    Args:
      a: matrices, `(..., n, n)`.
      UPLO: "L" or "U", the triangle that is read without `symmetrize_input`; by default the lower.
      symmetrize_input: whether the Hermitian part of `a` is taken.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.linalg.eigh(np.array([[1.0, 0.0], [0.0, 3.0]])).eigenvalues.tolist()
      [1.0, 3.0]
    """
    if UPLO not in (None, "L", "U"):
        raise ValueError(f"{called()}: UPLO={UPLO!r} {here()}. Use 'L' or 'U'.")
    a = matrices(a, square=True)
    v, w = eigh_op(symmetrized(a) if symmetrize_input else from_triangle(a, UPLO != "U"))
    return EighResult(w, v)


def eigvalsh(a: Any, UPLO: str | None = "L", *, symmetrize_input: bool = True) -> Any:
    """The eigenvalues of Hermitian matrices, ascending; see `eigh`."""
    return eigh(a, UPLO, symmetrize_input).eigenvalues


def eig(a: Any) -> EigResult:
    """The complex eigenvalues and eigenvectors of matrices: `a @ v = v * w`. On a CPU, and on NVIDIA GPUs.

    The vectors have norm 1 and a real largest element, and that is how they are differentiated. Derivatives exist where
    the eigenvalues are distinct; where they are equal those of the vectors are not finite.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.linalg.eig(np.array([[2.0, 0.0], [0.0, 3.0]])).eigenvalues.tolist()
      [(2+0j), (3+0j)]
    """
    return EigResult(*la.eig_op(matrices(a, square=True), vectors=True))


def eigvals(a: Any) -> Any:
    """The complex eigenvalues of matrices; see `eig`."""
    return la.eig_op(matrices(a, square=True), vectors=False)[0]


# -- solving


def solve(a: Any, b: Any) -> Any:
    """`x` with `a @ x = b`.

    Args:
      a: square matrices, `(..., n, n)`.
      b: a vector `(n,)`, or matrices `(..., n, k)`.

    Returns:
      `x`, of the shape of `b` with the batch axes of both broadcast. It is not finite where `a` is singular.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.linalg.solve(np.array([[2.0, 0.0], [0.0, 4.0]]), np.array([2.0, 2.0])).tolist()
      [1.0, 0.5]
    """
    a, b, vector = right_side(a, b)
    return solve_with(la.solve, a, b, vector)


def inv(a: Any) -> Any:
    """The inverse of square matrices; not finite where one is singular."""
    a = matrices(a, square=True)
    return la.solve(a, broadcast_to(eye(a.shape[-1], dtype=a.dtype), a.shape))


def pinv(a: Any, rtol: Any = None, hermitian: bool = False, *, rcond: Any = None) -> Any:
    """The Moore-Penrose pseudo-inverse.

    Its derivative is that for changes that keep the rank; where the rank changes, the pseudo-inverse jumps.

    Args:
      a: matrices, `(..., m, n)`.
      rtol: singular values at most this times the largest are taken for 0; a number, or an array `(...)`. By default
        10 max(m, n) times the rounding error of the dtype.
      hermitian: whether the matrices are Hermitian, which is quicker.
      rcond: another name of `rtol`.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.linalg.pinv(np.array([[2.0, 0.0], [0.0, 0.0]])).tolist()
      [[0.5, 0.0], [0.0, 0.0]]
    """
    if rcond is not None:
        if rtol is not None:
            raise ValueError(f"{called()}: rtol and rcond are two names of one thing {here()}. Give one.")
        rtol = rcond
    a = matrices(a, square=hermitian)
    if hermitian:
        a = symmetrized(a)
    if 0 in a.shape[-2:]:
        return zeros((*a.shape[:-2], a.shape[-1], a.shape[-2]), a.dtype)
    if rtol is None:
        rtol = literal(10.0 * max(a.shape[-2:]) * _eps(a.dtype))
    u, s, vh = svd(a, full_matrices=False, hermitian=hermitian)
    return _pseudo_inverse(a, u, s, vh, s > s[..., :1] * expand_dims(rtol, -1))


def _pseudo_inverse(a: Any, u: Any, s: Any, vh: Any, kept: Any) -> Any:
    inverse = ops.where(kept, ops.div(literal(1.0), ops.where(kept, s, literal(1.0))), literal(0.0))
    return la.pinv_op(a, la.product(ops.mul(la.adjoint(vh), la.row(inverse)), la.adjoint(u)))


def lstsq(a: Any, b: Any, rcond: Any = None, *, numpy_resid: bool = False) -> tuple[Any, Any, Any, Any]:
    """The `x` that makes `a @ x - b` smallest, of those the smallest.

    Differentiable for changes that keep the rank of `a`.

    Args:
      a: a matrix, `(m, n)`.
      b: a vector `(m,)` or a matrix `(m, k)`.
      rcond: singular values below this times the largest are taken for 0; by default max(m, n) times the rounding error
        of the dtype.
      numpy_resid: whether the residuals are empty where NumPy has them so, which depends on the rank: not under `@jit`.

    Returns:
      `(x, residuals, rank, singular values)`: the sums of squared residuals, one a column of `b`.

    Example:
      >>> import tracegrad.numpy as np
      >>> x, *_ = np.linalg.lstsq(np.array([[1.0], [1.0]]), np.array([1.0, 3.0]))
      >>> round(x.item(), 5)
      2.0
    """
    a, b = together((a, b))
    a = matrices(a)
    if a.ndim != 2 or b.ndim not in (1, 2) or a.shape[0] != b.shape[0]:
        raise ValueError(
            f"{called()}: a matrix of shape {a.shape} and a right-hand side of shape {b.shape} do not fit {here()}. "
            "Give one matrix (m, n), and a vector (m,) or a matrix (m, k)."
        )
    m, n = a.shape
    columns = b if b.ndim == 2 else la.column(b)
    u, s, vh = svd(a, full_matrices=False)
    eps = literal(_eps(a.dtype))
    rcond = max(m, n) * _eps(a.dtype) if rcond is None else ops.where(ops.less(rcond, literal(0)), eps, rcond)
    kept = (s > 0) & (s >= s[:1] * rcond)
    rank = sum_(kept)
    x = la.product(_pseudo_inverse(a, u, s, vh, kept), columns)
    if numpy_resid and (m <= n or int(rank) < n):
        residuals = zeros((0,), s.dtype)
    else:
        left = columns - la.product(a, x)
        residuals = sum_(ops.real(left * la.conjugate(left)), 0)
    return (ravel(x) if b.ndim == 1 else x), residuals, rank, s


def tensorinv(a: Any, ind: int = 2) -> Any:
    """The inverse of `a` as a linear map from its last axes to its first `ind`, for `tensordot`."""
    shape, k = type_of(a).shape, integer(ind, "ind")
    first, last = shape[:k], shape[k:]
    if k <= 0 or math.prod(first) != math.prod(last):
        raise ValueError(
            f"{called()}: the first {k} axes of shape {shape} have {math.prod(first)} elements, the others "
            f"{math.prod(last)} {here()}. Choose `ind`, from 1 up, so that they have the same number."
        )
    return ops.reshape(inv(ops.reshape(a, shape=(math.prod(first), math.prod(last)))), shape=(*last, *first))


def tensorsolve(a: Any, b: Any, axes: Sequence[int] | None = None) -> Any:
    """`x` with `tensordot(a, x, x.ndim) = b`; `axes` of `a` are moved to its end first."""
    if axes is not None:
        a = moveaxis(a, tuple(axes), tuple(range(-len(axes), 0)))
    x, y = type_of(a).shape, type_of(b).shape
    rest, n = x[len(y) :], math.prod(y)
    if math.prod(x) != n * n or math.prod(rest) != n:
        raise ValueError(f"{called()}: shapes {x} and {y} do not fit {here()}: a has {n} x {n} elements in all.")
    return ops.reshape(solve(ops.reshape(a, shape=(n, n)), ops.reshape(b, shape=(n,))), shape=rest)


# -- numbers that matrices have


def det(a: Any) -> Any:
    """The determinants of square matrices.

    The derivative is the matrix of cofactors; it and the second derivative are right for singular matrices too. The
    third derivative of singular matrices of more than three rows is not finite.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.grad(np.linalg.det)(np.array([[1.0, 2.0], [2.0, 4.0]])).tolist()
      [[4.0, -2.0], [-2.0, 1.0]]
    """
    return la.det_op(matrices(a, square=True))


def slogdet(a: Any, *, method: str | None = None) -> SlogdetResult:
    """The signs of determinants, and the logarithms of their absolute values: 0 and -inf for singular matrices.

    Args:
      a: square matrices, `(..., n, n)`.
      method: "lu", as by default.

    Example:
      >>> import tracegrad.numpy as np
      >>> sign, logarithm = np.linalg.slogdet(np.array([[0.0, 1.0], [1.0, 0.0]]))
      >>> sign.item(), logarithm.item()
      (-1.0, 0.0)
    """
    if method not in (None, "lu"):
        raise ValueError(f"{called()}: method={method!r} {here()}. Use 'lu'.")
    a = matrices(a, square=True)
    lu, pivots, _ = la.lu_op(a)
    swaps = sum_(pivots != np.arange(a.shape[-1], dtype=np.int32), -1)
    diagonal = la.diagonal_of(lu)
    sign = ops.astype(1 - 2 * (swaps % 2), dtype=a.dtype) * ops.reduce_prod(ops.sign(diagonal), axes=(a.ndim - 2,))
    return SlogdetResult(sign, ops.reduce_sum(ops.log(ops.abs_(diagonal)), axes=(a.ndim - 2,)))


def matrix_rank(M: Any, rtol: Any = None, *, hermitian: bool = False, tol: Any = None) -> Any:
    """How many singular values of matrices are not 0.

    Args:
      M: matrices, `(..., m, n)`; fewer axes have rank 1 unless all is 0.
      rtol: singular values up to this are taken for 0, as `jax.numpy` has it; a number, or an array `(...)`. By default
        the largest times max(m, n) times the rounding error of the dtype.
      tol: another name of `rtol`.
    """
    if tol is not None:
        if rtol is not None:
            raise ValueError(f"{called()}: tol and rtol are two names of one thing {here()}. Give one.")
        rtol = tol
    if type_of(M).ndim < 2:
        return ops.astype(any_(array_like(M) != 0), dtype=np.dtype(np.int32))
    a = matrices(M, square=hermitian)
    s = svd(a, full_matrices=False, compute_uv=False, hermitian=hermitian)
    if rtol is None:
        rtol = max_(s, -1, initial=literal(0.0)) * (max(a.shape[-2:]) * _eps(a.dtype))
    return sum_(s > expand_dims(rtol, -1), -1)


def cond(x: Any, p: Any = None) -> Any:
    """The condition number of matrices: their norm times that of their inverse.

    Args:
      x: matrices, `(..., m, n)`, square unless `p` is None, 2 or -2.
      p: which norm, as for `norm`; by default 2, the largest singular value.
    """
    x = matrices(x, square=p not in (None, 2, -2))
    if 0 in x.shape[-2:]:
        raise ValueError(f"{called()}: matrices of shape {x.shape} have no element {here()}")
    if p in (None, 2, -2):
        s = svdvals(x)
        out = s[..., -1] / s[..., 0] if p == -2 else s[..., 0] / s[..., -1]
    else:
        out = norm(x, p, (-2, -1)) * norm(inv(x), p, (-2, -1))
    singular = (out != out) & ~any_(x != x, (-2, -1))
    return ops.where(singular, literal(math.inf), out)


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """The norm of vectors (`axis` an integer) or matrices (a pair); of the whole array by default.

    The derivative is 0 where the norm of a vector, or the Frobenius norm, is 0.

    Args:
      ord: for vectors 2 (the default), 1, 0, inf, -inf or any other number; for matrices "fro" (the default), "nuc"
        (the sum of the singular values), 2 and -2 (the largest and the smallest), 1, -1, inf or -inf.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.linalg.norm(np.array([3.0, 4.0])).item()
      5.0
    """
    aval = type_of(x)
    x = inexact(x, aval)
    axes = order_of(axis, aval.ndim) if isinstance(axis, (tuple, list)) else axes_of(axis, aval.ndim)
    if (axis is None and ord is None) or (len(axes) == 2 and axes[0] != axes[1] and ord in (None, "fro", "f")):
        return _vector_norm(x, aval.shape, 2, axes, keepdims)
    if len(axes) == 1:
        return _vector_norm(x, aval.shape, 2 if ord is None else ord, axes, keepdims)
    if len(axes) != 2 or axes[0] == axes[1]:
        raise ValueError(
            f"{called()}: ord={ord!r} over axes {axes} of shape {aval.shape} {here()}. Name one axis, or two that "
            "differ."
        )
    if ord in (2, -2, "nuc"):
        s = svdvals(moveaxis(x, axes, (-2, -1)))
        best = sum_(s, -1) if ord == "nuc" else max_(s, -1, initial=literal(0.0)) if ord == 2 else min_(s, -1)
    elif ord in (1, -1, math.inf, -math.inf):
        # The sums of columns (of rows), with their axis kept, so that the other one keeps its place.
        sums = sum_(ops.abs_(x), axes[ord not in (1, -1)], keepdims=True)
        best = (max_ if ord > 0 else min_)(sums, axes)
    else:
        raise ValueError(f"{called()}: ord={ord!r} of matrices {here()}. Use 'fro', 'nuc', 2, -2, 1, -1, inf or -inf.")
    return _kept(best, aval.shape, axes) if keepdims else best


def _vector_norm(x: Any, shape: tuple[int, ...], ord: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    if isinstance(ord, str):
        raise ValueError(f"{called()}: ord={ord!r} of vectors {here()}. Use a number, or name two axes.")
    if ord == 2:
        square = ops.real(ops.mul(x, ops.conj(x))) if x.dtype.kind == "c" else ops.mul(x, x)
        out = ops.root(ops.reduce_sum(square, axes=axes))
    elif ord in (math.inf, -math.inf):
        out = (max_ if ord > 0 else min_)(ops.abs_(x), axes)
    elif ord == 0:
        out = ops.reduce_sum(ops.astype(ops.not_equal(x, literal(0)), dtype=ops.abs_(x).dtype), axes=axes)
    elif ord == 1:
        out = ops.reduce_sum(ops.abs_(x), axes=axes)
    else:
        total = ops.reduce_sum(ops.pow_(ops.abs_(x), literal(float(ord))), axes=axes)
        zero = total == 0
        # For a negative `ord` an element that is 0 makes the sum infinite and the norm 0.
        out = ops.where(zero, literal(0.0), ops.pow_(ops.where(zero, literal(1.0), total), literal(1 / float(ord))))
    return _kept(out, shape, axes) if keepdims else out


def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    """The norm of vectors along axes, over all of them by default."""
    aval = type_of(x)
    return _vector_norm(inexact(x, aval), aval.shape, ord, axes_of(axis, aval.ndim), keepdims)


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    """The norm of matrices in the last two axes."""
    return norm(x, ord, (-2, -1), keepdims)


# -- products


def matrix_power(a: Any, n: int) -> Any:
    """A square matrix multiplied by itself, `n` times in all, by repeated squaring; its inverse, for negative `n`.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.linalg.matrix_power(np.array([[1, 1], [0, 1]]), 5).tolist()
      [[1, 5], [0, 1]]
    """
    n, aval = integer(n, "n"), type_of(a)
    if aval.ndim < 2 or aval.shape[-1] != aval.shape[-2]:
        raise ValueError(f"{called()}: {aval} is no array of square matrices {here()}. Its last two axes must agree.")
    if n == 0:
        return broadcast_to(eye(aval.shape[-1], dtype=aval.dtype), aval.shape)
    if n < 0:
        a, n = inv(a), -n
    out = None
    while n:
        if n % 2:
            out = a if out is None else matmul(out, a)
        n //= 2
        a = matmul(a, a) if n else a
    return array_like(out)


def multi_dot(arrays: Sequence[Any], *, precision: Any = None) -> Any:
    """The product of two matrices or more, in the order of multiplication that costs least.

    Args:
      arrays: matrices; the first and the last may be vectors.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.linalg.multi_dot([np.ones((2, 3)), np.ones((3, 4)), np.ones(4)]).tolist()
      [12.0, 12.0]
    """
    shapes = [t.shape for t in types_of(arrays)]
    inner = [len(s) == 2 for s in shapes[1:-1]]
    if len(shapes) < 2 or not all(inner) or not all(len(s) in (1, 2) for s in shapes):
        raise ValueError(
            f"{called()}: arrays of shapes {shapes} {here()}. Give two or more matrices; the first and the last "
            "may be vectors."
        )
    sizes = [shapes[0][0] if len(shapes[0]) == 2 else 1, *[s[0] for s in shapes[1:]]]
    sizes.append(shapes[-1][1] if len(shapes[-1]) == 2 else 1)

    @cache
    def cheapest(i: int, j: int) -> tuple[int, int]:
        """How many multiplications the product of the matrices from `i` to `j` takes, and after which it splits."""
        if i == j:
            return 0, i
        costs = (
            (cheapest(i, k)[0] + cheapest(k + 1, j)[0] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j)
        )
        return min(costs)

    def product(i: int, j: int) -> Any:
        if i == j:
            return arrays[i]
        k = cheapest(i, j)[1]
        return matmul(product(i, k), product(k + 1, j), precision=precision)

    return product(0, len(arrays) - 1)


def cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """The vector product along an axis of size 3."""
    sizes = [t.shape[axis_of(axis, t.ndim)] for t in (type_of(x1), type_of(x2))]
    if sizes != [3, 3]:
        raise ValueError(f"{called()}: the vectors have {sizes[0]} and {sizes[1]} elements {here()}. Give both 3.")
    return products.cross(x1, x2, axis=axis)


def outer(x1: Any, x2: Any, /) -> Any:
    """The products of each element of one vector with each of another."""
    types = type_of(x1), type_of(x2)
    if any(t.ndim != 1 for t in types):
        raise ValueError(f"{called()}: {types[0]} and {types[1]} {here()}. Give vectors, of one axis.")
    return products.outer(x1, x2)


def diagonal(x: Any, /, *, offset: int = 0) -> Any:
    """The diagonals of matrices in the last two axes."""
    return diagonal_(x, offset, -2, -1)


def trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Any:
    """The sums of the diagonals of matrices in the last two axes."""
    return products.trace(x, offset, -2, -1, dtype)


__all__ = [
    "EigResult", "EighResult", "QRResult", "SVDResult", "SlogdetResult", "cholesky", "cond", "cross", "det", "diagonal",
    "eig", "eigh", "eigvals", "eigvalsh", "inv", "lstsq", "matmul", "matrix_norm", "matrix_power", "matrix_rank",
    "matrix_transpose", "multi_dot", "norm", "outer", "pinv", "qr", "slogdet", "solve", "svd", "svdvals", "tensordot",
    "tensorinv", "tensorsolve", "trace", "vecdot", "vector_norm",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
