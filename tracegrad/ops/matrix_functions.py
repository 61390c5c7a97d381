"""Functions of matrices: the Sylvester equation, roots, polar and Schur form, and the exponential.

The rules pair cotangents as those of `linalg` do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..op import Op
from ..tape import Aval, Node, make_aval
from .elementwise import add, mul, neg, real, sub
from .linalg import (
    Cotangents,
    adjoint,
    complex_dtype,
    conjugate,
    no_derivative,
    product,
    solution,
    solve,
    square_matrices,
    submatrix,
    swap,
)
from .shape import concatenate


def _sylvester_types(a: Aval, b: Aval, c: Aval, *, tol: float = 0.0) -> Aval:
    square_matrices(a), square_matrices(b)
    if c.shape != (*a.shape[:-1], b.shape[-1]) or a.shape[:-2] != b.shape[:-2]:
        raise ValueError(f"a, b and c of shapes {a.shape}, {b.shape} and {c.shape} do not fit")
    return make_aval(c.shape, np.result_type(a.dtype, b.dtype, c.dtype))


def _sylvester_vjp(node: Node, cts: Cotangents, needs: Sequence[bool]) -> Cotangents:
    a, b, _ = node.inputs
    x = swap(node.outputs[0])
    ct = sylvester_op(swap(a), swap(b), cts[0])
    return [neg(product(ct, x)), neg(product(x, ct)), ct]


def _sylvester(a: Any, b: Any, c: Any, *, tol: float = 0.0) -> Any:
    from jax.scipy.linalg import solve_sylvester

    return solve_sylvester(a, b, c, tol=tol)


sylvester_op: Op = Op("solve_sylvester", _sylvester, _sylvester_vjp, shape=_sylvester_types)
"""`x` with `a @ x + x @ b = c`."""


# Modules of jax.scipy are imported when they are needed: importing tracegrad is to cost little.


def _sqrtm(x: Any) -> Any:
    from jax.scipy.linalg import sqrtm

    return jnp.vectorize(sqrtm, signature="(n,n)->(n,n)")(x)


def _sqrtm_vjp(ct: Any, out: Any, x: Any) -> Any:
    root = swap(out)
    ct = sylvester_op(root, root, ct)
    return ct if x.dtype.kind == "c" else real(ct)


sqrtm_op: Op = Op(
    "sqrtm",
    _sqrtm,
    (_sqrtm_vjp,),
    shape=lambda x: make_aval(square_matrices(x).shape, complex_dtype(x.dtype)),
)


def _polar_vjp(ct: Any, out: Any, a: Any, u: Any) -> Any:
    # dU = U W + (1 - U U^H) dA P^-1 with W P + P W = U^H dA - dA^H U.
    ct = conjugate(ct)
    p = product(adjoint(out), a)
    p = mul(add(p, adjoint(p)), 0.5)
    inner = product(adjoint(out), ct)
    turn = sylvester_op(p, p, inner)
    total = product(out, sub(turn, adjoint(turn)))
    if a.shape[-2] > a.shape[-1]:
        total = add(total, adjoint(solve(p, adjoint(sub(ct, product(out, inner))))))
    return conjugate(total)


polar_op: Op = Op("polar", lambda a, u: u, (_polar_vjp, None), shape=lambda a, u: u)
"""`u`, which is the unitary factor of `a`, of as many rows as columns or more, with its derivative."""


def _schur(x: Any, *, output: str) -> Any:
    from jax.scipy.linalg import schur

    return tuple(schur(x, output))


schur_op: Op = Op("schur", _schur, no_derivative("Use eigh or eig, or stop_gradient on its operand."), multiple=True)
"""The triangular factor, and the unitary one."""


def _hessenberg(x: Any) -> Any:
    packed, taus = lax.linalg.hessenberg(x)
    n, batch = x.shape[-1], x.shape[:-2]
    inner = lax.linalg.householder_product(packed[..., 1:, :-1], taus)
    q = jnp.zeros_like(x).at[..., 1:, 1:].set(inner).at[..., 0, 0].set(1) if n else x
    return jnp.triu(packed, -1), jnp.broadcast_to(q, (*batch, n, n))


hessenberg_op: Op = Op(
    "hessenberg", _hessenberg, no_derivative("Use stop_gradient on its operand."),
    shape=lambda x: (square_matrices(x),) * 2, multiple=True,
)  # fmt: skip
"""The Hessenberg form, and the unitary factor."""

# -- the exponential


def _times(x: Sequence[Any], y: Sequence[Any]) -> list[Any]:
    """The product of `x[0] + t x[1]` and `y[0] + t y[1]`, up to the powers of `t` that these have."""

    def times(a: Any, b: Any) -> Any:
        return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)

    value = times(x[0], y[0])
    return [value] if len(x) == 1 else [value, times(x[0], y[1]) + times(x[1], y[0])]


def _exponential(*x: Any, max_squarings: int | None = None) -> list[Any]:
    """The exponential of `x[0] + t x[1]`, up to the powers of `t` that there are, by scaling and squaring.

    N. Higham, "The scaling and squaring method for the matrix exponential revisited" (2005); with a direction,
    A. Al-Mohy and N. Higham, "Computing the Fréchet derivative of the matrix exponential" (2009).
    """
    dtype = x[0].dtype
    wide = dtype in (np.float64, np.complex128)
    # The degree of the rational approximation, and the norm up to which it is exact to rounding.
    degree, limit = (13, 4.74) if wide else (7, 3.0)
    norm = jnp.max(jnp.sum(jnp.abs(x[0]), -2), -1, initial=0.0)
    squarings = jnp.ceil(jnp.log2(jnp.maximum(norm / limit, 1.0)))
    squarings = jnp.where(jnp.isfinite(squarings), squarings, 0).astype(np.int32)
    scale = jnp.exp2(-squarings.astype(norm.dtype))[..., None, None].astype(dtype)
    x = tuple(v * scale for v in x)
    f = math.factorial
    b = [f(2 * degree - j) * f(degree) / (f(2 * degree) * f(degree - j) * f(j)) for j in range(degree + 1)]
    two = _times(x, x)
    four = _times(two, two)
    six = _times(two, four)
    eye = jnp.broadcast_to(jnp.eye(x[0].shape[-1], dtype=dtype), x[0].shape)
    one = [eye] + [jnp.zeros_like(eye)] * (len(x) - 1)

    def polynomial(first: int) -> list[Any]:
        """The terms of every second degree."""
        c = b[first::2]
        low = [c[0] * i + c[1] * p + c[2] * q + c[3] * r for i, p, q, r in zip(one, two, four, six, strict=True)]
        if len(c) == 4:
            return low
        high = [c[4] * p + c[5] * q + c[6] * r for p, q, r in zip(two, four, six, strict=True)]
        return [lo + hi for lo, hi in zip(low, _times(six, high), strict=True)]

    even, odd = polynomial(0), _times(x, polynomial(1))
    above, below = [e + o for e, o in zip(even, odd, strict=True)], [e - o for e, o in zip(even, odd, strict=True)]
    lu, _, order = lax.linalg.lu(below[0])
    out = [solution(below[0], above[0], lu, order)]
    if len(x) == 2:
        known = jnp.matmul(below[1], out[0], precision=lax.Precision.HIGHEST)
        out.append(solution(below[0], above[1] - known, lu, order))

    def square(i: Any, out: list[Any]) -> list[Any]:
        more = (i < squarings)[..., None, None]
        return [jnp.where(more, new, old) for new, old in zip(_times(out, out), out, strict=True)]

    out = list(lax.fori_loop(0, jnp.max(squarings, initial=0), square, out))
    if max_squarings is None:
        return out
    return [jnp.where((squarings <= max_squarings)[..., None, None], v, math.nan) for v in out]


def _frechet_types(a: Aval, e: Aval) -> Aval:
    square_matrices(a)
    if a.shape != e.shape or a.dtype != e.dtype:
        raise ValueError(f"a matrix {a} and a direction {e} do not fit: give them one shape and dtype")
    return make_aval(a.shape, a.dtype)


def _frechet_vjp(node: Node, cts: Cotangents, needs: Sequence[bool]) -> Cotangents:
    # The derivative of exp(a) is symmetric in its directions, so that transposing `a` transposes it. That of the
    # derivative stands in the upper right of the one of [[a, e], [0, a]].
    a, e = map(swap, node.inputs)
    (ct,) = cts
    ct_a = None
    if needs[0]:
        zero, n, axis = mul(a, 0.0), a.shape[-1], a.ndim - 1

        def blocks(diagonal: Any, corner: Any) -> Any:
            rows = (concatenate(diagonal, corner, axis=axis), concatenate(zero, diagonal, axis=axis))
            return concatenate(*rows, axis=axis - 1)

        ct_a = submatrix(expm_frechet_op(blocks(a, e), blocks(ct, zero)), (0, n), (n, 2 * n))
    return [ct_a, expm_frechet_op(a, ct)]


expm_frechet_op: Op = Op("expm_frechet", lambda a, e: _exponential(a, e)[1], _frechet_vjp, shape=_frechet_types)
"""The derivative of the exponential of `a` in the direction `e`."""

expm_op: Op = Op(
    "expm",
    lambda x, *, max_squarings: _exponential(x, max_squarings=max_squarings)[0],
    (lambda ct, out, x, *, max_squarings: expm_frechet_op(swap(x), ct),),
    shape=square_matrices,
)


__all__ = ["expm_frechet_op", "expm_op", "hessenberg_op", "polar_op", "schur_op", "sqrtm_op", "sylvester_op"]
