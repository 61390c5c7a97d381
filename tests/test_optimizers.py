"""Optimizers against their published formulas, written out in NumPy and float64."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
from tests.reference import x64
from tracegrad import nn, schedules
from tracegrad import optimizers as opt

rng = np.random.default_rng(0)
PARAMS = {"w": rng.standard_normal((3, 2)), "b": [rng.standard_normal(2), rng.standard_normal(())]}
GRADS = [jax.tree.map(lambda p: rng.standard_normal(p.shape) * 3, PARAMS) for _ in range(4)]

Rule = Callable[[np.ndarray, list[np.ndarray]], Iterator[np.ndarray]]


def sgd(a: Any, mu: float = 0.0, nesterov: bool = False) -> Rule:
    def run(p: np.ndarray, gs: list[np.ndarray]) -> Iterator[np.ndarray]:
        v = np.zeros_like(p)
        for t, g in enumerate(gs):
            v = mu * v + g
            p = p - (a(t) if callable(a) else a) * (g + mu * v if nesterov else v)
            yield p

    return run


def adam(a: Any, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, root: float = 0.0, decay: float = 0.0) -> Rule:
    """Kingma and Ba, algorithm 1; with decay, Loshchilov and Hutter, algorithm 2."""

    def run(p: np.ndarray, gs: list[np.ndarray]) -> Iterator[np.ndarray]:
        m = v = np.zeros_like(p)
        for t, g in enumerate(gs, 1):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g * g
            hat = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t) + root) + eps)
            p = p - (a(t - 1) if callable(a) else a) * (hat + decay * p)
            yield p

    return run


def halving(t: Any) -> Any:
    return 0.1 * 0.5**t


CASES: list[tuple[opt.GradientTransformation, Rule]] = [
    (opt.sgd(0.1), sgd(0.1)),
    (opt.sgd(0.1, momentum=0.9), sgd(0.1, 0.9)),
    (opt.sgd(0.1, momentum=0.9, nesterov=True), sgd(0.1, 0.9, True)),
    (opt.sgd(halving, momentum=0.5), sgd(halving, 0.5)),
    (opt.adam(0.1), adam(0.1)),
    (opt.adam(halving, 0.8, 0.95, 1e-3, 1e-2), adam(halving, 0.8, 0.95, 1e-3, 1e-2)),
    (opt.adamw(0.1, weight_decay=0.05), adam(0.1, decay=0.05)),
    (opt.chain(opt.scale_by_adam(), opt.scale(-0.1)), adam(0.1)),
    (opt.chain(opt.trace(0.9), opt.scale_by_learning_rate(0.1)), sgd(0.1, 0.9)),
    (opt.chain(opt.scale_by_schedule(halving), opt.scale(-1.0)), sgd(halving)),
    (opt.chain(opt.add_decayed_weights(0.1), opt.sgd(0.2)), lambda p, gs: _decayed(p, gs)),
]


def _decayed(p: np.ndarray, gs: list[np.ndarray]) -> Iterator[np.ndarray]:
    for g in gs:
        p = p - 0.2 * (g + 0.1 * p)
        yield p


def one_step(optimizer: opt.GradientTransformation) -> Callable[..., Any]:
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return opt.apply_updates(params, updates), state

    return step


def recorded(step: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: tg.grad(lambda one, args: (one, step(*args)), has_aux=True)(1.0, args)[1]


@pytest.mark.parametrize("mode", ["eager", "jit", "undecorated"])
@pytest.mark.parametrize(("optimizer", "rule"), CASES)
def test_formula(optimizer: opt.GradientTransformation, rule: Rule, mode: str) -> None:
    with x64():
        step = one_step(optimizer)
        step = {"eager": lambda f: f, "jit": tg.jit, "undecorated": recorded}[mode](step)
        expected = [list(rule(p, list(gs))) for p, *gs in zip(*map(jax.tree.leaves, (PARAMS, *GRADS)), strict=True)]
        params, state = PARAMS, optimizer.init(PARAMS)
        for t, grads in enumerate(GRADS):
            params, state = step(params, state, grads)
            assert jax.tree.structure(params) == jax.tree.structure(PARAMS)
            for p, e in zip(jax.tree.leaves(params), expected, strict=True):
                np.testing.assert_allclose(p, e[t], rtol=1e-9)


@pytest.mark.parametrize(
    "optimizer",
    [
        *[optimizer for optimizer, _ in CASES],
        opt.identity(),
        opt.chain(opt.clip_by_global_norm(0.5), opt.clip_by_norm(0.4), opt.clip_by_value(0.1), opt.adamw(halving)),
        opt.sgd(np.float32(0.1), momentum=jnp.float32(0.5)),
    ],
)
def test_pickled_optimizers_and_states_go_on_as_before(optimizer: opt.GradientTransformation) -> None:
    state = optimizer.init(PARAMS)
    for grads in GRADS[:2]:
        _, state = optimizer.update(grads, state, PARAMS)
    again, kept = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps((optimizer, state)))))
    assert isinstance(again, opt.GradientTransformation)
    assert jax.tree.structure(kept) == jax.tree.structure(again.init(PARAMS)) == jax.tree.structure(state)
    expected, actual = optimizer.update(GRADS[2], state, PARAMS), again.update(GRADS[2], kept, PARAMS)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


# -- clipping


@pytest.mark.parametrize("limit", [0.5, 1e3])
def test_clipping(limit: float) -> None:
    with x64():
        grads = GRADS[0]
        leaves = jax.tree.leaves(grads)
        norm = np.sqrt(sum((g**2).sum() for g in leaves))

        def clipped(transformation: Any) -> Any:
            return jax.tree.leaves(transformation.update(grads, transformation.init(None))[0])

        for got, g in zip(clipped(opt.clip_by_global_norm(limit)), leaves, strict=True):
            np.testing.assert_allclose(got, g * min(1, limit / norm), rtol=1e-12)
        for got, g in zip(clipped(opt.clip_by_norm(limit)), leaves, strict=True):
            np.testing.assert_allclose(got, g * min(1, limit / np.sqrt((g**2).sum())), rtol=1e-12)
        for got, g in zip(clipped(opt.clip_by_value(limit)), leaves, strict=True):
            np.testing.assert_allclose(got, np.clip(g, -limit, limit))
        np.testing.assert_allclose(opt.global_norm(grads), norm)


def test_clipping_of_zero_and_of_nothing() -> None:
    clip = opt.clip_by_global_norm(1.0)
    zero = np.zeros(3, np.float32)
    assert clip.update(zero, clip.init(zero))[0].tolist() == [0, 0, 0]
    assert clip.update({}, clip.init({}))[0] == {}
    gradient = tg.grad(lambda g: clip.update(g, opt.EmptyState())[0].sum())(zero)
    assert gradient.tolist() == [1, 1, 1]


# -- what a training step needs


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float32, np.complex64])
@pytest.mark.parametrize(
    "make",
    [
        lambda rate: opt.sgd(rate, momentum=0.9, nesterov=True),
        lambda rate: opt.adamw(rate),
        lambda rate: opt.chain(opt.clip_by_global_norm(1.0), opt.adam(rate, eps_root=1e-4)),
    ],
)
@pytest.mark.parametrize(
    "rate", [0.1, jnp.float32(0.1), lambda count: 0.1 / (count + 1.0)], ids=["float", "array", "schedule"]
)
def test_types_are_stable(make: Any, rate: Any, dtype: Any) -> None:
    optimizer = make(rate)
    traces = []

    @tg.jit
    def step(params: Any, state: Any, grads: Any) -> Any:
        traces.append(1)
        return one_step(optimizer)(params, state, grads)

    params = {"w": jnp.ones((3, 2), dtype), "b": jnp.ones((), dtype)}
    grads = jax.tree.map(lambda p: p * 0.5, params)
    state = optimizer.init(params)

    def types(tree: Any) -> Any:
        return [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(tree)]

    for run in (step, one_step(optimizer)):
        new, next_state = params, state
        for _ in range(3):
            new, next_state = run(new, next_state, grads)
        assert types(new) == types(params) and types(next_state) == types(state)
        assert jax.tree.structure(next_state) == jax.tree.structure(state)
    assert len(traces) == 1


def test_changing_rate_compiles_once() -> None:
    traces = []

    @tg.jit
    def step(params: Any, grads: Any, rate: Any) -> Any:
        traces.append(1)
        optimizer = opt.sgd(rate)
        return one_step(optimizer)(params, optimizer.init(params), grads)[0]

    for rate in (0.1, 0.2, 0.3):
        assert float(step(np.float32(1), np.float32(1), rate)) == pytest.approx(1 - rate)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("optimizer", "steps"),
    [
        (opt.sgd(0.1), 300),
        (opt.sgd(0.02, momentum=0.9), 300),
        (opt.sgd(0.02, momentum=0.9, nesterov=True), 300),
        (opt.adam(0.1), 500),
        (opt.adamw(0.1, weight_decay=1e-6), 500),
        (opt.chain(opt.clip_by_global_norm(1.0), opt.sgd(0.2)), 300),
    ],
)
def test_converges_on_a_quadratic(optimizer: opt.GradientTransformation, steps: int) -> None:
    curvature, target = np.array([0.5, 2.0, 5.0], np.float32), np.array([1.0, -2.0, 3.0], np.float32)

    @tg.jit
    def step(x: Any, state: Any) -> Any:
        grads = tg.grad(lambda x: (curvature * (x - target) ** 2).sum() / 2)(x)
        return one_step(optimizer)(x, state, grads)

    x = np.zeros(3, np.float32)
    state = optimizer.init(x)
    for _ in range(steps):
        x, state = step(x, state)
    np.testing.assert_allclose(x, target, atol=2e-3)


def test_differentiable_in_the_learning_rate() -> None:
    def final(rate: Any) -> Any:
        optimizer = opt.chain(opt.clip_by_global_norm(100.0), opt.adam(rate))
        x: Any = np.float64(1.0)
        state = optimizer.init(x)
        for _ in range(3):
            x, state = one_step(optimizer)(x, state, tg.grad(lambda x: x**4)(x))
        return x

    with x64():
        eps = 1e-6
        expected = (float(final(0.1 + eps)) - float(final(0.1 - eps))) / (2 * eps)
        assert float(tg.grad(final)(0.1)) == pytest.approx(expected, rel=1e-6)
        assert float(tg.jit(tg.grad(final))(0.1)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mask", [{"w": True, "b": False}, lambda params: {k: p.ndim > 1 for k, p in params.items()}])
def test_decay_mask(mask: Any) -> None:
    params = {"w": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)}
    grads = jax.tree.map(np.zeros_like, params)
    optimizer = opt.adamw(0.5, weight_decay=0.1, mask=mask)
    for run in (one_step(optimizer), tg.jit(one_step(optimizer))):
        new, _ = run(params, optimizer.init(params), grads)
        np.testing.assert_allclose(new["w"], 0.95)
        np.testing.assert_allclose(new["b"], 1.0)


def test_moments_in_another_dtype() -> None:
    params = jnp.ones(3, jnp.bfloat16)
    for optimizer, pick in (
        (opt.adam(0.1, mu_dtype=np.float32), lambda s: s[0].mu),
        (opt.sgd(0.1, 0.9, accumulator_dtype=np.float32), lambda s: s[0].trace),
    ):
        state = optimizer.init(params)
        assert pick(state).dtype == np.float32
        new, state = one_step(optimizer)(params, state, params)
        assert pick(state).dtype == np.float32 and new.dtype == jnp.bfloat16


def test_few_nodes_a_parameter() -> None:
    def nodes(count: int, optimizer: Any) -> int:
        params = [np.ones(3, np.float32)] * count
        state = optimizer.init(params)
        return len(tg.trace(one_step(optimizer))(params, state, params))

    for optimizer, limit in ((opt.sgd(0.1), 2), (opt.sgd(0.1, 0.9), 4), (opt.adam(0.1), 14), (opt.adamw(0.1), 16)):
        assert nodes(11, optimizer) - nodes(1, optimizer) <= 10 * limit


W = {"w": np.ones((4, 3), np.float32), "b": [np.ones(3, np.float32)]}
V = {"w": np.ones((3, 2), np.float32), "b": [np.ones(3, np.float32)]}
ADAM, SEARCH, OPAQUE = opt.adam(0.1), opt.lbfgs(), opt.sam(opt.sgd(0.1), opt.sgd(0.1), opaque_mode=True)
PLATEAU = opt.chain(opt.sgd(0.1), opt.reduce_on_plateau())

ERRORS: list[tuple[Callable[[], Any], list[str]]] = [
    (lambda: opt.adamw(0.1).update(W, opt.adamw(0.1).init(W)), ["adamw.update needs the parameters", "state, params)"]),
    (
        lambda: ADAM.update(W, ADAM.init(V)),
        ["adam.update: state[0].mu['w'] is of shape (3, 2)", "(4, 3)"],
    ),
    (lambda: tg.jit(ADAM.update)(W, ADAM.init(V)), ["state[0].mu['w'] is of shape (3, 2)"]),
    (lambda: tg.grad(lambda g: ADAM.update(g, ADAM.init(V))[0]["w"].sum())(W), ["state[0].mu['w'] is of shape (3, 2)"]),
    (lambda: ADAM.update(W, opt.sgd(0.1).init(W)), ["state[0] is EmptyState of 0 arrays", "is ScaleByAdamState of 5"]),
    (lambda: ADAM.update(W, ()), ["adam.update: state[0] is missing"]),
    (lambda: ADAM.update(V, ADAM.init(W), W), ["grads['w'] is of shape (3, 2), params['w'] is of shape (4, 3)"]),
    (lambda: ADAM.update({"w": W["w"]}, ADAM.init(W), W), ["adam.update: grads['b'] is missing, which is in params"]),
    (lambda: ADAM.update(W | {"c": 1.0}, ADAM.init(W), W), ["grads['c'] is f32[]~, which params does not have"]),
    (
        lambda: ADAM.update(W | {"b": W["b"][0]}, ADAM.init(W), W),
        ["grads['b'] is f32[3], where params['b'] is list"],
    ),
    (lambda: opt.apply_updates(W, ADAM.update(W, ADAM.init(W))), ["updates is a pair", "`updates, state = optimizer."]),
    (lambda: opt.apply_updates(W, V), ["apply_updates: updates['w'] is of shape (3, 2)"]),
    (lambda: opt.adam(nn.Linear.init(tg.random.key(0), 2, 3)), ["adam: learning_rate is Linear", "schedule"]),
    (lambda: opt.sgd("fast"), ["sgd: learning_rate is str 'fast'", "schedule"]),
    (lambda: opt.multi_steps(0.1, 2), ["multi_steps: f32[]~ is not an optimizer"]),
    (lambda: opt.multi_steps(ADAM, 0), ["every_k_schedule is 0"]),
    (lambda: PLATEAU.update(W, PLATEAU.init(W)), ["chain.update needs value", "value=loss"]),
    (lambda: opt.reduce_on_plateau(2.0), ["reduce_on_plateau: factor is 2.0", "between 0 and 1"]),
    (lambda: opt.reduce_on_plateau(rtol=0.0), ["rtol is 0.0 and atol 0.0"]),
    (lambda: SEARCH.update(W, SEARCH.init(W), W), ["lbfgs.update needs value", "value_fn=f"]),
    (
        lambda: SEARCH.update(W, SEARCH.init(W), W, value=1.0, grad=W, value_fn=lambda p: 0.0, z=1.0),
        ["lbfgs.update: z is no argument of value_fn"],
    ),
    (lambda: opt.scale_by_lbfgs(0), ["memory_size is 0"]),
    (lambda: opt.scale_by_zoom_linesearch(3, initial_guess_strategy="two"), ["'two'", "'one' or 'keep'"]),
    (lambda: opt.value_and_grad_from_state(len)(W, state=ADAM.init(W)), ["no value and gradient", "store_grad=True"]),
    (lambda: OPAQUE.update(W, OPAQUE.init(W), W), ["sam.update needs grad_fn"]),
    (
        lambda: opt.multi_transform({"a": ADAM}, {"w": "a", "b": "c"}).init(W),
        ["multi_transform.init: the label of the parameter ['b'][0] is 'c'", "optimizers for 'a'"],
    ),
    (lambda: opt.masked(ADAM, {"w": True}).init(W), ["masked.init: mask['b'] is missing, which is in params"]),
    (lambda: opt.lookahead(ADAM, 5, 0.5).update(W, opt.lookahead(ADAM, 5, 0.5).init(W), W), ["init_synced(params)"]),
    (lambda: opt.lookahead(ADAM, 0, 0.5), ["lookahead: sync_period is 0"]),
    (lambda: opt.inject_hyperparams(opt.adam, "lr"), ["'lr', which is no argument of adam", "learning_rate"]),
    (lambda: opt.swa(period=0), ["swa: period is"]),
    (lambda: opt.schedule_free_eval_params(ADAM.init(W), W), ["state is tuple", "schedule_free"]),
    (lambda: opt.muon(0.1, preconditioning="none"), ["muon: preconditioning is str 'none'", "'frobenius'"]),
    (lambda: opt.muon(0.1, "none"), ["ns_coeffs is 'none'"]),
    (lambda: opt.scale_by_muon().update(W, opt.scale_by_muon().init(W)), ["shape (3,), no matrix"]),
]


@pytest.mark.parametrize(("call", "words"), ERRORS)
def test_errors(call: Any, words: list[str]) -> None:
    with pytest.raises((TypeError, ValueError)) as info:
        call()
    for word in [*words, "test_optimizers.py"]:
        assert word in str(info.value), info.value


# -- those that optax has not, against their formulas


def polyak(a: Any, mu: float, ahead: bool = False) -> Rule:
    """CS231n (2016): v = mu v - a g, x += v. Ahead, the numbers given are x + mu v, as Bengio et al. (2012) have it."""

    def run(p: np.ndarray, gs: list[np.ndarray]) -> Iterator[np.ndarray]:
        v = np.zeros_like(p)
        for t, g in enumerate(gs):
            v = mu * v - (a(t) if callable(a) else a) * g
            p = p + v
            yield p + mu * v if ahead else p

    return run


def decoupled(a: float, mu: float, decay: float) -> Rule:
    """Loshchilov and Hutter (2017), algorithm 1."""

    def run(p: np.ndarray, gs: list[np.ndarray]) -> Iterator[np.ndarray]:
        m = np.zeros_like(p)
        for g in gs:
            m = mu * m + a * g
            p = p - m - a * decay * p
            yield p

    return run


def shrinking(a: Any, strength: float) -> Rule:
    """t -= a g + min(a lam, |t|) sign(t)."""

    def run(p: np.ndarray, gs: list[np.ndarray]) -> Iterator[np.ndarray]:
        for t, g in enumerate(gs):
            rate = a(t) if callable(a) else a
            p = p - rate * g - np.minimum(rate * strength, abs(p)) * np.sign(p)
            yield p

    return run


OWN: list[tuple[opt.GradientTransformation, Rule]] = [
    (opt.momentum(halving, 0.8), polyak(halving, 0.8)),
    (opt.nesterov(halving, 0.8), polyak(halving, 0.8, True)),
    (opt.sgdw(0.1, 0.9, weight_decay=0.2), decoupled(0.1, 0.9, 0.2)),
    (opt.sgd_l1(halving, 3.0), shrinking(halving, 3.0)),
]


@pytest.mark.parametrize(("optimizer", "rule"), OWN)
def test_own_formulas(optimizer: opt.GradientTransformation, rule: Rule) -> None:
    test_formula(optimizer, rule, "jit")


def test_an_l1_step_ends_at_zero_and_stays() -> None:
    params: Any = np.array([1.0, -0.25, 0.0, 1e-30], np.float32)
    optimizer, none = opt.sgd_l1(0.3, 1.0), np.zeros(4, np.float32)
    state, seen = optimizer.init(params), []
    for _ in range(5):
        params, state = one_step(optimizer)(params, state, none)
        seen.append(np.asarray(params))
    assert np.allclose([p[0] for p in seen], [0.7, 0.4, 0.1, 0, 0], atol=1e-6) and seen[-1].tolist() == [0] * 4
    assert all(p[1] <= 0 and p[2] == 0 and p[3] == 0 for p in seen)


def test_averages_of_parameters() -> None:
    path = [np.array([x]) for x in np.random.default_rng(1).standard_normal(9)]
    with x64():
        for average, expected in (
            (opt.ema(0.8), [np.average(path[: i + 1], 0, 0.8 ** np.arange(i, -1, -1)) for i in range(9)]),
            (opt.swa(), [np.mean(path[: i + 1], 0) for i in range(9)]),
            (opt.swa(3, 2), path[:3] + [np.mean(path[3 : i + 1 : 2], 0) for i in range(3, 9)]),
        ):
            state, update = average.init(path[0]), tg.jit(average.update)
            for params, mean in zip(path, expected, strict=True):
                got, state = update(params, state)
                np.testing.assert_allclose(got, mean, rtol=1e-12)


# -- numbers in the state, extra arguments, trees


def test_a_rate_is_seen_and_set_without_a_new_compilation() -> None:
    optimizer = opt.inject_hyperparams(opt.adam)(learning_rate=0.1, b1=np.float32(0.8))
    traces, params = [], np.ones(3, np.float32)

    @tg.jit
    def step(params: Any, state: Any) -> Any:
        traces.append(1)
        return one_step(optimizer)(params, state, np.ones(3, np.float32))

    state = optimizer.init(params)
    for rate in (0.5, np.float64(0.25), jnp.float32(0.125)):
        state.hyperparams["learning_rate"] = rate
        moved, state = step(params, state)
        np.testing.assert_allclose(moved, 1 - float(rate), rtol=1e-5)
        assert float(state.hyperparams["learning_rate"]) == rate and len(traces) == 1
    again = pickle.loads(pickle.dumps(state))
    assert jax.tree.structure(again) == jax.tree.structure(state) and again.hyperparams == state.hyperparams
    with pytest.raises(ValueError, match="no hyperparameter 'rate', but b1, b2, eps"):
        state.hyperparams["rate"] = 0.1
    with pytest.raises(ValueError, match=r"hyperparameter b1 is f32\[\], and is set to f\d+\[3\]"):
        state.hyperparams["b1"] = np.ones(3)


def test_a_function_given_to_update_may_change() -> None:
    optimizer, at = opt.lbfgs(), np.array([2.0, -1.0], np.float32)
    for scale in (1.0, 10.0):  # closed over, and not part of what is compiled

        def f(x: Any, scale: Any = scale) -> Any:
            return scale * ((x - at) ** 2).sum()

        value_and_slope = opt.value_and_grad_from_state(f)
        x: Any = np.zeros(2, np.float32)
        state = optimizer.init(x)
        for _ in range(4):
            value, grads = value_and_slope(x, state=state)
            updates, state = optimizer.update(grads, state, x, value=value, grad=grads, value_fn=f)
            x = opt.apply_updates(x, updates)
        np.testing.assert_allclose(x, at, atol=1e-4)


def test_groups_by_path_and_masks_within() -> None:
    params = {"enc": {"w": np.ones(2), "b": np.ones(2)}, "dec": {"w": np.ones(2), "b": np.ones(2)}}
    decay = opt.by_path(lambda path: path.endswith("w"))
    optimizer = opt.multi_transform(
        {"slow": opt.sgdw(0.1, weight_decay=1.0, mask=decay), "fast": opt.sgd(1.0)},
        opt.by_path(lambda path: "slow" if path.startswith("enc") else "fast"),
    )
    new, _ = tg.jit(one_step(optimizer))(params, optimizer.init(params), jax.tree.map(np.zeros_like, params))
    assert jax.tree.map(lambda x: round(float(x[0]), 6), new) == {
        "enc": {"w": 0.9, "b": 1.0},
        "dec": {"w": 1.0, "b": 1.0},
    }


def test_after_enough_bad_gradients_one_is_taken() -> None:
    optimizer = opt.apply_if_finite(opt.sgd(1.0), 2)
    state = optimizer.init(np.zeros(1))
    for bad in (False, False, True):
        updates, state = optimizer.update(np.array([np.inf]), state)
        assert np.isinf(float(updates[0])) == bad
    assert int(state.notfinite_count) == int(state.total_notfinite) == 3
    assert int(optimizer.update(np.ones(1), state)[1].notfinite_count) == 0


@pytest.mark.parametrize(
    "optimizer",
    [
        opt.momentum(0.1),
        opt.lion(0.1),
        opt.rmsprop(0.1, centered=True),
        opt.adafactor(0.1, 2, momentum=0.9),
        opt.lamb(schedules.cosine(0.1, 10)),
        opt.muon(0.1),
        opt.multi_steps(opt.adagrad(0.1), 2),
        opt.schedule_free_adamw(0.1, 3),
        opt.inject_hyperparams(opt.radam)(0.1),
        opt.sam(opt.nadam(0.1), opt.chain(opt.normalize(), opt.sgd(0.1))),
    ],
)
def test_any_dtype_none_among_the_leaves_and_none_at_all(optimizer: opt.GradientTransformation) -> None:
    """One step in 16 bits and of complex numbers; the types stay; it can be pickled; nothing gives nothing."""
    params = {
        "half": jnp.ones((3, 2), jnp.bfloat16),
        "complex": jnp.ones((2, 2), np.complex64) * 1j,
        "none": None,
        "one": jnp.float32(2.0),
    }
    grads = jax.tree.map(lambda p: p * 0.5, params)
    state = optimizer.init(params)
    new, later = one_step(pickle.loads(pickle.dumps(optimizer)))(params, state, grads)
    for a, b in ((new, params), (later, state)):
        assert jax.tree.structure(a) == jax.tree.structure(b)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            assert (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, y.weak_type)
            assert np.isfinite(np.asarray(x, np.complex64)).all()
    assert optimizer.update({}, optimizer.init({}), {})[0] == {}
