"""Gradients of random programs, undecorated and under `@jit`, against `jax.grad` in float64."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import x64

PROGRAMS = int(os.environ.get("TRACEGRAD_PROGRAMS", "48"))
"""How many programs a test runs; the rarer kinds of test run fewer."""

Shape = tuple[int, ...]
Step = Callable[[Any, list[Any]], Any]
SHAPES: list[Shape] = [(), (3,), (1,), (2, 3), (3, 2), (2, 1), (2, 3, 2), (0, 3)]

UNARY: dict[str, Callable[[Any, Any], Any]] = {
    "sin": lambda np, x: np.sin(x),
    "tanh": lambda np, x: np.tanh(x),
    "exp": lambda np, x: np.exp(np.tanh(x)),
    "square": lambda np, x: x * x,
    "negative": lambda np, x: -x,
    "sqrt": lambda np, x: np.sqrt(1.0 + x * x),
    "log": lambda np, x: np.log(2.0 + x * x),
    "cube": lambda np, x: np.tanh(x) ** 3,
    "scale": lambda np, x: 0.5 * x - 0.25,
    "reciprocal": lambda np, x: 1 / (2.0 + np.sin(x)),
    "ravel": lambda np, x: np.reshape(x, (-1,)) if x.size else x,
    "transpose": lambda np, x: np.transpose(x),
    "expand": lambda np, x: x[None],
    "abs": lambda np, x: abs(x + 0.1),
    "where": lambda np, x: np.where(x > 0.05, x, 0.3 * x),
    "softmax": lambda np, x: np.exp(x - np.log(np.sum(np.exp(x)))) if x.size else x,
    "same": lambda np, x: x,
}
WITH_AXES: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda np, x: np.sum(x, axis=0),
    "mean": lambda np, x: np.mean(x, axis=-1, keepdims=True),
    "max": lambda np, x: np.max(x, axis=-1),
    "cumsum": lambda np, x: np.cumsum(x, axis=0),
    "flip": lambda np, x: np.flip(x, 0),
    "first": lambda np, x: x[0],
    "rest": lambda np, x: x[..., 1:],
    "strided": lambda np, x: x[::2],
    "reversed": lambda np, x: x[..., ::-1],
    "gather": lambda np, x: x[np.array([0, 0, x.shape[0] - 1])],
    "join": lambda np, x: np.concatenate([x, 2.0 * x], axis=-1),
    "stack": lambda np, x: np.stack([x, x * x]),
}
BINARY: dict[str, Callable[[Any, Any, Any], Any]] = {
    "add": lambda np, x, y: x + y,
    "sub": lambda np, x, y: x - 0.5 * y,
    "mul": lambda np, x, y: x * y,
    "div": lambda np, x, y: x / (2.0 + np.cos(y)),
    "maximum": lambda np, x, y: np.maximum(x, y + 0.123),
    "select": lambda np, x, y: np.where(y > x, x * y, y),
    "hypot": lambda np, x, y: np.sqrt(x * x + y * y + 1.0),
}


def lib(np: Any) -> Any:
    """Transforms and control flow of the side that `np` belongs to."""
    if np is tnp:
        return tg
    return SimpleNamespace(
        grad=jax.grad, jvp=jax.jvp, vmap=jax.vmap, jit=jax.jit, checkpoint=jax.checkpoint, scan=jax.lax.scan,
        cond=jax.lax.cond, fori_loop=jax.lax.fori_loop,
    )  # fmt: skip


TRANSFORMED: dict[str, Callable[[Any, Any], Any]] = {
    "grad inside": lambda np, x: lib(np).grad(lambda y: np.sum(np.sin(y) * y))(x),
    "jvp inside": lambda np, x: lib(np).jvp(np.sin, (x,), (np.cos(x),))[1],
    "jit inside": lambda np, x: lib(np).jit(lambda y: np.tanh(y) * y)(x),
    "checkpoint": lambda np, x: lib(np).checkpoint(lambda y: np.sin(np.exp(np.sin(y))))(x),
    "cond": lambda np, x: lib(np).cond(np.sum(x) > 0.1, lambda y: np.sin(y) * x, lambda y: 0.5 * y, x),
    "fori_loop": lambda np, x: lib(np).fori_loop(0, 2, lambda i, y: np.sin(y) + 0.1 * i * x, x),
}
ALONG: dict[str, Callable[[Any, Any], Any]] = {
    "vmap": lambda np, x: lib(np).vmap(lambda r: r * np.sum(np.sin(r)))(x),
    "vmap of grad": lambda np, x: lib(np).vmap(lib(np).grad(lambda r: np.sum(np.sin(r) * r)))(x),
    "scan": lambda np, x: lib(np).scan(lambda c, r: (0.5 * c + np.sin(r), c * r), np.ones_like(x[0]), x)[1],
    "scan, reversed": lambda np, x: lib(np).scan(
        lambda c, r: (c * np.cos(r), None), np.ones_like(x[0]), x, reverse=True
    )[0],
}


def broadcast(x: Shape, y: Shape) -> bool:
    try:
        np.broadcast_shapes(x, y)
    except ValueError:
        return False
    return True


@st.composite
def programs(draw: st.DrawFn) -> tuple[dict[str, Any], list[tuple[str, int, int]]]:
    """Parameters (a pytree of arrays) and steps `(name, operand, operand)` whose shapes fit."""
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    params: dict[str, Any] = {"first": rng.normal(size=shapes[0]), "rest": [rng.normal(size=s) for s in shapes[1:]]}
    pool: list[Any] = [params["first"], *params["rest"]]
    steps: list[tuple[str, int, int]] = []
    for _ in range(draw(st.integers(1, 8))):
        i = draw(st.integers(0, len(pool) - 1))
        x = pool[i]
        partners = [k for k, y in enumerate(pool) if broadcast(x.shape, y.shape)]
        products = [k for k, y in enumerate(pool) if x.ndim == y.ndim == 2 and x.shape[1] == y.shape[0]]
        names = sorted(UNARY) + sorted(TRANSFORMED)
        if x.ndim and x.size and x.size < 50 and x.ndim < 4:
            names += sorted(WITH_AXES) + sorted(ALONG)
        names += sorted(BINARY) * 2 + ["matmul"] * 8 * bool(products)
        name = draw(st.sampled_from(names))
        k = draw(st.sampled_from(products if name == "matmul" else partners))
        # Shapes alone matter here, and transforms have them only through JAX.
        transformed = name in TRANSFORMED or name in ALONG
        value = (
            np.zeros(jax.eval_shape(lambda x, name=name: ALL[name](jnp, x), x).shape)
            if transformed
            else apply(np, name, x, pool[k])
        )
        steps.append((name, i, k))
        pool.append(np.asarray(value))
    return params, steps


ALL = UNARY | WITH_AXES | TRANSFORMED | ALONG


def apply(np: Any, name: str, x: Any, y: Any) -> Any:
    if name in ALL:
        return ALL[name](np, x)
    if name == "matmul":
        return x @ y
    return BINARY[name](np, x, y)


def run(np: Any, steps: list[tuple[str, int, int]]) -> Callable[[Any], Any]:
    def program(params: Any) -> Any:
        pool = [params["first"], *params["rest"]]
        for name, i, k in steps:
            pool.append(apply(np, name, pool[i], pool[k]))
        return np.sum(np.sin(pool[-1]) * 0.7) + np.sum(pool[len(pool) // 2])

    return program


@settings(
    max_examples=PROGRAMS, deadline=None, derandomize=PROGRAMS == 48, suppress_health_check=[HealthCheck.too_slow]
)
@given(programs())
def test_gradients_of_random_programs(case: Any) -> None:
    params, steps = case
    with x64():
        value, expected = jax.jit(jax.value_and_grad(run(jnp, steps)))(params)
        ours = tg.value_and_grad(run(tnp, steps))
        for mode, actual in (("undecorated", ours(params)), ("jit", tg.jit(ours)(params))):
            np.testing.assert_allclose(actual[0], value, rtol=1e-9, atol=1e-9, err_msg=mode)
            assert jax.tree.structure(actual[1]) == jax.tree.structure(expected)
            for a, e in zip(jax.tree.leaves(actual[1]), jax.tree.leaves(expected), strict=True):
                assert (a.dtype, a.shape) == (e.dtype, e.shape)
                np.testing.assert_allclose(a, e, rtol=1e-8, atol=1e-8, err_msg=mode)


@settings(
    max_examples=PROGRAMS // 6, deadline=None, derandomize=PROGRAMS == 48, suppress_health_check=[HealthCheck.too_slow]
)
@given(programs())
def test_second_derivatives_of_random_programs(case: Any) -> None:
    params, steps = case

    def along(t: Any, np: Any) -> Callable[[Any], Any]:
        def product(params: Any) -> Any:
            grads = jax.tree.leaves(t.grad(run(np, steps))(params))
            return sum((np.sum(g * g) for g in grads[1:]), np.sum(grads[0] * grads[0]))

        return product

    with x64():
        expected = jax.jit(jax.grad(along(jax, jnp)))(params)
        actual = tg.jit(tg.grad(along(tg, tnp)))(params)
        for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-7, atol=1e-7)
