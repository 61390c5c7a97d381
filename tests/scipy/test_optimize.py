"""`tracegrad.scipy.optimize` against SciPy's minima, and their derivatives against central differences."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.optimize
import numpy as np
import pytest
import scipy.optimize

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_grads, check_message, x64
from tracegrad.scipy.optimize import OptimizeResults, minimize

# Functions over an array namespace, and where to begin.
FUNCTIONS: dict[str, tuple[Any, np.ndarray]] = {
    "rosenbrock": (lambda n: lambda x: n.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2), np.full(4, -1.2)),
    "himmelblau": (lambda n: lambda p: (p[0] ** 2 + p[1] - 11) ** 2 + (p[0] + p[1] ** 2 - 7) ** 2, np.zeros(2)),
    "quadratic": (lambda n: lambda x: n.sum((x - 3) ** 2 * n.arange(1.0, 6.0)), np.zeros(5)),
    "matyas": (lambda n: lambda p: 0.26 * (p[0] ** 2 + p[1] ** 2) - 0.48 * p[0] * p[1], np.ones(2)),
    "at the minimum": (lambda n: lambda x: n.sum(x * x), np.zeros(3)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_minima(name: str) -> None:
    make, x0 = FUNCTIONS[name]
    expected = scipy.optimize.minimize(make(np), x0, method="BFGS")
    with x64():
        for run in (minimize, tg.jit(minimize, static_argnames=("fun", "method"))):
            found = run(make(tnp), x0, method="bfgs")
            assert isinstance(found, OptimizeResults) and bool(found.success) and int(found.status) == 0
            np.testing.assert_allclose(found.x, expected.x, atol=1e-4)
            np.testing.assert_allclose(found.fun, make(np)(np.asarray(found.x)))
            np.testing.assert_allclose(found.jac, jax.grad(make(jnp))(found.x), atol=1e-10)
            assert np.max(np.abs(found.jac)) < 1e-5 and 0 <= int(found.nit) <= 2 * expected.nit + 2
            assert int(found.nfev) == int(found.njev) <= 3 * int(found.nit) + 10


def test_fields_are_those_of_jax() -> None:
    theirs = jax.scipy.optimize.minimize(lambda x: jnp.sum(x * x), jnp.ones(2), method="BFGS")
    ours = minimize(lambda x: (x * x).sum(), np.ones(2, np.float32), method="BFGS")
    assert ours._fields == theirs._fields
    for name, a, b in zip(ours._fields, ours, theirs, strict=True):
        assert (jnp.shape(a), jnp.result_type(a)) == (jnp.shape(b), jnp.result_type(b)), name


def _lowest(a: Any, b: Any) -> Any:
    found = minimize(
        lambda x, b: ((x - a) ** 4 + b * x**2).sum(), tnp.full(3, 0.1), (b,), method="BFGS", options={"gtol": 1e-11}
    )
    return found.x, found.fun


def test_derivatives_of_the_minimum() -> None:
    """In what the function closes over and in its arguments; the second derivative too."""
    check_grads(_lowest, np.array([1.0, 2.0, 3.0]), 2.0, rtol=1e-4, atol=1e-4)
    with x64():
        value, change = tg.jvp(
            lambda b: minimize(lambda x: ((b * x - 3.0) ** 2).sum(), [1.0], method="BFGS").x, (2.0,), (1.0,)
        )
        np.testing.assert_allclose((value[0], change[0]), (1.5, -0.75), rtol=1e-4)


def test_mapped() -> None:
    a = np.array([[1.0, 2.0], [3.0, -1.0]], np.float32)
    f = lambda a: minimize(lambda x: ((x - a) ** 2 * (1 + x**2)).sum(), tnp.zeros(2), method="BFGS").x  # noqa: E731
    np.testing.assert_allclose(tg.vmap(f)(a), [f(row) for row in a], rtol=1e-4)
    slopes = tg.vmap(tg.grad(lambda a: f(a).sum()))(a)
    np.testing.assert_allclose(slopes, [tg.grad(lambda a: f(a).sum())(row) for row in a], rtol=1e-3)


def test_what_does_not_depend() -> None:
    f = lambda x0: minimize(lambda x: ((x - 2.0) ** 2).sum(), x0, method="BFGS")  # noqa: E731
    assert tg.grad(lambda x0: f(x0).x.sum())(np.zeros(2)).tolist() == [0.0, 0.0]
    assert tg.grad(lambda x0: f(x0).jac.sum())(np.zeros(2)).tolist() == [0.0, 0.0]


def test_options() -> None:
    make, x0 = FUNCTIONS["rosenbrock"]
    run = lambda **options: minimize(make(tnp), x0, method="BFGS", **options)  # noqa: E731
    stopped = run(options={"maxiter": 3})
    assert not stopped.success and int(stopped.status) == 1 and int(stopped.nit) == 3
    loose = run(tol=1.0)
    assert loose.success and int(loose.nit) < int(run(tol=1e-3).nit)
    assert run(options={"gtol": 1.0}).nit == loose.nit
    assert float(np.linalg.norm(run(options={"gtol": 1e-2, "norm": 2}).jac)) < 1e-2


def test_a_function_without_a_minimum() -> None:
    found = minimize(lambda x: -x.sum(), np.ones(2), method="BFGS")
    assert not found.success and int(found.status) in (3, 5)


X = np.ones(2, np.float32)
SQUARE = lambda x: (x * x).sum()  # noqa: E731
BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: minimize(3, X, method="BFGS"), TypeError, "fun is .* not a function"),
    (lambda: minimize(SQUARE, X, method="CG"), NotImplementedError, "method is .*'CG'.*Use 'BFGS'"),
    (lambda: minimize(SQUARE, X[None], method="BFGS"), ValueError, r"x0 is f32\[1,2\]"),
    (lambda: minimize(SQUARE, X[:0], method="BFGS"), ValueError, r"x0 is f32\[0\] .*n > 0"),
    (lambda: minimize(SQUARE, X + 1j, method="BFGS"), ValueError, r"x0 is c64\[2\]"),
    (lambda: minimize(lambda x: x, X, method="BFGS"), TypeError, r"<lambda> returned f32\[2\]"),
    (lambda: minimize(SQUARE, X, X, method="BFGS"), TypeError, r"args is f32\[2\], which is no tuple"),
    (lambda: minimize(SQUARE, X, method="BFGS", options={"step": 1}), TypeError, "options has 'step'"),
]


@pytest.mark.parametrize(("call", "kind", "pattern"), BAD)
def test_bad_arguments(call: Any, kind: type[Exception], pattern: str) -> None:
    check_message(call, kind, f"^minimize: {pattern}")


def test_the_estimate_has_no_derivative() -> None:
    f = lambda a: minimize(lambda x: ((x - a) ** 2).sum(), X, method="BFGS").hess_inv.sum()  # noqa: E731
    check_message(lambda: tg.grad(f)(X), NotImplementedError, "^a gradient goes through the hess_inv of a minimum")


def test_it_compiles_once(compiles: Any) -> None:
    lowest = lambda a: minimize(lambda x: ((x - a) ** 2).sum(), X, method="BFGS").x.sum()  # noqa: E731
    tg.grad(lowest)(X)
    compiles()
    np.testing.assert_allclose(tg.grad(lowest)(3 * X), [1, 1], rtol=1e-5)
    assert compiles() == 0


def test_a_wall_of_nan() -> None:
    """Where a step goes too far, the function has no value."""
    found = minimize(lambda x: (-tnp.log(1 - x * x) - 3 * x).sum(), [0.9, -0.5], method="BFGS")
    np.testing.assert_allclose(found.x, (np.sqrt(10) - 1) / 3, rtol=1e-4)
