"""Control flow against `jax.lax`: values, first and second derivatives, what is kept, and messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_grads, check_message, check_value, x64

RNG = np.random.default_rng(0)
W = RNG.normal(size=(3, 3)) / 2
XS = RNG.normal(size=(5, 2, 3))
H = RNG.normal(size=(2, 3))
V = RNG.normal(size=4)


def recurrent(lib: Any, np: Any, **options: Any) -> Callable[..., Any]:
    def f(w: Any, xs: Any, h: Any) -> Any:
        mixed = np.exp(0.3 * w)  # depends on nothing that changes from step to step

        def step(carry: Any, x: Any) -> Any:
            h, count = carry
            h = np.tanh(h @ w + x @ mixed) * 0.9
            return (h, count + 1), {"h": 2.0 * h, "total": np.sum(x * x)}

        (h, _), ys = lib.scan(step, (h, 0), xs, **options)
        return h, ys

    return f


def nested(lib: Any, np: Any) -> Callable[..., Any]:
    def f(w: Any, xs: Any) -> Any:
        def outer(total: Any, x: Any) -> Any:
            inner, ys = lib.scan(lambda c, row: (np.sin(c + row @ w), c * total), np.zeros_like(x[0]), x)
            return total + np.sum(inner * inner), ys

        return lib.scan(outer, 0.5, xs)

    return f


def without_xs(lib: Any, np: Any) -> Callable[..., Any]:
    return lambda x: lib.scan(lambda c, _: (np.sin(c) * x, c), x, None, length=4)


def only_ys(lib: Any, np: Any) -> Callable[..., Any]:
    return lambda x: lib.scan(lambda c, v: (None, v * v * x[0]), None, x)[1]


def carry_is_saved(lib: Any, np: Any) -> Callable[..., Any]:
    """The backward pass reads the carry of each step, coming in and going out."""
    return lambda x: lib.scan(lambda c, v: (c * v * np.exp(c), c), 0.3, x)


def branches(lib: Any, np: Any) -> Callable[..., Any]:
    def f(x: Any, y: Any) -> Any:
        def low(a: Any) -> Any:
            return np.sin(a) * y, a + 1.0

        def high(a: Any) -> Any:
            return np.exp(np.cos(a)) * a, np.tanh(a) * y

        return lib.cond(np.sum(x) > 0, high, low, x), lib.cond(np.sum(x) < 0, high, low, x)

    return f


def three(index: int) -> Callable[[Any, Any], Callable[..., Any]]:
    def build(lib: Any, np: Any) -> Callable[..., Any]:
        return lambda x: lib.switch(index, [np.sin, lambda x: x * x * x, lambda x: np.full_like(x, 2.0)], x)

    return build


def counted(lib: Any, np: Any) -> Callable[..., Any]:
    return lambda x: lib.fori_loop(1, 4, lambda i, y: y * x + np.sin(y) * i, np.ones_like(x))


def mapped(lib: Any, np: Any) -> Callable[..., Any]:
    return lambda w, xs: (lib.map(lambda x: np.tanh(x @ w), xs), lib.map(lambda x: np.sum(x @ w), xs, batch_size=2))


def in_a_loop(lib: Any, np: Any) -> Callable[..., Any]:
    """A branch inside a loop, which closes over the loop's own values."""

    def f(x: Any) -> Any:
        def step(c: Any, v: Any) -> Any:
            return lib.cond(v > 0, lambda c: np.sin(c) * v, lambda c: c * c + v, c), c

        return lib.scan(step, x[0], x)

    return f


def prefixes(reverse: bool, axis: int) -> Callable[[Any, Any], Callable[..., Any]]:
    def build(lib: Any, np: Any) -> Callable[..., Any]:
        def linear(a: Any, b: Any) -> Any:
            return {"a": a["a"] * b["a"], "b": a["b"] * b["a"] + b["b"]}

        return lambda x, y: lib.associative_scan(linear, {"a": x, "b": y}, reverse=reverse, axis=axis)

    return build


PROGRAMS: dict[str, tuple[Callable[[Any, Any], Callable[..., Any]], tuple[Any, ...]]] = {
    "scan": (recurrent, (W, XS, H)),
    "scan, reversed": (lambda lib, np: recurrent(lib, np, reverse=True), (W, XS, H)),
    "scan, unrolled": (lambda lib, np: recurrent(lib, np, unroll=2), (W, XS[:4], H)),
    "scan of no steps": (recurrent, (W, XS[:0], H)),
    "scan in scan": (nested, (W, XS)),
    "scan without xs": (without_xs, (V,)),
    "scan without a carry": (only_ys, (V,)),
    "scan that saves its carry": (carry_is_saved, (V,)),
    "cond": (branches, (V, V[::-1].copy())),
    "cond, negative": (branches, (-np.abs(V), V)),
    "switch 0": (three(0), (V,)),
    "switch 1": (three(1), (V,)),
    "switch, constant branch": (three(2), (V,)),
    "switch, clamped": (three(7), (V,)),
    "fori_loop": (counted, (V,)),
    "map": (mapped, (W, XS)),
    "cond in scan": (in_a_loop, (V,)),
    "associative_scan": (prefixes(False, -1), (RNG.normal(size=(2, 7)), RNG.normal(size=(2, 7)))),
    "associative_scan, reversed": (prefixes(True, 0), (V, V)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_values_and_derivatives(name: str) -> None:
    build, args = PROGRAMS[name]
    ours, theirs = build(tg, tnp), build(jax.lax, jnp)
    check_value(ours, theirs, *args, only=("eager", "undecorated", "jit"), rtol=1e-9)
    check_grads(ours, *args, jax_fn=theirs, order=2 if "no steps" not in name else 1)


def test_while_loop() -> None:
    def f(lib: Any, np: Any) -> Any:
        return lambda x: lib.while_loop(
            lambda s: (s[0] < 10) & (np.sum(s[1]) < 100.0), lambda s: (s[0] + 1, s[1] * x), (0, np.ones(2))
        )

    for x in (1.1, 3.0):
        check_value(f(tg, tnp), f(jax.lax, jnp), np.float64(x))
    assert int(tg.while_loop(lambda n: n < 100, lambda n: n * 2, 1)) == 128
    # The bound of a fori_loop may be traced; then it is a while_loop.
    np.testing.assert_allclose(tg.jit(lambda n: tg.fori_loop(0, n, lambda i, y: y * 2.0, 1.0))(5), 32.0)


def test_vmap_and_forward_mode_go_through() -> None:
    for build, args in (PROGRAMS["scan without xs"], PROGRAMS["cond in scan"], PROGRAMS["switch 1"]):
        ours, theirs = build(tg, tnp), build(jax.lax, jnp)
        with x64():
            batch = np.stack([args[0], -args[0], 2 * args[0]])
            for a, b in (
                (tg.vmap(ours)(batch), jax.vmap(theirs)(batch)),
                (tg.jvp(ours, args, args), jax.jvp(theirs, args, args)),
                (tg.jacfwd(ours)(*args), jax.jacfwd(theirs)(*args)),
            ):
                jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12), a, b)

    def loop(t: Any, np: Any, lib: Any) -> Any:
        return t.vmap(t.grad(lambda x: lib.scan(lambda c, _: (np.sin(c) * x, None), x, None, length=3)[0]))

    np.testing.assert_allclose(loop(tg, tnp, tg)(V), loop(jax, jnp, jax.lax)(V), rtol=1e-5)


def test_a_loop_keeps_only_what_its_backward_pass_reads() -> None:
    def loss(w: Any, xs: Any) -> Any:
        h, _ = tg.scan(lambda h, x: (tnp.tanh(h @ w + x), None), tnp.zeros((2, 3)), xs)
        return tnp.sum(h)

    forward, backward = (node for node in tg.trace(tg.grad(loss))(W, XS).nodes if node.op.name == "scan")
    # Of each step: the carry that comes in, for the gradient of w, and the one that goes out, for that of tanh.
    assert [v.aval.shape for v in forward.outputs] == [(2, 3), (5, 2, 3), (5, 2, 3)]
    assert backward.params["reverse"]


def test_what_does_not_change_is_computed_once() -> None:
    def loss(w: Any, xs: Any) -> Any:
        return tg.scan(lambda c, x: (c + tnp.sum(x @ tnp.exp(w) * tnp.sin(w)[0]), None), 0.0, xs)[0]

    tape = tg.trace(loss)(W, XS)
    (loop,) = [node for node in tape.nodes if node.op.name == "scan"]
    assert not {"exp", "sin"} & {node.op.name for node in loop.params["body"].nodes}
    assert {"exp", "sin"} <= {node.op.name for node in tape.nodes}


def test_memory_is_at_most_that_of_jax() -> None:
    w = jnp.ones((64, 64), jnp.float32)
    xs, h = jnp.ones((100, 8, 64), jnp.float32), jnp.zeros((8, 64), jnp.float32)

    def loss(lib: Any, np: Any) -> Any:
        def step(w: Any, h: Any, x: Any) -> Any:
            return np.tanh(h @ w + x) * np.exp(-h * h), None

        return lambda w, xs, h: np.sum(lib.scan(lambda h, x: step(w, h, x), h, xs)[0])

    def temporary(f: Any) -> int:
        return int(f.lower(w, xs, h).compile().memory_analysis().temp_size_in_bytes)

    assert temporary(tg.jit(tg.grad(loss(tg, tnp)))) <= temporary(jax.jit(jax.grad(loss(jax.lax, jnp))))


def test_a_changing_number_in_a_body_does_not_recompile(compiles: Callable[[], int]) -> None:
    def loss(x: Any, rate: float) -> Any:
        return tg.scan(lambda c, v: (c + rate * v, None), 0.0, x)[0]

    found = [tg.grad(loss)(V, 0.25)]
    compiles()
    found += [tg.grad(loss)(V, rate) for rate in (0.5, 0.75)]
    assert compiles() == 0
    for g, rate in zip(found, (0.25, 0.5, 0.75), strict=True):
        np.testing.assert_allclose(g, np.full(4, rate), rtol=1e-6)


def test_numbers_and_none_among_carries_and_weak_types() -> None:
    total, _ = tg.scan(lambda c, x: (c + x, None), 0, np.ones(3, np.float32))
    assert (total.dtype, float(total)) == (np.float32, 3.0)
    out, ys = tg.scan(lambda c, x: ((c[0] * 2, None), None), (1.0, None), None, length=3)
    assert (float(out[0]), out[1], ys) == (8.0, None, None)
    assert tg.map(lambda x: x * 2, np.arange(3)).tolist() == [0, 2, 4]


F32, F16 = np.float32(2), np.float16(2)

CARRIES: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "a Python int meets float32": (0, lambda c: c + F32),
    "a Python int becomes a float": (1, lambda c: c * 0.5),
    "a Python float becomes complex": (1.0, lambda c: c * 1j),
    "a Python float meets float16": (1.0, lambda c: c * F16),
    "a Python int meets int8": (1, lambda c: c * np.int8(1)),
    "a Python int stays": (1, lambda c: c + 1),
    "a Python float is replaced by an int32": (0.5, lambda c: np.int32(3)),
    "a Python float is replaced by an int": (1.5, lambda c: 2),
    "a Python complex is replaced by a float32": (1j, lambda c: F32),
    "a Python int is compared": (1, lambda c: c > 0),
    "a bool meets float32": (True, lambda c: c + F32),
    "an int32 meets float32": (np.int32(0), lambda c: c + F32),
    "a float16 is replaced by a float": (F16, lambda c: 2.0),
    "a number becomes an array": (0.0, lambda c: c + np.ones(2, np.float32)),
}

LOOPS: dict[str, Callable[..., Any]] = {
    "scan": lambda lax, f, init: lax.scan(lambda c, _: (f(c), None), init, None, length=2)[0],
    "fori_loop": lambda lax, f, init: lax.fori_loop(0, 2, lambda i, c: f(c), init),
    "while_loop": lambda lax, f, init: lax.while_loop(lambda v: v[0] < 2, lambda v: (v[0] + 1, f(v[1])), (0, init))[1],
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("case", CARRIES)
def test_carries_are_promoted_as_those_of_jax(case: str, loop: str) -> None:
    init, f = CARRIES[case]
    try:
        expected = LOOPS[loop](jax.lax, f, init)
    except TypeError:
        with pytest.raises(TypeError, match=r"goes into .* when it comes out .*test_control.*\.astype") as caught:
            LOOPS[loop](tg, f, init)
        assert f"{loop}: " in str(caught.value) and repr(tg.tape.aval_of(init)) in str(caught.value)
        return
    actual = LOOPS[loop](tg, f, init)
    assert (actual.dtype, actual.weak_type, actual.tolist()) == (expected.dtype, expected.weak_type, expected.tolist())


# -- random programs with loops and branches

STEPS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "sin": lambda np, c, x, w: np.sin(c) + x,
    "product": lambda np, c, x, w: c * np.tanh(x) + 0.1,
    "weight": lambda np, c, x, w: np.tanh(c @ w) * 0.7,
    "square": lambda np, c, x, w: 0.3 * c * c - x,
    "closure": lambda np, c, x, w: c + np.sum(np.exp(-w * w)) * 0.1,
}


@st.composite
def loops(draw: st.DrawFn) -> tuple[list[tuple[str, list[str], bool, int]], int]:
    names = st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=3)
    kind = st.sampled_from(["scan", "cond", "fori", "plain", "checkpoint"])
    parts = draw(st.lists(st.tuples(kind, names, st.booleans(), st.integers(0, 3)), min_size=1, max_size=3))
    return parts, draw(st.integers(0, 2**16))


def run_loops(lib: Any, np: Any, remat: Any, parts: Any) -> Callable[..., Any]:
    def program(params: Any) -> Any:
        c, w, xs = params["c"], params["w"], params["xs"]
        total = 0.0
        for kind, names, flag, n in parts:

            def body(c: Any, x: Any, names: Any = names) -> Any:
                for name in names:
                    c = STEPS[name](np, c, x, w)
                return c

            if kind == "scan":
                c, ys = lib.scan(lambda c, x, body=body: (body(c, x), np.sum(c * x)), c, xs[: n + 1], reverse=flag)
                total = total + np.sum(ys * ys)
            elif kind == "cond":
                c = lib.cond(np.sum(c) > 0, lambda c, body=body: body(c, xs[0]), lambda c: np.cos(c) * w[0], c)
            elif kind == "fori":
                c = lib.fori_loop(0, n, lambda i, c, body=body: body(c, xs[0] * i), c)
            elif kind == "checkpoint":
                c = remat(lambda c, body=body: body(c, xs[1]))(c)
            else:
                c = body(c, xs[1])
        return total + np.sum(np.sin(c))

    return program


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(loops())
def test_gradients_of_random_loops(case: Any) -> None:
    parts, seed = case
    rng = np.random.default_rng(seed)
    params = {"c": rng.normal(size=3), "w": rng.normal(size=(3, 3)) / 2, "xs": rng.normal(size=(4, 3))}
    with x64():
        value, expected = jax.jit(jax.value_and_grad(run_loops(jax.lax, jnp, jax.checkpoint, parts)))(params)
        ours = tg.value_and_grad(run_loops(tg, tnp, tg.checkpoint, parts))
        for actual in (ours(params), tg.jit(ours)(params)):
            np.testing.assert_allclose(actual[0], value, rtol=1e-9)
            jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-8, atol=1e-10), actual[1], expected)


# -- bad input

F32 = np.zeros(3, np.float32)

ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "carry of another shape": (
        lambda: tg.scan(lambda c, x: ({"a": c["a"][:2]}, None), {"a": F32}, F32), TypeError,
        r"scan: \['a'\] is f32\[3\] when it goes into <lambda> and f32\[2\] when it comes out at .*test_control.py",
    ),
    "carry of another dtype": (
        lambda: tg.scan(lambda c, x: (c + 1.5, None), np.int32(0), F32), TypeError, r"the carry is i32\[\].*f32\[\]",
    ),
    "carry of another structure": (
        lambda: tg.scan(lambda c, x: ((c, c), None), F32, F32), TypeError, r"has structure PyTreeDef\(\(\*, \*\)\)",
    ),
    "no pair": (lambda: tg.scan(lambda c, x: c, F32, F32), TypeError, r"must return a pair \(carry, y\).*f32\[3\]"),
    "lengths that differ": (
        lambda: tg.scan(lambda c, x: (c, None), 0.0, (F32, F32[:2])), ValueError, r"3 \(array 0 of xs\), 2 \(array 1",
    ),
    "length against xs": (lambda: tg.scan(lambda c, x: (c, x), 0.0, F32, length=4), ValueError, r"and length=4"),
    "no length": (lambda: tg.scan(lambda c, x: (c, x), 0.0), ValueError, r"Pass length=n"),
    "a scalar among xs": (lambda: tg.scan(lambda c, x: (c, x), 0.0, 1.0), ValueError, r"has no axis to go along"),
    "branches of other shapes": (
        lambda: tg.cond(True, lambda x: (x, x), lambda x: (x, x[:1]), F32), TypeError,
        r"cond: \[1\] is f32\[1\] from <lambda> and f32\[3\] from <lambda> at .*test_control.py",
    ),
    "branches of other structures": (
        lambda: tg.cond(True, lambda x: (x, x), lambda x: x, F32), TypeError, r"must return the same structure",
    ),
    "a pred that is no scalar": (
        lambda: tg.cond(F32 > 0, lambda x: x, lambda x: x, F32), TypeError, r"pred is bool\[3\], not a scalar.*any\(\)",
    ),
    "a float index": (lambda: tg.switch(1.0, [tnp.sin, tnp.cos], F32), TypeError, r"index is f32\[\].*not an integer"),
    "no branches": (lambda: tg.switch(0, [], F32), ValueError, r"no branches"),
    "a condition that is no bool": (
        lambda: tg.while_loop(lambda x: x, lambda x: x, F32), TypeError, r"must return a boolean scalar",
    ),
    "a derivative of while_loop": (
        lambda: tg.grad(lambda x: tg.while_loop(lambda x: x < 9, lambda x: x * x, x))(2.0), TypeError,
        r"the while_loop at .*test_control.py:\d+ .* has no reverse-mode derivative.*fori_loop.*custom_vjp",
    ),
    "a traced trip count": (
        lambda: tg.jit(tg.grad(lambda x, n: tg.fori_loop(0, n, lambda i, y: y * x, x)))(2.0, 3), TypeError,
        r"has no reverse-mode derivative",
    ),
    "a float bound": (lambda: tg.fori_loop(0, 2.5, lambda i, x: x, 1.0), TypeError, r"upper is f32\[\]"),
    "sizes in associative_scan": (
        lambda: tg.associative_scan(lambda a, b: a, (F32, F32[:2])), ValueError, r"differ in size along axis 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_messages(name: str) -> None:
    check_message(*ERRORS[name])


def test_on_many_devices() -> None:
    """The gradient of a function with loops, branches and `checkpoint`, summed over devices, is that of each share."""
    from tracegrad.parallel import split_batch, sum_gradients

    w = W.astype(np.float32)
    batch = split_batch(RNG.normal(size=(8, 4, 3)).astype(np.float32), 4)

    def loss(w: Any, x: Any) -> Any:
        def step(h: Any, xt: Any) -> Any:
            return tnp.tanh(h @ w + xt), None

        h, _ = tg.scan(step, tnp.zeros((2, 3)), tnp.swapaxes(x, 0, 1))
        h = tg.checkpoint(lambda w, h: tnp.sin(h @ w))(w, h)
        h = tg.cond(tnp.sum(x) > 0, lambda h: h @ w, tnp.cos, h)
        return tnp.mean(h * h)

    def inside(w: Any, x: Any) -> Any:
        value, g = tg.value_and_grad(loss)(w, x)
        return tg.pmean(value, "i"), sum_gradients(g, "i", mean=True)

    shares = [tg.value_and_grad(loss)(w, x) for x in batch]
    value, expected = np.mean([v for v, _ in shares]), np.mean([g for _, g in shares], 0)
    for got in (
        tg.pmap(inside, "i", in_axes=(None, 0), out_axes=None)(w, batch),
        tg.value_and_grad(lambda w: tnp.mean(tg.pmap(loss, "i", in_axes=(None, 0))(w, batch)))(w),
    ):
        np.testing.assert_allclose(got[0], value, rtol=1e-5)
        np.testing.assert_allclose(got[1], expected, rtol=1e-4, atol=1e-6)


def test_a_branch_may_read_one_number_twice() -> None:
    half = 0.5

    def branch(w: Any) -> Any:
        return (w * half - (w + half)).sum() * half

    for g in (tg.grad, lambda f: tg.jit(tg.grad(f)), lambda f: jax.jit(tg.grad(f))):
        out = g(lambda w: tg.cond(w.sum() > 0, branch, lambda w: branch(w) * half, w))(np.ones(2, np.float32))
        np.testing.assert_allclose(out, [-0.25, -0.25])
    key = tg.random.key(0)
    drop = lambda w: tg.nn.dropout(key, w, 0.5).sum()  # noqa: E731
    out = tg.grad(lambda w: tg.cond(w.sum() > 0, drop, drop, w))(np.ones(64, np.float32))
    assert set(out.tolist()) == {0.0, 2.0}
