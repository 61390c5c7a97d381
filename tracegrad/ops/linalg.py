"""Linear algebra: factorisations and what is solved with them, for matrices in the last two axes.

The rules are the textbook ones: M. Giles, "An extended collection of matrix derivative results for forward and
reverse mode algorithmic differentiation" (2008). These pair matrices with the trace of `A^H B`, while cotangents here
pair with that of `A^T B`: a rule that is not a mere transpose conjugates its cotangents on the way in and out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..errors import describe_source
from ..op import Op, more_outputs
from ..tape import Aval, Node, make_aval
from ..tracer import literal
from .elementwise import (
    abs_,
    add,
    conj,
    div,
    div_no_nan,
    equal,
    greater_equal,
    imag,
    mul,
    neg,
    real,
    sub,
    where,
)
from .gather import Spec, gather
from .linear import dot_general
from .reduce import argmax
from .shape import concatenate, iota, pad, reduce_sum, reshape, slice_, splat, transpose, zeros_of
from .sort import sort_op

Cotangents = Sequence[Any]
_INTEGERS = np.dtype(np.int32)

# -- matrices in the last two axes


def swap(x: Any) -> Any:
    """The transposes."""
    n = x.ndim
    return transpose(x, axes=(*range(n - 2), n - 1, n - 2))


def conjugate(x: Any) -> Any:
    return conj(x) if x.dtype.kind == "c" else x


def adjoint(x: Any) -> Any:
    """The conjugate transposes."""
    return swap(conjugate(x))


def product(x: Any, y: Any) -> Any:
    """The products of matrices that have the same axes before the last two, in full precision."""
    n, batch = x.ndim, tuple(range(x.ndim - 2))
    return dot_general(x, y, dims=(((n - 1,), (n - 2,)), (batch, batch)), precision=lax.Precision.HIGHEST)


def _band(shape: Sequence[int], k: int, compare: Op) -> Any:
    """A mask of the shape of a matrix, that compares the row index plus `k` with the column index."""
    rows, columns = (iota(dtype=_INTEGERS, shape=tuple(shape[-2:]), axis=axis) for axis in (0, 1))
    return compare(add(rows, literal(k)) if k else rows, columns)


def lower_part(x: Any, k: int = 0) -> Any:
    """The elements on and below the `k`-th diagonal."""
    return where(_band(x.shape, k, greater_equal), x, 0.0)


def upper_part(x: Any, k: int = 0) -> Any:
    """The elements on and above the `k`-th diagonal."""
    return where(_band(x.shape, k - 1, greater_equal), 0.0, x)


def on_diagonal(x: Any, diagonal: Any) -> Any:
    """`x` with other elements on its diagonal: a number, or an array that broadcasts with `x`."""
    return where(_band(x.shape, 0, equal), diagonal, x)


def diagonal_matrix(v: Any) -> Any:
    """The square matrices with these diagonals."""
    return where(_band((v.shape[-1],) * 2, 0, equal), row(v), 0.0)


def diagonal_of(x: Any) -> Any:
    """The diagonals of square matrices."""
    return reduce_sum(where(_band(x.shape, 0, equal), x, 0.0), axes=(x.ndim - 1,))


def column(v: Any) -> Any:
    """Vectors as columns: what multiplies the rows of a matrix, a number each."""
    return reshape(v, shape=(*v.shape, 1))


def row(v: Any) -> Any:
    """Vectors as rows: what multiplies the columns of a matrix, a number each."""
    return reshape(v, shape=(*v.shape[:-1], 1, v.shape[-1]))


def submatrix(x: Any, rows: tuple[int, int], columns: tuple[int, int]) -> Any:
    """The rows and the columns in these ranges."""
    if (rows, columns) == ((0, x.shape[-2]), (0, x.shape[-1])):
        return x
    lead = (0,) * (x.ndim - 2)
    start, limit = (*lead, rows[0], columns[0]), (*x.shape[:-2], rows[1], columns[1])
    return slice_(x, start=start, limit=limit, strides=(1,) * x.ndim)


def take_rows(x: Any, order: Any) -> Any:
    """The rows of `x` in another order."""
    axis = x.ndim - 2
    pairs = tuple((a, a) for a in range(axis))
    # The axes that are walked together come first in the result, then those of the indices.
    return gather(x, order, spec=Spec((axis,), batch=pairs, mode="promise_in_bounds", unique=True))


def inverse_order(order: Any) -> Any:
    return sort_op(order, axis=order.ndim - 1, descending=False, stable=True)[1]


# -- what can be wrong


def check_matrices(x: Any, square: bool) -> None:
    """Raises a `ValueError` or `TypeError` for what no factorisation takes; the caller adds its name and the line."""
    if len(x.shape) < 2:
        raise ValueError(f"shape {x.shape} has no two axes for the rows and columns of matrices. Reshape it.")
    if square and x.shape[-1] != x.shape[-2]:
        raise ValueError(f"the matrices of shape {x.shape} are not square: their last two axes differ in size.")
    if x.dtype not in (np.float32, np.float64, np.complex64, np.complex128):
        raise TypeError(f"matrices of {x.dtype} cannot be factorised. Convert them with .astype('float32').")


def square_matrices(x: Aval, **params: Any) -> Aval:
    check_matrices(x, True)
    return make_aval(x.shape, x.dtype)


def real_dtype(dtype: Any) -> Any:
    return np.finfo(dtype).dtype


def complex_dtype(dtype: Any) -> Any:
    return np.result_type(dtype, np.complex64)


def no_derivative(remedy: str) -> Callable[..., Any]:
    """A rule that raises, for an op whose derivative is not known."""

    def rule(node: Node, cts: Cotangents, needs: Sequence[bool]) -> Cotangents:
        types = ", ".join(repr(v.aval) for v in node.inputs)
        raise NotImplementedError(
            f"{node.op.name}({types}) at {describe_source(node.source)} has no derivative. {remedy}"
        )

    return rule


def _with_vectors(node: Node, **params: Any) -> tuple[Any, ...]:
    """All the outputs of a factorisation that was to return only some of them."""
    outputs = node.outputs
    return (*outputs, *more_outputs(node, **params))


# -- triangular matrices


def _triangular_types(a: Aval, b: Aval, *, left_side: bool = False, **params: Any) -> Aval:
    check_matrices(a, True)
    check_matrices(b, False)
    if a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2 if left_side else -1] or a.dtype != b.dtype:
        raise ValueError(f"a triangular matrix {a} and a right-hand side {b} do not fit")
    return make_aval(b.shape, b.dtype)


def _triangular_vjp(node: Node, cts: Cotangents, needs: Sequence[bool]) -> Cotangents:
    a, _ = node.inputs
    p: dict[str, Any] = {"left_side": False, "lower": False, "transpose_a": False, "conjugate_a": False}
    p |= {"unit_diagonal": False} | node.params
    ct_b = triangular_solve_op(a, cts[0], **{**node.params, "transpose_a": not p["transpose_a"]})
    if not needs[0]:
        return [None, ct_b]
    x = node.outputs[0]
    ct = product(ct_b, swap(x)) if p["left_side"] else product(swap(x), ct_b)
    ct = neg(swap(ct) if p["transpose_a"] else ct)
    if p["conjugate_a"]:
        ct = conjugate(ct)
    strictly = int(p["unit_diagonal"])
    return [lower_part(ct, -strictly) if p["lower"] else upper_part(ct, strictly), ct_b]


triangular_solve_op: Op = Op(
    "triangular_solve",
    lambda a, b, **params: lax.linalg.triangular_solve(a, b, **params),
    _triangular_vjp,
    shape=_triangular_types,
)


def triangular_solve(
    a: Any, b: Any, *, lower: bool, transpose_a: bool = False, conjugate_a: bool = False, unit: bool = False,
    left_side: bool = True,
) -> Any:  # fmt: skip
    """`x` with `a @ x = b`, or `x @ a = b` without `left_side`, for triangular `a`."""
    return triangular_solve_op(
        a, b, left_side=left_side, lower=lower, transpose_a=transpose_a, conjugate_a=conjugate_a, unit_diagonal=unit
    )


# -- Cholesky


def _cholesky_vjp(ct: Any, out: Any, x: Any) -> Any:
    # dL = L phi(L^-1 dA L^-H), where phi takes the lower triangle and halves the diagonal.
    inner = lower_part(product(swap(out), ct))
    inner = on_diagonal(inner, mul(inner, 0.5))
    inner = triangular_solve(out, inner, lower=True, transpose_a=True)
    return triangular_solve(out, inner, lower=True, conjugate_a=True, left_side=False)


cholesky_op: Op = Op(
    "cholesky", lambda x: lax.linalg.cholesky(x, symmetrize_input=False), (_cholesky_vjp,), shape=square_matrices
)

# -- LU


def _lu_types(x: Aval) -> tuple[Aval, ...]:
    check_matrices(x, False)
    *batch, m, n = x.shape
    return (
        make_aval(x.shape, x.dtype),
        make_aval((*batch, min(m, n)), _INTEGERS),
        make_aval((*batch, m), _INTEGERS),
    )


def _lu_vjp(node: Node, cts: Cotangents, needs: Sequence[bool]) -> Cotangents:
    # With square L and U, filled up with the identity: d(LU) = L tril(F, -1) + triu(F) U, F = L^-1 dA[order] U^-1.
    lu: Any
    lu, _, order = node.outputs
    ct = cts[0]
    m, n = lu.shape[-2:]
    lower = lu
    if m > n:
        lower = pad(lu, 0.0, config=(*[(0, 0, 0)] * (lu.ndim - 1), (0, m - n, 0)))
    elif m < n:
        lower = submatrix(lu, (0, m), (0, m))
    upper = upper_part(submatrix(lu, (0, min(m, n)), (0, n)))
    if m < n:
        ones = splat((*lu.shape[:-2], n - m, n), 1.0, lu.dtype)
        upper = concatenate(upper, where(_band(ones.shape, m, equal), ones, 0.0), axis=lu.ndim - 2)
    below = add(ct, product(swap(lower_part(lower, -1)), ct))
    inner = add(lower_part(below, -1), upper_part(product(ct, swap(upper))))
    inner = triangular_solve(lower, inner, lower=True, transpose_a=True, unit=True)
    inner = triangular_solve(upper, inner, lower=False, transpose_a=True, left_side=False)
    return [take_rows(inner, inverse_order(order))]


lu_op: Op = Op("lu", lambda x: tuple(lax.linalg.lu(x)), _lu_vjp, shape=_lu_types, multiple=True)
"""`L` below the diagonal and `U` on and above it, the rows swapped at each step, and the order of rows that results."""

pivots_op: Op = Op(
    "lu_pivots_to_permutation",
    lambda pivots, *, permutation_size: lax.linalg.lu_pivots_to_permutation(pivots, permutation_size),
    None,
)

# -- solving: the value is taken from a factorisation whose own derivative is not needed


def solution(a: Any, b: Any, *factors: Any, transposed: bool = False) -> Any:
    solve = lax.linalg.triangular_solve
    if len(factors) == 1:
        (lower,) = factors
        if transposed:
            lower = lax.conj(lower) if lower.dtype.kind == "c" else lower
        x = solve(lower, b, left_side=True, lower=True)
        return solve(lower, x, left_side=True, lower=True, transpose_a=True, conjugate_a=True)
    lu, order = factors
    if transposed:
        x = solve(lu, b, left_side=True, lower=False, transpose_a=True)
        x = solve(lu, x, left_side=True, lower=True, transpose_a=True, unit_diagonal=True)
        return jnp.take_along_axis(x, jnp.argsort(order, axis=-1)[..., None], -2)
    x = jnp.take_along_axis(b, order[..., None], -2)
    x = solve(lu, x, left_side=True, lower=True, unit_diagonal=True)
    return solve(lu, x, left_side=True, lower=False)


def _solve_vjp(node: Node, cts: Cotangents, needs: Sequence[bool]) -> Cotangents:
    a, _, *factors = node.inputs
    transposed = node.params["transposed"]
    ct_b = solve_op(a, cts[0], *factors, transposed=not transposed)
    ct_a = None
    if needs[0]:
        x = node.outputs[0]
        ct_a = neg(product(x, swap(ct_b)) if transposed else product(ct_b, swap(x)))
    return [ct_a, ct_b, *[None] * len(factors)]


solve_op: Op = Op(
    "solve", solution, _solve_vjp, shape=lambda a, b, *factors, transposed: _triangular_types(a, b, left_side=True)
)
"""`x` with `a @ x = b` from the factors of `a`: LU and the order of rows, or a Cholesky factor."""


def solve(a: Any, b: Any, positive: bool = False) -> Any:
    """`x` with `a @ x = b`, for matrices of the same axes before the last two and the same dtype."""
    if positive:
        return solve_op(a, b, cholesky_op(a), transposed=False)
    lu, _, order = lu_op(a)
    return solve_op(a, b, lu, order, transposed=False)


# -- determinants


def _det(x: Any) -> Any:
    n = x.shape[-1]
    if n == 0:
        return lax.full(x.shape[:-2], 1, x.dtype)
    if n == 1:
        return x[..., 0, 0]
    if n == 2:
        return x[..., 0, 0] * x[..., 1, 1] - x[..., 0, 1] * x[..., 1, 0]
    if n == 3:
        return jnp.sum(x[..., 0, :] * jnp.cross(x[..., 1, :], x[..., 2, :]), -1)
    return _det_of_lu(*lax.linalg.lu(x)[:2])


def _det_of_lu(lu: Any, pivots: Any) -> Any:
    n = lu.shape[-1]
    swaps = jnp.sum(pivots != lax.iota(np.int32, n), -1)
    return jnp.prod(jnp.diagonal(lu, axis1=-2, axis2=-1), -1) * (1 - 2 * (swaps % 2)).astype(lu.dtype)


def _unless_singular(x: Any, regular: Callable[..., Any], singular: Callable[..., Any]) -> Any:
    """What one computes from the factors of LU, or if a pivot is 0 the other from the singular values.

    The others are given the singular vectors and values, and the determinant of the vectors.
    """

    def by_singular_values(*factors: Any) -> Any:
        u, s, vh = lax.linalg.svd(x, full_matrices=False)
        phase = _det_of_lu(*lax.linalg.lu(u)[:2]) * _det_of_lu(*lax.linalg.lu(vh)[:2])
        return singular(u, s.astype(x.dtype), vh, phase)

    factors = lax.linalg.lu(x)
    is_singular = jnp.any(jnp.diagonal(factors[0], axis1=-2, axis2=-1) == 0)
    return lax.cond(is_singular, by_singular_values, regular, *factors)


def _others(s: Any) -> tuple[Any, Any]:
    """The products of all the elements before each, and of all after it."""
    ones = jnp.ones_like(s[..., :1])
    before = jnp.cumprod(jnp.concatenate([ones, s[..., :-1]], -1), -1)
    return before, lax.cumprod(jnp.concatenate([s[..., 1:], ones], -1), s.ndim - 1, reverse=True)


def _times_matrix(*xs: Any) -> Any:
    return functools.reduce(functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST), xs)


def _identity(x: Any) -> Any:
    return jnp.broadcast_to(jnp.eye(x.shape[-1], dtype=x.dtype), x.shape)


def _cofactor(x: Any) -> Any:
    def regular(lu: Any, pivots: Any, order: Any) -> Any:
        return solution(x, _identity(x), lu, order, transposed=True) * _det_of_lu(lu, pivots)[..., None, None]

    def singular(u: Any, s: Any, vh: Any, phase: Any) -> Any:
        before, after = _others(s)
        return _times_matrix(jnp.conj(u) * (before * after * phase[..., None])[..., None, :], jnp.conj(vh))

    return _unless_singular(x, regular, singular)


def _minors(x: Any, t: Any) -> Any:
    """How the cofactors change as the matrix does by `t`: sums of minors without two rows and two columns."""

    def regular(lu: Any, pivots: Any, order: Any) -> Any:
        # d cof = tr(x^-1 t) cof - x^-T t^T cof
        y = solution(x, _identity(x), lu, order, transposed=True)
        turned = jnp.swapaxes(t, -1, -2)
        change = jnp.sum(y * t, (-2, -1), keepdims=True) * y - _times_matrix(y, turned, y)
        return change * _det_of_lu(lu, pivots)[..., None, None]

    def singular(u: Any, s: Any, vh: Any, phase: Any) -> Any:
        # The determinant of diag(s) + m has the terms (m_ii m_jj - m_ij m_ji) times all the elements of s but two.
        before, after = _others(s)
        rows, columns = jnp.indices(x.shape[-2:])
        # The products of the elements between two: those after the first, up to the one before the second.
        beyond = jnp.where(columns > rows, s[..., None, :], 1)
        between = jnp.concatenate([jnp.ones_like(beyond[..., :1]), jnp.cumprod(beyond, -1)[..., :-1]], -1)
        pairs = jnp.where(columns > rows, before[..., :, None] * between * after[..., None, :], 0)
        pairs = (pairs + jnp.swapaxes(pairs, -1, -2)) * phase[..., None, None]
        inner = _times_matrix(jnp.conj(jnp.swapaxes(u, -1, -2)), t, jnp.conj(jnp.swapaxes(vh, -1, -2)))
        along = jnp.sum(pairs * jnp.diagonal(inner, axis1=-2, axis2=-1)[..., None, :], -1)
        change = jnp.where(rows == columns, along[..., None, :], -pairs * jnp.swapaxes(inner, -1, -2))
        return _times_matrix(jnp.conj(u), change, jnp.conj(vh))

    return _unless_singular(x, regular, singular)


def _minors_vjp(node: Node, cts: Cotangents, needs: Sequence[bool]) -> Cotangents:
    x: Any
    t: Any
    x, t = node.inputs
    (ct,) = cts
    if not needs[0]:
        return [None, minors_op(x, ct)]
    # With y = x^-T: f = det(x) (<y, t> <y, ct> - <y t^T y, ct>), d det(x) = det(x) <y, dx> and dy = -y dx^T y.
    y = swap(solve(x, on_diagonal(zeros_of(x), 1.0)))
    det = column(column(det_op(x)))

    def along(a: Any, b: Any) -> Any:
        return column(column(reduce_sum(mul(a, b), axes=(x.ndim - 2, x.ndim - 1))))

    by_t, by_ct = (product(product(y, swap(v)), y) for v in (t, ct))
    total = mul(sub(mul(along(y, t), along(y, ct)), along(by_t, ct)), y)
    total = sub(total, add(mul(along(y, ct), by_t), mul(along(y, t), by_ct)))
    total = add(total, add(product(product(by_t, swap(ct)), y), product(product(by_ct, swap(t)), y)))
    return [mul(det, total), minors_op(x, ct) if needs[1] else None]


minors_op: Op = Op("minors", _minors, _minors_vjp, shape=lambda x, t: square_matrices(x))
"""The derivative of the cofactors of `x` in the direction `t`, and its own transpose."""

cofactor_op: Op = Op("cofactor", _cofactor, (lambda ct, out, x: minors_op(x, ct),), shape=square_matrices)


def cofactor(x: Any) -> Any:
    """The derivative of the determinants; of matrices of up to three rows, as the polynomial that it is."""
    n = x.shape[-1]
    if n > 3:
        return cofactor_op(x)
    if n < 2:
        return splat(x.shape, 1.0, x.dtype)
    if n == 2:
        turned = _rolled(x, 1, 1)
        return on_diagonal(neg(turned), turned)
    # Each row is the vector product of the two others.
    return sub(mul(_rolled(x, 1, 1), _rolled(x, 2, 2)), mul(_rolled(x, 1, 2), _rolled(x, 2, 1)))


def _rolled(x: Any, rows: int, columns: int) -> Any:
    """The elements of square matrices moved up and to the left, around the ends."""
    n, axis = x.shape[-1], x.ndim - 2
    x = concatenate(submatrix(x, (rows, n), (0, n)), submatrix(x, (0, rows), (0, n)), axis=axis)
    return concatenate(submatrix(x, (0, n), (columns, n)), submatrix(x, (0, n), (0, columns)), axis=axis + 1)


det_op: Op = Op(
    "det",
    _det,
    (lambda ct, out, x: mul(column(column(ct)), cofactor(x)),),
    shape=lambda x: make_aval(square_matrices(x).shape[:-2], x.dtype),
)

# -- QR


def _qr_types(x: Aval, *, full_matrices: bool = False, pivoting: bool = False) -> tuple[Aval, ...]:
    check_matrices(x, False)
    *batch, m, n = x.shape
    k = m if full_matrices else min(m, n)
    order = (make_aval((*batch, n), _INTEGERS),) if pivoting else ()
    return make_aval((*batch, m, k), x.dtype), make_aval((*batch, k, n), x.dtype), *order


def _qr_vjp(node: Node, cts: Cotangents, needs: Sequence[bool]) -> Cotangents:
    x: Any
    (x,) = node.inputs
    outputs: Sequence[Any] = node.outputs
    q, r, *order = outputs
    ct_q, ct_r = (zeros_of(v) if ct is None else conjugate(ct) for ct, v in zip(cts[:2], (q, r), strict=True))
    m, n = x.shape[-2:]
    rest = None
    if m < n:
        # Q and R[:, :m] are of the first columns, and the rest of R is Q^H times the rest of the columns.
        columns = take_rows(swap(x), order[0]) if order else swap(x)
        rest = product(q, submatrix(ct_r, (0, m), (m, n)))
        ct_q = add(ct_q, product(swap(submatrix(columns, (m, n), (0, m))), adjoint(submatrix(ct_r, (0, m), (m, n)))))
        r, ct_r = submatrix(r, (0, m), (0, m)), submatrix(ct_r, (0, m), (0, m))
    elif q.shape[-1] > n:
        ct_q = _complete_vjp(q, ct_q, n) if cts[0] is not None else submatrix(ct_q, (0, m), (0, n))
        q, r, ct_r = submatrix(q, (0, m), (0, n)), submatrix(r, (0, n), (0, n)), submatrix(ct_r, (0, n), (0, n))
    # See also S. Walter and L. Lehmann, "Algorithmic differentiation of linear algebra functions with application in
    # optimum experimental design" (2010). The diagonal of R stays real.
    inner = upper_part(sub(product(adjoint(q), ct_q), product(ct_r, adjoint(r))))
    inner = add(upper_part(inner, 1), adjoint(inner))
    if q.dtype.kind == "c":
        inner = on_diagonal(inner, real(inner))
    ct = triangular_solve(
        r, sub(ct_q, product(q, inner)), lower=False, transpose_a=True, conjugate_a=True, left_side=False
    )
    if rest is not None:
        ct = concatenate(ct, rest, axis=ct.ndim - 1)
    if order:
        ct = swap(take_rows(swap(ct), inverse_order(order[0])))
    return [conjugate(ct)]


def _complete_vjp(q: Any, ct: Any, n: int) -> Any:
    """The cotangent of the first `n` columns of Q that follows from that of all of them.

    The others are those that Householder's reflections give: "Backpropagation through full QR", arXiv 2409.13374,
    equations 32 and 33.
    """
    m = q.shape[-1]
    first, others = submatrix(q, (0, m), (0, n)), submatrix(q, (0, m), (n, m))
    ct_first, ct_others = submatrix(ct, (0, m), (0, n)), submatrix(ct, (0, m), (n, m))
    top, bottom = submatrix(first, (0, n), (0, n)), submatrix(first, (n, m), (0, n))
    z = swap(solve(swap(on_diagonal(top, sub(top, 1.0))), swap(bottom)))
    inner = neg(product(adjoint(ct_others), add(first, product(others, z))))
    inner = concatenate(neg(product(adjoint(z), inner)), inner, axis=q.ndim - 2)
    return add(add(ct_first, product(ct_others, z)), inner)


def _qr(x: Any, *, full_matrices: bool = False, pivoting: bool = False) -> Any:
    return tuple(lax.linalg.qr(x, full_matrices=full_matrices, pivoting=pivoting))


qr_op: Op = Op("qr", _qr, _qr_vjp, shape=_qr_types, multiple=True)

# -- eigenvalues


def differences(w: Any) -> Any:
    """How much the eigenvalue of a column is larger than that of a row; 1 on the diagonal."""
    return on_diagonal(sub(row(w), column(w)), 1.0)


def _eig(x: Any, *, vectors: bool) -> Any:
    return tuple(lax.linalg.eig(x, compute_left_eigenvectors=False, compute_right_eigenvectors=vectors))


def _eig_types(x: Aval, *, vectors: bool) -> tuple[Aval, ...]:
    square_matrices(x)
    dtype = complex_dtype(x.dtype)
    return make_aval(x.shape[:-1], dtype), *([make_aval(x.shape, dtype)] if vectors else [])


def _eig_vjp(node: Node, cts: Cotangents, needs: Sequence[bool]) -> Cotangents:
    (x,) = node.inputs
    w, v = _with_vectors(node, vectors=True)
    ct_w, ct_v = cts[0], cts[1] if len(cts) > 1 else None
    w_inner = zeros_of(w) if ct_w is None else conj(ct_w)
    if ct_v is None:
        inner = mul(column(w_inner), adjoint(v))
    else:
        # Each vector has norm 1, and its largest element is real.
        ct = conj(ct_v)
        size = abs_(v)
        rows = iota(dtype=_INTEGERS, shape=v.shape, axis=v.ndim - 2)
        largest = equal(rows, row(argmax(size, axis=v.ndim - 2)))
        along = reduce_sum(mul(conj(v), ct), axes=(v.ndim - 2,))
        turn = mul(div(row(imag(along)), real(v)), 1j)
        ct = sub(sub(ct, mul(v, row(real(along)))), where(largest, turn, 0.0))
        inner = on_diagonal(product(adjoint(v), ct), 0.0)
        inner = on_diagonal(div_no_nan(inner, conj(differences(w))), row(w_inner))
        inner = product(inner, adjoint(v))
    ct = conj(solve(adjoint(v), inner))
    return [ct if x.aval.dtype.kind == "c" else real(ct)]


eig_op: Op = Op("eig", _eig, _eig_vjp, shape=_eig_types, multiple=True)

# -- singular values


def _svd(x: Any, *, full_matrices: bool = False, compute_uv: bool = True) -> Any:
    out = lax.linalg.svd(x, full_matrices=full_matrices, compute_uv=compute_uv)
    return (out[1], out[0], out[2]) if compute_uv else (out,)


def _svd_types(x: Aval, *, full_matrices: bool = False, compute_uv: bool = True) -> tuple[Aval, ...]:
    check_matrices(x, False)
    *batch, m, n = x.shape
    k = min(m, n)
    s = make_aval((*batch, k), real_dtype(x.dtype))
    if not compute_uv:
        return (s,)
    u, vh = (m, m if full_matrices else k), (n if full_matrices else k, n)
    return s, make_aval((*batch, *u), x.dtype), make_aval((*batch, *vh), x.dtype)


def _svd_vjp(node: Node, cts: Cotangents, needs: Sequence[bool]) -> Cotangents:
    s, u, vh = _with_vectors(node, compute_uv=True)
    m, n = node.inputs[0].aval.shape[-2:]
    k = min(m, n)
    ct_s, ct_u, ct_vh = (*cts, None, None)[:3]
    if (u.shape[-1] > k and ct_u is not None) or (vh.shape[-2] > k and ct_vh is not None):
        raise NotImplementedError(
            f"svd({node.inputs[0].aval}) at {describe_source(node.source)}: the singular vectors that "
            "full_matrices=True adds have no derivative, as they are any basis of what the others leave. Pass "
            "full_matrices=False."
        )
    u, vh = submatrix(u, (0, m), (0, k)), submatrix(vh, (0, k), (0, n))
    if ct_u is None and ct_vh is None:
        return [conjugate(product(mul(u, row(ct_s)), vh))]
    v = adjoint(vh)
    # As for `eigh`, the result is not finite where singular values are the same.
    gaps = on_diagonal(mul(sub(row(s), column(s)), add(row(s), column(s))), 1.0)
    inner = None if ct_s is None else diagonal_matrix(ct_s)
    outer = None
    if ct_u is not None:
        ct_u = conjugate(submatrix(ct_u, (0, m), (0, k)))
        x = product(adjoint(u), ct_u)
        turn = div_no_nan(on_diagonal(x, 0.0), gaps)
        inner = _plus(inner, mul(add(turn, adjoint(turn)), row(s)))
        if x.dtype.kind == "c":
            # The two vectors have a phase in common that is free: it is kept in `vh`.
            inner = add(inner, diagonal_matrix(mul(div_no_nan(imag(diagonal_of(x)), s), 1j)))
        if m > k:
            outer = product(div_no_nan(sub(ct_u, product(u, x)), row(s)), vh)
    if ct_vh is not None:
        ct_v = swap(submatrix(ct_vh, (0, k), (0, n)))  # of the vectors as columns, conjugated twice
        x = product(vh, ct_v)
        turn = div_no_nan(on_diagonal(x, 0.0), gaps)
        inner = _plus(inner, mul(column(s), add(turn, adjoint(turn))))
        if n > k:
            outer = product(u, adjoint(div_no_nan(sub(ct_v, product(v, x)), row(s))))
    return [conjugate(_plus(outer, product(product(u, inner), vh)))]


def _plus(x: Any, y: Any) -> Any:
    return y if x is None else add(x, y)


svd_op: Op = Op("svd", _svd, _svd_vjp, shape=_svd_types, multiple=True)
"""The singular values, and with `compute_uv` the left and (adjoint) right singular vectors after them."""

# -- values known from elsewhere, with a derivative of their own


def _pinv_vjp(ct: Any, out: Any, a: Any, p: Any) -> Any:
    # G. Golub and V. Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares problems whose
    # variables separate" (1973).
    ct, ph = conjugate(ct), adjoint(out)
    cth = adjoint(ct)
    total = neg(product(product(ph, ct), ph))
    right = product(product(cth, out), ph)
    left = product(ph, product(out, cth))
    total = add(total, sub(right, product(a, product(out, right))))
    return conjugate(add(total, sub(left, product(product(left, out), a))))


pinv_op: Op = Op("pinv", lambda a, p: p, (_pinv_vjp, None), shape=lambda a, p: p)
"""`p`, which is the pseudo-inverse of `a`, with its derivative where the rank of `a` does not change."""


__all__ = [
    "cholesky_op", "cofactor_op", "det_op", "eig_op", "lu_op", "minors_op", "pinv_op", "pivots_op", "qr_op",
    "solve_op", "svd_op", "triangular_solve_op",
]  # fmt: skip
