"""Collectives in the bodies of loops, branches and calls: value and gradient are those of the full batch."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_message, x64
from tracegrad.recording import state

RNG = np.random.default_rng(0)
W = RNG.normal(size=3) * 0.5
X = RNG.normal(size=(8, 3))


def custom_in_tracegrad(f: Any) -> Any:
    g = tg.custom_vjp(f)

    def forward(w: Any, x: Any) -> Any:
        out, pull = tg.vjp(f, w, x)
        del pull
        return out, (w, x)

    g.defvjp(forward, lambda kept, ct: tg.vjp(f, *kept)[1](ct))
    return g


OURS = SimpleNamespace(
    np=tnp, scan=tg.scan, fori_loop=tg.fori_loop, cond=tg.cond, switch=tg.switch, while_loop=tg.while_loop,
    checkpoint=tg.checkpoint, jit=tg.jit, vmap=tg.vmap, custom=custom_in_tracegrad, named_call=tg.named_call,
)  # fmt: skip
JAX = SimpleNamespace(
    np=jnp, scan=jax.lax.scan, fori_loop=jax.lax.fori_loop, cond=jax.lax.cond, switch=jax.lax.switch,
    while_loop=jax.lax.while_loop, checkpoint=jax.checkpoint, jit=jax.jit, vmap=jax.vmap, custom=lambda f: f,
    named_call=lambda f: f,
)  # fmt: skip

Total = Callable[[Any], Any]


def step(lib: Any, total: Total, w: Any, x: Any) -> Any:
    """What each device does with its own `x` and a shared `w`, and what all of them do together with the latter."""
    inner = lib.np.tanh(w * w * x)
    return inner + 0.1 * total(inner * x) * w


def _scan(lib: Any, total: Total, w: Any, x: Any) -> Any:
    carry, ys = lib.scan(lambda c, _: (step(lib, total, w, c), total(c * w)), x, None, length=3)
    return carry + 0.1 * lib.np.sum(ys, axis=0)


def _scan_over_xs(lib: Any, total: Total, w: Any, x: Any) -> Any:
    # The carry is the same on all devices at first, and differs after a step.
    scales = lib.np.stack([w, 2.0 * w])
    return lib.scan(lambda c, s: (step(lib, total, s, c + x), None), 0.1 * w + 0.0 * total(x), scales)[0]


def _shared_carry(lib: Any, total: Total, w: Any, x: Any) -> Any:
    # The carry stays the same on all devices, and each uses it in its own way.
    carry, ys = lib.scan(lambda c, _: (lib.np.sin(c) + 0.1 * total(c * x), c * x), w, None, length=3)
    return ys[0] * ys[2] + carry * x


def _cond(lib: Any, total: Total, w: Any, x: Any) -> Any:
    return lib.cond(
        lib.np.sum(total(x)) < 100.0, lambda a: step(lib, total, w, a), lambda a: a * total(a) * w, x
    ) + lib.cond(lib.np.sum(total(x)) > 100.0, lambda a: step(lib, total, w, a), lambda a: a * total(a) * w, x)


def _switch(lib: Any, total: Total, w: Any, x: Any) -> Any:
    branches = [lambda a: a, lambda a: step(lib, total, w, a), lambda a: total(a * w)]
    return lib.switch(1, branches, x) * lib.switch(2, branches, x)


def _vmap(lib: Any, total: Total, w: Any, x: Any) -> Any:
    return lib.vmap(lambda w, x: step(lib, total, w, x), in_axes=(0, -1), out_axes=-1)(w, x)


def _shared_vmap(lib: Any, total: Total, w: Any, x: Any) -> Any:
    return lib.vmap(lambda s: step(lib, total, w * s, x))(lib.np.array([1.0, 2.0])).sum(0)


def _nested(lib: Any, total: Total, w: Any, x: Any) -> Any:
    inner = lib.checkpoint(lambda w, c: lib.jit(lambda w, c: step(lib, total, w, c))(w, c))
    return lib.scan(
        lambda c, _: (lib.cond(lib.np.sum(w) > -9, lambda c: inner(w, c), lambda c: c, c), None), x, None, length=2
    )[0]


def _while(lib: Any, total: Total, w: Any, x: Any) -> Any:
    return lib.while_loop(
        lambda s: lib.np.max(abs(total(s[1]))) < 50.0, lambda s: (s[0] + 1, 1.5 * s[1] + total(s[1])), (0, x)
    )[1]


BODIES: dict[str, Callable[[Any, Total, Any, Any], Any]] = {
    "scan": _scan,
    "scan over xs": _scan_over_xs,
    "scan with a shared carry": _shared_carry,
    "fori_loop": lambda lib, total, w, x: lib.fori_loop(0, 3, lambda i, c: step(lib, total, w, c), x),
    "cond": _cond,
    "switch": _switch,
    "checkpoint": lambda lib, total, w, x: lib.checkpoint(lambda w: step(lib, total, w, step(lib, total, w, x)))(w),
    "custom_vjp": lambda lib, total, w, x: lib.custom(lambda w, x: step(lib, total, w, x))(w, x),
    "jit": lambda lib, total, w, x: lib.jit(lambda w, x: step(lib, total, w, x))(w, x),
    "named_call": lambda lib, total, w, x: lib.named_call(lambda x: step(lib, total, w, x))(x),
    "vmap": _vmap,
    "vmap of what is shared": _shared_vmap,
    "nested": _nested,
}  # fmt: skip


def full_batch(name: str, w: Any, x: Any) -> Any:
    """The loss of the whole batch, element after element, in plain JAX: totals are those of `jax.vmap`."""
    outs = jax.vmap(lambda x: BODIES[name](JAX, lambda v: jax.lax.psum(v, "i"), w, x), axis_name="i")(x)
    return jnp.sum(outs**2)


def reference(name: str) -> Any:
    return (full_batch(name, W, X), *jax.grad(full_batch, (1, 2))(name, W, X))


def second(name: str) -> Any:
    return jax.jacfwd(jax.grad(full_batch, 1), 1)(name, W, X)


def local(name: str, w: Any, x: Any) -> Any:
    return tnp.sum(BODIES[name](OURS, lambda v: tg.psum(v, "i"), w, x) ** 2)


def loss(name: str, w: Any, x: Any) -> Any:
    return tg.psum(local(name, w, x), "i")


def batched_loss(name: str, w: Any, x: Any) -> Any:
    """Of one device's part of the batch, which is more than one element: two axes, and sums over both."""
    both = ("i", "b")
    body = lambda w, x: BODIES[name](OURS, lambda v: tg.psum(v, both), w, x)  # noqa: E731
    return tg.psum(tnp.sum(tg.vmap(body, (None, 0), axis_name="b")(w, x) ** 2), "i")


def close(actual: Any, expected: Any) -> None:
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-9, atol=1e-12)


def named_vmap(f: Any, name: str, **options: Any) -> Any:
    return tg.vmap(f, axis_name=name, **options)


ALL = {"in_axes": (None, 0), "out_axes": (None, (None, 0))}
MAPS = pytest.mark.parametrize("mapped", [tg.pmap, named_vmap], ids=["pmap", "vmap"])


@MAPS
@pytest.mark.parametrize("name", BODIES)
def test_value_and_gradient_inside(name, mapped):
    with x64():
        value, grads = mapped(tg.value_and_grad(lambda w, x: loss(name, w, x), (0, 1)), "i", **ALL)(W, X)
        close((value, *grads), reference(name))


@MAPS
@pytest.mark.parametrize("name", BODIES)
def test_gradient_from_outside(name, mapped):
    def total(w, x):
        return mapped(lambda w, x: local(name, w, x), "i", in_axes=(None, 0))(w, x).sum()

    with x64():
        close(tg.grad(total, (0, 1))(W, X), reference(name)[1:])
        close(tg.jit(tg.grad(total, (0, 1)))(W, X), reference(name)[1:])


@pytest.mark.parametrize("name", BODIES)
def test_two_devices_with_half_the_batch_each(name):
    with x64():
        run = tg.pmap(tg.value_and_grad(lambda w, x: batched_loss(name, w, x), (0, 1)), "i", **ALL)
        value, grads = run(W, X.reshape(2, 4, 3))
        close((value, grads[0], grads[1].reshape(8, 3)), reference(name))


@pytest.mark.parametrize("name", BODIES)
def test_second_derivatives(name):
    with x64():
        hessian = tg.pmap(tg.hessian(lambda w, x: loss(name, w, x)), "i", in_axes=(None, 0), out_axes=None)(W, X)
        close(hessian, second(name))


@pytest.mark.parametrize("check", [True, False], ids=["checked", "unchecked"])
@pytest.mark.parametrize("name", BODIES)
def test_shard_map_of_jax(name, check):
    mesh = Mesh(np.array(jax.devices()), ("i",))

    def run(w, x):
        x = x[0]
        if check:
            value, (gw, gx) = tg.value_and_grad(lambda w, x: loss(name, w, x), (0, 1))(w, x)
        else:
            # JAX does not say what is shared: each device has the derivative in its own copy.
            value, (gw, gx) = tg.value_and_grad(lambda w, x: local(name, w, x), (0, 1))(w, x)
            value, gw = jax.lax.psum(value, "i"), jax.lax.psum(gw, "i")
        return value, gw, gx[None]

    with x64():
        mapped = jax.shard_map(run, mesh=mesh, in_specs=(P(), P("i")), out_specs=(P(), P(), P("i")), check_vma=check)
        close(jax.jit(mapped)(W, X), reference(name))


def test_a_loop_that_ends_on_all_devices_at_once():
    with x64():
        expected = jax.vmap(lambda x: _while(JAX, lambda v: jax.lax.psum(v, "i"), W, x), axis_name="i")(X)
        run = lambda x: _while(OURS, lambda v: tg.psum(v, "i"), W, x)  # noqa: E731
        close(tg.pmap(run, "i")(X), expected)
        close(tg.vmap(run, axis_name="i")(X), expected)


@MAPS
def test_a_branch_each_device_for_itself(mapped):
    """Where the predicate varies, what is shared is summed over the devices outside of the branches."""

    def local(w, x, lib=OURS):
        out = lib.cond(x[0] > 0, lambda x: lib.np.sin(w * w) * x, lambda x: lib.np.cos(w) * x**2, x)
        steps = lib.cond(x[0] > 0, lambda: lib.scan(lambda c, _: (c * w, None), x, None, length=2)[0], lambda: x)
        return lib.np.sum(out * steps)

    with x64():
        expected = jax.grad(lambda w: jax.vmap(lambda x: local(w, x, JAX))(X).sum())(W)
        inside = mapped(tg.grad(lambda w, x: tg.psum(local(w, x), "i")), "i", in_axes=(None, 0), out_axes=None)
        close(inside(W, X), expected)
        twice = mapped(tg.hessian(lambda w, x: tg.psum(local(w, x), "i")), "i", in_axes=(None, 0), out_axes=None)
        close(twice(W, X), jax.hessian(lambda w: jax.vmap(lambda x: local(w, x, JAX))(X).sum())(W))
        outside = tg.grad(lambda w: mapped(local, "i", in_axes=(None, 0))(w, X).sum())
        close(outside(W), expected)


def test_each_device_may_take_its_own_number_of_steps():
    run = lambda x: tg.while_loop(lambda c: c[0] < 5.0, lambda c: c * 2.0, x)  # noqa: E731
    start = np.arange(1.0, 9.0)[:, None]
    expected = [float(tg.while_loop(lambda c: c[0] < 5.0, lambda c: c * 2.0, x)[0]) for x in start]
    assert tg.pmap(run, "i")(start)[:, 0].tolist() == expected
    with pytest.raises(ValueError, match="out_axes=None and differs"):
        tg.pmap(lambda x: tg.while_loop(lambda n: n < x[0], lambda n: n + 1.0, 0.0), "i", out_axes=None)(start)


def test_the_sum_over_devices_is_taken_after_the_loop():
    def loss(w, x):
        return tg.psum(tg.scan(lambda c, _: (tnp.tanh(c * w), None), x, None, length=5)[0].sum(), "i")

    tape = tg.trace(lambda w, x: tg.pmap(tg.grad(loss), "i", in_axes=(None, 0), out_axes=None)(w, x))(W, X)
    body = next(node for node in tape.nodes if node.op.name == "pmap").params["body"]
    assert [node.op.name for node in body.nodes].count("psum") == 1
    loops = [node.params["body"] for node in body.nodes if node.op.name == "scan"]
    assert loops and not any(node.op.name == "psum" for loop in loops for node in loop.nodes)


def _waits(kind: str) -> Callable[[Any], Any]:
    total = lambda v: tg.psum(v, "i")  # noqa: E731
    return {
        "cond": lambda x: tg.cond(x > 0, total, lambda x: x, x),
        "switch": lambda x: tg.switch(tnp.sign(x).astype(int), [total, total, lambda x: x], x),
        "while_loop": lambda x: tg.while_loop(lambda c: c < 5.0, lambda c: total(c), x),
        "condition": lambda x: tg.while_loop(lambda c: (c < 5.0) & (total(c) > 0), lambda c: c + 1.0, x),
        "within": lambda x: tg.cond(x > 0, tg.jit(lambda x: tg.fori_loop(0, 2, lambda _, c: total(c), x)), abs, x),
    }[kind]


@pytest.mark.parametrize("kind", ["cond", "switch", "while_loop", "condition", "within"])
def test_devices_that_would_wait_for_ever(kind):
    pattern = r"varies along 'i', and .* communicates over it .*psum, pmax or pmin"
    check_message(lambda: tg.pmap(_waits(kind), "i")(np.arange(8.0)), ValueError, pattern)
    check_message(lambda: tg.vmap(_waits(kind), axis_name="i")(np.arange(8.0)), ValueError, pattern)


@pytest.mark.parametrize("name", ["psum", "pmax", "pmin", "axis_index", "vary"])
def test_an_op_of_the_user_may_have_the_name_of_a_collective(name):
    double = tg.Op(name, lambda x: 2.0 * x, (lambda ct, out, x: 2.0 * ct,))
    grads = tg.pmap(tg.grad(lambda w, x: tg.psum((double(w) * x).sum(), "i")), "i", in_axes=(None, 0))(W, X)
    np.testing.assert_allclose(grads, np.broadcast_to(2.0 * X.sum(0), (8, 3)), rtol=1e-5)


def test_a_function_of_jax_in_a_body():
    f = tg.from_jax(lambda w, x: jax.lax.scan(lambda c, _: (jnp.tanh(c * w) + x, None), x, None, length=3)[0])
    with x64():
        expected = jax.grad(lambda w: jax.vmap(lambda x: f.__wrapped__(w, x))(X).sum())(W)
        got = tg.pmap(tg.grad(lambda w, x: tg.psum(f(w, x).sum(), "i")), "i", in_axes=(None, 0), out_axes=None)(W, X)
        close(got, expected)
        # The same function again, of what does not vary: its body is another.
        close(tg.grad(lambda w: f(w, X[0]).sum())(W), jax.grad(lambda w: f.__wrapped__(w, X[0]).sum())(W))
        loop = lambda w, x: tg.scan(lambda c, _: (f(w, c), None), x, None, length=2)[0]  # noqa: E731
        got = tg.pmap(tg.grad(lambda w, x: tg.psum(loop(w, x).sum(), "i")), "i", in_axes=(None, 0), out_axes=None)(W, X)
        close(got, jax.grad(lambda w: jax.vmap(lambda x: f.__wrapped__(w, f.__wrapped__(w, x)))(X).sum())(W))


def test_an_error_in_a_body_leaves_nothing_open():
    for run in (tg.scan, tg.cond):
        with pytest.raises(ZeroDivisionError):
            args = (lambda c, _: 1 / 0, X, None, 2) if run is tg.scan else (True, lambda: 1 / 0, lambda: 0)
            tg.pmap(lambda x, run=run, args=args: run(*args), "i")(X)
        assert state.tape is None
    assert tg.pmap(lambda x: tg.psum(x, "i"), "i")(np.ones(8)).tolist() == [8.0] * 8
