"""The tape: what it is equal to, and what its verifier catches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.ops import add, exp, mul
from tracegrad.recording import Recording
from tracegrad.tape import Node, Tape, Var, make_aval
from tracegrad.tracer import Tracer
from tracegrad.verify import check

X = np.arange(6, dtype=np.float32).reshape(2, 3)


# -- the verifier


def chain() -> Tape:
    return tg.trace(lambda x: tnp.exp(x) * x + x)(X)


def drop_first(tape: Tape) -> Tape:
    return tape.replace(nodes=tape.nodes[1:])


def swap(tape: Tape) -> Tape:
    first, second, *rest = tape.nodes
    return tape.replace(nodes=(second, first, *rest))


def bind_twice(tape: Tape) -> Tape:
    return tape.replace(nodes=(*tape.nodes, tape.nodes[0]))


def bind_an_input(tape: Tape) -> Tape:
    tape.nodes[0].outputs = (tape.inputs[0],)
    return tape


def same_input_twice(tape: Tape) -> Tape:
    return tape.replace(inputs=tape.inputs * 2)


def wrong_shape(tape: Tape) -> Tape:
    tape.nodes[1].outputs[0].aval = make_aval((3, 2), np.dtype("f"))
    return tape


def wrong_dtype(tape: Tape) -> Tape:
    tape.nodes[-1].outputs[0].aval = make_aval((2, 3), np.dtype("i"))
    return tape


def foreign_operand(tape: Tape) -> Tape:
    other = chain()
    tape.nodes[1].inputs = (other.inputs[0], tape.inputs[0])
    return tape


def unknown_output(tape: Tape) -> Tape:
    return tape.replace(outputs=(Tracer(make_aval((), np.dtype("f")), Recording()),))


@pytest.mark.parametrize(
    "corrupt, message",
    [
        (drop_first, "mul at .*test_tape.py.* belongs to no node and no input"),
        (swap, "mul at .*used before it is bound"),
        (bind_twice, "exp at .*bound twice"),
        (bind_an_input, "exp at .*bound twice|belongs to no node"),
        (same_input_twice, "an input of .* is bound twice"),
        (wrong_shape, r"mul at .*outputs are .*f32\[3,2\].*the op's rule says .*f32\[2,3\]"),
        (wrong_dtype, r"add at .*outputs are .*i32\[2,3\]"),
        (foreign_operand, "mul at .*belongs to no node and no input"),
        (unknown_output, "an output of type f32.* is never computed"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_the_verifier_catches(corrupt: Callable[[Tape], Tape], message: str) -> None:
    tape = chain()
    check(tape)
    wrong = corrupt(tape)
    with pytest.raises(AssertionError, match=message):
        check(wrong)


def test_the_verifier_passes_what_the_transforms_make() -> None:
    for transform in (tg.grad, lambda f: tg.grad(tg.grad(f)), tg.hessian, lambda f: tg.grad(tg.jit(f))):
        check(tg.trace(transform(lambda x: tnp.sin(x) * x))(0.5))
    check(tg.trace(tg.vmap(tg.grad(lambda x: tnp.sum(x * x))))(X))


# -- equality


def test_finished_tapes_are_equal_when_their_programs_are() -> None:
    def program(c: float) -> Callable[[Any], Any]:
        return lambda x: tnp.exp(x) * c

    a, b, other = (tg.trace(program(c))(X) for c in (2.0, 2.0, 3.0))
    assert a == b
    assert hash(a) == hash(b)
    assert a != other
    assert a != tg.trace(program(2.0))(X[0])
    assert a != "a tape"


# -- nodes and values


def test_a_tape_can_be_built_by_hand() -> None:
    aval = make_aval((2,), np.dtype("f"))
    x, y, z = (Tracer(aval, Recording()) for _ in range(3))
    nodes = (Node(exp, (x,), {}, (y,), None, 0, False), Node(mul, (x, y), {}, (z,), None, 0, False))
    tape = Tape((x,), nodes, (z,), "by_hand")
    check(tape)
    assert len(tape) == 2
    assert str(tape).startswith("by_hand(a:f32[2])\n  b:f32[2] = exp a")


def test_avals_are_interned() -> None:
    assert make_aval((2, 3), np.dtype("f")) is make_aval((2, 3), np.dtype("f"))
    assert make_aval((2, 3), np.dtype("f")) is not make_aval((2, 3), np.dtype("f"), True)
    assert repr(make_aval((2, 3), np.dtype("f"), True)) == "f32[2,3]~"
    assert repr(make_aval((), np.dtype(bool))) == "bool[]"


def test_recording_keeps_the_line_of_the_caller_through_operators_and_numpy() -> None:
    def f(x: Any) -> Any:
        a = -x
        b = np.exp(a)
        c = b.sum()
        return c

    tape = tg.trace(f)(X)
    texts = [line.split("#")[1].split("  ")[-1] for line in str(tape).splitlines()[1:-1]]
    assert texts == ["a = -x", "b = np.exp(a)", "c = b.sum()"]


def test_vars_hold_nothing_but_their_type_tape_and_value() -> None:
    assert set(Var.__slots__) == {"aval", "tape", "value"}
    assert not hasattr(tg.trace(lambda x: add(x, x))(1.0).outputs[0], "__dict__")
