"""Re-rolling: loops of Python's and layers become loops of the program and of its gradient; nothing else changes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


# -- where else


def test_the_rolled_program_differs_from_the_unrolled_one_by_rounding_alone() -> None:
    f = tg.value_and_grad(ours("rnn"), argnums=(0, 1))
    for a, b in zip(jax.tree.leaves(tg.jit(f)(W, XS)), jax.tree.leaves(tg.jit(f, roll=False)(W, XS)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_under_vmap() -> None:
    def f(np: Any, w: Any, xs: Any) -> Any:
        return rnn(np, None, w, xs)

    batch = RNG.normal(size=(5, *XS.shape)).astype(np.float32)
    mapped = tg.vmap(tg.grad(functools.partial(f, tnp)), in_axes=(None, 0))
    text = tg.jit(mapped).lower(W, batch).as_text()
    assert text.count("stablehlo.while") >= 2
    expected = jax.jit(jax.vmap(jax.grad(functools.partial(f, jnp)), in_axes=(None, 0)))(W, batch)
    assert_close(tg.jit(mapped)(W, batch), expected)
    assert_close(mapped(W, batch), expected)


def test_under_pmap() -> None:
    """What varies from device to device is carried round, and the cotangent of what does not is summed."""
    batch = RNG.normal(size=(4, *XS.shape)).astype(np.float32)

    def loss(np: Any, pmean: Any, w: Any, xs: Any) -> Any:
        return pmean(rnn(np, None, w, xs), "batch")

    step = tg.pmap(tg.value_and_grad(functools.partial(loss, tnp, tg.lax.pmean)), "batch", in_axes=(None, 0))
    value, gradient = step(W, batch)

    def mean(w: Any) -> Any:
        return jnp.mean(jax.vmap(lambda xs: rnn(jnp, None, w, xs))(batch))

    expected_value, expected = jax.jit(jax.value_and_grad(mean))(W)
    np.testing.assert_allclose(value, np.full(4, expected_value), rtol=1e-5)
    for row in gradient:
        assert_close(row, expected)


def test_in_the_body_of_a_scan_a_branch_and_a_call() -> None:
    call = tg.jit(functools.partial(rnn, tnp, None))

    def f(w: Any, xs: Any) -> Any:
        total, _ = tg.scan(lambda c, x: (c + rnn(tnp, None, w, x), None), 0.0, tnp.stack([xs, 2.0 * xs]))
        return total + tg.cond(w[0, 0] > 9.0, lambda: 0.0, lambda: call(w, xs)) + call(w, -xs)

    def reference(w: Any, xs: Any) -> Any:
        return sum(rnn(jnp, None, w, k * xs) for k in (1.0, 2.0, 1.0, -1.0))

    assert_close(tg.jit(tg.grad(f))(W, XS), jax.jit(jax.grad(reference))(W, XS))
    assert tg.jit(tg.grad(f)).lower(W, XS).as_text().count("stablehlo.while") >= 4


def test_in_float64_and_with_integers_and_keys_in_the_carry() -> None:
    with jax.enable_x64(True):
        args = W.astype(np.float64), XS.astype(np.float64)
        for name in ("lstm", "keys_split", "positions"):
            _, got = rolled(tg.value_and_grad(ours(name)), *args)
            assert_close(got, jax.jit(jax.value_and_grad(theirs(name)))(*args), 1e-12)


def test_half_precision_stays_so() -> None:
    """Numbers that differ from turn to turn give way to the dtype of what they are added to."""

    def f(np: Any, w: Any, x: Any) -> Any:
        for t in range(12):
            x = np.tanh(x @ w + (0.01 * t + 0.001)) * (1.5 + t)
        return np.sum(x)

    args = jnp.asarray(W, jnp.bfloat16), jnp.asarray(X, jnp.bfloat16)
    tape, got = rolled(functools.partial(f, tnp), *args)
    assert loops(tape)
    assert got[0].dtype == jnp.bfloat16
    assert_close(np.float32(got[0]), np.float32(jax.jit(functools.partial(f, jnp))(*args)), 0.02)


def test_an_undecorated_function_is_rolled_too() -> None:
    def f(w: Any, xs: Any) -> Any:
        return times_the_turn(tnp, None, w, xs)

    got = [tg.grad(f)(W, XS) for _ in range(3)]
    assert tg.explain(f).count("rolled: ") == 2
    for g in got:
        assert_close(g, jax.jit(jax.grad(functools.partial(times_the_turn, jnp, None)))(W, XS))


def test_a_very_long_undecorated_loop_is_compiled_whole() -> None:
    def f(x: Any, w: Any) -> Any:
        for _ in range(1_600):
            x = tnp.sin(x) * w
        return tnp.sum(x)

    got = [tg.grad(f)(X, W[:3]) for _ in range(2)]
    assert "compiled: 1" in tg.explain(f)
    assert "rolled" in tg.explain(f)
    np.testing.assert_allclose(got[0], got[1], rtol=1e-5)
    h, g = X.astype(np.float64), np.ones((3, 4))
    for _ in range(1_600):
        h, g = np.sin(h) * W[:3], g * np.cos(h) * W[:3]
    np.testing.assert_allclose(got[1], g, rtol=1e-3, atol=1e-30)


# -- the switch, and what is said


def test_the_switch_leaves_it_out() -> None:
    f = tg.grad(ours("rnn"))
    assert "stablehlo.while" in tg.jit(f).lower(W, XS).as_text()
    assert "stablehlo.while" not in tg.jit(f, roll=False).lower(W, XS).as_text()
    assert "stablehlo.while" not in tg.jit(roll=False)(f).lower(W, XS).as_text()


def test_explain_says_what_was_rolled() -> None:
    @tg.jit
    def step(w: Any, xs: Any) -> Any:
        return tg.grad(lambda w: rnn(tnp, None, w, xs))(w)

    step(W, XS)
    lines = [line for line in tg.explain(step).splitlines() if "rolled" in line]
    assert len(lines) == 2
    assert "rolled: 11 turns of " in lines[0]
    assert "∇" not in lines[0]
    assert "∇" in lines[1]
    assert all("h = np.tanh(xs[t] @ w + h @ U + B)" in line for line in lines)


def test_the_tape_that_is_shown_is_the_users() -> None:
    f = tg.grad(functools.partial(rnn, tnp, None))
    tape = tg.trace(f, values=True)(W, XS)
    assert not loops(tape)
    assert sum(node.op.name == "tanh" for node in tape.nodes) == 12
    hidden = [v for v in tape.values().values() if np.shape(v) == (3, 4)]
    assert len(hidden) > 12


def test_what_is_not_finite_is_named_by_its_line() -> None:
    @tg.jit
    def step(w: Any, xs: Any) -> Any:
        h = tnp.zeros((3, 4))
        for t in range(12):
            h = tnp.tanh(xs[t] @ w + tnp.log(h))
        return tnp.sum(h)

    with pytest.raises(FloatingPointError, match=r"tnp\.log\(h\)"), tg.debug_nans():
        step(W, XS)


def test_memory_names_the_lines_of_a_loop() -> None:
    rows = tg.memory(tg.grad(ours("lstm")))(W, XS).rows
    assert any("test_reroll.py" in row.line for row in rows)


# -- the rule


def wide(layers: int, batch: int) -> tuple[Callable[..., Any], Any]:
    weights = [RNG.normal(0, 0.2, (16, 16)).astype(np.float32) for _ in range(layers)]

    def f(weights: Any, x: Any) -> Any:
        for w in weights:
            y = tnp.tanh(x @ w)
            x = x + y / tnp.sqrt(1.0 + tnp.mean(y * y, axis=-1, keepdims=True))
        return tnp.sum(x * x)

    return f, (weights, RNG.normal(size=(batch, 16)).astype(np.float32))


@pytest.mark.parametrize(
    ("turns", "batch", "is_rolled"),
    [(12, 1024, True), (12, 4, False), (6, 1024, False)],
    ids=["much work a layer", "weights larger than what they make", "few layers"],
)
def test_layers_are_rolled_if_their_weights_are_little_of_what_they_move(
    turns: int, batch: int, is_rolled: bool
) -> None:
    f, args = wide(turns, batch)
    tape = reroll(optimize(tg.trace(tg.grad(f))(*args)))
    assert len(loops(tape)) == (2 if is_rolled else 0)


def test_arithmetic_that_is_one_function_stays_unrolled_unless_it_is_long() -> None:
    def f(count: int, x: Any) -> Any:
        for _ in range(count):
            x = tnp.sin(x) * 0.9 + 0.1
        return tnp.sum(x)

    for count, is_rolled in ((100, False), (1_200, True)):
        tape = reroll(optimize(tg.trace(functools.partial(f, count))(X)))
        assert bool(loops(tape)) == is_rolled


def test_the_length_of_the_program_does_not_grow_with_that_of_the_loop() -> None:
    def size(turns: int) -> int:
        xs = np.zeros((turns, 3, 4), np.float32)

        def f(w: Any, xs: Any) -> Any:
            h = tnp.zeros((3, 4))
            for t in range(turns):
                h = tnp.tanh(xs[t] @ w + h @ U)
            return tnp.sum(h * h)

        return len(tg.jit(tg.grad(f)).lower(W, xs).as_text().splitlines())

    assert size(200) == size(20)


UNARY = (tnp.sin, tnp.cos, tnp.tanh, lambda x: x * 0.5, lambda x: x @ W)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=5), st.integers(7, 12))
def test_random_loops(steps: list[tuple[int, int]], count: int) -> None:
    def f(x: Any, y: Any) -> Any:
        values = [x, y]
        for t in range(count):
            for op, back in steps:
                values.append(UNARY[op](values[-1]) + 0.5 * tnp.tanh(values[-1 - back % len(values)]) * (0.1 * t))
        return values[-1], values[len(values) // 2], tnp.stack(values[2:])

    plain = optimize(tg.trace(f)(X, 0.5 * X))
    tape = reroll(plain, rule=lambda *_: True)
    check(tape)
    for a, b in zip(lower(tape)(X, 0.5 * X), lower(plain)(X, 0.5 * X), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
