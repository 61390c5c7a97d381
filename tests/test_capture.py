"""Taps: the values and gradients that `capture` finds."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2)
W = np.linspace(0.1, 0.8, 8, dtype=np.float32).reshape(2, 4)


def model(w: Any, x: Any) -> Any:
    h = tg.tap("hidden", tnp.tanh(x @ w))
    for _ in range(2):
        h = tg.tap("loop", h * h)
    return tnp.sum(h)


@pytest.mark.parametrize("place", ["undecorated", "inside jit", "around jit", "around both"])
def test_values_and_gradients(place: str) -> None:
    f = tg.value_and_grad(model)
    captured = {
        "undecorated": lambda: tg.capture(f),
        "inside jit": lambda: tg.jit(tg.capture(f)),
        "around jit": lambda: tg.capture(tg.jit(f)),
        "around both": lambda: tg.jit(tg.capture(tg.jit(f))),
    }[place]()
    (value, gradient), found = captured(W, X)
    np.testing.assert_allclose(value, f(W, X)[0], rtol=1e-6)
    np.testing.assert_allclose(gradient, f(W, X)[1], rtol=1e-6)
    h = np.tanh(X @ W)
    np.testing.assert_allclose(found.values["hidden"], h, rtol=1e-6)
    for actual, expected in zip(found.values["loop"], (h**2, h**4), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
    np.testing.assert_allclose(found.gradients["hidden"], 4 * h**3, rtol=1e-5)
    for actual, expected in zip(found.gradients["loop"], (2 * h**2, np.ones_like(h)), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_a_tap_changes_nothing() -> None:
    assert "tap" not in tg.jit(tg.grad(model)).lower(W, X).as_text()
    tree = tg.tap("t", {"a": X, "b": (W, 1.0)})
    assert jax.tree.structure(tree) == jax.tree.structure({"a": X, "b": (W, 1.0)})
    _, found = tg.capture(lambda x: tg.tap("t", {"a": x, "b": 2 * x})["b"])(X)
    assert sorted(found.values) == ["t['a']", "t['b']"] and found.gradients == {}


def test_inside_loops_and_maps() -> None:
    def f(x: Any) -> Any:
        total, _ = tg.scan(lambda c, row: (c + (tg.tap("row", row * 2.0) ** 2).sum(), None), 0.0, x)
        rows = tg.vmap(lambda row: tg.tap("sum", row.sum()) ** 2)(x)
        block = tg.checkpoint(lambda x: tg.tap("block", x * x) ** 2)(x)
        third = tg.map(lambda row: tg.tap("mapped", row + 1.0) ** 2, x)
        devices = tg.pmap(lambda row: tg.tap("device", row * 3.0) ** 2)(x)
        powers = tg.fori_loop(0, 2, lambda i, c: tg.tap("power", c * 1.5), x)
        return total + rows.sum() + block.sum() + third.sum() + devices.sum() + powers.sum()

    expected = {"row": 2 * X, "sum": X.sum(1), "block": X * X, "mapped": X + 1, "device": 3 * X}
    for g in (tg.capture(f), tg.capture(tg.grad(f)), tg.jit(tg.capture(tg.grad(f)))):
        _, found = g(X)
        for name, value in expected.items():
            np.testing.assert_allclose(found.values[name], value, rtol=1e-6, atol=1e-6)
            if found.gradients:
                np.testing.assert_allclose(found.gradients[name], 2 * value, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found.values["power"], [1.5 * X, 2.25 * X], rtol=1e-6)
    np.testing.assert_allclose(found.gradients["power"], np.stack([np.full_like(X, 1.5), np.ones_like(X)]), rtol=1e-6)


def test_gradients_of_each_example_and_of_nested_bodies() -> None:
    _, found = tg.capture(tg.vmap(tg.grad(lambda x: tg.tap("square", x**2) ** 2)))(X[:, 0])
    np.testing.assert_allclose(found.gradients["square"], 2 * X[:, 0] ** 2, rtol=1e-6)

    @tg.checkpoint
    def nested(x: Any) -> Any:
        rows = tg.vmap(lambda row: tg.tap("inner", row * row).sum())
        return tg.scan(lambda c, x: (c + (rows(x) ** 2).sum(), None), 0.0, x)[0]

    x = np.stack([X, X + 1, X - 1])
    _, found = tg.capture(tg.jit(tg.grad(nested)))(x)
    np.testing.assert_allclose(found.values["inner"], x * x, rtol=1e-6)
    expected = np.broadcast_to(2 * np.sum(x * x, -1, keepdims=True), x.shape)
    np.testing.assert_allclose(found.gradients["inner"], expected, rtol=1e-5)


def test_capturing_and_not_capturing_do_not_disturb_each_other() -> None:
    block = tg.checkpoint(tg.jit(lambda x: tg.tap("h", x * x) ** 2))
    f = tg.grad(lambda x: block(x).sum())
    for _ in range(2):
        plain = f(X)
        captured, found = tg.capture(f)(X)
        np.testing.assert_array_equal(plain, captured)
        np.testing.assert_allclose(found.gradients["h"], 2 * X * X, rtol=1e-6)


def test_messages() -> None:
    with pytest.raises(NotImplementedError, match=r"\['inside'\] were tapped inside a cond.*test_capture.py"):
        tg.capture(lambda x: tg.cond(x > 0, lambda x: tg.tap("inside", x), lambda x: x, x))(1.0)
    with pytest.raises(TypeError, match=r"name is f32\[3,2\].*Write tap\('name', x\)"):
        tg.tap(X, "name")  # type: ignore[arg-type]


def test_a_failing_function_leaves_no_capture_open() -> None:
    def fails(x: Any) -> Any:
        tg.tap("before", x)
        raise RuntimeError("the user's")

    with pytest.raises(RuntimeError, match="the user's"):
        tg.capture(fails)(1.0)
    assert tg.capture(lambda x: x * 2.0)(1.0)[1].values == {}
