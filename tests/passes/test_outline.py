"""Outlining: what repeats becomes one body, and nothing else changes."""

from __future__ import annotations

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
from tracegrad.lower import evaluate
from tracegrad.passes import optimize, outline
from tracegrad.tape import Tape
from tracegrad.verify import check

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 8)).astype(np.float32)
SERIES = RNG.normal(size=(12, 4, 8)).astype(np.float32)
WEIGHTS = [(RNG.normal(size=(8, 8)).astype(np.float32), RNG.normal(size=8).astype(np.float32)) for _ in range(6)]


def layer(np: Any, w: Any, b: Any, x: Any) -> Any:
    y = np.tanh(x @ w + b)
    y = y / np.sqrt(1.0 + np.mean(y * y, axis=-1, keepdims=True))
    return x + y * np.exp(-np.abs(y)) + np.where(y > 0, np.sin(y), 0.1 * y)


def network(np: Any) -> Callable[..., Any]:
    def loss(weights: Any, x: Any) -> Any:
        for w, b in weights:
            x = layer(np, w, b, x)
        return np.sum(x * x)

    return loss


def recurrent(np: Any) -> Callable[..., Any]:
    def loss(weights: Any, series: Any) -> Any:
        (w, b), (u, _) = weights[:2]
        x, total = series[0], 0.0
        for t in range(1, len(series)):
            x = layer(np, w, b, x + series[t] @ u)
            total = total + np.sum(x)
        return total

    return loss


def chain(np: Any) -> Callable[..., Any]:
    def loss(weights: Any, x: Any) -> Any:
        for _ in range(60):
            x = np.sin(x) * 1.5 + weights[0][1]
        return np.sum(x)

    return loss


def sizes(tape: Tape) -> list[int]:
    return [len(node.params["body"]) for node in tape.nodes if node.op.name == "block"]


PROGRAMS = {"network": (network, X), "recurrent": (recurrent, SERIES), "chain": (chain, X)}


@pytest.mark.parametrize("name", PROGRAMS)
def test_repetitions_become_bodies_and_the_gradient_stays(name: str) -> None:
    program, x = PROGRAMS[name]
    tape = optimize(tg.trace(tg.value_and_grad(program(tnp)))(WEIGHTS, x))
    outlined = outline(tape)
    check(outlined)
    calls = sizes(outlined)
    assert len(calls) >= 4
    # Each body is lowered once, however often it is called.
    bodies = {node.params["body"] for node in outlined.nodes if node.op.name == "block"}
    assert len(outlined) + sum(map(len, bodies)) < 0.6 * len(tape)
    leaves = [*jax.tree.leaves(WEIGHTS), x]
    expected = evaluate(tape.nodes, tape.outputs, dict(zip(tape.inputs, leaves, strict=True)))
    actual = evaluate(outlined.nodes, outlined.outputs, dict(zip(outlined.inputs, leaves, strict=True)))
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)
    value, reference = jax.jit(jax.value_and_grad(program(jnp)))(WEIGHTS, x)
    for ours in (tg.value_and_grad(program(tnp)), tg.jit(tg.value_and_grad(program(tnp)))):
        got, grads = ours(WEIGHTS, x)
        np.testing.assert_allclose(got, value, rtol=1e-5)
        for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(reference), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-3)


def test_the_compiled_program_has_a_function_a_body() -> None:
    text = tg.jit(tg.value_and_grad(network(tnp))).lower(WEIGHTS, X).as_text()
    assert text.count("call @block") >= 2 * (len(WEIGHTS) - 1)
    # The last repetition may be a function of its own, when what it computes last is not needed.
    assert text.count("func.func private @block") <= 4


def test_layers_of_other_shapes_stay_as_they_are() -> None:
    wide = [(RNG.normal(size=(8 + i, 9 + i)).astype(np.float32)) for i in range(6)]

    def loss(weights: Any, x: Any) -> Any:
        for w in weights:
            x = tnp.tanh(x @ w) * tnp.exp(-tnp.sum(x * x) / 100.0)
        return tnp.sum(x)

    tape = optimize(tg.trace(tg.grad(loss))(wide, X))
    assert outline(tape) is tape


def test_a_block_that_reads_otherwise_stays_in_line() -> None:
    """The third layer multiplies by its own input where the others have a weight of the same type."""

    def loss(weights: Any, x: Any) -> Any:
        for i, (w, b) in enumerate(weights):
            x = tnp.tanh(tnp.sin(tnp.cos(x @ w)) + b) * tnp.exp(x) * (x if i == 2 else X)
            x = tnp.sin(tnp.cos(tnp.sin(tnp.cos(tnp.tanh(tnp.sin(x))))))
        return tnp.sum(x)

    tape = optimize(tg.trace(loss)(WEIGHTS, X))
    outlined = outline(tape)
    check(outlined)
    assert 2 <= len(sizes(outlined)) < len(WEIGHTS)
    leaves = [*jax.tree.leaves(WEIGHTS), X]
    for t in (tape, outlined):
        np.testing.assert_allclose(
            evaluate(t.nodes, t.outputs, dict(zip(t.inputs, leaves, strict=True)))[0], loss(WEIGHTS, X), rtol=1e-5
        )


UNARY = (tnp.sin, tnp.cos, tnp.tanh, lambda x: x * 0.5, lambda x: x * tnp.exp(-x * x))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=6), st.integers(1, 9), st.integers(0, 3))
def test_random_loops(steps: list[tuple[int, int]], count: int, start: int) -> None:
    def f(x: Any, y: Any) -> Any:
        values = [x, y, *[tnp.sin(y) for _ in range(start)]]
        for _ in range(count):
            for op, back in steps:
                values.append(UNARY[op](values[-1]) + 0.5 * tnp.tanh(values[-1 - back % len(values)]))
        return values[-1], values[len(values) // 2]

    tape = optimize(tg.trace(f)(X, 0.5 * X))
    outlined = outline(tape)
    check(outlined)
    env = dict(zip(tape.inputs, (X, 0.5 * X), strict=True))
    expected = evaluate(tape.nodes, tape.outputs, dict(env))
    for a, b in zip(evaluate(outlined.nodes, outlined.outputs, env), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
