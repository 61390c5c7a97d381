"""`tracegrad.scipy.sparse.linalg` against dense solutions, in value and in derivatives."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_grads, check_message, x64
from tracegrad.scipy.sparse import linalg

RNG = np.random.default_rng(3)
A = RNG.normal(size=(4, 4))
C = A + 1j * RNG.normal(size=(4, 4))
B, BC = RNG.normal(size=4), RNG.normal(size=4) + 1j * RNG.normal(size=4)


def _positive(x: Any) -> Any:
    return x @ np.conj(x.T) + np.eye(4)


# A solver, a matrix and a right side.
SYSTEMS: list[tuple[str, np.ndarray, np.ndarray]] = [
    ("cg", _positive(A), B),
    ("cg", _positive(C), BC),
    ("bicgstab", A + 5 * np.eye(4), B),
    ("bicgstab", C + 6 * np.eye(4), BC),
    ("gmres", A + 5 * np.eye(4), B),
    ("gmres", C + 6 * np.eye(4), BC),
]


@pytest.mark.parametrize(("name", "a", "b"), SYSTEMS)
def test_values(name: str, a: np.ndarray, b: np.ndarray) -> None:
    solve, inverse = getattr(linalg, name), np.diag(1 / np.diag(a))
    with x64():
        for options in ({}, {"M": inverse}, {"M": lambda v: inverse @ v, "x0": np.ones_like(b)}):
            for operator in (a, lambda v: tnp.asarray(a) @ v):
                x, info = solve(operator, b, tol=1e-11, **options)
                np.testing.assert_allclose(x, np.linalg.solve(a, b), rtol=1e-8)
                assert not info
    x = solve(a.astype(np.complex64 if a.dtype.kind == "c" else np.float32), b)[0]
    np.testing.assert_allclose(x, np.linalg.solve(a, b), rtol=1e-3)


@pytest.mark.parametrize(("name", "a", "b"), SYSTEMS)
def test_derivatives(name: str, a: np.ndarray, b: np.ndarray) -> None:
    solve, inverse = getattr(linalg, name), np.diag(1 / np.diag(a))

    def hermitian(x: Any) -> Any:
        return (x + x.T.conj()) / 2 if name == "cg" else x

    check_grads(
        lambda a, b: solve(lambda v: hermitian(a) @ v, b, tol=1e-13, M=lambda v: tnp.asarray(inverse) @ v)[0],
        a,
        b,
        jax_fn=lambda a, b: jnp.linalg.solve(hermitian(a), b),
        rtol=1e-4,
    )


def test_a_step_of_diffusion() -> None:
    """An operator that is no matrix, and what it closes over."""

    def implicit(conductivity: Any, start: Any, solve: Any) -> Any:
        return solve(lambda u: u - tnp.diff(conductivity * tnp.diff(u, prepend=0.0, append=0.0)), start)

    def dense(operator: Any, b: Any) -> Any:
        return tnp.linalg.solve(tnp.stack([operator(e) for e in np.eye(len(b))], 1), b)

    args = (np.array([1.0, 2.0, 0.5, 3.0, 1.5]), B)
    check_grads(lambda k, b: implicit(k, b, lambda A, b: linalg.cg(A, b, tol=1e-13)[0]), *args)
    with x64():
        np.testing.assert_allclose(
            implicit(*args, lambda A, b: linalg.gmres(A, b)[0]), implicit(*args, dense), rtol=1e-5
        )


def test_trees_and_transforms() -> None:
    a = _positive(A)
    with x64():
        expected = np.linalg.solve(a, B)

        def apply(t: Any) -> Any:
            v = tnp.asarray(a) @ tnp.concatenate([t["p"], t["q"]])
            return {"p": v[:1], "q": v[1:]}

        x, _ = linalg.cg(apply, {"p": B[:1], "q": B[1:]}, tol=1e-12)
        np.testing.assert_allclose(np.concatenate([x["p"], x["q"]]), expected)
        many = tg.jit(tg.vmap(lambda b: linalg.cg(a, b, tol=1e-12)[0]))(np.stack([B, 2 * B]))
        np.testing.assert_allclose(many, np.stack([expected, 2 * expected]))
        solution = lambda s: linalg.cg(lambda v: s * (tnp.asarray(a) @ v), B, tol=1e-12)[0]  # noqa: E731
        np.testing.assert_allclose(tg.jvp(solution, (2.0,), (1.0,))[1], -expected / 4)
        start = lambda x0: linalg.cg(a, B, x0, tol=1e-12)[0].sum()  # noqa: E731
        assert tg.grad(start)(np.ones(4)).tolist() == [0.0] * 4


@pytest.mark.parametrize("name", ["cg", "bicgstab", "gmres"])
def test_special_systems(name: str) -> None:
    solve = getattr(linalg, name)
    assert solve(_positive(A), 0 * B)[0].tolist() == [0.0] * 4
    assert solve(np.eye(4), B.astype(np.float32), B)[0].tolist() == B.astype(np.float32).tolist()
    f = lambda b: solve(_positive(A), b)[0].sum()  # noqa: E731
    np.testing.assert_allclose(tg.grad(f)(0 * B), np.linalg.solve(_positive(A), np.ones(4)), rtol=1e-3)
    far = solve(_positive(A), B, maxiter=0)[0]
    assert far.tolist() == [0.0] * 4


def test_gmres_restarts() -> None:
    a = A + 5 * np.eye(4)
    expected = np.linalg.solve(a, B)
    np.testing.assert_allclose(linalg.gmres(a, B, restart=2)[0], expected, rtol=1e-3)
    once = linalg.gmres(a, B, restart=1, maxiter=1, solve_method="incremental")[0]
    r = a @ B  # one step of minimal residual from 0 goes along b
    np.testing.assert_allclose(once, B * (r @ B) / (r @ r), rtol=1e-4)
    assert int(linalg.gmres(a, np.full(4, np.nan))[1]) == -1


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: linalg.cg(A[:2], B), ValueError, r"cg: A is f32\[2,4\] .*square"),
    (lambda: linalg.cg("A", B), TypeError, "cg: A is str 'A' .*a function"),
    (lambda: linalg.bicgstab(A, B[:3]), ValueError, r"bicgstab: A is f32\[4,4\], b is f32\[3\]"),
    (lambda: linalg.cg(lambda v: v[:2], B), TypeError, r"cg: A returns f32\[2\] for f32\[4\]"),
    (lambda: linalg.cg(A + 0j, B), TypeError, r"cg: A returns c64\[4\] for f32\[4\].*Make b complex"),
    (lambda: linalg.cg(A, B, M=lambda v: {"v": v}), TypeError, r"cg: M returns"),
    (lambda: linalg.cg(A, B, B[:2]), ValueError, r"cg: x0 is f32\[2\], b is f32\[4\]"),
    (lambda: linalg.cg(A, {}), TypeError, "cg: b is dict {}"),
    (lambda: linalg.gmres(A, B, solve_method="middle"), ValueError, "gmres: solve_method='middle'.*'batched'"),
    (lambda: linalg.gmres(A, B, restart=0), ValueError, "gmres: restart=0"),
]


@pytest.mark.parametrize(("call", "kind", "pattern"), BAD)
def test_bad_arguments(call: Any, kind: type[Exception], pattern: str) -> None:
    check_message(call, kind, f"^{pattern}")
    check_message(lambda: tg.jit(lambda one: one * jnp.size(call()))(1.0), kind, f"^{pattern}")


@pytest.mark.parametrize("name", ["cg", "bicgstab", "gmres"])
def test_it_compiles_once(name: str, compiles: Any) -> None:
    solution = lambda s: getattr(linalg, name)(lambda v: s * v, B.astype(np.float32))[0].sum()  # noqa: E731
    tg.grad(solution)(2.0)
    compiles()
    np.testing.assert_allclose(tg.grad(solution)(4.0), -B.sum() / 16, rtol=1e-5)
    assert compiles() == 0


@pytest.mark.parametrize("name", ["cg", "bicgstab", "gmres"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_passed_on(name: str, bad: float) -> None:
    solve = getattr(linalg, name)
    a, b = np.eye(4), B.copy()
    a[0, 0] = b[0] = bad
    assert not np.isfinite(solve(np.eye(4), b)[0]).all()
    assert not np.isfinite(solve(a * 1.0, B)[0]).all() or bad == np.inf
