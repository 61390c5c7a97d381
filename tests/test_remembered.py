"""Gradients that are found again: the same as the first time, never stale, and asked for anew where they may differ."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import nn, remembered


@pytest.fixture
def backwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for each time that rules are asked."""
    calls: list[int] = []
    original = remembered.backward

    def counted(*args: Any) -> Any:
        calls.append(1)
        return original(*args)

    monkeypatch.setattr(remembered, "backward", counted)
    monkeypatch.setattr(remembered, "_gradients", type(remembered._gradients)(512))
    return calls


def scanned(np: Any, scan: Any) -> Callable[..., Any]:
    def f(x: Any, y: Any) -> Any:
        carry, ys = scan(lambda c, v: (np.sin(c) * v, c), x[0], y)
        return carry + np.sum(ys * ys)

    return f


def branched(np: Any, cond: Any) -> Callable[..., Any]:
    return lambda x, y: np.sum(cond(x[0] > 0, lambda a: np.exp(a) * a, lambda a: np.tanh(a) ** 2, x)) + np.sum(y)


def ordered(np: Any) -> Callable[..., Any]:
    return lambda x, y: np.sum(np.sort(x) * np.cumsum(y)) + np.max(x * y)


def simple(np: Any) -> Callable[..., Any]:
    return lambda x, y: np.sum(np.sin(x) * y) / (1.5 + np.sum(y * y))


PROGRAMS = {
    "elementwise": (simple(tnp), simple(jnp)),
    "several outputs": (ordered(tnp), ordered(jnp)),
    "scan": (scanned(tnp, tg.scan), scanned(jnp, jax.lax.scan)),
    "cond": (branched(tnp, tg.cond), branched(jnp, jax.lax.cond)),
    "passed on": (lambda x, y: tnp.sum(x * y), lambda x, y: jnp.sum(x * y)),
    "not used": (lambda x, y: tnp.sum(tnp.cos(y)), lambda x, y: jnp.sum(jnp.cos(y))),
    "constant": (lambda x, y: tnp.sum(x), lambda x, y: jnp.sum(x)),
    "jit inside": (
        lambda x, y: tg.jit(lambda a: tnp.sum(tnp.sin(a) * a))(x) + y[0],
        lambda x, y: jnp.sum(jnp.sin(x) * x) + y[0],
    ),
    "remat": (
        lambda x, y: tnp.sum(tg.checkpoint(lambda a: tnp.sin(tnp.cos(a)))(x * y)),
        lambda x, y: jnp.sum(jnp.sin(jnp.cos(x * y))),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_same_each_time_and_of_the_values_of_the_time(name: str, backwards: list[int]) -> None:
    ours, theirs = PROGRAMS[name]
    rng = np.random.default_rng(0)
    for sign in (1, -1, 1, 1):
        x, y = (sign * rng.uniform(0.5, 1.5, 4).astype(np.float32) for _ in range(2))
        value, grads = tg.value_and_grad(ours, argnums=(0, 1))(x, y)
        expected, wanted = jax.value_and_grad(theirs, argnums=(0, 1))(x, y)
        np.testing.assert_allclose(value, expected, rtol=2e-6)
        for g, w in zip(grads, wanted, strict=True):
            np.testing.assert_allclose(g, w, rtol=2e-5, atol=1e-6)
            assert g.dtype == w.dtype and g.weak_type == w.weak_type
    assert len(backwards) == 1


@pytest.mark.parametrize("name", PROGRAMS)
def test_second_derivatives(name: str) -> None:
    ours, theirs = PROGRAMS[name]
    rng = np.random.default_rng(1)
    for _ in range(2):
        x, y, v = (rng.uniform(0.5, 1.5, 4).astype(np.float32) for _ in range(3))
        found = tg.grad(lambda x: tnp.sum(tg.grad(ours)(x, y) * v))(x)  # noqa: B023
        wanted = jax.grad(lambda x: jnp.sum(jax.grad(theirs)(x, y) * v))(x)  # noqa: B023
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def test_a_gradient_that_is_zero_whatever_the_rules_compute() -> None:
    x = np.arange(48, dtype=np.float32).reshape(1, 4, 4, 3)
    for _ in range(2):
        slope = tg.grad(lambda x: tnp.sum(nn.max_pool(x, 4)))
        np.testing.assert_array_equal(tg.grad(lambda x: tnp.sum(slope(x) * 2.0))(x), np.zeros_like(x))  # noqa: B023


def test_numbers_and_arrays_closed_over_are_those_of_the_call(backwards: list[int]) -> None:
    for scale, array in ((2.0, np.ones(3)), (3.0, np.arange(3.0)), (-0.5, np.full(3, 7.0))):
        found = tg.grad(lambda x: tnp.sum(x * x * array) * scale)(np.ones(3))  # noqa: B023
        np.testing.assert_allclose(found, 2 * array * scale, rtol=1e-6)
    assert len(backwards) == 1


def test_rules_of_the_users_are_asked_each_time(backwards: list[int]) -> None:
    scale = [1.0]
    op = tg.Op("scaled", lambda x: x, vjp=(lambda ct, out, x: ct * scale[0],))

    @tg.custom_vjp
    def own(x: Any) -> Any:
        return x

    own.defvjp(lambda x: (x, None), lambda _, ct: (ct * scale[0],))
    for f in (op, own, lambda x: tg.jit(lambda a: a)(own(x)) * 1.0):
        backwards.clear()
        for scale[0] in (2.0, 3.0, 4.0):
            assert float(tg.grad(f)(1.0)) == scale[0]
        assert len(backwards) == 3


def test_a_value_asked_for_in_the_middle(backwards: list[int]) -> None:
    seen = []

    def f(x: Any) -> Any:
        y = tnp.sin(x)
        seen.append(float(y))
        return tnp.cos(y) if seen[-1] > 0 else y * y

    for x in (0.5, -0.5, 0.7):
        y = np.sin(x)
        expected = -np.sin(y) * np.cos(x) if y > 0 else 2 * y * np.cos(x)
        np.testing.assert_allclose(tg.grad(f)(x), expected, rtol=1e-5)
        np.testing.assert_allclose(seen[-1], y, rtol=1e-6)


def test_a_value_asked_for_after_the_gradient() -> None:
    def step(x: Any) -> Any:
        g = tg.grad(lambda x: tnp.sum(tnp.sin(x)))(x)
        return float(g[0]), g * 2.0

    @tg.grad
    def outer(x: Any) -> Any:
        first, twice = step(tg.stop_gradient(x))
        return tnp.sum(x * twice) * first

    for x in (np.ones(3), np.full(3, 2.0)):
        np.testing.assert_allclose(outer(x), 2 * np.cos(x) * np.cos(x[0]), rtol=1e-5)


def test_modes_are_told_apart() -> None:
    def f(x: Any) -> Any:
        return tnp.sum(tnp.where(x > 0, tnp.sqrt(x), 0.0))

    x = np.array([0.0, 4.0], np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(tg.grad(f)(x), [0.0, 0.25])
        with tg.nan_safe(False):
            assert np.isnan(tg.grad(f)(x)[0])
    with jax.enable_x64(True):
        assert tg.grad(f)(x.astype(np.float64)).dtype == np.float64
    assert tg.grad(f)(x).dtype == np.float32


def test_in_threads() -> None:
    wrong: list[Any] = []

    def work(i: int) -> None:
        for k in range(20):
            x = np.full(3, i + 0.1 * k)
            found = tg.grad(lambda x: tnp.sum(tnp.sin(x) * x))(x)
            if not np.allclose(found, np.cos(x) * x + np.sin(x), rtol=1e-5):
                wrong.append((i, k, found))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nothing_of_the_call_is_kept() -> None:
    x = jnp.arange(1000.0)
    held = weakref.ref(x)
    tg.grad(lambda x: tnp.sum(tnp.sin(x) * x))(x).block_until_ready()
    del x
    gc.collect()
    assert held() is None


def test_an_error_in_a_rule_names_the_line_each_time() -> None:
    op = tg.Op("wrong", lambda x: x * 2, vjp=(lambda ct, out, x: (ct, ct),))
    for _ in range(2):
        with pytest.raises(TypeError, match=r"test_remembered\.py"):
            tg.grad(lambda x: op(x))(1.0)
