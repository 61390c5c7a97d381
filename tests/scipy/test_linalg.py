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
BAND = _normal(3, 3)
BIG = 10 * _normal(4, 4)
POINTS = np.array([1.0, 2.0, 3.0])


def F32(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32)


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
    ("solve_banded", lambda m, x, y: m.solve_banded((1, 1), x, y), (BAND, V)),
    ("solve_banded with a pivot", lambda m, x, y: m.solve_banded((2, 0), x, y), (BAND, M)),
    ("solve_banded complex", lambda m, x, y: m.solve_banded((0, 2), x, y), (BAND + 1j, V)),
    ("solve_banded diagonal", lambda m, x, y: m.solve_banded((0, 0), x, y), (BAND[:1], M)),
    ("solve_banded wider than the matrix", lambda m, x, y: m.solve_banded((4, 3), x, y), (_normal(8, 3), M)),
    ("solve_banded float32", lambda m, x, y: m.solve_banded((1, 1), x, y), (F32(BAND), F32(V))),
    (
        "eigh_tridiagonal",
        lambda m, x, y: (
            m.eigh_tridiagonal(x, y[:2], eigvals_only=True),
            m.eigh_tridiagonal(x, y[:2], eigvals_only=True, select="i", select_range=(1, 2)),
            (lambda w, v: (v * w) @ v.T)(*m.eigh_tridiagonal(x, y[:2])),
        ),
        (V, POINTS),
    ),
    ("funm", lambda m, x: m.funm(x, np.exp if m is scipy.linalg else tnp.exp) + 0j, (A,)),
    (
        "rsf2csf",
        lambda m, x: _product(*m.rsf2csf(*m.schur(x))),
        (A,),
    ),
    (
        "qr_multiply",
        lambda m, x, y: (
            *m.qr_multiply(x, y, mode="left"),
            *m.qr_multiply(x, y[0], mode="left"),
            m.qr_multiply(x, x.T)[0],
            m.qr_multiply(x, x[:, 0])[0],
            *m.qr_multiply(x, y, mode="left", pivoting=True),
            m.qr_multiply(x, y, mode="left", conjugate=True)[0],
        ),
        (TALL, P[:2, :2]),
    ),
    (
        "of vectors",
        lambda m, x, y: (
            *[m.convolution_matrix(x, 2, mode) for mode in ("full", "same", "valid")],
            m.fiedler(x),
            m.fiedler_companion(x),
            m.fiedler_companion(x[:2]),
            m.leslie(x, y[:2]),
        ),
        (V, POINTS),
    ),
    (
        "of a size",
        lambda m, x: (
            m.helmert(4) * x,
            m.helmert(3, True) * x,
            m.invhilbert(4) * x,
            *[f(4, kind) * x for f in (m.pascal, m.invpascal) for kind in ("symmetric", "lower", "upper")],
        ),
        (np.ones(()),),
    ),
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
    ("solve_banded", lambda m, x, y: m.solve_banded((1, 1), x, y), (BAND, V), "second"),
    ("solve_banded, several", lambda m, x, y: m.solve_banded((2, 0), x, y), (BAND, M), "first"),
    ("solve_banded, complex", lambda m, x, y: m.solve_banded((0, 2), x, y), (BAND + 1j * A, M[:, 0]), "first"),
    ("solve_banded, a batch", lambda m, x, y: m.solve_banded((1, 1), x, y), (BAND, _normal(2, 3, 2)), "first"),
    ("solve_banded, bands", lambda m, x, y: m.solve_banded((1, 0), x, y), (_normal(2, 2, 3), V[:, None]), "first"),
    ("eigh_tridiagonal", lambda m, x, y: m.eigh_tridiagonal(x, y[:2], eigvals_only=True), (V, POINTS), "second"),
    ("qr_multiply", lambda m, x, y: m.qr_multiply(x, y, mode="left"), (TALL, P[:2, :2]), "first"),
    (
        "of vectors",
        lambda m, x, y: (
            m.convolution_matrix(x, 2),
            m.fiedler(x),
            m.fiedler_companion(x),
            m.leslie(x, y[:2]),
        ),
        (V, POINTS),
        "jax",
    ),
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


def test_every_name_of_jax_is_here() -> None:
    missing = {name for name in dir(jlinalg) if not name.startswith("_")} - set(linalg.__all__)
    assert not missing


def test_lu_solve_broadcasts_and_expm_gives_up() -> None:
    b = _normal(2, 3, 1)
    np.testing.assert_allclose(linalg.lu_solve(linalg.lu_factor(A), b), np.linalg.solve(A, b), rtol=1e-4)
    assert np.isnan(linalg.expm(np.eye(2) * 1e6)).all()
    assert linalg.block_diag().shape == (1, 0)


def test_solve_banded_of_a_batch_under_jit() -> None:
    b = _normal(2, 4, 3, 2)
    solve = tg.jit(lambda ab, b: linalg.solve_banded((1, 1), ab, b))
    expected = [[scipy.linalg.solve_banded((1, 1), BAND, y) for y in x] for x in b]
    np.testing.assert_allclose(solve(BAND, b), expected, rtol=1e-3, atol=1e-4)
    bands = np.stack([BAND, BAND + 1])
    expected = [scipy.linalg.solve_banded((1, 1), band, V) for band in bands]
    np.testing.assert_allclose(solve(bands, V[:, None])[..., 0], expected, rtol=1e-3, atol=1e-4)
    assert solve(BAND, b[:0]).shape == (0, 4, 3, 2)
    assert solve(BAND, [1.0, 2.0, 3.0]).shape == (3,)
    # A zero on the diagonal needs another pivot; the corners are not read, and get no derivative.
    ab = np.array([[np.nan, 1.0, 2.0], [0.0, 0.0, 1.0], [1.0, 1.0, np.nan]])
    np.testing.assert_allclose(solve(ab, V), scipy.linalg.solve_banded((1, 1), np.nan_to_num(ab), V), rtol=1e-5)
    slope = tg.jit(tg.grad(lambda ab: tnp.sum(linalg.solve_banded((1, 1), ab, V))))(ab)
    assert np.isfinite(slope).all()
    assert (slope[0, 0], slope[2, 2]) == (0.0, 0.0)
    assert not np.isfinite(solve(np.zeros((3, 3)), V)).any()


def test_a_function_of_a_matrix_with_its_error() -> None:
    out, error = linalg.funm(A, tnp.exp, disp=False)
    np.testing.assert_allclose(out, scipy.linalg.expm(A), rtol=1e-3, atol=1e-4)
    assert 0 < float(error) < 1e-3


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
    (lambda x: linalg.solve_banded((1, 1), x, V), ValueError, r"solve_banded: ab of shape \(2, 3\) at .* has 3 elem"),
    (lambda x: linalg.solve_banded((1, 0), x, V[:2]), ValueError, r"solve_banded: ab .* do not fit at .*3 rows"),
    (lambda x: linalg.solve_banded((-1, 2), x, V), ValueError, r"solve_banded: l_and_u=\(-1, 2\) at "),
    (lambda x: linalg.solve_banded(1, x, V), TypeError, "solve_banded: l_and_u=1 at .* Give two integers"),
    (lambda x: linalg.solve_banded((1.5, 0), x, V), TypeError, "solve_banded: l_and_u must be an integer"),
    (lambda x: linalg.eigh_tridiagonal(x[0], x[0]), ValueError, "eigh_tridiagonal: shapes .* n and n - 1"),
    (
        lambda x: linalg.eigh_tridiagonal(x[0], x[0, :2], select="v"),
        NotImplementedError,
        "eigh_tridiagonal: select='v'",
    ),
    (
        lambda x: linalg.eigh_tridiagonal(x[0], x[0, :2], select="i", select_range=(1, 3)),
        ValueError,
        r"eigh_tridiagonal: select_range=\(1, 3\) at .* below 3",
    ),
    (lambda x: linalg.funm(x, tnp.exp), ValueError, "funm: f32.2,3. at .* not square"),
    (lambda x: linalg.qr_multiply(x, x, mode="up"), ValueError, "qr_multiply: mode='up'"),
    (lambda x: linalg.qr_multiply(x, x), ValueError, "qr_multiply: Q is of shape .*product is not defined"),
    (lambda x: linalg.leslie(x[0], x[0]), ValueError, r"leslie\(f32.3., f32.3.\): .*at .*test_linalg.py"),
    (
        lambda x: linalg.convolution_matrix(x, 2, mode="any"),
        ValueError,
        "convolution_matrix.*mode .*at .*test_linalg.py",
    ),
    (lambda x: linalg.convolution_matrix(x, x), TypeError, "convolution_matrix: n is f32.2,3., a traced value"),
    (lambda x: linalg.rsf2csf(x, x), ValueError, "rsf2csf.*square at .*test_linalg.py"),
    (lambda x: linalg.pascal(3, "any") * x, ValueError, "pascal: kind='any' at .*test_linalg.py"),
    (lambda x: linalg.helmert(0) * x, ValueError, "helmert.*positive.*at .*test_linalg.py"),
    (lambda x: linalg.eigh(SQUARE, type=2), NotImplementedError, "eigh: .*type=2"),
]


@pytest.mark.parametrize(("fn", "kind", "message"), ERRORS)
def test_errors_name_the_line(fn: Any, kind: type[Exception], message: str) -> None:
    check_message(lambda: tg.trace(fn)(X), kind, message)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: linalg.schur(x)[0].sum(),
        lambda x: linalg.hessenberg(x).sum(),
        lambda x: linalg.funm(x, tnp.exp).real.sum(),
    ],
)
def test_no_derivative_is_an_error(fn: Any) -> None:
    with pytest.raises(NotImplementedError, match=r"at .*test_linalg.py.* has no derivative. Use .*stop_gradient"):
        tg.trace(tg.grad(fn))(SQUARE)
