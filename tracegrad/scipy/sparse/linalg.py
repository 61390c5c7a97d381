"""Linear systems of operators that need not be matrices, with the signatures of `jax.scipy.sparse.linalg`.

The solvers iterate; their derivative is that of the solution, by a solution of the transposed system. It is as exact as
both are, so it is right only where they converge.

Example:
  >>> import tracegrad as tg, tracegrad.numpy as np
  >>> def solution(scale):
  ...     x, _ = tg.scipy.sparse.linalg.cg(lambda v: scale * v, np.array([2.0, 4.0]))
  ...     return x.sum()
  >>> float(solution(2.0)), float(tg.grad(solution)(2.0))  # 6 / scale, -6 / scale ** 2
  (3.0, -1.5)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ... import numpy as tnp
from ...body import call, record_body
from ...control import fori_loop, while_loop
from ...custom import custom_vjp
from ...errors import called, describe, here
from ...names import listed
from ...numpy.arguments import from_list, inexact, integer, promoted, type_of
from ...numpy.creation import asarray
from ...passes import optimize
from ...pullbacks import vjp
from ...tape import Tape
from ...tracer import literal

_Operator = Callable[[Any], Any]

_Method = tuple[Any, ...]
"""A solver and its options. It compares by value, as bodies do: what was seen before does not compile again."""


def cg(
    A: Any, b: Any, x0: Any = None, *, tol: Any = 1e-5, atol: Any = 0.0, maxiter: int | None = None, M: Any = None
) -> tuple[Any, None]:
    """`x` with `A(x) = b`, for a Hermitian positive definite `A`, by conjugate gradients.

    Differentiable in `b`, and in the values that `A` is, or closes over.

    Args:
      A: a square matrix, or a linear function from what is like `b` to the same.
      b: an array, or a pytree of arrays.
      x0: where to begin; zeros by default.
      tol, atol: it ends where the norm of `b - A(x)` is at most `max(tol * norm(b), atol)`.
      maxiter: after how many steps it ends anyway; by default ten times the number of unknowns.
      M: an approximate inverse of `A`, a matrix or a function.

    Returns:
      `(x, None)`.

    Raises:
      TypeError: if an operator is neither, or returns something else than it is given.
      ValueError: if the shapes do not fit.

    Source: Saad, Iterative Methods for Sparse Linear Systems, algorithm 9.1.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> a = np.array([[4.0, 1.0], [1.0, 3.0]])
      >>> x, _ = tg.scipy.sparse.linalg.cg(a, np.array([1.0, 2.0]))
      >>> (a @ x).round(3).tolist()
      [1.0, 2.0]
    """
    return _solved((_conjugate_gradients,), A, b, x0, M, tol, atol, maxiter), None


def bicgstab(
    A: Any, b: Any, x0: Any = None, *, tol: Any = 1e-5, atol: Any = 0.0, maxiter: int | None = None, M: Any = None
) -> tuple[Any, None]:
    """`x` with `A(x) = b`, for any `A`, by stabilized biconjugate gradients; arguments and result are those of `cg`.

    It ends early where it breaks down.

    Source: Saad, Iterative Methods for Sparse Linear Systems, algorithm 7.7.
    """
    return _solved((_biconjugate_gradients,), A, b, x0, M, tol, atol, maxiter), None


def gmres(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    tol: Any = 1e-5,
    atol: Any = 0.0,
    restart: int = 20,
    maxiter: int | None = None,
    M: Any = None,
    solve_method: str = "batched",
) -> tuple[Any, Any]:
    """`x` with `A(x) = b`, for any `A`, by generalized minimal residuals; the other arguments are those of `cg`.

    Args:
      restart: the dimension of the Krylov space in which it looks for the solution before it begins anew from there.
      maxiter: how often it begins anew.
      solve_method: "batched" or "incremental", which are the same here.

    Returns:
      `x`, and -1 if it has NaNs, else 0.

    Source: Saad, Iterative Methods for Sparse Linear Systems, algorithm 6.11.
    """
    if solve_method not in ("batched", "incremental"):
        raise ValueError(f"{called()}: solve_method={solve_method!r} {here()}. Use 'batched' or 'incremental'.")
    size = integer(restart, "restart")
    if size < 1:
        raise ValueError(f"{called()}: restart={size} {here()}. A Krylov space has a dimension of 1 or more.")
    x = _solved((_minimal_residuals, size), A, b, x0, M, tol, atol, maxiter)
    wrong = [tnp.isnan(leaf).any() for leaf in jax.tree.leaves(x)]
    return x, tnp.where(tnp.stack(wrong).any(), literal(-1), literal(0))


# -- from trees to vectors, and the derivative


def _solved(method: _Method, A: Any, b: Any, x0: Any, M: Any, tol: Any, atol: Any, maxiter: int | None) -> Any:
    leaves, tree_of_b = jax.tree.flatten(from_list(b) if isinstance(b, list) else b)
    tree: Any = tree_of_b
    leaves = [inexact(x, type_of(x)) for x in leaves]
    avals = [type_of(x) for x in leaves]
    if not leaves:
        raise TypeError(f"{called()}: b is {describe(b)} {here()}, which has no arrays")
    if x0 is not None:
        starts, found = jax.tree.flatten(from_list(x0) if isinstance(x0, list) else x0)
        shapes = [type_of(x).shape for x in starts]
        if found != tree or shapes != [a.shape for a in avals]:
            raise ValueError(f"{called()}: x0 is {_types(starts)}, b is {_types(leaves)} {here()}. They must be alike.")

    def flat(xs: Any) -> Any:
        return tnp.concatenate([tnp.ravel(x) for x in promoted(xs, [type_of(x) for x in xs])])

    def tree_of(vector: Any) -> Any:
        parts, start = [], 0
        for aval in avals:
            part = tnp.reshape(vector[start : start + math.prod(aval.shape)], aval.shape)
            parts.append((part.real if aval.dtype.kind != "c" else part).astype(aval.dtype))
            start += math.prod(aval.shape)
        return jax.tree.unflatten(tree, parts)

    def on_vectors(operator: Any, name: str) -> _Operator:
        apply = _operator(operator, name)

        def run(vector: Any) -> Any:
            outs, found = jax.tree.flatten(apply(tree_of(vector)))
            if found != tree or [type_of(x).shape for x in outs] != [a.shape for a in avals]:
                raise TypeError(
                    f"{called()}: {name} returns {_types(outs)} for {_types(leaves)} {here()}. An operator takes what "
                    "is like b to the same."
                )
            result = flat(outs)
            if type_of(result).dtype.kind == "c" != vector.dtype.kind:
                raise TypeError(
                    f"{called()}: {name} returns {_types(outs)} for {_types(leaves)} {here()}. Make b complex, as A is."
                )
            return result.astype(vector.dtype)

        return run

    vector = flat(leaves)
    start = tnp.zeros_like(vector) if x0 is None else flat(starts).astype(vector.dtype)
    steps = 10 * vector.size if maxiter is None else maxiter
    apply, prepare = on_vectors(A, "A"), on_vectors(M, "M") if M is not None else _identity
    return tree_of(_system(method, apply, prepare, vector, start, (tol, atol, steps)))


def _identity(x: Any) -> Any:
    return x


def _types(xs: Any) -> str:
    return ", ".join(describe(x) for x in xs) or "nothing"


def _operator(A: Any, name: str) -> _Operator:
    if callable(A):
        return A  # type: ignore[no-any-return]
    try:
        matrix = asarray(A)
    except TypeError:
        raise TypeError(
            f"{called()}: {name} is {describe(A)} {here()}. Give a square matrix, or a function that applies one."
        ) from None
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{called()}: {name} is {describe(matrix)} {here()}, which is no square matrix")

    def apply(x: Any) -> Any:
        if type_of(x).shape[:1] != matrix.shape[1:]:
            raise ValueError(f"{called()}: {name} is {describe(matrix)}, b is {describe(x)} {here()}, of another size")
        return tnp.matmul(matrix, x, precision="highest")

    return apply


def _recorded(f: _Operator, vector: Any, name: str) -> tuple[Tape, list[Any]]:
    body, captured = record_body(f, (type_of(vector),), {}, name)
    return optimize(body), captured


def _system(method: _Method, A: _Operator, M: _Operator, b: Any, x0: Any, limits: Any) -> Any:
    """The solution for vectors. What the operators close over becomes an argument, so that it has a derivative."""
    matrix, of_matrix = _recorded(A, b, "A")
    inverse, of_inverse = _recorded(M, b, "M")
    return _solution(method, matrix, inverse, b, of_matrix, (x0, of_inverse, *limits))


def _applied(body: Tape, values: Any) -> _Operator:
    return lambda v: call(v, *values, body=body)[0]


def _transposed(body: Tape, values: Any) -> _Operator:
    return lambda v: vjp(_applied(body, values), v)[1](v)[0]


@functools.partial(custom_vjp, nondiff_argnums=(0, 1, 2))
def _solution(method: _Method, matrix: Tape, inverse: Tape, b: Any, of_matrix: Any, rest: Any) -> Any:
    """The solution for operators that are bodies, of a vector and what they close over."""
    x0, of_inverse, tol, atol, maxiter = rest
    limit = tnp.maximum(tol * _norm(b), atol)
    solver, *options = method
    return solver(_applied(matrix, of_matrix), _applied(inverse, of_inverse), b, x0, limit, maxiter, *options)


def _solution_forward(method: _Method, matrix: Tape, inverse: Tape, b: Any, of_matrix: Any, rest: Any) -> Any:
    x = _solution(method, matrix, inverse, b, of_matrix, rest)
    return x, (x, of_matrix, rest)


def _solution_backward(method: _Method, matrix: Tape, inverse: Tape, residuals: Any, ct: Any) -> Any:
    """For A x = b: the cotangent of b is the solution y of the transposed system, that of A is -y x'."""
    x, of_matrix, (_, of_inverse, *limits) = residuals
    back = _system(
        method, _transposed(matrix, of_matrix), _transposed(inverse, of_inverse), ct, tnp.zeros_like(ct), limits
    )
    floats = [i for i, v in enumerate(of_matrix) if type_of(v).differentiable]

    def product(*values: Any) -> Any:
        full = list(of_matrix)
        for i, value in zip(floats, values, strict=True):
            full[i] = value
        return call(x, *full, body=matrix)[0]

    grads: list[Any] = [None] * len(of_matrix)
    if floats:
        for i, g in zip(floats, vjp(product, *[of_matrix[i] for i in floats])[1](-back), strict=True):
            grads[i] = g
    return back, grads, None


_solution.defvjp(_solution_forward, _solution_backward)


# -- solvers for vectors


def _inner(x: Any, y: Any) -> Any:
    """The real part of the inner product."""
    return tnp.real(tnp.vdot(x, y, precision="highest"))


def _norm(x: Any) -> Any:
    return tnp.sqrt(_inner(x, x))


def _unfinished(r: Any, limit: Any, k: Any, maxiter: Any) -> Any:
    """Whether to take a step: the first one where there is a NaN or an infinity too, so that the solution has it."""
    size = _norm(r)
    return ((size > limit) | (~tnp.isfinite(size) & (k == 0))) & (k < maxiter)


def _conjugate_gradients(A: _Operator, M: _Operator, b: Any, x0: Any, limit: Any, maxiter: Any) -> Any:
    def goes_on(state: Any) -> Any:
        _, r, _, _, k = state
        return _unfinished(r, limit, k, maxiter)

    def step(state: Any) -> Any:
        x, r, p, size, k = state
        q = A(p)
        alpha = size / _inner(p, q)
        x, r = x + alpha * p, r - alpha * q
        z = M(r)
        new = _inner(r, z)
        return x, r, z + new / size * p, new, k + 1

    r = b - A(x0)
    z = M(r)
    return while_loop(goes_on, step, (x0, r, z, _inner(r, z), 0))[0]


def _biconjugate_gradients(A: _Operator, M: _Operator, b: Any, x0: Any, limit: Any, maxiter: Any) -> Any:
    def goes_on(state: Any) -> Any:
        r, broken, k = state[1], state[-2], state[-1]
        return _unfinished(r, limit, k, maxiter) & ~broken

    def step(state: Any) -> Any:
        x, r, p, q, rho, alpha, omega, _, k = state
        new = _vdot(shadow, r)
        p = r + new / rho * (alpha / omega) * (p - omega * q)
        ready = M(p)
        q = A(ready)
        below = _vdot(shadow, q)
        broken = (new == 0) | (below == 0)
        alpha = new / tnp.where(below == 0, 1, below)
        s = r - alpha * q
        half = M(s)
        t = A(half)
        square = _inner(t, t)
        omega = _vdot(t, s) / tnp.where(square == 0, 1, square)
        x = tnp.where(broken, x, x + alpha * ready + omega * half)
        r = tnp.where(broken, r, s - omega * t)
        return x, r, p, q, new, alpha, omega, broken | (omega == 0), k + 1

    shadow = b - A(x0)
    one, nothing = tnp.ones((), b.dtype), tnp.zeros_like(b)
    return while_loop(goes_on, step, (x0, shadow, nothing, nothing, one, one, one, np.False_, 0))[0]


def _vdot(x: Any, y: Any) -> Any:
    return tnp.vdot(x, y, precision="highest")


def _minimal_residuals(
    A: _Operator, M: _Operator, b: Any, x0: Any, limit: Any, maxiter: Any, restart: int
) -> Any:  # fmt: skip
    n, dtype = b.size, b.dtype
    restart = min(restart, n)
    eps = float(np.finfo(dtype).eps)

    def extend(k: Any, state: Any) -> Any:
        basis, columns = state
        w = M(A(basis[k]))
        size = _norm(w)
        # Twice is enough: what the first projection leaves of rounding, the second removes.
        h = _product(basis.conj(), w)
        w = w - _product(h, basis)
        more = _product(basis.conj(), w)
        w = w - _product(more, basis)
        left = _norm(w)
        ended = left <= eps * size
        basis = basis.at[k + 1].set(tnp.where(ended, 0, w / tnp.where(ended, 1, left)))
        h = (h + more).at[k + 1].set(tnp.where(ended, 0, left).astype(dtype))
        return basis, columns.at[k].set(h)

    def goes_on(state: Any) -> Any:
        _, r, k = state
        return _unfinished(r, limit, k, maxiter)

    def cycle(state: Any) -> Any:
        x, r, k = state
        z = M(r)
        size = _norm(z)
        basis = tnp.zeros((restart + 1, n), dtype).at[0].set(z / tnp.where(size == 0, 1, size))
        basis, columns = fori_loop(0, restart, extend, (basis, tnp.zeros((restart, restart + 1), dtype)))
        right = tnp.zeros(restart + 1, dtype).at[0].set(size.astype(dtype))
        y = tnp.linalg.lstsq(columns.T, right)[0]
        x = x + _product(y, basis[:-1])
        return x, b - A(x), k + 1

    return while_loop(goes_on, cycle, (x0, b - A(x0), 0))[0]


def _product(x: Any, y: Any) -> Any:
    return tnp.matmul(x, y, precision="highest")


__all__ = ["bicgstab", "cg", "gmres"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
