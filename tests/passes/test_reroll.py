"""Re-rolling: loops of Python's and layers become loops of the program and of its gradient; nothing else changes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.lower import lower
from tracegrad.passes import optimize, reroll
from tracegrad.tape import Tape
from tracegrad.verify import check

RNG = np.random.default_rng(0)
W, U = (RNG.normal(0, 0.5, (4, 4)).astype(np.float32) for _ in range(2))
B = RNG.normal(size=4).astype(np.float32)
X = RNG.normal(size=(3, 4)).astype(np.float32)
XS = RNG.normal(size=(12, 3, 4)).astype(np.float32)
LAYERS = [
    {"w": RNG.normal(0, 0.5, (4, 4)).astype(np.float32), "b": RNG.normal(size=4).astype(np.float32)} for _ in range(8)
]


def rnn(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    h = np.zeros((3, 4))
    for t in range(12):
        h = np.tanh(xs[t] @ w + h @ U + B)
    return np.sum(h * h)


def rnn_from_a_state(np: Any, rng: Any, h: Any, xs: Any) -> Any:
    for t in range(12):
        h = np.tanh(xs[t] @ W + h @ U + B)
    return np.sum(h * h)


def lstm(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    h, c = np.zeros((3, 2)), np.zeros((3, 2))
    for t in range(12):
        i, f = np.split(xs[t] @ w, 2, axis=-1)
        c = np.tanh(f) * c + np.tanh(i) * np.tanh(h @ U[:2, :2])
        h = np.tanh(c)
    return np.sum(h)


def outputs_stacked(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    h, out = np.zeros((3, 4)), []
    for t in range(12):
        h = np.tanh(xs[t] @ w + h @ U)
        out.append(h)
    return np.mean(np.stack(out) ** 2 * xs)


def outputs_joined_by_batch(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    h, out = np.zeros((3, 4)), []
    for t in range(12):
        h = np.tanh(xs[t] @ w + h @ U)
        out.append(h)
    return np.sum(np.concatenate(out, axis=1) ** 2)


def losses_summed(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    h, total = np.zeros((3, 4)), 0.0
    for t in range(12):
        h = np.tanh(xs[t] @ w + h @ U)
        total = total + np.sum(h * h)
    return total / 12


def time_second(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    xs, h = np.moveaxis(xs, 0, 1) * 1.0, np.zeros((3, 4))
    for t in range(12):
        h = np.tanh(xs[:, t] @ w + h @ U)
    return np.sum(h * h)


def windows(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    h = np.zeros((3, 4))
    for t in range(10):
        h = np.tanh(np.mean(xs[t : t + 3], axis=0) @ w + h @ U)
    return np.sum(h * h)


def read_twice(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    h = np.zeros((3, 4))
    for t in range(12):
        h = np.tanh(xs[t] @ w + h @ U) * xs[t]
    return np.sum(h * h) + np.sum(xs**2)


def layers(np: Any, rng: Any, layers: Any, x: Any) -> Any:
    for layer in layers:
        x = x + np.tanh(x @ layer["w"] + layer["b"]) / np.sqrt(1.0 + np.mean(x * x))
    return np.sum(x * x)


def weights_in_one_array(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    w, x = np.reshape(np.concatenate([w * (0.5 + i) for i in range(3)] * 3), (9, 4, 4)), xs[0]
    for i in range(9):
        x = np.tanh(x @ w[i]) + x
    return np.sum(x * x)


def residual_of_the_start(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    x = start = xs[0]
    for _ in range(12):
        x = np.tanh(x @ w) + start
    return np.sum(x * x)


def positions(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    h = np.zeros((3, 4))
    for t in range(12):
        h = np.tanh(xs[t] @ w + np.sin(0.1 * t + 0.05 + np.arange(4.0)) + h @ U)
    return np.sum(h * h)


def times_the_turn(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    h = xs[0]
    for t in range(12):
        h = np.tanh(h @ w * (t + 2)) + h
    return np.sum(h)


def masked(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    lengths, h = np.array([5, 12, 9]), np.zeros((3, 4))
    for t in range(12):
        h = np.where((lengths > t)[:, None], np.tanh(xs[t] @ w + h @ U), h)
    return np.sum(h * h)


def two_turns_back(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    before, h = np.zeros((3, 4)), np.ones((3, 4))
    for t in range(12):
        before, h = h, np.tanh(xs[t] @ w + h @ U) + 0.5 * before
    return np.sum(h * h)


def both_directions(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    h = g = np.zeros((3, 4))
    for t in range(12):
        h = np.tanh(xs[t] @ w + h @ U)
    for t in reversed(range(12)):
        g = np.tanh(xs[t] @ U + g @ w)
    return np.sum(h * g)


def two_deep(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    h, g, out = np.zeros((3, 4)), np.zeros((3, 4)), []
    for t in range(12):
        h = np.tanh(xs[t] @ w + h @ U)
        out.append(h)
    for h in out:
        g = np.tanh(h @ U + g @ w)
    return np.sum(g * g)


def every_fourth_differs(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    h = xs[0]
    for t in range(24):
        h = np.tanh(h @ w + xs[1]) if t % 4 else np.sin(h @ U)
    return np.sum(h * h)


def last_differs(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    h = np.zeros((3, 4))
    for t in range(12):
        h = xs[t] @ w + h @ U
        if t < 11:
            h = np.tanh(h)
    return np.sum(h * h)


def loop_in_a_loop(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    h = np.zeros((3, 4))
    for t in range(6):
        for _ in range(8):
            h = np.tanh(h @ U) + 0.1 * h
        h = np.sin(xs[t] @ w + h)
    return np.sum(h * h)


def runge_kutta(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    def slope(x: Any) -> Any:
        return np.tanh(x @ w) - 0.1 * x

    x = xs[0]
    for _ in range(10):
        a = slope(x)
        b = slope(x + 0.05 * a)
        c = slope(x + 0.05 * b)
        x = x + (a + 2 * b + 2 * c + slope(x + 0.1 * c)) / 60
    return np.sum(x * x)


def keys_split(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    key, h = rng.key(3), np.zeros((3, 4))
    for t in range(12):
        key, sub = rng.split(key)
        h = np.tanh(xs[t] @ w + h @ U) * np.where(rng.bernoulli(sub, 0.8, (3, 4)), 1.25, 0.0)
    return np.sum(h * h)


def keys_folded_in(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    key, h = rng.key(3), np.zeros((3, 4))
    for t in range(12):
        noise = rng.normal(rng.fold_in(key, t), (3, 4))
        h = np.tanh(xs[t] @ w + h @ U + 0.1 * noise)
    return np.sum(h * h)


def gradient_descent(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    """The gradient written out: 8 steps of fitting `xs[0] @ w` to `xs[1]`."""
    x, y = xs[0], xs[1]
    for _ in range(8):
        error = np.tanh(x @ w) - y
        w = w - 0.1 * x.T @ (error * (1 - np.tanh(x @ w) ** 2))
    return np.sum((np.tanh(x @ w) - y) ** 2)


def kalman(np: Any, rng: Any, w: Any, xs: Any) -> Any:
    mean, cov, total = np.zeros(4), np.eye(4), 0.0
    for t in range(12):
        mean, cov = w @ mean, w @ cov @ w.T + 0.1 * np.eye(4)
        gain = cov / (np.trace(cov) + 1.0)
        error = xs[t, 0] - mean
        mean, cov = mean + gain @ error, cov - gain @ cov
        total = total + error @ error
    return total


WX, LX = (W, XS), (LAYERS, X)
PROGRAMS: dict[str, tuple[Callable[..., Any], Any, int]] = {
    f.__name__: (f, args, loops)
    for f, args, loops in [
        (rnn, WX, 2), (rnn_from_a_state, (X, XS), 2), (lstm, WX, 2), (outputs_stacked, WX, 2),
        (outputs_joined_by_batch, WX, 2), (losses_summed, WX, 2), (time_second, WX, 2), (windows, WX, 1),
        (read_twice, WX, 2), (layers, LX, 2), (weights_in_one_array, WX, 2), (residual_of_the_start, WX, 1),
        (positions, WX, 2), (times_the_turn, WX, 2), (masked, WX, 2), (two_turns_back, WX, 2),
        (both_directions, WX, 4), (two_deep, WX, 4), (every_fourth_differs, WX, 2), (last_differs, WX, 2),
        (loop_in_a_loop, WX, 2), (runge_kutta, WX, 2), (keys_split, WX, 2), (keys_folded_in, WX, 2),
        (gradient_descent, WX, 2), (kalman, WX, 2),
    ]
}  # fmt: skip
"""Each with its arguments, and how many loops its value and gradient become at least."""


def ours(name: str) -> Callable[..., Any]:
    return functools.partial(PROGRAMS[name][0], tnp, tg.random)


def theirs(name: str) -> Callable[..., Any]:
    return functools.partial(PROGRAMS[name][0], jnp, jax.random)


def loops(tape: Tape) -> list[Any]:
    return [node.params for node in tape.nodes if node.op.name == "loop"]


def rolled(f: Callable[..., Any], *args: Any) -> tuple[Tape, list[Any]]:
    """The tape of `f`, rolled, and what it gives."""
    tape = reroll(optimize(tg.trace(f)(*args)), rule=lambda *_: True)
    check(tape)
    return tape, jax.jit(lower(tape))(*jax.tree.leaves(args))


def assert_close(actual: Any, expected: Any, tolerance: float = 2e-5) -> None:
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * (1 + np.abs(b).max()))


@pytest.mark.parametrize("name", PROGRAMS)
def test_value_and_gradient(name: str) -> None:
    _, args, count = PROGRAMS[name]
    tape, got = rolled(tg.value_and_grad(ours(name), argnums=(0, 1)), *args)
    assert len(loops(tape)) >= count, tape
    assert_close(got, jax.jit(jax.value_and_grad(theirs(name), argnums=(0, 1)))(*args))


@pytest.mark.parametrize("name", PROGRAMS)
def test_second_derivative(name: str) -> None:
    _, args, count = PROGRAMS[name]
    f, reference = ours(name), theirs(name)
    tape, got = rolled(lambda p, x: tg.hvp(lambda p: f(p, x), (p,), (p,)), *args)
    assert len(loops(tape)) >= count, tape
    expected = jax.jit(lambda p, x: jax.jvp(jax.grad(lambda p: reference(p, x)), (p,), (p,))[1])(*args)
    assert_close(got, expected, 1e-4)
