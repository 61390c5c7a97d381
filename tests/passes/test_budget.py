"""Memory budgets: programs that fit, by XLA's own figures, with the gradients of the programs that do not."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax import lax
from scipy.sparse.csgraph import maximum_flow

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.budgets import bytes_of_budget
from tracegrad.lower import lower
from tracegrad.ops.collectives import psum_op
from tracegrad.passes import optimize, plans, rematerialized
from tracegrad.passes.mincut import Network, cut
from tracegrad.tape import Tape, Var

RNG = np.random.default_rng(0)
LAYERS, WIDTH, ROWS = 6, 16, 256
WS = (RNG.normal(size=(LAYERS, WIDTH, WIDTH)) / 4).astype(np.float32)
X = RNG.normal(size=(ROWS, WIDTH)).astype(np.float32)
KEY = jax.random.key(0)


def temporaries(compiled: Any) -> int:
    return int(compiled.memory_analysis().temp_size_in_bytes)


def plain(f: Any, *args: Any) -> int:
    return temporaries(tg.jit(f).lower(*args).compile())


# -- the cut


@pytest.mark.parametrize("seed", range(8))
def test_flow_is_scipys_and_the_cut_is_of_its_size(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 40))
    network, capacities = Network(), np.zeros((n, n), np.int32)
    for _ in range(n):
        network.node()
    for a, b, c in rng.integers(0, (n, n, 20), size=(4 * n, 3)).tolist():
        if a != b:
            network.edge(a, b, c)
            capacities[a, b] += c
    expected = maximum_flow(scipy.sparse.csr_matrix(capacities), 0, n - 1).flow_value
    assert network.fill(0, n - 1) == expected
    side = network.before(n - 1)
    assert 0 not in side
    assert sum(capacities[a, b] for a in range(n) for b in range(n) if a not in side and b in side) == expected


def small(x: Any, y: Any) -> Any:
    a = tnp.sin(x)
    b = a @ y
    c = tnp.exp(b)[:, :1]
    d = c * tnp.cos(a)[:, :1] + b.sum()
    return d, tnp.tanh(d + c), a * y.sum()


@pytest.mark.parametrize("once", ["dot_general", "sin", "none"])
def test_cut_costs_what_the_cheapest_of_all_sets_does(once: str) -> None:
    tape = optimize(tg.trace(small)(np.ones((4, 4), np.float32), np.ones((4, 4), np.float32)))
    values = [v for node in tape.nodes for v in node.outputs]

    def cost(v: Var) -> int:
        return int(np.prod(v.aval.shape)) + 1

    def follow(kept: set[Var]) -> bool:
        """Whether the results can be computed from these and the inputs, without the steps that run once."""
        have = kept | set(tape.inputs)
        for node in tape.nodes:
            if node.op.name != once and all(v in have or v.tape is None for v in node.inputs):
                have |= set(node.outputs)
        return set(tape.outputs) <= have

    sets = itertools.chain.from_iterable(itertools.combinations(values, n) for n in range(len(tape.outputs) + 1))
    least = min(sum(map(cost, kept)) for kept in sets if follow(set(kept)))
    found = cut(tape.nodes, tape.outputs, given=set(tape.inputs), once=lambda n: n.op.name == once, cost=cost)
    assert follow(set(found))
    assert sum(map(cost, found)) == least


# -- programs


def layer(np: Any, x: Any, w: Any) -> Any:
    return x + np.tanh(np.tanh(x @ w) @ w)


def scanned(ws: Any, x: Any) -> Any:
    return (tg.scan(lambda x, w: (layer(tnp, x, w), None), x, ws)[0] ** 2).sum()


def unrolled(ws: Any, x: Any) -> Any:
    for i in range(LAYERS):
        x = layer(tnp, x, ws[i])
    return (x**2).sum()


def reference(ws: Any, x: Any) -> Any:
    return (lax.scan(lambda x, w: (layer(jnp, x, w), None), x, ws)[0] ** 2).sum()


def blocks(ws: Any, x: Any) -> Any:
    block = tg.jit(lambda x, w: layer(tnp, x, w))
    return (tg.scan(lambda x, w: (block(x, w), None), x, ws)[0] ** 2).sum()


def unrolled_blocks(ws: Any, x: Any) -> Any:
    block = tg.jit(lambda x, w: layer(tnp, x, w))
    for i in range(LAYERS):
        x = block(x, ws[i])
    return (x**2).sum()


def vmapped(ws: Any, x: Any) -> Any:
    rows = tg.vmap(lambda row, w: layer(tnp, row, w), (0, None))
    return (tg.scan(lambda x, w: (rows(x, w), None), rows(x, ws[0]), ws[1:])[0] ** 2).sum()


def nested(ws: Any, x: Any) -> Any:
    def pair(x: Any, ws: Any) -> Any:
        return tg.scan(lambda x, w: (layer(tnp, x, w), None), x, ws)[0], None

    return (tg.scan(pair, x, ws.reshape(LAYERS // 2, 2, WIDTH, WIDTH))[0] ** 2).sum()


def imported(ws: Any, x: Any) -> Any:
    return tg.from_jax(reference)(ws, x)


def microbatches(f: Any) -> Any:
    def total(ws: Any, x: Any) -> Any:
        parts = x.reshape(2, ROWS // 2, WIDTH)
        return tg.scan(lambda g, x: (g + tg.grad(f)(ws, x), None), tnp.zeros_like(ws), parts)[0]

    return total


def each(f: Any) -> Any:
    def total(ws: Any, x: Any) -> Any:
        return tg.vmap(tg.grad(f), (None, 0))(ws, x.reshape(2, ROWS // 2, WIDTH)).sum(0)

    return total


PROGRAMS: dict[str, Callable[..., Any]] = {
    "scan": tg.grad(scanned),
    "unrolled": tg.grad(unrolled),
    "jitted layers in a scan": tg.grad(blocks),
    "jitted layers": tg.grad(unrolled_blocks),
    "jitted loss": tg.grad(tg.jit(unrolled)),
    "of JAX": tg.grad(imported),
    "unrolled scan": tg.grad(
        lambda ws, x: (tg.scan(lambda x, w: (layer(tnp, x, w), None), x, ws, unroll=2)[0] ** 2).sum()
    ),
    "scan backwards": tg.grad(
        lambda ws, x: (tg.scan(lambda x, w: (layer(tnp, x, w), None), x, ws[::-1], reverse=True)[0] ** 2).sum()
    ),
    "fori_loop": tg.grad(
        lambda ws, x: (tg.fori_loop(0, LAYERS, lambda i, x: layer(tnp, x, ws[i]), x) ** 2).sum()
    ),
    "vmapped layers": tg.grad(vmapped),
    "loops in a loop": tg.grad(nested),
    "in a scan": microbatches(scanned),
    "unrolled in a scan": microbatches(unrolled),
    "in vmap": each(scanned),
    "unrolled in vmap": each(unrolled),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_fit_their_budget_with_jaxs_gradient(name: str) -> None:
    f = PROGRAMS[name]
    budget = int(0.7 * plain(f, WS, X))
    fitting = tg.jit(f, memory_budget=budget)
    assert temporaries(fitting.lower(WS, X).compile()) <= budget
    expected = jax.jit(jax.grad(reference))(WS, X)
    np.testing.assert_allclose(fitting(WS, X), expected, rtol=0, atol=3e-6 * np.abs(expected).max())
    # What is computed again waits for a cotangent, whatever that is.
    spoilt = X.copy()
    spoilt[0] = np.nan
    assert np.isnan(fitting(WS, spoilt)).all()


@pytest.mark.parametrize("f", [scanned, unrolled, blocks], ids=lambda f: f.__name__)
def test_values_computed_again_have_the_same_bits(f: Any) -> None:
    # One op at a time: in one program XLA rounds a value as the steps around it are, which differ.
    tape = optimize(tg.trace(tg.value_and_grad(f))(WS, X))
    with jax.disable_jit():
        expected = lower(tape)(WS, X)
    found = plans(tape)
    assert len(found) > 1
    assert [p.peak for p in found] == sorted((p.peak for p in found), reverse=True)
    for plan in found[1:]:
        assert sum(plan.again.values()) > 0
        with jax.disable_jit():
            outs = lower(rematerialized(tape, plan))(WS, X)
        for a, b in zip(outs, expected, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("policy", ["dots_saveable", "nothing_saveable"])
def test_loops_over_layers_are_as_low_as_with_jaxs_policies(policy: str) -> None:
    step = jax.checkpoint(lambda x, w: (layer(jnp, x, w), None), policy=getattr(jax.checkpoint_policies, policy))
    theirs = jax.jit(jax.grad(lambda ws, x: (lax.scan(step, x, ws)[0] ** 2).sum()))
    budget = temporaries(theirs.lower(WS, X).compile())
    fitting = tg.jit(tg.grad(scanned), memory_budget=budget)
    assert temporaries(fitting.lower(WS, X).compile()) <= budget


def test_stacked_parameters_are_not_copied() -> None:
    ws = (RNG.normal(size=(16, 128, 128)) / 12).astype(np.float32)
    fitting = tg.jit(tg.grad(scanned), memory_budget=ws.nbytes // 2)
    assert temporaries(fitting.lower(ws, ws[0, :4]).compile()) < ws.nbytes // 2


# -- where a budget stands


def test_gradients_take_a_budget_undecorated_and_inside_others() -> None:
    expected = jax.jit(jax.grad(reference))(WS, X)
    atol = 3e-6 * np.abs(expected).max()
    tangent = np.full_like(WS, 0.1)
    for f in (scanned, unrolled):
        budget = int(0.7 * plain(tg.grad(f), WS, X))
        value, gradient = tg.value_and_grad(f, memory_budget=budget)(WS, X)
        np.testing.assert_allclose(value, reference(WS, X), rtol=1e-5)
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=atol)
        if f is unrolled:
            continue

        @tg.jit
        def step(ws: Any, x: Any, f: Any = f, budget: int = budget) -> Any:
            return ws - 0.5 * tg.grad(f, memory_budget=budget)(ws, x)

        np.testing.assert_allclose(step(WS, X), WS - 0.5 * expected, rtol=0, atol=atol)
        inner = tg.jit(tg.grad(f), memory_budget=budget)
        np.testing.assert_allclose(tg.jit(lambda ws, x, g=inner: g(ws, x))(WS, X), expected, rtol=0, atol=atol)
        np.testing.assert_allclose(jax.jit(inner)(WS, X), expected, rtol=0, atol=atol)
        mapped = tg.vmap(tg.grad(f, memory_budget=budget), (None, 0))(WS, np.stack([X, X]))
        np.testing.assert_allclose(mapped, np.stack([expected, expected]), rtol=0, atol=atol)
        hvp = jax.jit(lambda ws, x: jax.jvp(lambda ws: jax.grad(reference)(ws, x), (ws,), (tangent,))[1])(WS, X)
        second = tg.grad(lambda ws, f=f, b=budget: (tg.grad(f, memory_budget=b)(ws, X) * tangent).sum())(WS)
        np.testing.assert_allclose(second, hvp, rtol=0, atol=1e-5 * np.abs(hvp).max())


def test_second_derivatives_fit() -> None:
    tangent = np.full_like(WS, 0.1)

    def hvp(ws: Any, x: Any) -> Any:
        return tg.grad(lambda ws: (tg.grad(scanned)(ws, x) * tangent).sum())(ws)

    budget = int(0.8 * plain(hvp, WS, X))
    fitting = tg.jit(hvp, memory_budget=budget)
    assert temporaries(fitting.lower(WS, X).compile()) <= budget
    expected = jax.jit(lambda ws, x: jax.jvp(lambda ws: jax.grad(reference)(ws, x), (ws,), (tangent,))[1])(WS, X)
    np.testing.assert_allclose(fitting(WS, X), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_decorators_aux_and_python_arguments() -> None:
    @tg.grad(has_aux=True, memory_budget="1MB")
    def f(x: Any, n: int, *, scale: float) -> Any:
        y = x
        for _ in range(n):
            y = tnp.sin(y)
        return (scale * y).sum(), y

    gradient, aux = f(X, 2, scale=2.0)
    np.testing.assert_allclose(gradient, 2 * np.cos(np.sin(X)) * np.cos(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(aux, np.sin(np.sin(X)), rtol=1e-5)

    @tg.jit(memory_budget="1MB", static_argnums=1, donate_argnums=0)
    def g(x: Any, n: int) -> Any:
        return tg.grad(lambda x: (x**n).sum())(x)

    np.testing.assert_allclose(g(jnp.array([2.0]), 2), [4.0])
    np.testing.assert_allclose(g(jnp.array([2.0]), 3), [12.0])


def test_closed_over_arrays_are_read_anew() -> None:
    weights = {"ws": WS}

    def loss(x: Any) -> Any:
        return scanned(weights["ws"], x)

    fitting = tg.jit(tg.grad(loss), memory_budget=int(0.8 * plain(tg.grad(loss), X)))
    for scale in (1.0, 0.5):
        weights["ws"] = WS * np.float32(scale)
        expected = jax.jit(jax.grad(reference, argnums=1))(weights["ws"], X)
        np.testing.assert_allclose(fitting(X), expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def test_each_set_of_argument_types_has_its_plan() -> None:
    f = tg.grad(lambda ws, x: scanned(ws, x))
    budget = int(0.7 * plain(f, WS, X))
    fitting = tg.jit(f, memory_budget=budget)
    for x in (X, X[:8], X[:0], X):
        compiled = fitting.lower(WS, x).compile()
        assert temporaries(compiled) <= budget
        expected = jax.jit(jax.grad(reference))(WS, x)
        np.testing.assert_allclose(fitting(WS, x), expected, rtol=0, atol=3e-6 * np.abs(expected).max())
    assert tg.memory(fitting)(WS, X).temporaries <= budget
    told = tg.explain(f).splitlines()[1:]
    assert [("nothing is computed again" in line, f"memory budget {budget:,} bytes" in line) for line in told] == [
        (False, True), (True, True), (True, True),
    ]  # fmt: skip
    assert re.search(r"kept for the gradient [\d,]+ of [\d,]+; computed again: .*dot_general", told[0])


# -- what must not run twice, and what may


def test_random_numbers_are_those_of_the_first_time() -> None:
    def loss(ws: Any, x: Any, key: Any) -> Any:
        for i in range(4):
            key, sub = tg.random.split(key)
            x = layer(tnp, x, ws[i]) * tg.random.bernoulli(sub, 0.9, x.shape) / 0.9
        return (x**2).sum()

    def theirs(ws: Any, x: Any, key: Any) -> Any:
        for i in range(4):
            key, sub = jax.random.split(key)
            x = layer(jnp, x, ws[i]) * jax.random.bernoulli(sub, 0.9, x.shape) / 0.9
        return (x**2).sum()

    f = tg.grad(loss)
    budget = int(0.8 * plain(f, WS, X, KEY))
    expected = jax.jit(jax.grad(theirs))(WS, X, KEY)
    fitting = tg.jit(f, memory_budget=budget)
    assert temporaries(fitting.lower(WS, X, KEY).compile()) <= budget
    np.testing.assert_allclose(fitting(WS, X, KEY), expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def steps(tape: Tape) -> list[Any]:
    found = []
    for node in tape.nodes:
        found.append(node)
        for value in node.params.values():
            for part in value if isinstance(value, tuple) else (value,):
                found += steps(part) if isinstance(part, Tape) else []
    return found


def test_collectives_run_once() -> None:
    def loss(ws: Any, x: Any) -> Any:
        for i in range(LAYERS):
            x = layer(tnp, x, ws[i])
            x = x - tg.pmean(x.mean(), "i")
        return tg.pmean((x**2).sum(), "i")

    def theirs(ws: Any, x: Any) -> Any:
        for i in range(LAYERS):
            x = layer(jnp, x, ws[i])
            x = x - x.mean()
        return (x**2).sum() / 2

    f = tg.pmap(tg.grad(loss), "i", in_axes=(None, 0), out_axes=None)
    halves = X.reshape(2, ROWS // 2, WIDTH)
    tape = optimize(tg.trace(f)(WS, halves))
    found = plans(tape)
    counts = [sum(n.op is psum_op for n in steps(rematerialized(tape, plan))) for plan in found]
    assert len(found) > 2
    assert set(counts) == {counts[0]}
    fitting = tg.jit(f, memory_budget=int(0.8 * plain(f, WS, halves)))
    expected = jax.jit(jax.grad(theirs))(WS, X)
    np.testing.assert_allclose(fitting(WS, halves), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_effects_and_ops_of_the_users_run_once() -> None:
    seen: list[int] = []

    def printing(x: Any) -> Any:
        jax.debug.callback(lambda y: seen.append(1), x)
        return x

    double = tg.Op("double", lambda x: x + x, vjp=(lambda ct, out, x: ct + ct,))

    def loss(ws: Any, x: Any) -> Any:
        for i in range(LAYERS):
            x = tg.from_jax(printing)(layer(tnp, x, ws[i]))
            x = double(x) / 2
        return (x**2).sum()

    f = tg.grad(loss)
    tape = optimize(tg.trace(f)(WS, X))
    for plan in plans(tape):
        assert sum(n.op is double for n in steps(rematerialized(tape, plan))) == LAYERS
    seen.clear()
    budget = int(0.9 * plain(f, WS, X))
    out = tg.jit(f, memory_budget=budget)(WS, X)
    jax.effects_barrier()
    assert len(seen) == LAYERS
    expected = jax.jit(jax.grad(reference))(WS, X)
    np.testing.assert_allclose(out, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


# -- bad input


@pytest.mark.parametrize(
    ("text", "size"),
    [("1B", 1), ("2 KiB", 2048), ("2kb", 2000), ("1.5MiB", 3 << 19), (" 2GB ", 2 * 10**9), ("2GiB", 2 << 30),
     (".5TiB", 1 << 39), (4096, 4096), (np.int64(7), 7), (2e9, 2 * 10**9)],
)  # fmt: skip
def test_sizes(text: Any, size: int) -> None:
    assert bytes_of_budget("jit", text) == size


@pytest.mark.parametrize(
    ("budget", "error"),
    [("two", ValueError), ("2", ValueError), ("2G", ValueError), ("", ValueError), ("-2GiB", ValueError),
     ("2 GiB per device", ValueError), (0, ValueError), ("0B", ValueError), (-5, ValueError), (0.5, ValueError),
     (True, TypeError), (float("nan"), TypeError), (float("inf"), TypeError), ([1], TypeError), (1j, TypeError)],
)  # fmt: skip
def test_what_is_no_size_is_told(budget: Any, error: type[Exception]) -> None:
    for function, name in ((tg.jit, "jit"), (tg.grad, "grad"), (tg.value_and_grad, "value_and_grad")):
        with pytest.raises(error, match=rf"^{name}: memory_budget is .*test_budget.py") as raised:
            function(scanned, memory_budget=budget)  # type: ignore[operator]
        assert 'such as "512MiB"' in str(raised.value)
        assert str(budget) in str(raised.value)


@pytest.mark.parametrize("f", [tg.grad(scanned), tg.grad(unrolled)], ids=["scan", "unrolled"])
def test_a_budget_that_cannot_be_reached_says_what_can(f: Any) -> None:
    with pytest.raises(ValueError, match=r"jit: memory_budget is 1,000 bytes.*test_budget.py") as raised:
        tg.jit(f, memory_budget="1kB")(WS, X)
    found = re.search(r"Give at least memory_budget=(\d+)", str(raised.value))
    assert found is not None
    least = int(found[1])
    assert 1_000 < least < plain(f, WS, X)
    assert temporaries(tg.jit(f, memory_budget=least).lower(WS, X).compile()) <= least


def test_what_has_no_gradient_cannot_be_cut() -> None:
    with pytest.raises(ValueError, match="nothing that it could compute again"):
        tg.jit(lambda x: tnp.sort(tnp.sin(x) @ x.T), memory_budget=1)(X)
    with pytest.raises(ValueError, match=r"grad: memory_budget is 10 bytes"):
        tg.grad(scanned, memory_budget=10)(WS, X)


def test_a_part_on_many_devices_has_no_budget_of_its_own() -> None:
    f = tg.pmap(tg.grad(scanned, memory_budget="1MB"), "i", in_axes=(None, 0))
    with pytest.raises(NotImplementedError, match="Give it to the jit around"):
        f(WS, X.reshape(2, ROWS // 2, WIDTH))
