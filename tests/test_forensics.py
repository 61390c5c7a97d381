"""What is not finite is explained: a table of programs with a planted NaN or infinity, and of those with none."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import nn, optimizers
from tracegrad.forensics import NonFinite, NonFiniteError
from tracegrad.recording import state


class Program(NamedTuple):
    run: Callable[[Any], Any]
    op: str
    backward: bool
    where: tuple[str, ...]


PROGRAMS: dict[str, Program] = {}


def program(op: str, *where: str, backward: bool = False) -> Callable[[Any], Any]:
    """A program whose planted step is the op of this name, on the line that ends in `# planted`, in these places.

    It takes how its function is called: as it is, or under `@jit`.
    """

    def add(run: Callable[[Any], Any]) -> Callable[[Any], Any]:
        PROGRAMS[run.__name__] = Program(run, op, backward, where)
        return run

    return add


def V(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


# -- forward


@program("log")
def log_of_a_negative_number(how: Any) -> Any:
    def f(x: Any) -> Any:
        y = tnp.log(x)  # planted
        return (y * 2.0).sum()

    return how(tg.value_and_grad(f))(V(1.0, -1.0))


@program("sqrt")
def sqrt_of_a_difference(how: Any) -> Any:
    def f(x: Any) -> Any:
        variance = (x * x).mean() - x.mean() ** 2 - 1e-3
        return tnp.sqrt(variance)  # planted

    return how(tg.value_and_grad(f))(V(2.0, 2.0))


@program("div")
def zero_by_zero(how: Any) -> Any:
    def f(x: Any) -> Any:
        n = (x > 3.0).sum()
        return (x * (x > 3.0)).sum() / n  # planted

    return how(tg.value_and_grad(f))(V(1.0, 2.0))


@program("arccos")
def arccos_beyond_one(how: Any) -> Any:
    def f(x: Any) -> Any:
        return tnp.arccos(x / 0.999).sum()  # planted

    return how(tg.value_and_grad(f))(V(0.5, 1.0))


@program("pow")
def a_root_of_a_negative_number(how: Any) -> Any:
    def f(x: Any) -> Any:
        return (x**0.3).sum()  # planted

    return how(tg.value_and_grad(f))(V(0.5, -1.0))


@program("exp")
def an_overflow_that_becomes_nan(how: Any) -> Any:
    def f(x: Any) -> Any:
        e = tnp.exp(x)  # planted
        return (e / e.sum()).max()

    return how(tg.value_and_grad(f))(V(1.0, 100.0))


@program("exp")
def an_overflow_that_stays_infinite(how: Any) -> Any:
    def f(x: Any) -> Any:
        return tnp.exp(x).sum()  # planted

    return how(tg.value_and_grad(f))(V(1.0, 100.0))


@program("cholesky")
def cholesky_of_an_indefinite_matrix(how: Any) -> Any:
    def f(a: Any) -> Any:
        return tnp.linalg.cholesky(a - 2.0 * tnp.eye(2)).sum()  # planted

    return how(tg.value_and_grad(f))(np.eye(2, dtype=np.float32))


@program("log")
def deep_in_a_network(how: Any) -> Any:
    def f(params: Any, x: Any) -> Any:
        for w in params:
            x = nn.relu(x @ w)
        p = x / (x.sum(-1, keepdims=True) + 1.0) - 0.1
        return -tnp.log(p).mean()  # planted

    return how(tg.value_and_grad(f))([np.eye(3, dtype=np.float32)] * 6, np.eye(3, dtype=np.float32))


@program("mul")
def infinity_times_zero_of_given_infinities(how: Any) -> Any:
    def f(x: Any, mask: Any) -> Any:
        return (x * mask).sum()  # planted

    return how(tg.value_and_grad(f))(V(1.0, 0.0), V(0.0, -np.inf))


@program("log")
def a_complex_number(how: Any) -> Any:
    def f(x: Any) -> Any:
        return tnp.abs(tnp.log(x * 0.0) * 0.0)  # planted

    return how(tg.vmap(f))(np.ones(2, np.complex64))


@program("mul")
def half_precision(how: Any) -> Any:
    def f(x: Any) -> Any:
        y = x.astype(np.float16) * 1000.0  # planted
        return (y - y).astype(np.float32).sum()

    return how(tg.value_and_grad(f))(V(1.0, 100.0))


@program("log")
def of_numbers_alone(how: Any) -> Any:
    def f(x: Any) -> Any:
        return tnp.log(x - 3.0)  # planted

    return how(tg.value_and_grad(f))(2.0)


@program("log")
def in_keyword_arguments(how: Any) -> Any:
    def f(x: Any, *, scale: Any) -> Any:
        return (x * tnp.log(scale)).sum()  # planted

    return how(tg.value_and_grad(f))(V(1.0, 2.0), scale=V(-1.0, 1.0))


@program("sqrt")
def in_the_step_of_an_optimizer(how: Any) -> Any:
    def step(x: Any, state: Any) -> Any:
        gradient = tg.grad(lambda x: (x * x).sum())(x)
        scale = tnp.sqrt(-(gradient * gradient).sum())  # planted
        updates, state = optimizer.update(gradient / scale, state, x)
        return optimizers.apply_updates(x, updates), state

    optimizer = optimizers.adam(0.1)
    x = tnp.asarray(V(1.0, 2.0))
    return how(tg.vmap(step, in_axes=(None, None), axis_size=1))(x, optimizer.init(x))


# -- backward


@program("div", backward=True)
def the_pole_of_sqrt(how: Any) -> Any:
    def f(x: Any) -> Any:
        return tnp.sqrt(x).sum()  # planted

    return how(tg.grad(f))(V(1.0, 0.0))


@program("div", backward=True)
def the_norm_by_hand_at_zero(how: Any) -> Any:
    def f(x: Any) -> Any:
        n = tnp.sqrt((x * x).sum())  # planted
        return n * 2.0

    with tg.nan_safe(False):
        return how(tg.grad(f))(V(0.0, 0.0))


@program("div", backward=True)
def the_branch_of_a_where_without_nan_safe(how: Any) -> Any:
    def f(x: Any) -> Any:
        root = tnp.sqrt(x)  # planted
        return tnp.where(x > 0, root, 0.0).sum()

    with tg.nan_safe(False):
        return how(tg.grad(f))(V(1.0, 0.0))


@program("mul", backward=True)
def a_gradient_that_overflows(how: Any) -> Any:
    def f(x: Any) -> Any:
        return (x * 1e-30 * 1e30 * 1e30).sum()  # planted

    return how(tg.grad(f))(V(1.0))


def _bad_rule() -> Any:
    @tg.custom_vjp
    def double(x: Any) -> Any:
        return x * 2.0

    def forward(x: Any) -> Any:
        return x * 2.0, x

    def backward(x: Any, ct: Any) -> Any:
        return (ct * tnp.log(-x),)

    double.defvjp(forward, backward)
    return double


@program("log", backward=True)
def in_the_rule_of_a_custom_vjp(how: Any) -> Any:
    double = _bad_rule()
    return how(tg.grad(lambda x: double(x).sum()))(V(1.0, 2.0))  # planted


@program("log")
def in_the_value_of_a_custom_vjp(how: Any) -> Any:
    @tg.custom_vjp
    def logarithm(x: Any) -> Any:
        return tnp.log(x)  # planted

    logarithm.defvjp(lambda x: (tnp.log(x), x), lambda x, ct: (ct / x,))
    return how(logarithm if how is tg.jit else tg.vmap(logarithm))(V(1.0, -2.0))


@program("log", "custom_vjp")
def in_the_forward_function_of_a_custom_vjp(how: Any) -> Any:
    @tg.custom_vjp
    def logarithm(x: Any) -> Any:
        return x

    def forward(x: Any) -> Any:
        return tnp.log(x), x  # planted

    logarithm.defvjp(forward, lambda x, ct: (ct / x,))
    return how(tg.value_and_grad(lambda x: logarithm(x).sum()))(V(1.0, -2.0))


@program("log", "checkpoint")
def in_a_checkpoint(how: Any) -> Any:
    @tg.checkpoint
    def layer(x: Any) -> Any:
        return tnp.log(x)  # planted

    return how(tg.value_and_grad(lambda x: (layer(x) ** 2).sum()))(V(1.0, -2.0))


@program("log", "call", backward=True)
def computed_again_in_the_backward_pass(how: Any) -> Any:
    @tg.checkpoint
    def layer(x: Any) -> Any:
        return tnp.sin(tnp.log(x))  # planted

    return how(tg.grad(lambda x: layer(x).sum()))(V(1.0, -2.0))


@program("div", backward=True)
def in_a_second_derivative(how: Any) -> Any:
    def f(x: Any) -> Any:
        return tnp.sqrt(x).sum()  # planted

    with tg.nan_safe(False):
        return how(tg.grad(lambda x: tg.grad(f)(x).sum()))(V(1.0, 0.0))


# -- loops and branches


@program("sqrt", "step 3 of 5", "scan")
def in_a_step_of_a_scan(how: Any) -> Any:
    def f(x: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            carry = carry - 1.0
            return carry, tnp.sqrt(carry)  # planted

        return tg.scan(step, x, None, length=5)[1].sum()

    return how(tg.value_and_grad(f))(3.5)


@program("log", "step 2 of 4", "scan")
def in_the_carry_of_a_reversed_scan(how: Any) -> Any:
    def f(xs: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            return carry + tnp.log(x), None  # planted

        return tg.scan(step, 0.0, xs, reverse=True)[0]

    return how(tg.value_and_grad(f))(V(1.0, 1.0, -1.0, 1.0))


@program("div", "scan", backward=True)
def in_the_backward_pass_of_a_scan(how: Any) -> Any:
    def f(x: Any, steps: Any) -> Any:
        def step(carry: Any, s: Any) -> Any:
            return carry + tnp.sqrt(carry * s), None  # planted

        return tg.scan(step, x, steps)[0]

    with tg.nan_safe(False):
        return how(tg.grad(f))(1.0, V(1.0, 0.0, 1.0))


@program("log", "step 1 of 3", "step 0 of 2")
def in_a_scan_in_a_scan(how: Any) -> Any:
    def f(x: Any) -> Any:
        def inner(carry: Any, k: Any) -> Any:
            return carry + tnp.log(5.5 - carry), k  # planted

        def outer(carry: Any, _: Any) -> Any:
            return tg.scan(inner, carry + 2.0, tnp.arange(2))[0], None

        return tg.scan(outer, x, None, length=3)[0]

    return how(tg.value_and_grad(f))(0.0)


@program("sqrt", "scan")
def in_a_fori_loop(how: Any) -> Any:
    def f(x: Any) -> Any:
        return tg.fori_loop(0, 4, lambda i, y: tnp.sqrt(y - i), x)  # planted

    return how(tg.value_and_grad(f))(4.0)


@program("log", "step 3", "while")
def in_a_while_loop(how: Any) -> Any:
    def f(x: Any) -> Any:
        def step(carry: Any) -> Any:
            i, x, total = carry
            return i + 1, x - 1.0, total + tnp.log(x)  # planted

        return tg.while_loop(lambda carry: carry[0] < 6, step, (0, x, 0.0))[2]

    return how(f if how is tg.jit else tg.vmap(f))(2.5 if how is tg.jit else V(2.5))


@program("log", "the branch of true", "cond")
def in_a_branch(how: Any) -> Any:
    def f(x: Any) -> Any:
        def bad(x: Any) -> Any:
            return tnp.log(-x).sum()  # planted

        return tg.cond(x.sum() > 0, bad, lambda x: x.sum(), x)

    return how(tg.value_and_grad(f))(V(1.0, 2.0))


@program("sqrt", "the branch 2 of 3", "cond")
def in_a_branch_of_a_switch(how: Any) -> Any:
    def f(x: Any, k: Any) -> Any:
        def bad(x: Any) -> Any:
            return tnp.sqrt(-x).sum()  # planted

        return tg.switch(k, [lambda x: x.sum(), lambda x: (x * x).sum(), bad], x)

    return how(tg.value_and_grad(f))(V(1.0, 2.0), np.int32(2))


@program("div", "cond", backward=True)
def in_the_backward_pass_of_a_branch(how: Any) -> Any:
    def f(x: Any) -> Any:
        def bad(x: Any) -> Any:
            return tnp.sqrt(x).sum()  # planted

        return tg.cond(x.sum() >= 0, bad, lambda x: x.sum(), x)

    with tg.nan_safe(False):
        return how(tg.grad(f))(V(1.0, 0.0))


@program("log", "step 1 of 3")
def in_a_map(how: Any) -> Any:
    def one(x: Any) -> Any:
        return tnp.log(x)  # planted

    return how(tg.value_and_grad(lambda xs: tg.map(one, xs).sum()))(V(1.0, -1.0, 2.0))


# -- many at once


@program("log", "element 2 of 3")
def in_an_element_of_a_vmap(how: Any) -> Any:
    def one(x: Any, y: Any) -> Any:
        return tnp.log(x @ y)  # planted

    return how(tg.vmap(one, in_axes=(0, None)))(np.eye(3, dtype=np.float32), V(1.0, 2.0, -1.0))


@program("div", "element 1 of 2", backward=True)
def in_the_gradient_of_an_example(how: Any) -> Any:
    def loss(w: Any, x: Any) -> Any:
        return tnp.sqrt((w * x).sum())  # planted

    with tg.nan_safe(False):
        return how(tg.vmap(tg.grad(loss), in_axes=(None, 0)))(V(1.0, 1.0), np.array([[1, 1], [0, 0]], np.float32))


@program("sqrt", "element 1 of 2", "step 2 of 4")
def in_a_scan_in_a_vmap(how: Any) -> Any:
    def one(x: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            return carry - 1.0, tnp.sqrt(carry)  # planted

        return tg.scan(step, x, None, length=4)[1].sum()

    return how(tg.vmap(one))(V(9.0, 1.5))


@program("log", "element 1 of 3", "the branch of true")
def in_a_branch_that_one_element_takes(how: Any) -> Any:
    def one(x: Any) -> Any:
        def bad(x: Any) -> Any:
            return tnp.log(-x)  # planted

        return tg.cond(x > 1.0, bad, tnp.sin, x)

    return how(tg.vmap(one))(V(0.5, 2.0, -1.0))


@program("log", "element 1 of 2", "step 2", "while")
def in_a_loop_that_ends_apart(how: Any) -> Any:
    def one(x: Any) -> Any:
        def step(carry: Any) -> Any:
            i, total = carry
            return i + 1, total + tnp.log(1.5 - i)  # planted

        return tg.while_loop(lambda carry: carry[0] < x, step, (0, 0.0))[1]

    return how(tg.vmap(one))(np.array([1, 4]))


@program("sub", "element 0 of 1 of the vmap of named", "the vmap of one")
def over_a_named_axis(how: Any) -> Any:
    def one(x: Any) -> Any:
        total = tg.psum(x * 3e38, "batch")
        return total - total  # planted

    def named(x: Any) -> Any:
        return tg.vmap(one, axis_name="batch")(x)

    return how(tg.vmap(named))(np.full((1, 2), np.inf, np.float32))


@program("log", "device 5 of 8", "pmap")
def on_one_device(how: Any) -> Any:
    def one(x: Any) -> Any:
        return tg.psum(tnp.log(x), "i")  # planted

    x = np.ones(8, np.float32)
    x[5] = -1.0
    return how(tg.pmap(one, axis_name="i"))(x) if how is tg.jit else tg.pmap(one, axis_name="i")(x)


@program("div", "device 3 of 4", "pmap", backward=True)
def in_the_gradient_on_one_device(how: Any) -> Any:
    def loss(w: Any, x: Any) -> Any:
        return tnp.sqrt((w * x).sum())  # planted

    def step(w: Any, x: Any) -> Any:
        return tg.sum_gradients(tg.grad(loss)(w, x), "i", mean=False)

    x = np.ones((4, 2), np.float32)
    x[3] = 0.0
    with tg.nan_safe(False):
        mapped = tg.pmap(step, axis_name="i", in_axes=(None, 0), devices=jax.devices()[:4])
        return how(mapped)(V(1.0, 1.0), x) if how is tg.jit else mapped(V(1.0, 1.0), x)


@program("sqrt", "device 1 of 2", "step 1 of 3", "pmap")
def in_a_scan_on_one_device(how: Any) -> Any:
    def one(x: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            return carry - 1.0, tnp.sqrt(carry)  # planted

        return tg.scan(step, x, None, length=3)[1].sum()

    mapped = tg.pmap(one, devices=jax.devices()[:2])
    return how(mapped)(V(9.0, 0.5)) if how is tg.jit else mapped(V(9.0, 0.5))


# -- functions in functions


@program("log", "call")
def in_a_jit_in_a_jit(how: Any) -> Any:
    @tg.jit
    def inner(x: Any) -> Any:
        return tnp.log(x)  # planted

    return how(tg.value_and_grad(lambda x: inner(x).sum()))(V(1.0, -1.0))


@program("log", "call of layer")
def in_a_named_call(how: Any) -> Any:
    @functools.partial(tg.named_call, name="layer")
    def inner(x: Any) -> Any:
        return tnp.log(x)  # planted

    return how(tg.value_and_grad(lambda x: inner(x).sum()))(V(1.0, -1.0))


@program("log")
def in_an_array_that_is_closed_over(how: Any) -> Any:
    w = tnp.asarray(V(-1.0, 1.0))

    def f(x: Any) -> Any:
        return (x * tnp.log(w)).sum()  # planted

    return how(tg.value_and_grad(f))(V(1.0, 2.0))


@program("log")
def after_a_branch_of_python(how: Any) -> Any:
    def f(x: Any, positive: bool = False) -> Any:
        if how is not tg.jit and x.sum() > 100.0:
            return x.sum()
        return tnp.log(x - 1.5).sum()  # planted

    return how(tg.value_and_grad(f))(V(1.0, 2.0))


@program("log")
def in_a_function_of_jax(how: Any) -> Any:
    import jax.numpy as jnp

    f = tg.from_jax(lambda x: jnp.log(x).sum())
    return how(tg.value_and_grad(lambda x: f(x)))(V(1.0, -1.0))  # planted


@program("log")
def in_a_forward_derivative(how: Any) -> Any:
    def f(x: Any) -> Any:
        return tnp.log(x)  # planted

    return how(lambda x: tg.jvp(f, (x,), (x,)))(V(1.0, -1.0))


UNDECORATED: list[Any] = [lambda f: f, tg.jit]


@pytest.mark.parametrize("how", UNDECORATED, ids=["undecorated", "jit"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_planted_value_is_found(name: str, how: Any) -> None:
    planted = PROGRAMS[name]
    if how is tg.jit:
        out = planted.run(how)
        assert not all(np.isfinite(x).all() for x in jax.tree.leaves(out)), "nothing is planted"
    with pytest.raises(FloatingPointError) as caught, tg.debug_nans():
        planted.run(how)
    found: NonFinite = caught.value.explanation  # type: ignore[attr-defined]
    text = str(caught.value)
    step = found.step
    assert step is not None, text
    assert (step.op, step.backward) == (planted.op, planted.backward), text
    assert "# planted" in step.source, text
    places = " ".join(step.where)
    for part in planted.where:
        assert part in places, text
    assert text.startswith("debug_nans: ") and all(line in text for line in str(step).splitlines()[:1])


def test_there_are_forty_programs() -> None:
    assert len(PROGRAMS) >= 40


# -- what is meant raises nothing


def _masked_attention(how: Any) -> Any:
    def f(q: Any, mask: Any) -> Any:
        scores = tnp.where(mask, q @ q.T, -np.inf)
        weights = tnp.exp(scores - scores.max(-1, keepdims=True))
        return (weights / weights.sum(-1, keepdims=True) @ q).sum()

    return how(tg.value_and_grad(f))(np.eye(3, dtype=np.float32), np.tri(3, dtype=bool))


def _log_of_zero_that_ends_finite(how: Any) -> Any:
    return how(tg.value_and_grad(lambda x: tnp.exp(tnp.log(x)).sum()))(V(1.0, 2.0)), how(
        tg.vmap(lambda x: tnp.exp(tnp.log(x)))
    )(V(1.0, 0.0))


def _the_branch_of_a_where(how: Any) -> Any:
    return how(tg.value_and_grad(lambda x: tnp.where(x > 0, tnp.log(x), 0.0).sum()))(V(1.0, -1.0))


def _missing_values(how: Any) -> Any:
    return how(tg.vmap(lambda x: tnp.nanmean(x)))(np.array([[1.0, np.nan], [2.0, 3.0]], np.float32))


def _a_mask_that_is_returned(how: Any) -> Any:
    def f(x: Any) -> Any:
        return tnp.where(x > 0, 0.0, -np.inf)

    return how(tg.vmap(f))(V(1.0, -1.0))


def _an_infinity_that_is_given(how: Any) -> Any:
    return how(tg.vmap(lambda x: x * 2.0 + 1.0))(V(np.inf, 1.0))


def _the_largest_so_far(how: Any) -> Any:
    def f(xs: Any) -> Any:
        return tg.scan(lambda m, x: (tnp.maximum(m, x), m), -np.inf, xs)

    return how(tg.vmap(f))(np.ones((2, 3), np.float32))


def _a_branch_that_is_not_taken(how: Any) -> Any:
    return how(tg.value_and_grad(lambda x: tg.cond(x > 0, tnp.sin, lambda x: tnp.log(x * 0.0 - 1.0), x)))(1.0)


def _integers_and_keys(how: Any) -> Any:
    return how(tg.vmap(lambda key, n: (tg.random.split(key), n + 1)))(
        tg.random.split(tg.random.key(0), 3), np.arange(3)
    )


MEANT = [
    _masked_attention,
    _log_of_zero_that_ends_finite,
    _the_branch_of_a_where,
    _missing_values,
    _a_mask_that_is_returned,
    _an_infinity_that_is_given,
    _the_largest_so_far,
    _a_branch_that_is_not_taken,
    _integers_and_keys,
]


@pytest.mark.parametrize("how", UNDECORATED, ids=["undecorated", "jit"])
@pytest.mark.parametrize("run", MEANT, ids=lambda run: run.__name__.strip("_"))
def test_what_is_meant_raises_nothing(run: Any, how: Any) -> None:
    expected = run(how)
    with tg.debug_nans():
        found = run(how)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert a.dtype == b.dtype and (a == b).all()


def _guarded(x: Any) -> Any:
    return tnp.where(x > 0, tnp.log(x), 0.0).sum()


@pytest.mark.parametrize("how", UNDECORATED, ids=["undecorated", "jit"])
def test_what_is_discarded_can_be_asked_for(how: Any) -> None:
    x = V(1.0, -1.0)
    with pytest.raises(NonFiniteError, match="all results are finite") as caught, tg.debug_nans(discarded=True):
        how(tg.value_and_grad(_guarded))(x)
    assert [step.op for step in caught.value.explanation.discarded] == ["log"]
    with tg.debug_nans(discarded=True):
        how(tg.value_and_grad(_guarded))(V(1.0, 2.0))


def test_what_is_discarded_in_a_loop_that_ends_finite() -> None:
    def f(x: Any) -> Any:
        return tg.scan(lambda c, _: (c + tnp.where(c > 2.5, c, tnp.log(c - 2.0)) * 0.0, None), x, None, length=3)[0]

    found = tg.explain_nonfinite(tg.jit(f), discarded=True)(2.75)
    assert not found
    found = tg.explain_nonfinite(
        lambda x: tg.scan(lambda c, _: (c, tnp.where(c < 2.5, 0.0, tnp.log(c - 2.0))), x, None, length=2)[1].sum(),
        discarded=True,
    )(1.0)
    assert not found.results and [s.op for s in found.discarded] == ["log", "log"]
    assert [s.where[-1].partition(" of the")[0] for s in found.discarded] == ["step 0 of 2", "step 1 of 2"]


def test_what_is_discarded_is_mentioned_beside_what_is_not() -> None:
    def f(x: Any) -> Any:
        return _guarded(x) + tnp.sqrt(x[1])

    found = tg.explain_nonfinite(f)(V(1.0, -1.0))
    assert found.step is not None and found.step.op == "sqrt"
    assert [step.op for step in found.discarded] == ["log"]
    assert "1 other step made a NaN or an infinity" in str(found)


def test_of_two_only_one_is_selected() -> None:
    def f(x: Any) -> Any:
        return tnp.where(x > 0, tnp.log(-x * x - 1.0), tnp.sqrt(x - 1.0)).sum()

    for value, op in ((-2.0, "sqrt"), (2.0, "log")):
        found = tg.explain_nonfinite(f)(V(value))
        assert found.step is not None and found.step.op == op


# -- what it says


def test_the_text() -> None:
    def f(w: Any, x: Any) -> Any:
        h = tnp.tanh(x @ w["a"])
        return (tnp.log(h - 0.5) * 2.0).sum()

    found = tg.explain_nonfinite(f)({"a": np.ones(2, np.float32)}, np.eye(2, dtype=np.float32) * 0.1)
    lines = str(found).splitlines()
    # Computed by hand: tanh(0.1) - 0.5 is -0.400332.
    assert lines[0] == "f gave a result that is NaN: result, f32[]: nan"
    assert lines[1:2] == ["it was first not finite in"]
    assert lines[2].startswith("  log : f32[2] -> f32[2], forward, at ") and lines[2].endswith(
        "(f) `return (tnp.log(h - 0.5) * 2.0).sum()`"
    )
    assert lines[3:6] == [
        "    reads f32[2]: from -0.400332 to -0.400332, all finite",
        "    gives f32[2]: 2 NaN of 2",
        "    at [0]: log(-0.400332) = nan",
    ]
    assert lines[6:8] == [
        "which comes from the arguments by",
        "  the argument x, f32[2,2]: from 0 to 0.1, all finite",
    ]
    assert [line.split()[1] for line in lines[8:11]] == ["dot_general", "tanh", "sub"]
    assert lines[11] == "  it depends on w['a'] too"
    assert lines[12] == "and reaches the result by"
    assert [line.split()[0] for line in lines[13:]] == ["mul", "sum"]


def test_results_have_names_and_ranges() -> None:
    found = tg.explain_nonfinite(tg.jit(lambda x: {"fine": x, "bad": tnp.log(x)}))(V(4.0, -1.0, 0.0))
    assert found.results == (
        f"result['bad'], f32[3]: from {np.log(4.0):.6g} to {np.log(4.0):.6g}, 1 NaN of 3, 1 infinite of 3",
    )


def test_an_infinity_and_the_nan_it_became() -> None:
    def f(x: Any) -> Any:
        big = tnp.exp(x)
        return (big - big).sum()

    found = tg.explain_nonfinite(tg.jit(f))(V(1.0, 1000.0))
    assert found.step is not None and found.then is not None
    assert (found.step.op, found.step.element) == ("exp", "at [1]: exp(1000) = inf")
    assert (found.then.op, found.then.element) == ("sub", "at [1]: sub(inf, inf) = nan")
    assert "which became NaN in\n  sub" in str(found)


@pytest.mark.parametrize("how", UNDECORATED, ids=["undecorated", "jit"])
def test_a_nan_that_is_given(how: Any) -> None:
    with pytest.raises(NonFiniteError, match="what was given is not finite itself") as caught, tg.debug_nans():
        how(tg.grad(lambda params: (params["w"] ** 2).sum()))({"b": V(1.0), "w": V(1.0, np.nan)})
    found = caught.value.explanation
    assert found.step is None and found.given == ("the argument params['w'], f32[2]: from 1 to 1, 1 NaN of 2",)


def test_a_long_way_is_shortened() -> None:
    def f(x: Any) -> Any:
        x = tnp.log(x)
        for _ in range(50):
            x = tnp.sin(x)
            x = tnp.cos(x)
        return x

    found = tg.explain_nonfinite(f)(V(-1.0))
    assert len(found.way) == 17 and found.way[8] == "... 84 more ..."


def test_a_long_loop_goes_down_into_few_steps() -> None:
    def f(x: Any) -> Any:
        def step(c: Any, k: Any) -> Any:
            c = tnp.where(k == 1900, tnp.log(-c), c + 1.0)
            return c, c * 2.0

        return tg.scan(step, x, tnp.arange(2000))[1].sum()

    start = time.perf_counter()
    found = tg.explain_nonfinite(tg.jit(f))(1.0)
    assert found.step is not None and found.step.where[-1].startswith("step 1900 of 2000")
    assert time.perf_counter() - start < 20.0


# -- where it can stand


def _bad(x: Any) -> Any:
    return tnp.log(x).sum()


X = V(1.0, -1.0)

DECORATED: dict[str, Callable[[], Any]] = {
    "a function": lambda: tg.debug_nans()(_bad),
    "a gradient": lambda: tg.debug_nans()(tg.value_and_grad(_bad)),
    "a jit": lambda: tg.debug_nans()(tg.jit(_bad)),
    "under jit": lambda: tg.jit(tg.debug_nans()(_bad)),
    "under a gradient": lambda: tg.value_and_grad(tg.debug_nans()(_bad)),
    "under a gradient under jit": lambda: tg.jit(tg.value_and_grad(tg.debug_nans()(_bad))),
    "under jit under a gradient": lambda: tg.value_and_grad(tg.jit(tg.debug_nans()(_bad))),
}


@pytest.mark.parametrize("where", DECORATED)
def test_a_decorator(where: str) -> None:
    f = DECORATED[where]()
    f(V(1.0, 2.0))
    for _ in range(2):
        with pytest.raises(NonFiniteError) as caught:
            f(X)
        assert caught.value.explanation.step is not None and caught.value.explanation.step.op == "log"
    assert state.examine is None and state.tape is None
    tg.value_and_grad(_bad)(X)


def test_a_block_inside_a_recorded_function() -> None:
    def f(x: Any) -> Any:
        with tg.debug_nans():
            y = tnp.log(x)
        return y.sum()

    for how in (tg.value_and_grad, lambda f: tg.jit(tg.value_and_grad(f))):
        with pytest.raises(NonFiniteError):
            how(f)(X)


def test_blocks_nest_and_end() -> None:
    slope = tg.value_and_grad(_bad)
    with tg.debug_nans():
        with tg.debug_nans(False):
            slope(X)
        with pytest.raises(NonFiniteError):
            slope(X)
        with tg.debug_nans(infs=False):
            tg.vmap(tnp.log)(V(0.0))
        with pytest.raises(NonFiniteError):
            tg.vmap(tnp.log)(V(0.0))
    slope(X)
    with pytest.raises(ZeroDivisionError), tg.debug_nans():
        1 / 0  # noqa: B018
    slope(X)


def test_another_thread_is_not_looked_at() -> None:
    results: list[Any] = []
    with tg.debug_nans():
        thread = threading.Thread(target=lambda: results.append(tg.value_and_grad(_bad)(X)))
        thread.start()
        thread.join()
    assert len(results) == 1


def test_donated_arguments() -> None:
    def step(x: Any, y: Any) -> Any:
        return tnp.log(x), y * 2.0

    f = tg.jit(step, donate_argnums=(0, 1))
    fine = tnp.asarray(V(1.0, 2.0))
    with tg.debug_nans():
        f(fine, tnp.asarray(X))
        assert fine.is_deleted(), "it runs as ever"
        with pytest.raises(NonFiniteError) as caught:
            f(tnp.asarray(X), tnp.asarray(X))
    assert caught.value.explanation.step is not None
    assert caught.value.explanation.step.element == "at [1]: log(-1) = nan"
    inside = tg.jit(tg.debug_nans()(step), donate_argnums=(0, 1))
    with pytest.raises(NonFiniteError, match="its arguments were donated"):
        inside(tnp.asarray(X), tnp.asarray(X))
    with pytest.raises(NonFiniteError, match=r"log\(-1\) = nan"):
        inside(tnp.asarray(X), tnp.asarray(X))


def test_static_arguments_and_closures_under_jit() -> None:
    scale = [tnp.asarray(V(1.0, 1.0))]

    @functools.partial(tg.jit, static_argnames="kind")
    def f(x: Any, *, kind: str) -> Any:
        return getattr(tnp, kind)(x * scale[0]).sum()

    with tg.debug_nans():
        f(V(1.0, 2.0), kind="log")
        scale[0] = tnp.asarray(V(1.0, -1.0))
        with pytest.raises(NonFiniteError, match="sqrt"):
            f(V(1.0, 2.0), kind="sqrt")


def test_inside_a_function_of_jax_nothing_is_looked_at() -> None:
    with tg.debug_nans():
        value, _ = jax.jit(tg.value_and_grad(_bad))(X)
        assert np.isnan(value)
        assert np.isnan(jax.jit(tg.jit(_bad))(X))


def test_a_loop_that_no_tape_records() -> None:
    with tg.debug_nans(), pytest.raises(NonFiniteError) as caught:
        tg.scan(lambda c, x: (c, tnp.log(x)), 0.0, X)
    assert caught.value.explanation.step is not None
    assert caught.value.explanation.step.where[0].startswith("step 1 of 2 of the scan")


def test_the_compiled_program_runs_and_is_not_compiled_again(compiles: Callable[[], int]) -> None:
    f = tg.jit(tg.value_and_grad(lambda x: (x * x).sum()))
    f(V(1.0, 2.0))
    with tg.debug_nans():
        f(V(1.0, 2.0))
        compiles()
        f(V(3.0, 4.0))
    assert compiles() == 0


def test_off_costs_nothing() -> None:
    """A call with it off takes what a call took before: the same compiled program, and a look at one flag."""
    f = tg.jit(lambda x: x + 1.0)
    x = tnp.ones(3)
    f(x)

    def seconds(call: Any) -> float:
        start = time.perf_counter()
        for _ in range(2000):
            call(x)
        return time.perf_counter() - start

    plain = f.jitted.plain
    best = min(seconds(f) / seconds(plain) for _ in range(15))
    assert best < 1.15, "a call under @jit is JAX's own"


# -- bad input


def test_what_it_refuses() -> None:
    with pytest.raises(TypeError, match=r"debug_nans: enabled is function .*Write @debug_nans\(\), with parentheses"):
        tg.debug_nans(_bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"debug_nans: infs is .*Write infs=True or infs=False"):
        tg.debug_nans(infs="no")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"explain_nonfinite: fun is .* not a function"):
        tg.explain_nonfinite(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"explain_nonfinite: _bad is called while it is recorded"):
        tg.grad(lambda x: (tg.explain_nonfinite(_bad)(x), x.sum())[1])(X)
    with pytest.raises(TypeError, match=r"debug_nans: fun is "):
        tg.debug_nans()(3)  # type: ignore[arg-type]


def test_what_can_not_be_recorded_again_is_an_error_all_the_same() -> None:
    @tg.debug_nans()
    def f(x: Any) -> Any:
        if isinstance(x, tg.Tracer):
            raise ValueError("not twice")
        return tnp.log(x)

    with pytest.raises(NonFiniteError, match="could not be recorded again to say why: ValueError: not twice"):
        f(jax.numpy.asarray(X))


def test_an_empty_and_a_scalar_result() -> None:
    with tg.debug_nans():
        tg.vmap(tnp.log)(np.zeros((0,), np.float32))
        tg.jit(lambda: 3.0)()
    assert not tg.explain_nonfinite(lambda: ())()
