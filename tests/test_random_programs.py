"""Gradients of random programs, undecorated and under `@jit`, against `jax.grad` in float64."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import x64

PROGRAMS = int(os.environ.get("TRACEGRAD_PROGRAMS", "200"))
"""How many programs run."""
PARTS = max(4, PROGRAMS // 50)
COUNTS: Counter[str] = Counter()
"""How many programs have run, and how many elements of derivatives JAX and this package have differently."""

Shape = tuple[int, ...]
Step = Callable[[Any, list[Any]], Any]
SHAPES: list[Shape] = [(), (3,), (1,), (2, 3), (3, 2), (2, 1), (2, 3, 2), (0, 3)]

KINDS: dict[str, Callable[[Any, Shape], Any]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "same": lambda rng, shape: np.full(shape, rng.choice([0.0, 1.0])),
    "integers": lambda rng, shape: rng.integers(-2, 3, shape).astype(float),
    "ties": lambda rng, shape: rng.choice([0.7, -0.4], shape),
    "special": lambda rng, shape: rng.choice([0.0, 1.0, -1.0, 2.0, 0.5, 0.3], shape),
}
"""What arrays are made of: often values at which a rule selects a case."""


def safe(np: Any, x: Any, fn: Callable[[Any], Any]) -> Any:
    """A function of positive numbers where they are, and 0 elsewhere."""
    return np.where(x > 0, fn(x), 0.0)


UNARY: dict[str, Callable[[Any, Any], Any]] = {
    "abs at 0": lambda np, x: abs(x),
    "relu": lambda np, x: np.maximum(x, 0.0),
    "power 0": lambda np, x: x**0 * x,
    "power 2": lambda np, x: np.power(x, 2.0),
    "power 3": lambda np, x: x**3 - np.power(x, 3.0) * 0.5,
    "sinc": lambda np, x: np.sinc(x),
    "sign": lambda np, x: np.sign(x) * x,
    "clip": lambda np, x: np.clip(x, -1.0, 1.0) * x,
    "round": lambda np, x: np.floor(x) + x,
    "x log x": lambda np, x: safe(np, x, lambda x: x * np.log(x)),
    "sqrt where": lambda np, x: safe(np, x, np.sqrt),
    "quotient where": lambda np, x: np.where(x != 0, np.sin(x) / np.where(x != 0, x, 1.0), 1.0),
    "sigmoid": lambda np, x: np.logaddexp(x, 0.0),
    "exponent": lambda np, x: np.power(2.0, x) + np.power(1.0 + x * x, x),
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
    "prod": lambda np, x: np.prod(x, axis=0),
    "cumprod": lambda np, x: np.cumprod(x, axis=-1),
    "logsumexp": lambda np, x: np.log(np.sum(np.exp(x - np.max(x)))) + np.max(x),
    "sort": lambda np, x: np.sort(x, axis=0) * x,
    "var": lambda np, x: np.var(x, axis=-1),
    "spread": lambda np, x: np.max(x, axis=0) - np.min(x, axis=0),
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
    "logaddexp": lambda np, x, y: np.logaddexp(x, y),
    "logaddexp2": lambda np, x, y: np.logaddexp2(x, y),
    "maximum at ties": lambda np, x, y: np.maximum(x, y) * np.minimum(x, y),
    "power": lambda np, x, y: np.power(1.0 + x * x, y),
    "power where": lambda np, x, y: np.power(np.where(x > 0, x, 1.0), y),
    "arctan2": lambda np, x, y: np.arctan2(x, 1.0 + y * y),
    "hypot": lambda np, x, y: np.hypot(x, 0.5 + y * y),
    "where at ties": lambda np, x, y: np.where(x == y, x * y, x + y),
    "div where": lambda np, x, y: np.where(y != 0, x / np.where(y != 0, y, 1.0), x * y),
    "add": lambda np, x, y: x + y,
    "sub": lambda np, x, y: x - 0.5 * y,
    "mul": lambda np, x, y: x * y,
    "div": lambda np, x, y: x / (2.0 + np.cos(y)),
    "maximum": lambda np, x, y: np.maximum(x, y + 0.123),
    "select": lambda np, x, y: np.where(y > x, x * y, y),
    "smooth hypot": lambda np, x, y: np.sqrt(x * x + y * y + 1.0),
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
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=2, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=len(shapes), max_size=len(shapes)))
    arrays = [KINDS[kind](rng, shape) for kind, shape in zip(kinds, shapes, strict=True)]
    params: dict[str, Any] = {"first": arrays[0], "rest": arrays[1:]}
    pool: list[Any] = [params["first"], *params["rest"]]
    steps: list[tuple[str, int, int]] = []
    for _ in range(draw(st.integers(1, 6))):
        # What is computed is seldom a special value: half of the steps read parameters.
        given = draw(st.booleans())
        i = draw(st.integers(0, len(shapes if given else pool) - 1))
        x = pool[i]
        partners = [k for k, y in enumerate(pool) if broadcast(x.shape, y.shape)]
        if given:
            partners = [k for k in partners if k < len(shapes) and k != i] or partners
        products = [k for k, y in enumerate(pool) if x.ndim == y.ndim == 2 and x.shape[1] == y.shape[0]]
        names = sorted(UNARY) + sorted(TRANSFORMED)
        if x.ndim and x.size and x.size < 50 and x.ndim < 4:
            names += sorted(WITH_AXES) + sorted(ALONG)
        names += sorted(BINARY) * (5 if given else 2) + ["matmul"] * 8 * bool(products)
        name = draw(st.sampled_from(names))
        k = draw(st.sampled_from(products if name == "matmul" else partners))
        # Shapes alone matter here, and transforms have them only through JAX.
        transformed = name in TRANSFORMED or name in ALONG
        with np.errstate(all="ignore"):
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


Params = dict[str, Any]


def derivatives(t: Any, np: Any, steps: list[tuple[str, int, int]], direction: Params) -> Callable[[Params], Any]:
    """The derivative of the gradient along `direction`, and the value and the gradient."""

    def along(params: Params) -> Any:
        value, grads = t.value_and_grad(run(np, steps))(params)
        pairs = zip(jax.tree.leaves(grads), jax.tree.leaves(direction), strict=True)
        return sum((np.sum(g * d) for g, d in pairs), 0.0), (value, grads)

    second: Callable[[Params], Any] = t.grad(along, has_aux=True)
    return second


def limit(fn: Callable[[float], Any], step: float = 1e-4) -> tuple[np.ndarray, np.ndarray]:
    """The derivative of `fn` at 0 by differences, and where those to both sides have one limit."""
    centre = np.asarray(fn(0.0))
    with np.errstate(all="ignore"):
        up, up2, down, down2 = ((np.asarray(fn(h)) - centre) / h for h in (step, step / 2, -step, -step / 2))
        above, below = 2 * up2 - up, 2 * down2 - down
        size = 1 + np.abs(above)
        steady = np.maximum(np.abs(up - up2), np.abs(down - down2)) < 5e-3 * size
        return (above + below) / 2, steady & (np.abs(above - below) < 5e-5 * size)


def check(actual: Any, expected: Any, differences: Callable[[], tuple[np.ndarray, np.ndarray]], what: str) -> int:
    """Compares arrays with JAX's; where JAX's are not finite or others, with differences where these have a limit.

    At a point where neither is known there is no derivative to compare. Returns how often JAX was not followed.
    """
    a, e = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (actual, expected))
    with np.errstate(all="ignore"):
        size = max(1.0, np.max(np.abs(e), initial=0.0, where=np.isfinite(e)))
        other = ~(np.abs(a - e) <= 1e-7 * size)
    if not other.any():
        return 0
    value, exists = differences()
    with np.errstate(all="ignore"):
        wrong = other & exists & ~(np.abs(a - value) <= 1e-4 * (size + np.abs(value)))
    assert not wrong.any(), f"{what}: {a[wrong]}, differences {value[wrong]}, JAX {e[wrong]}"
    return int(other.sum())


@pytest.mark.parametrize("part", range(PARTS))
def test_derivatives_of_random_programs(part: int) -> None:
    """The gradient, and its derivative along a direction, undecorated and under `@jit`."""

    @seed(part)
    @settings(
        max_examples=PROGRAMS // PARTS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if PROGRAMS <= 200 else [Phase.generate],
    )
    @given(programs())
    def all_derivatives_agree(case: Any) -> None:
        check_program(*case)

    all_derivatives_agree()


def check_program(params: Params, steps: list[tuple[str, int, int]]) -> None:
    rng = np.random.default_rng(5)
    direction = jax.tree.map(lambda x: rng.uniform(0.5, 1.5, x.shape), params)
    with x64():
        expected, (value, gradient) = jax.jit(derivatives(jax, jnp, steps, direction))(params)
        ours = derivatives(tg, tnp, steps, direction)
        jitted = tg.jit(ours)

        def moved(h: float, unit: Params = direction) -> Params:
            return jax.tree.map(lambda x, d: x + h * d, params, unit)

        def flat(tree: Any) -> np.ndarray:
            return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])

        def of_value() -> tuple[np.ndarray, np.ndarray]:
            leaves, tree = jax.tree.flatten(params)
            ends = np.cumsum([x.size for x in leaves])
            found = []
            for unit in np.eye(ends[-1]):
                parts = [u.reshape(x.shape) for u, x in zip(np.split(unit, ends[:-1]), leaves, strict=True)]
                found.append(limit(lambda h, parts=parts: jitted(moved(h, jax.tree.unflatten(tree, parts)))[1][0]))
            return np.array([v for v, _ in found]), np.array([e for _, e in found])

        def of_gradient() -> tuple[np.ndarray, np.ndarray]:
            return limit(lambda h: flat(jitted(moved(h))[1][1]))

        for mode, (second, (v, first)) in (("undecorated", ours(params)), ("jit", jitted(params))):
            np.testing.assert_allclose(v, value, rtol=1e-9, atol=1e-9, err_msg=mode)
            assert jax.tree.structure(first) == jax.tree.structure(gradient)
            for a, e in zip(jax.tree.leaves(first), jax.tree.leaves(gradient), strict=True):
                assert (a.dtype, a.shape) == (e.dtype, e.shape)
            COUNTS["programs"] += mode == "jit"
            COUNTS["first"] += check(first, gradient, of_value, f"{mode}, first derivative")
            COUNTS["second"] += check(second, expected, of_gradient, f"{mode}, second derivative")
    if path := os.environ.get("TRACEGRAD_PROGRAMS_LOG"):
        Path(f"{path}.{os.getpid()}").write_text(str(dict(COUNTS)))
