"""Optimizers against their published formulas, written out in NumPy and float64."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
from tests.reference import x64
from tracegrad import optimizers as opt

rng = np.random.default_rng(0)
PARAMS = {"w": rng.standard_normal((3, 2)), "b": [rng.standard_normal(2), rng.standard_normal(())]}
GRADS = [jax.tree.map(lambda p: rng.standard_normal(p.shape) * 3, PARAMS) for _ in range(4)]

Rule = Callable[[np.ndarray, list[np.ndarray]], Iterator[np.ndarray]]


def sgd(a: Any, mu: float = 0.0, nesterov: bool = False) -> Rule:
    def run(p: np.ndarray, gs: list[np.ndarray]) -> Iterator[np.ndarray]:
        v = np.zeros_like(p)
        for t, g in enumerate(gs):
            v = mu * v + g
            p = p - (a(t) if callable(a) else a) * (g + mu * v if nesterov else v)
            yield p

    return run


def adam(a: Any, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, root: float = 0.0, decay: float = 0.0) -> Rule:
    """Kingma and Ba, algorithm 1; with decay, Loshchilov and Hutter, algorithm 2."""

    def run(p: np.ndarray, gs: list[np.ndarray]) -> Iterator[np.ndarray]:
        m = v = np.zeros_like(p)
        for t, g in enumerate(gs, 1):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g * g
            hat = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t) + root) + eps)
            p = p - (a(t - 1) if callable(a) else a) * (hat + decay * p)
            yield p

    return run


def halving(t: Any) -> Any:
    return 0.1 * 0.5**t


CASES: list[tuple[opt.GradientTransformation, Rule]] = [
    (opt.sgd(0.1), sgd(0.1)),
    (opt.sgd(0.1, momentum=0.9), sgd(0.1, 0.9)),
    (opt.sgd(0.1, momentum=0.9, nesterov=True), sgd(0.1, 0.9, True)),
    (opt.sgd(halving, momentum=0.5), sgd(halving, 0.5)),
    (opt.adam(0.1), adam(0.1)),
    (opt.adam(halving, 0.8, 0.95, 1e-3, 1e-2), adam(halving, 0.8, 0.95, 1e-3, 1e-2)),
    (opt.adamw(0.1, weight_decay=0.05), adam(0.1, decay=0.05)),
    (opt.chain(opt.scale_by_adam(), opt.scale(-0.1)), adam(0.1)),
    (opt.chain(opt.trace(0.9), opt.scale_by_learning_rate(0.1)), sgd(0.1, 0.9)),
    (opt.chain(opt.scale_by_schedule(halving), opt.scale(-1.0)), sgd(halving)),
    (opt.chain(opt.add_decayed_weights(0.1), opt.sgd(0.2)), lambda p, gs: _decayed(p, gs)),
]


def _decayed(p: np.ndarray, gs: list[np.ndarray]) -> Iterator[np.ndarray]:
    for g in gs:
        p = p - 0.2 * (g + 0.1 * p)
        yield p


def one_step(optimizer: opt.GradientTransformation) -> Callable[..., Any]:
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return opt.apply_updates(params, updates), state

    return step


def recorded(step: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: tg.grad(lambda one, args: (one, step(*args)), has_aux=True)(1.0, args)[1]


@pytest.mark.parametrize("mode", ["eager", "jit", "undecorated"])
@pytest.mark.parametrize(("optimizer", "rule"), CASES)
def test_formula(optimizer: opt.GradientTransformation, rule: Rule, mode: str) -> None:
    with x64():
        step = one_step(optimizer)
        step = {"eager": lambda f: f, "jit": tg.jit, "undecorated": recorded}[mode](step)
        expected = [list(rule(p, list(gs))) for p, *gs in zip(*map(jax.tree.leaves, (PARAMS, *GRADS)), strict=True)]
        params, state = PARAMS, optimizer.init(PARAMS)
        for t, grads in enumerate(GRADS):
            params, state = step(params, state, grads)
            assert jax.tree.structure(params) == jax.tree.structure(PARAMS)
            for p, e in zip(jax.tree.leaves(params), expected, strict=True):
                np.testing.assert_allclose(p, e[t], rtol=1e-9)


@pytest.mark.parametrize(
    "optimizer",
    [
        *[optimizer for optimizer, _ in CASES],
        opt.identity(),
        opt.chain(opt.clip_by_global_norm(0.5), opt.clip_by_norm(0.4), opt.clip_by_value(0.1), opt.adamw(halving)),
        opt.sgd(np.float32(0.1), momentum=jnp.float32(0.5)),
    ],
)
def test_pickled_optimizers_and_states_go_on_as_before(optimizer: opt.GradientTransformation) -> None:
    state = optimizer.init(PARAMS)
    for grads in GRADS[:2]:
        _, state = optimizer.update(grads, state, PARAMS)
    again, kept = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps((optimizer, state)))))
    assert isinstance(again, opt.GradientTransformation)
    assert jax.tree.structure(kept) == jax.tree.structure(again.init(PARAMS)) == jax.tree.structure(state)
    expected, actual = optimizer.update(GRADS[2], state, PARAMS), again.update(GRADS[2], kept, PARAMS)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


# -- clipping


@pytest.mark.parametrize("limit", [0.5, 1e3])
def test_clipping(limit: float) -> None:
    with x64():
        grads = GRADS[0]
        leaves = jax.tree.leaves(grads)
        norm = np.sqrt(sum((g**2).sum() for g in leaves))

        def clipped(transformation: Any) -> Any:
            return jax.tree.leaves(transformation.update(grads, transformation.init(None))[0])

        for got, g in zip(clipped(opt.clip_by_global_norm(limit)), leaves, strict=True):
            np.testing.assert_allclose(got, g * min(1, limit / norm), rtol=1e-12)
        for got, g in zip(clipped(opt.clip_by_norm(limit)), leaves, strict=True):
            np.testing.assert_allclose(got, g * min(1, limit / np.sqrt((g**2).sum())), rtol=1e-12)
        for got, g in zip(clipped(opt.clip_by_value(limit)), leaves, strict=True):
            np.testing.assert_allclose(got, np.clip(g, -limit, limit))
        np.testing.assert_allclose(opt.global_norm(grads), norm)


def test_clipping_of_zero_and_of_nothing() -> None:
    clip = opt.clip_by_global_norm(1.0)
    zero = np.zeros(3, np.float32)
    assert clip.update(zero, clip.init(zero))[0].tolist() == [0, 0, 0]
    assert clip.update({}, clip.init({}))[0] == {}
    gradient = tg.grad(lambda g: clip.update(g, opt.EmptyState())[0].sum())(zero)
    assert gradient.tolist() == [1, 1, 1]


# -- what a training step needs


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float32, np.complex64])
@pytest.mark.parametrize(
    "make",
    [
        lambda rate: opt.sgd(rate, momentum=0.9, nesterov=True),
        lambda rate: opt.adamw(rate),
        lambda rate: opt.chain(opt.clip_by_global_norm(1.0), opt.adam(rate, eps_root=1e-4)),
    ],
)
@pytest.mark.parametrize(
    "rate", [0.1, jnp.float32(0.1), lambda count: 0.1 / (count + 1.0)], ids=["float", "array", "schedule"]
)
def test_types_are_stable(make: Any, rate: Any, dtype: Any) -> None:
    optimizer = make(rate)
    traces = []

    @tg.jit
    def step(params: Any, state: Any, grads: Any) -> Any:
        traces.append(1)
        return one_step(optimizer)(params, state, grads)

    params = {"w": jnp.ones((3, 2), dtype), "b": jnp.ones((), dtype)}
    grads = jax.tree.map(lambda p: p * 0.5, params)
    state = optimizer.init(params)

    def types(tree: Any) -> Any:
        return [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(tree)]

    for run in (step, one_step(optimizer)):
        new, next_state = params, state
        for _ in range(3):
            new, next_state = run(new, next_state, grads)
        assert types(new) == types(params) and types(next_state) == types(state)
        assert jax.tree.structure(next_state) == jax.tree.structure(state)
    assert len(traces) == 1


def test_changing_rate_compiles_once() -> None:
    traces = []

    @tg.jit
    def step(params: Any, grads: Any, rate: Any) -> Any:
        traces.append(1)
        optimizer = opt.sgd(rate)
        return one_step(optimizer)(params, optimizer.init(params), grads)[0]

    for rate in (0.1, 0.2, 0.3):
        assert float(step(np.float32(1), np.float32(1), rate)) == pytest.approx(1 - rate)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("optimizer", "steps"),
    [
        (opt.sgd(0.1), 300),
        (opt.sgd(0.02, momentum=0.9), 300),
        (opt.sgd(0.02, momentum=0.9, nesterov=True), 300),
        (opt.adam(0.1), 500),
        (opt.adamw(0.1, weight_decay=1e-6), 500),
        (opt.chain(opt.clip_by_global_norm(1.0), opt.sgd(0.2)), 300),
    ],
)
def test_converges_on_a_quadratic(optimizer: opt.GradientTransformation, steps: int) -> None:
    curvature, target = np.array([0.5, 2.0, 5.0], np.float32), np.array([1.0, -2.0, 3.0], np.float32)

    @tg.jit
    def step(x: Any, state: Any) -> Any:
        grads = tg.grad(lambda x: (curvature * (x - target) ** 2).sum() / 2)(x)
        return one_step(optimizer)(x, state, grads)

    x = np.zeros(3, np.float32)
    state = optimizer.init(x)
    for _ in range(steps):
        x, state = step(x, state)
    np.testing.assert_allclose(x, target, atol=2e-3)


def test_differentiable_in_the_learning_rate() -> None:
    def final(rate: Any) -> Any:
        optimizer = opt.chain(opt.clip_by_global_norm(100.0), opt.adam(rate))
        x: Any = np.float64(1.0)
        state = optimizer.init(x)
        for _ in range(3):
            x, state = one_step(optimizer)(x, state, tg.grad(lambda x: x**4)(x))
        return x

    with x64():
        eps = 1e-6
        expected = (float(final(0.1 + eps)) - float(final(0.1 - eps))) / (2 * eps)
        assert float(tg.grad(final)(0.1)) == pytest.approx(expected, rel=1e-6)
        assert float(tg.jit(tg.grad(final))(0.1)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mask", [{"w": True, "b": False}, lambda params: {k: p.ndim > 1 for k, p in params.items()}])
def test_decay_mask(mask: Any) -> None:
    params = {"w": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)}
    grads = jax.tree.map(np.zeros_like, params)
    optimizer = opt.adamw(0.5, weight_decay=0.1, mask=mask)
    for run in (one_step(optimizer), tg.jit(one_step(optimizer))):
        new, _ = run(params, optimizer.init(params), grads)
        np.testing.assert_allclose(new["w"], 0.95)
        np.testing.assert_allclose(new["b"], 1.0)


def test_moments_in_another_dtype() -> None:
    params = jnp.ones(3, jnp.bfloat16)
    for optimizer, pick in (
        (opt.adam(0.1, mu_dtype=np.float32), lambda s: s[0].mu),
        (opt.sgd(0.1, 0.9, accumulator_dtype=np.float32), lambda s: s[0].trace),
    ):
        state = optimizer.init(params)
        assert pick(state).dtype == np.float32
        new, state = one_step(optimizer)(params, state, params)
        assert pick(state).dtype == np.float32 and new.dtype == jnp.bfloat16


def test_few_nodes_a_parameter() -> None:
    def nodes(count: int, optimizer: Any) -> int:
        params = [np.ones(3, np.float32)] * count
        state = optimizer.init(params)
        return len(tg.trace(one_step(optimizer))(params, state, params))

    for optimizer, limit in ((opt.sgd(0.1), 2), (opt.sgd(0.1, 0.9), 4), (opt.adam(0.1), 14), (opt.adamw(0.1), 16)):
        assert nodes(11, optimizer) - nodes(1, optimizer) <= 10 * limit


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: opt.adamw(0.1).update(PARAMS, opt.adamw(0.1).init(PARAMS)),
            ["add_decayed_weights", "update(grads, state, params)", "test_optimizers.py"],
        ),
        (
            lambda: opt.adam(0.1).update(PARAMS, opt.adam(0.1).init({"w": 1.0})),
            ["structure", "init(params)", "test_optimizers.py"],
        ),
        (lambda: opt.adam(0.1).update(PARAMS, ()), ["chain", "0 parts", "2 transformations"]),
        (lambda: opt.apply_updates(PARAMS, {"w": 1.0}), ["the updates", "structure"]),
        (lambda: opt.sgd("fast"), ["learning_rate", "'fast'", "test_optimizers.py"]),
    ],
)
def test_errors(call: Any, words: list[str]) -> None:
    with pytest.raises((TypeError, ValueError)) as info:
        call()
    for word in words:
        assert word in str(info.value)
