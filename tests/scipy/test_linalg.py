"""`tracegrad.scipy.linalg` against SciPy in value, and against `jax.grad` and central differences in derivatives."""

from __future__ import annotations

from typing import Any

import jax.scipy.linalg as jlinalg
import numpy as np
import pytest
import scipy.linalg

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_grads, check_message, check_value
from tracegrad.scipy import linalg

RNG = np.random.default_rng(11)


def _normal(*shape: int, complex: bool = False) -> np.ndarray:
    x = RNG.normal(size=shape)
    return x + 1j * RNG.normal(size=shape) if complex else x


def _positive(x: np.ndarray) -> np.ndarray:
    return x @ np.conj(x.T) + np.eye(len(x))


A, C = _normal(3, 3), _normal(3, 3, complex=True)
P, PC = _positive(A), _positive(C)
V, M = _normal(3), _normal(3, 2, complex=True)
LU, LU_C = scipy.linalg.lu_factor(A), scipy.linalg.lu_factor(C)
TALL, WIDE_C = _normal(4, 2), _normal(2, 3, complex=True)
BIG = 10 * _normal(4, 4)
POINTS = np.array([1.0, 2.0, 3.0])


def _product(t: Any, z: Any) -> Any:
    return z @ t @ z.conj().T


# A name, a function over a module `linalg`, and its arguments.
VALUES: list[tuple[str, Any, tuple[Any, ...]]] = [
    ("cholesky", lambda m, x: (m.cholesky(x), m.cholesky(x, lower=True)), (PC,)),
    ("cho_solve", lambda m, x, y: (m.cho_solve(m.cho_factor(x), y), m.cho_solve(m.cho_factor(x, True), y)), (PC, M)),
    ("lu", lambda m, x: (*m.lu(x), *m.lu(x, permute_l=True)), (C,)),
    ("lu tall", lambda m, x: m.lu(x), (TALL,)),
    ("lu wide", lambda m, x: m.lu(x), (WIDE_C,)),
    ("lu_solve", lambda m, x, y: [m.lu_solve(m.lu_factor(x), y, k) for k in range(3)], (C, M)),
    ("qr", lambda m, x: (m.qr(x), m.qr(x, mode="r"), m.qr(x, mode="economic")), (TALL,)),
    ("qr pivoting", lambda m, x: m.qr(x, pivoting=True, mode="economic"), (_normal(4, 3),)),
    ("svd", lambda m, x: m.svd(x, compute_uv=False), (WIDE_C,)),
    ("eigh", lambda m, x, y: (m.eigh(x, eigvals_only=True), m.eigh(x, y, eigvals_only=True)), (P, PC)),
    ("polar", lambda m, x: (m.polar(x), m.polar(x, "left")), (TALL,)),
    ("polar wide", lambda m, x: (m.polar(x), m.polar(x, "left")), (WIDE_C,)),
    (
        "schur",
        lambda m, x: (lambda t, z: z @ t @ np.conj(z).T if m is scipy.linalg else z @ t @ tnp.conj(z).T)(
            *m.schur(x, "complex")
        ),
        (C,),
    ),
    ("hessenberg", lambda m, x: m.hessenberg(x, calc_q=True), (_normal(4, 4),)),
    ("solve", lambda m, x, y: [m.solve(x, y, assume_a=a) for a in ("gen", "pos")], (P, V)),
    (
        "solve_triangular",
        lambda m, x, y: [m.solve_triangular(x, y, t, t != 0, t == 1) for t in range(3)],
        (C, M),
    ),
    ("solve_sylvester", lambda m, x, y, z: m.solve_sylvester(x, y, z), (PC, P[:2, :2], M)),
    ("inv", lambda m, x: (m.inv(x), m.det(x)), (A,)),
    ("expm", lambda m, x, y: (m.expm(x), m.expm(x / 50), *m.expm_frechet(x / 5, y)), (BIG, _normal(4, 4))),
    ("expm batch", lambda m, x: m.expm(x), (np.stack([C, 9 * C, 0 * C]),)),
    ("expm float32", lambda m, x: m.expm(x), (A.astype(np.float32),)),
    ("sqrtm", lambda m, x: m.sqrtm(x) + 0j, (P + A / 5,)),
    ("block_diag", lambda m, x, y: m.block_diag(x, y, 1.0), (A, V)),
    ("toeplitz", lambda m, x, y: (m.toeplitz(x), m.toeplitz(x, y)), (C[0], POINTS[:2])),
    ("hankel", lambda m, x, y: (m.hankel(x), m.hankel(x, y)), (POINTS, C[0])),
    ("circulant", lambda m, x: (m.circulant(x), m.companion(x)), (V,)),
    (
        "constants",
        lambda m, x: (m.hilbert(3) + x, m.hadamard(4) + x, m.dft(3) + x, m.dft(3, "n") + x),
        (np.ones(()),),
    ),
]


@pytest.mark.parametrize(("fn", "args"), [case[1:] for case in VALUES], ids=[case[0] for case in VALUES])
def test_values(fn: Any, args: tuple[Any, ...]) -> None:
    rtol = 1e-8 if args[0].dtype != np.float32 else None
    check_value(lambda *xs: fn(linalg, *xs), lambda *xs: fn(scipy.linalg, *xs), *args, rtol=rtol, only=("jit",))


def _hermitian(x: Any) -> Any:
    return (x + x.swapaxes(-1, -2).conj()) / 2


# The same, and what to check: the first derivative, the second too, or both against JAX as well.
GRADS: list[tuple[str, Any, tuple[Any, ...], str]] = [
    (
        "cholesky",
        lambda m, x, y: (m.cholesky(_hermitian(x)), m.cho_solve(m.cho_factor(_hermitian(x)), y)),
        (PC, M[:, 0]),
        "jax",
    ),
    ("lu", lambda m, x: m.lu(x)[1:], (_normal(3, 3, complex=True),), "jax"),
    ("lu tall", lambda m, x: m.lu(x, permute_l=True), (_normal(2, 4, 2),), "first"),
    (
        "triangles",
        lambda m, x: (m.cholesky(x, lower=True), m.eigh(x, lower=False, eigvals_only=True)),
        (P + np.triu(np.ones((3, 3)), 2),),
        "first",
    ),
    ("lu wide", lambda m, x: m.lu(x)[1:], (_normal(2, 3),), "first"),
    ("lu_solve", lambda m, x, y: [m.lu_solve((x, LU_C[1]), y, k) for k in (0, 2)], (LU_C[0], M), "first"),
    ("qr pivoting", lambda m, x: m.qr(x, pivoting=True, mode="economic")[:2], (_normal(2, 3),), "first"),
    ("eigh", lambda m, x, y: m.eigh(x, y @ y.T, eigvals_only=True), (A, _normal(3, 3)), "first"),
    ("polar", lambda m, x: m.polar(x), (_normal(3, 2, complex=True),), "second"),
    ("polar of equal singular values", lambda m, x: m.polar(x, "left"), (np.eye(2, 3),), "first"),
    ("solve positive", lambda m, x, y: m.solve(_hermitian(x), y, assume_a="pos"), (P, V), "first"),
    (
        "solve_triangular",
        lambda m, x, y: (m.solve_triangular(x, y, 2, True), m.solve_triangular(x, y, 0, False, True)),
        (C, M[:, 0]),
        "first",
    ),
    ("solve_sylvester", lambda m, x, y, z: m.solve_sylvester(x, y, z), (P, P[:2, :2], _normal(3, 2)), "first"),
    ("expm", lambda m, x: m.expm(x), (np.stack([C[:2, :2], 4 * C[:2, 1:]]),), "second"),
    ("sqrtm", lambda m, x: m.sqrtm(x), (P + A / 5,), "second"),
    (
        "special",
        lambda m, x, y: [f(x, y) for f in (m.block_diag, m.toeplitz, m.hankel)] + [m.circulant(x), m.companion(x)],
        (V, M[:, 0]),
        "first",
    ),
]


@pytest.mark.parametrize(("fn", "args", "level"), [c[1:] for c in GRADS], ids=[c[0] for c in GRADS])
def test_derivatives(fn: Any, args: tuple[Any, ...], level: str) -> None:
    theirs = (lambda *xs: fn(jlinalg, *xs)) if level == "jax" else None
    check_grads(lambda *xs: fn(linalg, *xs), *args, jax_fn=theirs, order=1 if level == "first" else 2)


def test_derivative_of_expm_frechet() -> None:
    check_grads(lambda x, y: linalg.expm_frechet(x, y, compute_expm=False), A[:2, :2], A[1:, :2], order=1)


def test_lu_solve_broadcasts_and_expm_gives_up() -> None:
    b = _normal(2, 3, 1)
    np.testing.assert_allclose(linalg.lu_solve(linalg.lu_factor(A), b), np.linalg.solve(A, b), rtol=1e-4)
    assert np.isnan(linalg.expm(np.eye(2) * 1e6)).all()
    assert linalg.block_diag().shape == (1, 0)


X = np.ones((2, 3), np.float32)
SQUARE = np.eye(3, dtype=np.float32)

ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda x: linalg.cholesky(x), ValueError, "cholesky: f32.2,3. at .*test_linalg.py.* not square"),
    (lambda x: linalg.expm(x), ValueError, "expm: f32.2,3. at .*test_linalg.py.* not square"),
    (
        lambda x: linalg.solve_triangular(SQUARE, x),
        ValueError,
        r"solve_triangular: matrices of shape \(3, 3\) and .*2, 3",
    ),
    (lambda x: linalg.solve_triangular(SQUARE, x.T, trans=3), ValueError, "trans=3 at .* Use 0, 1, 2"),
    (lambda x: linalg.lu_solve(linalg.lu_factor(SQUARE), x), ValueError, "lu_solve: .* do not fit .* of 3 rows"),
    (lambda x: linalg.solve(SQUARE, x.T, assume_a="any"), ValueError, "assume_a='any' at .* Use 'gen'"),
    (lambda x: linalg.solve_sylvester(SQUARE, SQUARE, x), ValueError, "solve_sylvester.*do not fit"),
    (lambda x: linalg.qr(x, mode="raw"), ValueError, "qr: mode='raw' at .* Use 'full'"),
    (lambda x: linalg.expm_frechet(SQUARE, x @ x.T), ValueError, "expm_frechet.*give them one shape"),
    (lambda x: linalg.block_diag(x[None]), ValueError, "block_diag: arrays of shapes .* Give matrices"),
    (lambda x: linalg.toeplitz(x[0, 0]), ValueError, "toeplitz: f32.. at .* Give a vector"),
    (lambda x: linalg.polar(x, "up"), ValueError, "polar: side='up'"),
    (lambda x: linalg.hadamard(3), ValueError, "hadamard: n=3 at .* no power of 2"),
    (lambda x: linalg.eigh(SQUARE, type=2), NotImplementedError, "eigh: .*type=2"),
]


@pytest.mark.parametrize(("fn", "kind", "message"), ERRORS)
def test_errors_name_the_line(fn: Any, kind: type[Exception], message: str) -> None:
    check_message(lambda: tg.trace(fn)(X), kind, message)


@pytest.mark.parametrize("fn", [lambda x: linalg.schur(x)[0].sum(), lambda x: linalg.hessenberg(x).sum()])
def test_no_derivative_is_an_error(fn: Any) -> None:
    with pytest.raises(NotImplementedError, match=r"at .*test_linalg.py.* has no derivative. Use .*stop_gradient"):
        tg.trace(tg.grad(fn))(SQUARE)
