"""Linear algebra against NumPy in value, and against `jax.grad` and central differences in its derivatives."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_grads, check_message, check_value, x64

RNG = np.random.default_rng(5)


def _normal(*shape: int, complex: bool = False) -> np.ndarray:
    x = RNG.normal(size=shape)
    return x + 1j * RNG.normal(size=shape) if complex else x


def _apart(*shape: int, complex: bool = False) -> np.ndarray:
    """Matrices whose singular values are apart."""
    u, _, vh = np.linalg.svd(_normal(*shape, complex=complex), full_matrices=False)
    return (u * np.linspace(3.0, 1.0, min(shape[-2:]))) @ vh


A, B = _apart(3, 3), _apart(2, 3, 3)  # one matrix, a batch
C, D = _apart(3, 3, complex=True), _apart(2, 3, 3, complex=True)
TALL, WIDE, TALL_C, WIDE_C = _apart(4, 2), _apart(2, 4), _apart(2, 4, 2, complex=True), _apart(2, 2, 4, complex=True)
FOUR, FIVE_C = _apart(4, 4), _apart(2, 5, 5, complex=True)
INTS = np.array([[2, 1], [1, 3]])
EMPTY = np.zeros((0, 3, 3))
DETS = [B[:, :1, :1], B[:, :2, :2], D, FOUR, FIVE_C]
SINGULAR = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 1.0]])


def _hermitian(np: Any, x: Any) -> Any:
    return (x + np.conj(np.swapaxes(x, -1, -2))) / 2


def _positive(np: Any, x: Any) -> Any:
    return x @ np.conj(np.swapaxes(x, -1, -2)) + np.eye(x.shape[-1])


def _h(np: Any, x: Any) -> Any:
    return np.conj(np.swapaxes(x, -1, -2))


def _eigh_function(np: Any, x: Any) -> Any:
    w, v = np.linalg.eigh(_hermitian(np, x))
    return w, (v * np.exp(w / 3)[..., None, :]) @ _h(np, v)


def _of_empty(np: Any, x: Any) -> Any:
    functions = [getattr(np.linalg, name) for name in ("inv", "det", "cholesky", "svdvals", "eigvalsh", "pinv")]
    return [f(x) for f in functions], np.linalg.qr(x)[1]


VALUES: list[tuple[str, Any, tuple[Any, ...]]] = [
    ("cholesky", lambda np, x: np.linalg.cholesky(_positive(np, x)), (B,)),
    ("cholesky complex upper", lambda np, x: np.linalg.cholesky(_positive(np, x), upper=True), (D,)),
    ("qr", lambda np, x: tuple(np.linalg.qr(x)), (_normal(2, 4, 3),)),
    ("qr complete", lambda np, x: tuple(np.linalg.qr(x, mode="complete")), (TALL,)),
    ("qr r", lambda np, x: np.linalg.qr(x, mode="r"), (WIDE_C,)),
    ("svd values", lambda np, x: np.linalg.svd(x, compute_uv=False), (TALL_C,)),
    ("svd", lambda np, x: (lambda u, s, vh: (u * s[..., None, :]) @ vh)(*np.linalg.svd(x, full_matrices=False)), (D,)),
    ("svd full", lambda np, x: [np.abs(v) for v in np.linalg.svd(x)][1:], (TALL,)),
    ("svd hermitian", lambda np, x: np.linalg.svd(_hermitian(np, x), compute_uv=False, hermitian=True), (D,)),
    ("svdvals", lambda np, x: np.linalg.svdvals(x), (WIDE,)),
    (
        "eigh",
        lambda np, x: _eigh_function(np, x),
        (D,),
    ),
    ("eigvalsh", lambda np, x: np.linalg.eigvalsh(_hermitian(np, x), "U"), (B,)),
    ("eig", lambda np, x: (lambda w, v: x @ v - v * w[..., None, :])(*np.linalg.eig(x)), (D,)),
    ("eigvals", lambda np, x: np.sum(np.linalg.eigvals(x) ** 3, -1), (B,)),
    ("solve", lambda np, x, y: np.linalg.solve(x, y), (A, _normal(3))),
    ("solve batch", lambda np, x, y: np.linalg.solve(x, y), (D, _normal(5, 2, 3, 2, complex=True))),
    ("solve many", lambda np, x, y: np.linalg.solve(x, y), (A, _normal(2, 4, 3, 2))),
    ("solve ints", lambda np, x: np.linalg.solve(x, x[0]), (INTS,)),
    ("inv", lambda np, x: np.linalg.inv(x), (B,)),
    ("pinv", lambda np, x: np.linalg.pinv(x), (TALL_C,)),
    ("pinv of lower rank", lambda np, x: np.linalg.pinv(x), (SINGULAR,)),
    ("pinv hermitian", lambda np, x: np.linalg.pinv(_hermitian(np, x), hermitian=True), (C,)),
    ("pinv rcond", lambda np, x: np.linalg.pinv(x, rcond=0.5), (A,)),
    ("lstsq", lambda np, x, y: np.linalg.lstsq(x, y, rcond=None), (TALL, _normal(4, 3))),
    ("lstsq complex", lambda np, x, y: np.linalg.lstsq(x, y, rcond=None)[0], (WIDE_C[0], _normal(2))),
    ("tensorinv", lambda np, x: np.linalg.tensorinv(x, 1), (_normal(6, 2, 3),)),
    ("tensorsolve", lambda np, x, y: np.linalg.tensorsolve(x, y, (0,)), (_normal(3, 6, 2), _normal(6))),
    *[
        (f"det {len(x.shape)} {x.shape[-1]}", lambda np, x: np.linalg.det(x), (x,))
        for x in (B[:, :1, :1], B[:, :2, :2], D, FOUR, FIVE_C)
    ],
    ("det of singular", lambda np, x: np.linalg.det(x), (INTS * 0,)),
    ("slogdet", lambda np, x: tuple(np.linalg.slogdet(x)), (B,)),
    ("slogdet complex", lambda np, x: tuple(np.linalg.slogdet(x)), (FIVE_C,)),
    ("slogdet of singular", lambda np, x: tuple(np.linalg.slogdet(x)), (np.zeros((2, 2)),)),
    ("matrix_rank", lambda np, x: np.linalg.matrix_rank(x), (np.stack([SINGULAR, A]),)),
    *[(f"cond {p}", lambda np, x, p=p: np.linalg.cond(x, p), (D,)) for p in (None, -2, "fro", 1, -math.inf)],
    ("cond 2", lambda np, x: np.linalg.cond(x, 2), (WIDE,)),
    *[(f"norm {p}", lambda np, x, p=p: np.linalg.norm(x, p, (0, 2), keepdims=True), (TALL_C,)) for p in (2, -2, "nuc")],
    ("matrix_norm", lambda np, x: np.linalg.matrix_norm(x, ord="nuc"), (D,)),
    ("matrix_power", lambda np, x: (np.linalg.matrix_power(x, -3), np.linalg.matrix_power(x, 0)), (B,)),
    ("multi_dot", lambda np, *xs: np.linalg.multi_dot(xs), (_normal(2), _normal(2, 5), _normal(5, 3), _normal(3, 4))),
    ("cross", lambda np, x: np.linalg.cross(x, x[:, ::-1], axis=0), (A,)),
    ("outer", lambda np, x: np.linalg.outer(x[0], x[1]), (WIDE,)),
    ("diagonal", lambda np, x: (np.linalg.diagonal(x, offset=-1), np.linalg.trace(x, offset=1)), (B,)),
    ("matrix_transpose", lambda np, x: np.linalg.matrix_transpose(x), (B,)),
    (
        "empty batch",
        _of_empty,
        (EMPTY,),
    ),
]


@pytest.mark.parametrize(("fn", "args"), [case[1:] for case in VALUES], ids=[case[0] for case in VALUES])
def test_values(fn: Any, args: tuple[Any, ...]) -> None:
    check_value(lambda *xs: fn(tnp, *xs), lambda *xs: fn(np, *xs), *args, rtol=1e-8, only=("jit",))


def _svd_function(np: Any, x: Any) -> Any:
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    return s, u[..., :, :1] @ vh[..., :1, :], np.abs(u), np.abs(vh)


def _qr_function(np: Any, x: Any, mode: str) -> Any:
    q, r = np.linalg.qr(x, mode=mode)
    return q, r


def _lstsq_function(np: Any, x: Any, y: Any) -> Any:
    solution, residuals, _, s = np.linalg.lstsq(x, y)
    return solution, residuals, s


# A name, a function over a namespace, the arguments, and what to check: the first derivative, the second too,
# or both against JAX as well.
GRADS: list[tuple[str, Any, tuple[Any, ...], str]] = [
    ("cholesky", lambda np, x: np.linalg.cholesky(_positive(np, x)), (B,), "first"),
    ("cholesky complex", lambda np, x: np.linalg.cholesky(_positive(np, x), upper=True), (C,), "jax"),
    ("qr", lambda np, x: _qr_function(np, x, "reduced"), (_normal(2, 3, 2),), "first"),
    ("qr complex", lambda np, x: _qr_function(np, x, "reduced"), (_normal(3, 2, complex=True),), "jax"),
    ("qr wide", lambda np, x: _qr_function(np, x, "complete"), (_normal(2, 3, complex=True),), "jax"),
    ("qr complete", lambda np, x: _qr_function(np, x, "complete"), (_normal(4, 2),), "jax"),
    ("eigh", _eigh_function, (B,), "first"),
    ("eigh complex", _eigh_function, (C,), "jax"),
    ("eig", lambda np, x: (lambda w, v: (w**2, v))(*np.linalg.eig(x)), (_normal(3, 3),), "first"),
    ("eig complex", lambda np, x: (lambda w, v: (w**2, v))(*np.linalg.eig(x)), (C,), "second"),
    ("eigvals", lambda np, x: np.sum(np.linalg.eigvals(x) ** 3, -1), (B,), "first"),
    ("svd", _svd_function, (B,), "first"),
    ("svd tall complex", _svd_function, (_apart(3, 2, complex=True),), "jax"),
    ("svd wide", _svd_function, (_apart(2, 3),), "second"),
    ("svdvals", lambda np, x: np.linalg.svd(x, compute_uv=False), (_apart(2, 3, complex=True),), "jax"),
    ("svd hermitian", lambda np, x: np.linalg.svd(_hermitian(np, x), compute_uv=False, hermitian=True), (A,), "first"),
    ("solve", lambda np, x, y: np.linalg.solve(x, y), (A, _normal(3)), "first"),
    ("solve batch", lambda np, x, y: np.linalg.solve(x, y), (C, _normal(2, 3, 2)), "jax"),
    ("inv", lambda np, x: np.linalg.inv(x), (B,), "first"),
    (
        "inv of powers",
        lambda np, x: (np.linalg.matrix_power(x, -2), np.linalg.cond(x, 1)),
        (A,),
        "first",
    ),
    ("pinv", lambda np, x: np.linalg.pinv(x), (TALL,), "first"),
    ("pinv complex", lambda np, x: np.linalg.pinv(x), (WIDE_C[0],), "jax"),
    ("lstsq", _lstsq_function, (TALL, _normal(4)), "second"),
    ("lstsq wide", lambda np, x, y: np.linalg.lstsq(x, y)[0], (_apart(2, 3, complex=True), _normal(2, 2)), "first"),
    *[(f"det {x.shape}", lambda np, x: np.linalg.det(x), (x,), "jax") for x in (A[:1, :1], B[:, :2, :2], C, FOUR)],
    ("det of singular", lambda np, x: np.linalg.det(x), (SINGULAR,), "second"),  # of which jax 0.11 says NaN
    ("slogdet", lambda np, x: np.linalg.slogdet(x)[1], (B,), "first"),
    ("slogdet complex", lambda np, x: tuple(np.linalg.slogdet(x)), (C,), "second"),
    ("cond", lambda np, x: [np.linalg.cond(x, p) for p in (None, -2, "fro")], (A,), "first"),
    (
        "norm",
        lambda np, x: [np.linalg.norm(x, p) for p in (2, -2, "nuc")],
        (_apart(2, 3, complex=True),),
        "first",
    ),
    ("multi_dot", lambda np, *xs: np.linalg.multi_dot(xs), (_normal(2), _normal(2, 3), _normal(3, 2)), "first"),
    ("tensorsolve", lambda np, x, y: np.linalg.tensorsolve(x, y), (_normal(4, 2, 2), _normal(4)), "first"),
]


@pytest.mark.parametrize(("fn", "args", "level"), [c[1:] for c in GRADS], ids=[c[0] for c in GRADS])
def test_derivatives(fn: Any, args: tuple[Any, ...], level: str) -> None:
    theirs = (lambda *xs: fn(jnp, *xs)) if level == "jax" else None
    check_grads(lambda *xs: fn(tnp, *xs), *args, jax_fn=theirs, order=1 if level == "first" else 2)


def test_eager_results() -> None:
    """What is compiled an op at a time is what is compiled whole."""
    check_value(lambda x: tnp.linalg.slogdet(x), lambda x: tuple(np.linalg.slogdet(x)), B, only=("eager",))
    q, r = tnp.linalg.qr(TALL)
    np.testing.assert_allclose(q @ r, TALL, rtol=1e-5, atol=1e-5)
    result = tnp.linalg.eigh(INTS)
    assert result.eigenvalues.dtype == np.float32 and result._fields == ("eigenvalues", "eigenvectors")
    x, residuals, rank, _ = tnp.linalg.lstsq(np.ones((3, 2)), np.ones(3), numpy_resid=True)
    assert residuals.shape == (0,) and int(rank) == 1 and x.shape == (2,)


def test_rank_of_vectors_and_empty_matrices() -> None:
    assert [int(tnp.linalg.matrix_rank(v)) for v in (np.zeros(3), np.ones(3), np.zeros((2, 0)))] == [0, 1, 0]
    assert tnp.linalg.pinv(np.zeros((2, 0))).shape == (0, 2)
    assert float(tnp.linalg.det(np.zeros((0, 0)))) == 1.0


IDENTITY = np.eye(3)

# What the derivative is where eigenvalues or singular values are equal, or a matrix is singular.
DEGENERATE: list[tuple[str, Any, np.ndarray, np.ndarray]] = [
    ("sum of eigenvalues", lambda x: tnp.sum(tnp.linalg.eigvalsh(x) ** 2), IDENTITY, 2 * IDENTITY),
    ("nuclear norm", lambda x: tnp.linalg.norm(x, "nuc"), IDENTITY, IDENTITY),
    ("pinv", lambda x: tnp.sum(tnp.linalg.pinv(x)), IDENTITY, -np.ones((3, 3))),
    ("spectral norm, shared", lambda x: tnp.linalg.norm(x, 2), IDENTITY, IDENTITY / 3),
    ("det of rank 3", tnp.linalg.det, np.diag([0.0, 2.0, 3.0, 4.0]), np.diag([24.0, 0.0, 0.0, 0.0])),
    ("det of a shift", tnp.linalg.det, np.eye(4, k=1), -np.eye(4)[3][:, None] * np.eye(4)[0]),
    ("det of rank 2", tnp.linalg.det, np.diag([0.0, 0.0, 3.0, 4.0]), np.zeros((4, 4))),
    ("norm at 0", tnp.linalg.norm, np.zeros((2, 2)), np.zeros((2, 2))),
]


@pytest.mark.parametrize(("fn", "at", "expected"), [c[1:] for c in DEGENERATE], ids=[c[0] for c in DEGENERATE])
def test_degenerate_derivatives(fn: Any, at: np.ndarray, expected: np.ndarray) -> None:
    with x64():
        np.testing.assert_allclose(tg.grad(fn)(at), expected, atol=1e-12)


def test_derivatives_of_vectors_of_equal_eigenvalues_are_not_hidden() -> None:
    grad = tg.grad(lambda x: tnp.linalg.eigh(x).eigenvectors[0, 1])(np.eye(2))
    assert not np.isfinite(grad).all()


def test_one_factorisation_serves_value_and_gradient() -> None:
    """Values alone, where the derivative needs the vectors too."""
    tape = tg.trace(tg.value_and_grad(lambda x: tnp.sum(tnp.linalg.svdvals(x)) + tnp.real(tnp.linalg.eigvals(x)[0])))(A)
    names = [node.op.name for node in tape.nodes]
    assert names.count("svd") == names.count("eig") == 1

    def twice(x: Any) -> Any:
        s = tnp.linalg.svdvals(x)
        return tnp.sum(s) if float(s[0]) > 0 else tnp.sum(x)

    np.testing.assert_allclose(tg.grad(twice)(np.diag([3.0, 2.0])), np.eye(2), atol=1e-6)


def test_a_chain_is_multiplied_in_the_cheapest_order() -> None:
    shapes = (10, 30), (30, 5), (5, 60)
    tape = tg.trace(lambda *xs: tnp.linalg.multi_dot(xs))(*(np.ones(s, np.float32) for s in shapes))
    assert [node.outputs[0].aval.shape for node in tape.nodes] == [(10, 5), (10, 60)]


X = np.ones((2, 3), np.float32)
SQUARE = np.eye(3, dtype=np.float32)

ERRORS: list[tuple[Any, type[Exception], str]] = [
    *[
        (lambda x, name=name: getattr(tnp.linalg, name)(x), ValueError, rf"{name}: f32.2,3. at .* not square")
        for name in ("cholesky", "eigh", "eig", "eigvals", "inv", "det", "slogdet")
    ],
    (lambda x: tnp.linalg.solve(x, x), ValueError, "solve: f32.2,3. at .* not square"),
    (lambda x: tnp.linalg.svd(x[0]), ValueError, r"svd: f32.3. at .* no two axes .* Reshape it"),
    (lambda x: tnp.linalg.qr(x.astype("float16")), TypeError, "qr: f16.2,3. at .* Convert them with .astype"),
    (lambda x: tnp.linalg.inv([["a"]]), TypeError, "inv: list .* is no nested list of numbers"),
    (
        lambda x: tnp.linalg.solve(SQUARE, x),
        ValueError,
        r"solve: .* \(3, 3\) and .* \(2, 3\) .*of 3 rows",
    ),
    (lambda x: tnp.linalg.solve(SQUARE, x[0, :2]), ValueError, r"of shape \(2,\) do not fit"),
    (lambda x: tnp.linalg.solve(np.ones((2, 3, 3)), np.ones((4, 3, 1))), ValueError, "do not broadcast at"),
    (lambda x: tnp.linalg.lstsq(x, x[0]), ValueError, r"lstsq: a matrix of shape \(2, 3\) and .* \(3,\)"),
    (lambda x: tnp.linalg.qr(x, "raw"), ValueError, "qr: mode='raw' at .* Use 'reduced'"),
    (lambda x: tnp.linalg.eigh(SQUARE, "X"), ValueError, "UPLO='X' at .* Use 'L' or 'U'"),
    (lambda x: tnp.linalg.pinv(x, 0.1, rcond=0.1), ValueError, "pinv: rtol and rcond .* Give one"),
    (lambda x: tnp.linalg.matrix_power(x, 2), ValueError, "matrix_power: f32.2,3. .* must agree"),
    (lambda x: tnp.linalg.norm(x, "fr"), ValueError, "norm: ord='fr' of matrices at .* Use 'fro', 'nuc'"),
    (lambda x: tnp.linalg.norm(x, "nuc", 0), ValueError, "norm: ord='nuc' of vectors"),
    (lambda x: tnp.linalg.norm(x, 2, (0, -2)), ValueError, "two that differ"),
    (lambda x: tnp.linalg.multi_dot([x]), ValueError, "multi_dot: arrays of shapes .* Give two or more"),
    (lambda x: tnp.linalg.multi_dot([x, x, x]), ValueError, "do not fit"),
    (lambda x: tnp.linalg.tensorinv(x), ValueError, "tensorinv: the first 2 axes .* Choose `ind`"),
    (lambda x: tnp.linalg.tensorsolve(x, x), ValueError, "tensorsolve: shapes"),
    (
        lambda x: tnp.linalg.cross(x[:, :2], x[:, :2]),
        ValueError,
        "cross: .* 2 and 2 elements .* Give both 3",
    ),
    (lambda x: tnp.linalg.outer(x, x), ValueError, "outer: .* Give vectors"),
    (lambda x: tnp.linalg.slogdet(SQUARE, method="qr"), ValueError, "slogdet: method='qr'"),
    (lambda x: tnp.linalg.cond(x, "fro"), ValueError, "cond: f32.2,3. at .* not square"),
]


@pytest.mark.parametrize(("fn", "kind", "message"), ERRORS)
def test_errors_name_the_line(fn: Any, kind: type[Exception], message: str) -> None:
    check_message(lambda: tg.trace(fn)(X), kind, message)


def test_vectors_that_full_matrices_adds_have_no_derivative() -> None:
    for k in (0, 2):
        x = X if k else X.T
        with pytest.raises(NotImplementedError, match=r"svd.* at .*test_linalg.py.* Pass full_matrices=False"):
            tg.trace(tg.grad(lambda x, k=k: tnp.sum(tnp.linalg.svd(x)[k])))(x)
        tg.trace(tg.grad(lambda x, k=k: tnp.sum(tnp.linalg.svd(x)[2 - k])))(x)
