"""`@jit`: what compiles and when, what is recorded once, and what is never stale."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp

Since = Callable[[], int]
X = np.linspace(0.1, 1.0, 4, dtype=np.float32)
GLOBAL = np.array([1.0, 2.0, 3.0, 4.0], np.float32)


def counted(f: Callable[..., Any]) -> tuple[Callable[..., Any], list[int]]:
    """`f`, and a list that grows by one each time its Python runs."""
    runs: list[int] = []

    @functools.wraps(f)
    def counting(*args: Any, **kwargs: Any) -> Any:
        runs.append(1)
        return f(*args, **kwargs)

    return counting, runs


# -- calls


def test_python_runs_once_for_each_set_of_types(compiles: Since) -> None:
    f, runs = counted(lambda x: tnp.sum(tnp.sin(x)))
    g = tg.jit(f)
    for _ in range(3):
        np.testing.assert_allclose(g(X), np.sin(X).sum(), rtol=1e-6)
    assert len(runs) == 1
    compiles()
    g(X + np.float32(1))
    assert compiles() == 0
    g(X[:2])
    g(X.astype(np.float16))
    assert len(runs) == 3


def test_changing_numbers_compile_nothing_and_are_never_stale(compiles: Since) -> None:
    f, runs = counted(lambda x, rate: tnp.sum(x * rate))
    g = tg.jit(tg.grad(f))
    g(X, 0.5)
    compiles()
    for rate in (0.25, 3.0, 0.0, 1.0):
        np.testing.assert_allclose(g(X, rate), np.full(4, rate), rtol=1e-6)
    assert compiles() == 0
    assert len(runs) == 1


def test_changing_closed_over_arrays_compile_nothing_and_are_never_stale(compiles: Since) -> None:
    scale = np.full(4, 2.0, np.float32)
    params, zeros = {"w": X, "b": [jnp.ones(4)]}, jnp.zeros(4)

    @tg.jit
    def f(x: Any) -> Any:
        # The product of two arrays is a step of the program only through the package's function.
        return tnp.sum(x * scale + tnp.multiply(params["w"], GLOBAL) + params["b"][0])

    def expected() -> Any:
        return np.sum(X * scale + params["w"] * GLOBAL + np.asarray(params["b"][0]))

    np.testing.assert_allclose(f(X), expected(), rtol=1e-6)
    compiles()
    scale = 5 * X
    np.testing.assert_allclose(f(X), expected(), rtol=1e-6)
    params["w"] = -X
    params["b"][0] = zeros
    np.testing.assert_allclose(f(X), expected(), rtol=1e-6)
    saved = GLOBAL.copy()
    try:
        GLOBAL[:] = 9.0
        np.testing.assert_allclose(f(X), expected(), rtol=1e-6)
    finally:
        GLOBAL[:] = saved
    assert compiles() == 0
    np.testing.assert_allclose(tg.grad(f)(X), scale, rtol=1e-6)
    np.testing.assert_allclose(tg.jit(tg.grad(f))(X), scale, rtol=1e-6)


def test_creation_functions_do_not_become_constants() -> None:
    text = tg.jit(lambda x: tnp.sum(x * tnp.ones((500, 3)))).lower(np.float32(2.0)).as_text()
    assert text.count("dense<") <= 3
    assert len(text) < 3000


def test_methods_and_partials_and_callables_compile() -> None:
    @dataclass(frozen=True)
    class Scale:
        by: float

        def __call__(self, x: Any) -> Any:
            return x * self.by

        def method(self, x: Any) -> Any:
            return x * self.by

    for f in (Scale(3.0), Scale(3.0).method, functools.partial(lambda by, x: x * by, 3.0)):
        np.testing.assert_allclose(tg.jit(f)(X), 3 * X, rtol=1e-6)
        np.testing.assert_allclose(tg.grad(lambda x, f=f: tnp.sum(tg.jit(f)(x)))(X), np.full(4, 3.0), rtol=1e-6)


# -- static arguments, donation, options


@pytest.mark.parametrize("static", [{"static_argnums": 1}, {"static_argnames": "n"}, {"static_argnums": (1,)}])
def test_static_arguments(static: dict[str, Any]) -> None:
    def f(x: Any, n: int) -> Any:
        for _ in range(n):
            x = x * 2.0
        return tnp.sum(x)

    g, runs = counted(f)
    g = tg.jit(g, **static)
    assert float(g(X, 2)) == pytest.approx(4 * X.sum(), rel=1e-6)
    assert float(g(X, 3)) == pytest.approx(8 * X.sum(), rel=1e-6)
    assert float(g(X, n=3)) == pytest.approx(8 * X.sum(), rel=1e-6)
    assert float(g(X, 2)) == pytest.approx(4 * X.sum(), rel=1e-6)
    assert len(runs) <= 3
    np.testing.assert_array_equal(tg.grad(g)(X, 2), np.full(4, 4.0))
    np.testing.assert_array_equal(tg.grad(g)(X, n=3), np.full(4, 8.0))
    np.testing.assert_array_equal(tg.jit(tg.grad(f), **static)(X, 3), np.full(4, 8.0))


def test_static_arguments_with_closed_over_arrays() -> None:
    w = jnp.asarray(X)

    @functools.partial(tg.jit, static_argnums=0)
    def f(power: int, x: Any) -> Any:
        return tnp.sum(w * x**power)

    np.testing.assert_allclose(f(2, X), np.sum(X**3), rtol=1e-5)
    np.testing.assert_allclose(f(3, X), np.sum(X**4), rtol=1e-5)


def test_donated_memory_is_taken_over() -> None:
    f = tg.jit(lambda x: x + 1.0, donate_argnums=0)
    x = jnp.asarray(X) + 0.0
    np.testing.assert_allclose(f(x), X + 1)
    assert x.is_deleted()


def test_shardings_pass_through() -> None:
    mesh = jax.make_mesh((8,), ("i",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("i"))
    out = tg.jit(tg.grad(lambda x: tnp.sum(x * x)), in_shardings=sharding, out_shardings=sharding)(
        np.ones(16, np.float32)
    )
    assert out.sharding == sharding
    w = jnp.ones(16)
    out = tg.jit(lambda x: x * w, in_shardings=(sharding,), out_shardings=sharding)(np.ones(16, np.float32))
    assert out.sharding == sharding


def test_pytrees_and_keyword_arguments_go_in_and_out() -> None:
    @tg.jit
    def f(p: Any, *, scale: Any) -> Any:
        return {"sum": p["a"] + p["b"][0] * scale, "same": p, "number": 3, "none": None}

    out = f({"a": X, "b": (X,)}, scale=2.0)
    np.testing.assert_allclose(out["sum"], 3 * X, rtol=1e-6)
    np.testing.assert_array_equal(out["same"]["a"], X)
    assert int(out["number"]) == 3
    assert out["none"] is None


# -- ahead of time


def test_lower_compile_and_cost_analysis() -> None:
    def f(x: Any) -> Any:
        return tnp.sum(tnp.sin(x))

    lowered = tg.jit(tg.grad(f)).lower(X)
    assert "stablehlo.cosine" in lowered.as_text()
    assert "stablehlo.sine" not in lowered.as_text()
    compiled = lowered.compile()
    np.testing.assert_allclose(compiled(X), np.cos(X), rtol=1e-6)
    assert lowered.cost_analysis() is not None
    assert compiled.memory_analysis() is not None
    np.testing.assert_allclose(
        tg.jit(f).lower(jax.ShapeDtypeStruct((4,), np.float32)).compile()(X), np.sin(X).sum(), rtol=1e-6
    )


def test_a_shape_can_be_evaluated_without_values() -> None:
    out = jax.eval_shape(tg.jit(lambda x: tnp.exp(x)), jax.ShapeDtypeStruct((7, 2), np.float16))
    assert (out.shape, out.dtype) == ((7, 2), np.float16)


# -- a jitted function inside a recording


def test_a_jitted_block_is_one_node_recorded_and_lowered_once() -> None:
    f, runs = counted(lambda x, w: tnp.tanh(x * w))
    block = tg.jit(f)

    def loss(x: Any, ws: Any) -> Any:
        for w in ws:
            x = block(x, w)
        return tnp.sum(x)

    ws = [np.float32(w) for w in np.linspace(0.5, 1.5, 6)]
    tape = tg.trace(tg.value_and_grad(loss, argnums=1))(X, ws)
    calls = [node for node in tape.nodes if node.op.name == "call"]
    assert len(runs) == 1
    assert len(calls) == 12
    # One forward part, one backward part, and one for the first block, whose `x` needs no gradient.
    assert len({id(node.params["body"]) for node in calls}) == 3
    jitted = tg.jit(tg.value_and_grad(loss, argnums=1))
    text = jitted.lower(X, ws).as_text()
    assert len(runs) == 1
    assert text.count("stablehlo.tanh") == 1

    def reference(ws: Any) -> Any:
        x: Any = jnp.asarray(X)
        for w in ws:
            x = jnp.tanh(x * w)
        return jnp.sum(x)

    for run in (jitted, tg.value_and_grad(loss, argnums=1)):
        value, grads = run(X, ws)
        expected = jax.value_and_grad(reference)(ws)
        np.testing.assert_allclose(value, expected[0], rtol=1e-5)
        np.testing.assert_allclose(grads, expected[1], rtol=1e-4)
    assert len(runs) == 1


def test_a_jitted_block_closes_over_traced_values() -> None:
    def f(x: Any, w: Any) -> Any:
        @tg.jit
        def block(y: Any) -> Any:
            return tnp.sin(y * w)

        return tnp.sum(block(x) + block(2.0 * x))

    for run in (tg.grad(f, (0, 1)), tg.jit(tg.grad(f, (0, 1)))):
        grads = run(X, np.float32(0.7))
        expected = jax.grad(lambda x, w: jnp.sum(jnp.sin(x * w) + jnp.sin(2 * x * w)), (0, 1))(X, np.float32(0.7))
        for g, e in zip(grads, expected, strict=True):
            np.testing.assert_allclose(g, e, rtol=1e-5)


def test_second_derivatives_through_blocks() -> None:
    block = tg.jit(lambda x: tnp.sin(x) * x)

    def f(x: Any) -> Any:
        return tnp.sum(block(block(x)))

    def g(x: Any) -> Any:
        y = jnp.sin(x) * x
        return jnp.sum(jnp.sin(y) * y)

    np.testing.assert_allclose(tg.hessian(f)(X), jax.hessian(g)(X), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(tg.jit(tg.hessian(tg.jit(f)))(X), jax.hessian(g)(X), rtol=1e-4, atol=1e-5)


def test_jit_of_jit_and_recursion() -> None:
    @tg.jit
    def power(x: Any, n: Any) -> Any:
        return x * x

    assert float(tg.jit(tg.jit(tg.jit(lambda x: power(x, 2))))(3.0)) == 9.0

    @functools.partial(tg.jit, static_argnums=1)
    def tower(x: Any, n: int) -> Any:
        return x if n == 0 else tnp.sin(tower(x, n - 1))

    np.testing.assert_allclose(tower(0.5, 3), np.sin(np.sin(np.sin(0.5))), rtol=1e-6)
    np.testing.assert_allclose(tg.grad(tower)(0.5, 2), np.cos(np.sin(0.5)) * np.cos(0.5), rtol=1e-6)


def test_side_effects_happen_once() -> None:
    seen: list[Any] = []

    @tg.jit
    def f(x: Any) -> Any:
        seen.append(x.shape)
        return x + 1

    f(X)
    f(X)
    assert seen == [(4,)]


def test_name_and_docstring_are_kept() -> None:
    def f(x: Any) -> Any:
        """What it does."""
        return x

    for g in (tg.jit(f), tg.grad(f), tg.vmap(f), tg.jacobian(f), tg.value_and_grad(f)):
        assert g.__name__ == "f"
        assert g.__doc__ == "What it does."
    assert "jit_f" in tg.jit(f).lower(X).as_text() or "@f" in tg.jit(f).lower(X).as_text()


def test_arithmetic_of_closed_over_arrays_alone_is_never_stale() -> None:
    # `scale * 2` is NumPy's or JAX's own, and its result a constant of the program.
    for make in (np.float32, jnp.float32):
        scale = make(2) * np.ones(4, np.float32)
        f, runs = counted(lambda x: tnp.sum(x * (scale * 2)))  # noqa: B023
        g, d = tg.jit(f), tg.grad(lambda x: g(x))  # noqa: B023
        for _ in range(2):
            np.testing.assert_allclose(d(X), np.full(4, 4.0), rtol=1e-6)
            np.testing.assert_allclose(g(X), (4 * X).sum(), rtol=1e-6)
        assert len(runs) == 2
        scale = make(5) * np.ones(4, np.float32)
        np.testing.assert_allclose(d(X), np.full(4, 10.0), rtol=1e-6)
        np.testing.assert_allclose(g(X), (10 * X).sum(), rtol=1e-6)


@dataclass
class Holder:
    GLOBAL: Any


def test_an_attribute_is_not_the_global_of_its_name() -> None:
    global GLOBAL
    f, runs = counted(lambda x, static: tnp.sum(x * static.GLOBAL))
    g = tg.jit(f, static_argnums=1)

    class Static(Holder):
        __hash__ = object.__hash__

    held, before = Static(3.0), GLOBAL
    try:
        for value in (before, before + 1, before + 2):
            GLOBAL = value
            np.testing.assert_allclose(g(X, held), 3 * X.sum(), rtol=1e-6)
    finally:
        GLOBAL = before
    assert len(runs) == 1


def test_nan_safety_is_part_of_what_is_recorded() -> None:
    inner = tg.jit(lambda x: tnp.where(x > 0, tnp.sqrt(x), 0.0))
    f = tg.grad(lambda x: inner(x))
    for _ in range(2):
        assert float(f(0.0)) == 0.0
        with tg.nan_safe(False):
            assert np.isnan(f(0.0))
