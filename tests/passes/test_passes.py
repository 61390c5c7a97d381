"""The passes: what each removes, and that none changes a value or a type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import ops
from tracegrad.lower import lower
from tracegrad.passes import common_subexpressions, dead_code, fold, optimize
from tracegrad.tape import Tape
from tracegrad.tracer import literal
from tracegrad.verify import check

X = np.linspace(0.1, 1.1, 6, dtype=np.float32).reshape(2, 3)


def names(tape: Tape) -> list[str]:
    return [node.op.name for node in tape.nodes]


def after(fold_: Callable[[Tape], Tape], f: Callable[..., Any], *args: Any) -> list[str]:
    """The ops that a pass leaves of a function, after a check that the value is the same."""
    tape = tg.trace(f)(*args)
    new = fold_(tape)
    check(new)
    assert [v.aval for v in new.outputs] == [v.aval for v in tape.outputs]
    for a, b in zip(lower(new)(*args), lower(tape)(*args), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    return names(new)


# -- dead code


def test_dead_code() -> None:
    def f(x: Any) -> Any:
        y = tnp.sin(x)
        tnp.exp(y)
        z = tnp.cos(x)
        tnp.sum(tnp.exp(z))
        return y * 2.0

    assert after(dead_code, f, X) == ["sin", "mul"]
    assert after(dead_code, lambda x: x, X) == []
    assert after(dead_code, lambda x: (tnp.exp(x), 3)[1], X) == []


def test_a_node_with_several_outputs_lives_while_one_does() -> None:
    pair = tg.Op("pair", lambda x: (x + 1, x - 1), None, multiple=True)
    assert after(dead_code, lambda x: pair(x)[1], X) == ["pair"]


# -- common subexpressions


def test_common_subexpressions() -> None:
    def f(x: Any) -> Any:
        return tnp.sin(x) * tnp.exp(tnp.sin(x)) + tnp.exp(tnp.sin(x)) * 2.0

    assert after(common_subexpressions, f, X) == ["sin", "exp", "mul", "mul", "add"]
    chain = lambda x: (tnp.sum(x, axis=0), tnp.sum(x, axis=0), tnp.sum(x, axis=1))  # noqa: E731
    assert after(common_subexpressions, chain, X) == ["sum", "sum"]


def test_literals_are_the_same_only_with_value_and_type() -> None:
    def f(x: Any) -> Any:
        return (
            ops.mul(x, literal(2.0)),
            ops.mul(x, literal(2.0)),
            ops.mul(x, literal(2)),
            ops.mul(x, literal(0.0)),
            ops.mul(x, literal(-0.0)),
            ops.mul(x, literal(float("nan"))),
            ops.mul(x, literal(float("nan"))),
        )

    assert after(common_subexpressions, f, X) == ["mul"] * 5


def test_the_gradient_shares_what_the_value_computed() -> None:
    tape = optimize(tg.trace(tg.value_and_grad(lambda x: tnp.sum(tnp.exp(x) * tnp.exp(x))))(X))
    assert names(tape).count("exp") == 1


# -- folding

BROADCAST = "broadcast_in_dim"


@pytest.mark.parametrize(
    "f, left",
    [
        (lambda x: ops.alias(ops.alias(x)), []),
        # A body is differentiated after it was folded.
        (lambda x: tg.stop_gradient(x), ["stop_gradient"]),
        (lambda x: ops.mul(x, literal(1)), []),
        (lambda x: ops.mul(literal(1.0), x), []),
        (lambda x: ops.mul(x, ops.broadcast_in_dim(literal(1.0), shape=(2, 3), dims=())), []),
        (lambda x: ops.div(x, literal(1)), []),
        (lambda x: ops.astype(x, dtype=np.dtype("f")), []),
        (lambda x: ops.reshape(x, shape=(2, 3)), []),
        (lambda x: ops.reshape(ops.reshape(x, shape=(6,)), shape=(2, 3)), []),
        (lambda x: ops.transpose(ops.transpose(x, axes=(1, 0)), axes=(1, 0)), []),
        (lambda x: ops.mul(x, ops.neg(literal(2.0))), ["mul"]),
        # What looks like nothing, and is not.
        (lambda x: ops.mul(x, ops.broadcast_in_dim(literal(1.0), shape=(4, 2, 3), dims=())), [BROADCAST, "mul"]),
        (lambda x: ops.astype(ops.astype(x, dtype=np.dtype("i")), dtype=np.dtype("f")), ["astype", "astype"]),
        (lambda x: ops.transpose(x, axes=(1, 0)), ["transpose"]),
        (lambda x: ops.add(x, literal(0.0)), ["add"]),
        (lambda x: ops.mul(x, literal(0.0)), ["mul"]),
    ],
)  # fmt: skip
def test_fold(f: Any, left: list[str]) -> None:
    assert after(lambda tape: dead_code(fold(tape)), f, X) == left


def test_folding_keeps_dtypes_and_weak_types() -> None:
    integers = np.arange(3, dtype=np.int32)
    assert after(fold, lambda x: ops.mul(x, literal(1.0)), integers) == ["mul"]
    assert after(fold, lambda x: ops.div(x, literal(1)), integers) == ["div"]

    def weak(x: Any) -> Any:
        # A weakly typed array with a strong one of ones: the product is strong, and decides the type of the sum.
        scale = tnp.where(x > 0, 0.5, 1.0)
        return ops.mul(ops.mul(scale, ops.broadcast_in_dim(np.ones((), np.float32), shape=(3,), dims=())), x)

    half = np.ones(3, np.float16)
    tape = tg.trace(weak)(half)
    out = lower(optimize(tape))(half)[0]
    assert (out.dtype, out.shape) == (tape.outputs[0].aval.dtype, (3,))


def test_broadcast_literals_stay_scalars() -> None:
    def f(x: Any) -> Any:
        return ops.mul(x, ops.broadcast_in_dim(literal(2.0), shape=(2, 3), dims=()))

    tape = optimize(tg.trace(f)(X))
    assert names(tape) == ["mul"]
    tape = optimize(tg.trace(tg.grad(lambda x: tnp.sum(tnp.sin(x))))(X))
    assert names(tape) == ["cos"]


@pytest.mark.parametrize(
    ("op", "of"), [(ops.add, np.add), (ops.sub, np.subtract), (ops.mul, np.multiply), (ops.div, np.divide)]
)
def test_arithmetic_on_literals_rounds_as_the_dtype_does(op: Any, of: Any) -> None:
    tape = optimize(tg.trace(lambda x: ops.mul(x, op(literal(0.1), literal(3.0))))(X))
    assert names(tape) == ["mul"]
    number = next(v.value for v in tape.nodes[0].inputs if v.tape is None)
    assert np.float32(number) == of(np.float32(0.1), np.float32(3.0))
    assert "div" in names(fold(tg.trace(lambda x: ops.mul(x, ops.div(literal(1.0), literal(0.0))))(X)))


def test_the_gradient_of_a_sum_with_a_pole() -> None:
    """The cotangent of a sum is a broadcast literal, and meets rules that test it for zero."""
    for f, expected in (
        (lambda x: tnp.sum(tnp.sqrt(x)), 0.5 / np.sqrt(X)),
        (lambda x: tnp.sum(tnp.log(x)), 1 / X),
        (lambda x: tnp.sum(1.0 / x), -1 / X**2),
        (lambda x: tnp.sum(tnp.arcsin(x / 2.0)), 0.5 / np.sqrt(1 - X**2 / 4)),
        (lambda x: tnp.mean(tnp.sqrt(x)), 0.5 / np.sqrt(X) / 6),
        (lambda x: tnp.sum(tnp.sqrt(x)) * 0.0, 0 * X),
    ):
        for run in (tg.grad(f), tg.jit(tg.grad(f))):
            np.testing.assert_allclose(run(X), expected, rtol=1e-5)


# -- all of them


def test_optimize_reaches_a_fixed_point() -> None:
    tape = tg.trace(tg.hessian(lambda x: tnp.sum(tnp.tanh(x) * x)))(X[0])
    once = optimize(tape)
    twice = optimize(once)
    check(once)
    assert len(twice) == len(once) <= len(tape)


def test_passes_do_not_change_the_tape_they_are_given() -> None:
    tape = tg.trace(tg.grad(lambda x: tnp.sum(tnp.sin(x) * 1.0)))(X)
    before = str(tape)
    optimize(tape)
    assert str(tape) == before


def test_inputs_and_outputs_are_kept() -> None:
    tape = optimize(tg.trace(lambda x, y: (x, x, y * 1.0))(X, X))
    assert len(tape.inputs) == 2
    assert len(tape.outputs) == 3
    assert all(isinstance(v, jnp.ndarray | np.ndarray) for v in lower(tape)(X, X))
