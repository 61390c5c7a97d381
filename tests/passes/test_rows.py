"""Steps that change a few rows of a table: the result of the whole table, at the cost of the rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import x64
from tracegrad import optimizers
from tracegrad.passes import optimize

N, D = 9000, 8
rng = np.random.default_rng(0)
TABLE = rng.standard_normal((N, D))
W = rng.standard_normal((D, 2))
IDS = np.array([5, 7, 5, 0, N - 1, 7, 5], np.int32)


@pytest.fixture
def wide() -> Iterator[None]:
    with x64():
        yield


Loss = Callable[[Any, Any, Any], Any]
LOOKUPS: dict[str, tuple[Loss, np.ndarray]] = {
    "index": (lambda np, t, i: t[i], IDS),
    "negative": (lambda np, t, i: t[i], np.array([-1, 3, -N, 3, N - 1])),
    "out of bounds": (  # where ours reads the first and the last row, the derivative is theirs
        lambda np, t, i: t[i] if np is tnp else t[np.clip(np.where(i < 0, i + N, i), 0, N - 1)],
        np.array([N + 5, 3, -N - 7, N - 1]),
    ),
    "take": (lambda np, t, i: np.take(t, i, axis=0), IDS),
    "take, out of bounds": (
        lambda np, t, i: np.nan_to_num(np.take(t, i, axis=0)),
        np.array([N, 3, -N - 7, N - 1, 2 * N]),
    ),
    "take, clip": (lambda np, t, i: np.take(t, i, axis=0, mode="clip"), np.array([N, 3, -7, N - 1])),
    "take, wrap": (lambda np, t, i: np.take(t, i, axis=0, mode="wrap"), np.array([N, 3, -7, N - 1, 2 * N + 3])),
    "two axes": (lambda np, t, i: t[i], IDS[:6].reshape(2, 3)),
    "one": (lambda np, t, i: t[i], np.array([4])),
    "small integers": (lambda np, t, i: t[i], np.array([4, 200, 4], np.uint8)),
    "twice": (lambda np, t, i: t[i] * t[i[::-1] + 1], np.array([4, 9, 4, 8])),
    "of a part": (lambda np, t, i: t[i] * np.where(i > 5, 1.0, 0.0)[:, None], IDS),
}
"""What is looked up in a table, over an array namespace, and the indices."""


def loss(np: Any, name: str, params: Any, ids: Any) -> Any:
    return (np.tanh(LOOKUPS[name][0](np, params["table"], ids) @ params["w"]) ** 2).sum()


def tables(step: Any, *args: Any) -> list[str]:
    """The ops of the optimized program that make an array of the size of the table."""
    tape = optimize(tg.trace(step)(*args))
    return [n.op.name for n in tape.nodes if any(math.prod(v.aval.shape) >= N * D for v in n.outputs)]


def trained(optimizer: Any, name: str, params: Any, ids: Any) -> tuple[Callable[..., Any], Any]:
    def step(params: Any, state: Any, ids: Any) -> Any:
        grads = tg.grad(lambda params: loss(tnp, name, params, ids))(params)
        updates, state = optimizer.update(grads, state, params)
        return optimizers.apply_updates(params, updates), state

    return step, optimizer.init(params)


@pytest.mark.parametrize("name", LOOKUPS)
@pytest.mark.usefixtures("wide")
def test_a_step_of_sgd_is_that_of_the_whole_table(name: str) -> None:
    params, ids = {"table": TABLE, "w": W}, LOOKUPS[name][1]
    step, state = trained(optimizers.sgd(0.1), name, params, ids)
    assert tables(step, params, state, ids) == ["scatter"]
    grads = jax.grad(lambda p: loss(jnp, name, p, ids))(jax.tree.map(jnp.asarray, params))
    # An index of known value that is out of bounds is an error, where nothing else is asked for.
    runs = [tg.jit(step)] if "out of bounds" in name else [step, tg.jit(step)]
    for run in runs:
        new, _ = run(params, state, ids)
        for k in params:
            np.testing.assert_allclose(new[k], params[k] - 0.1 * np.asarray(grads[k]), rtol=1e-12, atol=1e-14)


def by_hand_adagrad(p: Any, g: Any, cache: Any) -> Any:
    cache = cache + g**2
    return p - 0.1 * g / np.sqrt(cache + 1e-7), cache


def by_hand_clipped(p: Any, g: Any, cache: Any) -> Any:
    return p - 0.1 * g * min(1.0, 0.01 / np.sqrt((g**2).sum())), cache


RULES: dict[str, tuple[Callable[[Any, Any, Any], Any], Any]] = {
    "adagrad": (lambda p, g, c: (p - 0.1 * g / tnp.sqrt(c + g * g + 1e-7), c + g * g), by_hand_adagrad),
    "adagrad, divided only where it is not 0": (
        lambda p, g, c: (p - 0.1 * tnp.where(c + g * g > 0, g / tnp.sqrt(c + g**2 + 1e-7), 0.0), c + tnp.square(g)),
        by_hand_adagrad,
    ),
    "clipped": (
        lambda p, g, c: (p - 0.1 * g * tnp.minimum(1.0, 0.01 / tnp.sqrt((g**2).sum())), c),
        by_hand_clipped,
    ),
    "clipped by optimizers": (
        lambda p, g, c: (p + optimizers.chain(optimizers.clip_by_global_norm(0.01), optimizers.sgd(0.1)).update(
            g, optimizers.chain(optimizers.clip_by_global_norm(0.01), optimizers.sgd(0.1)).init(p))[0], c),
        by_hand_clipped,
    ),
    "only rows with a gradient": (
        lambda p, g, c: tuple(
            tnp.where((g != 0).any(-1, keepdims=True), new, old)
            for new, old in ((p - 0.1 * (0.9 * c + g), p), (0.9 * c + g, c))
        ),
        lambda p, g, c: tuple(
            np.where((g != 0).any(-1, keepdims=True), new, old)
            for new, old in ((p - 0.1 * (0.9 * c + g), p), (0.9 * c + g, c))
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.usefixtures("wide")
def test_rules_that_leave_the_other_rows(rule: str) -> None:
    cache = rng.random((N, D))
    ours, theirs = RULES[rule]

    def step(table: Any, cache: Any, ids: Any) -> Any:
        g = tg.grad(lambda t: loss(tnp, "index", {"table": t, "w": W}, ids))(table)
        return ours(table, g, cache)

    assert set(tables(step, TABLE, cache, IDS)) <= {"scatter"}
    g = np.asarray(jax.grad(lambda t: loss(jnp, "index", {"table": t, "w": jnp.asarray(W)}, IDS))(jnp.asarray(TABLE)))
    for run in (step, tg.jit(step)):
        for a, b in zip(run(TABLE, cache, IDS), theirs(TABLE, g, cache), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-14)


def adagrad_by_hand(p: Any, g: Any, state: list[Any], t: int) -> Any:
    """optax's: Duchi, Hazan and Singer (2011), the sum of squares beginning at 0.1."""
    (cache,) = state = state or [np.full_like(p, 0.1)]
    cache += g**2
    return p - 0.1 * g / np.sqrt(cache + 1e-7), state


def lazy_adam_by_hand(p: Any, g: Any, state: list[Any], t: int) -> Any:
    """Kingma and Ba (2014), in the rows that have a gradient."""
    state = state or [np.zeros_like(p), np.zeros_like(p)]
    rows = (g != 0).any(1)
    m, v = (np.where(rows[:, None], b * old + (1 - b) * new, old)
            for b, old, new in ((0.9, state[0], g), (0.999, state[1], g**2)))  # fmt: skip
    step = 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return np.where(rows[:, None], p - step, p), [m, v]


TRAINED: dict[str, tuple[Any, Callable[..., Any]]] = {
    "adagrad": (optimizers.adagrad(0.1), adagrad_by_hand),
    "lazy adam": (optimizers.lazy(optimizers.adam(0.1)), lazy_adam_by_hand),
    "lazy adam of a group": (
        optimizers.multi_transform(
            {"table": optimizers.lazy(optimizers.adam(0.1)), "w": optimizers.sgd(0.0)}, {"table": "table", "w": "w"}
        ),
        lazy_adam_by_hand,
    ),
}


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.usefixtures("wide")
def test_optimizers_over_several_steps(name: str) -> None:
    optimizer, by_hand = TRAINED[name]
    params: Any = {"table": TABLE, "w": W}
    step, state = trained(optimizer, "index", params, IDS)
    assert set(tables(step, params, state, IDS)) == {"scatter"}
    step = tg.jit(step)
    p, kept = TABLE.copy(), []
    for t, ids in enumerate((IDS, IDS + 3, np.array([5, 5, 1, 0, 7, 7, 7])), 1):
        ids = np.minimum(ids, N - 1)
        g = jax.grad(lambda q: loss(jnp, "index", {"table": q, "w": params["w"]}, ids))(jnp.asarray(p))  # noqa: B023
        p, kept = by_hand(p, np.asarray(g), kept, t)
        params, state = step(params, state, ids)
        params["w"] = W
        np.testing.assert_allclose(params["table"], p, rtol=1e-8, atol=1e-12)


DENSE: dict[str, Callable[..., Any]] = {
    "the gradient is returned": lambda t, g: (g, t - 0.1 * g),
    "decay": lambda t, g: t - 0.1 * (g + 0.01 * t),
    "momentum": lambda t, g: 0.9 * t + g,
    "a function that is not 0 at 0": lambda t, g: t + tnp.cos(g),
    "another axis": lambda t, g: g.sum(1) + t[:, 0],
    "moved": lambda t, g: t - g[::-1],
    "the largest": lambda t, g: g.max() * t,
    "turned": lambda t, g: (t - 0.1 * g).T,
    "of more axes": lambda t, g: g[:, 0] + tnp.ones((2, N)),
    "shaped": lambda t, g: g.reshape(D, N),
    "compared": lambda t, g: tnp.where(g == 0, t, g),
    "divided": lambda t, g: t / (1 + g),
}
"""What touches all rows, or is no arithmetic of elements, in our arithmetic and NumPy's."""


@pytest.mark.parametrize("case", DENSE)
@pytest.mark.usefixtures("wide")
def test_what_touches_the_whole_table(case: str) -> None:
    rule = DENSE[case]
    step = lambda t: rule(t, tg.grad(lambda t: loss(tnp, "index", {"table": t, "w": W}, IDS))(t))  # noqa: E731
    g = jax.grad(lambda t: loss(jnp, "index", {"table": t, "w": jnp.asarray(W)}, IDS))(jnp.asarray(TABLE))
    for run in (step, tg.jit(step)):
        for a, b in zip(jax.tree.leaves(run(TABLE)), jax.tree.leaves(rule(TABLE, np.asarray(g))), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-14)


def test_a_table_that_is_also_used_whole() -> None:
    def f(np: Any, t: Any) -> Any:
        return (t[IDS] ** 3).sum() + (t @ np.ones((D, 1))).sum()

    table = TABLE.astype(np.float32)
    new = tg.jit(lambda t: t - 0.1 * tg.grad(lambda t: f(tnp, t))(t))(table)
    np.testing.assert_allclose(new, table - 0.1 * jax.grad(lambda t: f(jnp, t))(jnp.asarray(table)), rtol=1e-5)


def test_a_vector_as_table() -> None:
    table, ids = np.arange(100_000, dtype=np.float32), np.array([3, 99_999, 3])
    step = tg.jit(lambda t: t - 0.5 * tg.grad(lambda t: (t[ids] ** 2).sum())(t))
    expected = table.copy()
    expected[[3, 99_999]] = 3 - 2 * 3, 0
    np.testing.assert_allclose(step(table), expected)


def test_no_buffer_of_the_size_of_the_table() -> None:
    params = {"table": TABLE.astype(np.float32), "w": W.astype(np.float32)}
    step, state = trained(optimizers.sgd(0.1), "index", params, IDS)
    compiled: Any = tg.jit(step, donate_argnums=(0, 1)).lower(params, state, IDS).compile()
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < params["table"].nbytes / 10
    assert memory.alias_size_in_bytes >= params["table"].nbytes


def test_small_tables_and_many_rows_are_left_as_they_are() -> None:
    for table, ids in ((TABLE[:100], IDS % 100), (TABLE, np.arange(N // 4))):
        tape = optimize(tg.trace(lambda t: t - tg.grad(lambda t: (t[ids] ** 2).sum())(t))(table))  # noqa: B023
        assert [n.params["kind"] for n in tape.nodes if n.op.name == "scatter"] == ["add"]


def test_further_derivatives_of_a_step() -> None:
    table = TABLE.astype(np.float32)

    def after(np: Any, grad: Any, rate: Any) -> Any:
        new = table - rate * grad(lambda t: (t[IDS] ** 2).sum())(np.asarray(table))
        return (new[IDS] ** 2).sum()

    ours = tg.grad(tg.jit(lambda r: after(tnp, tg.grad, r)))(0.1)
    np.testing.assert_allclose(ours, jax.grad(lambda r: after(jnp, jax.grad, r))(0.1), rtol=1e-5)
