"""The idiom of layers: pytrees of parameters, state and keys in a run, in every transform, and what is refused."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_message
from tracegrad import nn, optimizers

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 4)).astype(np.float32)
Y = np.arange(16) % 3
KEY = tg.random.key(7)


@nn.layer
class Net:
    hidden: nn.Linear
    norm: nn.BatchNorm
    drop: nn.Dropout
    out: nn.Linear
    slope: float = nn.static(default=1.0)

    @classmethod
    def init(cls, key: Any) -> Net:
        k1, k2 = tg.random.split(key)
        return cls(nn.Linear.init(k1, 4, 8), nn.BatchNorm.init(8), nn.Dropout(0.25), nn.Linear.init(k2, 8, 3))

    def __call__(self, x: Any, run: Any = None) -> Any:
        h = self.drop(self.norm(nn.relu(self.slope * self.hidden(x, run)), run), run)
        return self.out(h, run)


MODEL = Net.init(tg.random.key(0))
STATE = nn.init_state(MODEL)


def loss(model: Any, state: Any, x: Any, y: Any, key: Any) -> Any:
    run = nn.Run(model, state, key=key, training=True)
    return nn.losses.sparse_categorical_cross_entropy(model(x, run), y, from_logits=True), run.state


def close(actual: Any, expected: Any, tolerance: float = 2e-6) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)


def by_hand(model: Any, state: Any, x: Any, y: Any, key: Any) -> Any:
    """The loss in jax.numpy, with the mask of the dropout that the model drew."""
    seen = nn.Run(model, state, key=key, training=True)
    mask = model.drop(jnp.ones((x.shape[0], 8), jnp.float32), seen) * 0.75
    h = jax.nn.relu(x @ model.hidden.kernel + model.hidden.bias)
    mean, var = h.mean(0), h.var(0)
    new = {"mean": 0.99 * state["norm"]["mean"] + 0.01 * mean, "var": 0.99 * state["norm"]["var"] + 0.01 * var}
    h = (h - mean) / jnp.sqrt(var + 1e-5) * model.norm.scale + model.norm.bias
    logits = (h * mask / 0.75) @ model.out.kernel + model.out.bias
    return -jax.nn.log_softmax(logits)[jnp.arange(len(y)), y].mean(), {"norm": new}


# -- a layer is a pytree


def test_leaves_are_the_parameters_and_their_paths_are_the_names() -> None:
    leaves, tree = jax.tree_util.tree_flatten_with_path(MODEL)
    assert [jax.tree_util.keystr(path) for path, _ in leaves] == [
        ".hidden.kernel", ".hidden.bias", ".norm.scale", ".norm.bias", ".out.kernel", ".out.bias",
    ]  # fmt: skip
    again = jax.tree.unflatten(tree, [x for _, x in leaves])
    assert isinstance(again, Net) and again.slope == 1.0 and again.norm.momentum == 0.99
    assert jax.tree.structure(jax.tree.map(lambda x: True, MODEL)) == tree


def test_settings_are_part_of_the_structure() -> None:
    other = Net(MODEL.hidden, MODEL.norm, nn.Dropout(0.5), MODEL.out)
    assert jax.tree.structure(other) != jax.tree.structure(MODEL)
    assert jax.tree.structure(copy.deepcopy(MODEL)) == jax.tree.structure(MODEL)
    close(pickle.loads(pickle.dumps(MODEL)), MODEL, 0)


def test_layers_are_frozen_and_compare_by_identity() -> None:
    with pytest.raises(AttributeError, match="cannot assign"):
        MODEL.slope = 2.0  # type: ignore[misc]
    assert MODEL == MODEL and copy.copy(MODEL) != MODEL and hash(MODEL) == hash(MODEL)


def test_print() -> None:
    assert repr(MODEL).splitlines() == [
        "Net: 83 parameters",
        "  hidden: Linear: 40 parameters",
        "    kernel: f32[4,8]",
        "    bias: f32[8]",
        "  norm: BatchNorm(features=8): 16 parameters",
        "    scale: f32[8]",
        "    bias: f32[8]",
        "  drop: Dropout(rate=0.25)",
        "  out: Linear: 27 parameters",
        "    kernel: f32[8,3]",
        "    bias: f32[3]",
    ]


def test_lists_and_dicts_of_layers() -> None:
    @nn.layer
    class Many:
        some: list[Any]
        named: dict[str, Any]
        weight: Any = None

        def __call__(self, x: Any, run: Any = None) -> Any:
            for part in self.some:
                x = part(x, run)
            return self.named["last"](x, run)

    model = Many([nn.BatchNorm.init(4), nn.Dropout(0.5)], {"last": nn.BatchNorm.init(4)}, tnp.ones(2))
    state = nn.init_state(model)
    assert list(state) == ["some[0]", "named['last']"]
    run = nn.Run(model, state, key=KEY, training=True)
    model(X, run)
    assert run.path(model.some[1]) == "model.some[1]"
    np.testing.assert_allclose(run.state["some[0]"]["mean"], 0.01 * X.mean(0), rtol=1e-5)
    assert "named['last']: BatchNorm(features=4): 8 parameters" in repr(model) and "weight: f32[2]" in repr(model)


# -- training


@pytest.mark.parametrize("how", ["undecorated", "jit", "jax.jit"])
def test_value_gradient_and_state_are_those_of_the_formula(how: str) -> None:
    ours = tg.value_and_grad(loss, has_aux=True)
    run = {"undecorated": ours, "jit": tg.jit(ours), "jax.jit": jax.jit(ours)}[how]
    (value, state), grads = run(MODEL, STATE, X, Y, KEY)
    (expected, expected_state), expected_grads = jax.value_and_grad(by_hand, has_aux=True)(MODEL, STATE, X, Y, KEY)
    close((value, state, grads), (expected, expected_state, expected_grads), 2e-5)


def test_a_few_steps_train_and_inference_reads_the_averages() -> None:
    optimizer = optimizers.adam(3e-2)

    @tg.jit
    def step(model: Any, state: Any, opt: Any, key: Any) -> Any:
        (value, state), grads = tg.value_and_grad(loss, has_aux=True)(model, state, X, Y, key)
        updates, opt = optimizer.update(grads, opt, model)
        return optimizers.apply_updates(model, updates), state, opt, value

    model, state, opt = MODEL, STATE, optimizer.init(MODEL)
    values = []
    for i in range(40):
        model, state, opt, value = step(model, state, opt, tg.random.fold_in(KEY, i))
        values.append(float(value))
    assert isinstance(model, Net) and values[-1] < 0.6 * values[0]
    out = model(X, nn.Run(model, state))
    h = np.maximum(X @ model.hidden.kernel + model.hidden.bias, 0)
    h = (h - state["norm"]["mean"]) / np.sqrt(state["norm"]["var"] + 1e-5) * model.norm.scale + model.norm.bias
    np.testing.assert_allclose(out, h @ model.out.kernel + model.out.bias, rtol=2e-5, atol=2e-5)


def test_inference_changes_nothing_and_needs_no_key() -> None:
    run = nn.Run(MODEL, STATE)
    a, b = MODEL(X, run), MODEL(X, run)
    assert run.state is STATE
    np.testing.assert_array_equal(a, b)


def test_without_a_run_a_layer_is_in_inference() -> None:
    drop = nn.Dropout(0.5)
    assert drop(X) is X
    np.testing.assert_allclose(nn.Sequential([drop, nn.relu])(X), np.maximum(X, 0))


# -- keys


def test_keys_differ_by_path_and_count_and_not_by_the_order_of_the_others() -> None:
    model = nn.Sequential([nn.Dropout(0.5), nn.Dropout(0.5)])
    first, second = model.layers

    def masks(*order: int) -> dict[int, Any]:
        run = nn.Run(model, key=KEY, training=True)
        return {i: np.asarray(model[i](np.ones(64, np.float32), run)) for i in order}

    a, b = masks(0, 1), masks(1, 0)
    assert (a[0] == b[0]).all() and (a[1] == b[1]).all() and (a[0] != a[1]).any()
    run = nn.Run(model, key=KEY, training=True)
    again = [np.asarray(first(np.ones(64, np.float32), run)) for _ in range(2)]
    assert (again[0] == a[0]).all() and (again[1] != again[0]).any()
    assert run.path(second) == "model.layers[1]"


def test_the_same_key_gives_the_same_run_in_every_mode() -> None:
    outs = [f(MODEL, STATE, X, Y, KEY) for f in (loss, tg.jit(loss), tg.jit(loss))]
    close(outs[1], outs[0])
    close(outs[2], outs[1], 0)
    assert float(loss(MODEL, STATE, X, Y, tg.random.key(8))[0]) != float(outs[0][0])


# -- transforms


def test_an_ensemble_by_vmap() -> None:
    keys = tg.random.split(tg.random.key(1), 3)
    models = tg.vmap(Net.init)(keys)
    states = tg.vmap(nn.init_state)(models)
    assert states["norm"]["mean"].shape == (3, 8) and models.hidden.kernel.shape == (3, 4, 8)
    both = tg.value_and_grad(loss, has_aux=True)
    together = tg.jit(tg.vmap(both, in_axes=(0, 0, None, None, 0)))(models, states, X, Y, keys)
    for i in range(3):
        pick = lambda tree, i=i: jax.tree.map(lambda x: x[i], tree)  # noqa: E731
        alone = both(pick(models), pick(states), X, Y, keys[i])
        close(pick(together), alone, 2e-5)


def test_through_checkpoint_jit_and_inside_scan() -> None:
    def with_transform(transform: Any) -> Any:
        @nn.layer
        class Outer:
            net: Net

            def __call__(self, x: Any, run: Any = None) -> Any:
                return run.through(transform, self.net, x) if transform else self.net(x, run)

        model = Outer(MODEL)
        value, grads = tg.jit(tg.value_and_grad(loss, has_aux=True))(model, nn.init_state(model), X, Y, KEY)
        return value, grads.net

    outs = [with_transform(t) for t in (tg.checkpoint, tg.jit)]
    close(outs[0], outs[1])
    (_, state), _ = outs[0]
    assert (np.asarray(state["net"]["norm"]["mean"]) != 0).any()


def test_scan_over_steps_carries_model_and_state() -> None:
    def step(carry: Any, key: Any) -> Any:
        model, state = carry
        (value, state), grads = tg.value_and_grad(loss, has_aux=True)(model, state, X, Y, key)
        return (jax.tree.map(lambda p, g: p - 0.1 * g, model, grads), state), value

    keys = tg.random.split(KEY, 4)
    scanned, values = tg.jit(lambda m, s: tg.scan(step, (m, s), keys))(MODEL, STATE)
    carry: Any = (MODEL, STATE)
    for i in range(4):
        carry, value = step(carry, keys[i])
        np.testing.assert_allclose(values[i], value, rtol=2e-5)
    close(scanned, carry, 2e-5)


@pytest.mark.parametrize("devices", [2, 8])
def test_batch_statistics_over_all_devices_are_those_of_the_full_batch(devices: int) -> None:
    def model_of(axis: Any) -> Any:
        first, last = MODEL.hidden, MODEL.out
        return nn.Sequential([first, nn.BatchNorm.init(8, axis_name=axis), nn.relu, last])

    def local(model: Any, state: Any, x: Any, y: Any) -> Any:
        (value, state), grads = tg.value_and_grad(loss, has_aux=True)(model, state, x, y, None)
        grads = tg.sum_gradients(grads, "data", mean=True)
        return tg.pmean(value, "data"), state, grads

    model = model_of("data")
    state = nn.init_state(model)
    run = tg.pmap(local, "data", in_axes=(None, None, 0, 0), out_axes=None)
    value, new, grads = run(model, state, *tg.parallel.split_batch((X, Y), devices))
    (whole, whole_new), whole_grads = tg.value_and_grad(loss, has_aux=True)(model_of(None), state, X, Y, None)
    close((value, new), (whole, whole_new), 2e-6)
    close(jax.tree.leaves(grads), jax.tree.leaves(whole_grads), 2e-6)


def test_each_device_draws_its_own_numbers_from_its_own_key() -> None:
    model = nn.Sequential([nn.Dropout(0.5)])

    def local(x: Any, own: bool) -> Any:
        key = tg.random.fold_in(KEY, tg.axis_index("data")) if own else KEY
        return model(x, nn.Run(model, key=key, training=True))

    x = np.ones((2, 64), np.float32)
    same, own = (np.asarray(tg.pmap(lambda x, own=own: local(x, own), "data")(x)) for own in (False, True))
    assert (same[0] == same[1]).all() and (own[0] != own[1]).any()


def test_a_penalty_on_the_gradient_goes_through_the_same_run() -> None:
    def penalised(model: Any, state: Any, x: Any) -> Any:
        run = nn.Run(model, state, key=KEY, training=True)
        slope = tg.grad(lambda x: model(x, run).sum())(x)
        return (slope**2).sum(), run.state

    def reference(model: Any, state: Any, x: Any) -> Any:
        mask = model.drop(jnp.ones((16, 8)), nn.Run(model, state, key=KEY, training=True))

        def out(x: Any) -> Any:
            h = jax.nn.relu(x @ model.hidden.kernel + model.hidden.bias)
            h = (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-5) * model.norm.scale + model.norm.bias
            return ((h * mask) @ model.out.kernel).sum()

        return (jax.grad(out)(x) ** 2).sum()

    grads, state = tg.jit(tg.grad(penalised, has_aux=True))(MODEL, STATE, X)
    expected = jax.grad(reference)(MODEL, STATE, X)
    close(grads, expected, 2e-4)
    assert (np.asarray(state["norm"]["mean"]) != 0).any()


def test_a_model_that_a_function_closes_over_is_never_stale() -> None:
    model: Any = nn.Sequential([nn.Linear.init(KEY, 4, 2)])

    def predict(x: Any) -> Any:
        return model(x)

    functions = [tg.jit(predict), tg.checkpoint(predict), tg.grad(lambda x: predict(x).sum()), predict]
    for _ in range(2):
        outs = [np.asarray(f(X)) for f in functions]
        np.testing.assert_allclose(outs[0], X @ model[0].kernel + model[0].bias, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(outs[1], outs[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(outs[2], np.tile(model[0].kernel.sum(1), (16, 1)), rtol=1e-5, atol=1e-6)
        model = jax.tree.map(lambda p: p + 1, model)


# -- what is refused


def test_a_layer_without_what_it_needs_says_what_to_write() -> None:
    check_message(lambda: MODEL(X), ValueError, r"^BatchNorm keeps running averages .* nn\.Run\(model, state\)")
    check_message(
        lambda: loss(MODEL, STATE, X, Y, None), ValueError, r"^Dropout at model\.drop needs a random key .* key=key"
    )
    check_message(
        lambda: MODEL(X, nn.Run(MODEL)), ValueError, r"^BatchNorm at model\.norm has a state.*nn\.init_state\(model\)"
    )
    check_message(
        lambda: MODEL(X[:, :3], nn.Run(MODEL, STATE)),
        ValueError,
        r"^Linear at model\.hidden: the input f32\[16,3\] has 3 features in its last axis, and the layer takes 4",
    )
    check_message(lambda: MODEL.out(X), ValueError, r"^Linear: the input f32\[16,4\] .* takes 8")
    check_message(lambda: MODEL.out(1.0), ValueError, r"^Linear: the input f32\[\]~ has no axis of features")
    check_message(lambda: MODEL.out("a"), TypeError, r"^Linear: the input is str 'a', which is not an array")


def test_a_run_of_another_model_or_state() -> None:
    run = nn.Run(MODEL, STATE, key=KEY, training=True)
    check_message(
        lambda: nn.Dropout(0.5)(X, run), ValueError, r"this Dropout is not a part of the model that the run was made of"
    )
    check_message(
        lambda: tg.grad(lambda m: m(X, run).sum())(MODEL), ValueError, r"not a part of the model.*Make the run inside"
    )
    check_message(
        lambda: nn.Run(MODEL, {"other": {}}), ValueError, r"^Run: the state has model\.other, and the model has no such"
    )
    check_message(lambda: nn.Run(MODEL, 3), TypeError, r"^Run: the state of model is i32\[\]~?, not a dict")
    check_message(lambda: nn.Run({"a": 1}), TypeError, r"^Run: the model is dict .* which is not a layer")
    check_message(lambda: nn.init_state([MODEL]), TypeError, r"^init_state: the model is list")


BODIES = {
    "scan": lambda f: tg.scan(lambda c, x: (c, f(x)), 0.0, X[None])[1],
    "checkpoint": lambda f: tg.checkpoint(f)(X),
    "vmap": lambda f: tg.vmap(f)(X[None]),
    "jit": lambda f: tg.jit(f)(X),
    "cond": lambda f: tg.cond(X.sum() > 0, f, f, X),
    "jax.lax.map": lambda f: jax.lax.map(f, X[None]),
    "fori_loop": lambda f: tg.fori_loop(0, 2, lambda i, x: x + f(x), X),
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("kind", ["asks for a random key", "has a new state"])
def test_a_run_does_not_leak_out_of_a_body(body: str, kind: str) -> None:
    part = nn.Dropout(0.5) if "key" in kind else nn.BatchNorm.init(4)
    model = nn.Sequential([part])
    state = nn.init_state(model)

    def call(x: Any) -> Any:
        run = nn.Run(model, state, key=KEY, training=True)
        return BODIES[body](lambda x: model(x, run)).sum()

    # Outside a recording, checkpoint and cond call the function where they are: there is no body.
    for run in (tg.jit(call), *(() if body in ("checkpoint", "cond") else (call, jax.jit(call)))):
        check_message(
            lambda run=run: run(X), ValueError, rf"at model\.layers\[0\] {kind} .*run\.through\(tg\.checkpoint"
        )


def test_fields_that_are_neither_parameters_nor_settings() -> None:
    @nn.layer
    class Loose:
        thing: Any
        setting: Any = nn.static(default=None)

    for thing in (3, 0.5, "relu", True, nn.relu, [nn.relu], {"a": 1}):
        check_message(lambda thing=thing: Loose(thing), TypeError, r"^Loose: thing.* is no parameter .*nn\.static\(\)")
    check_message(lambda: Loose(X, [1, 2]), TypeError, r"^Loose: the setting setting, list .* Give a tuple: \(1, 2\)")
    check_message(lambda: Loose([MODEL.out, MODEL.out]), ValueError, r"thing\[1\] and thing\[0\] are one Linear")
    Loose([nn.Dropout(0.5)] * 2)

    class Child(Net):
        pass

    check_message(
        lambda: Child(MODEL.hidden, MODEL.norm, MODEL.drop, MODEL.out), TypeError, r"^Child is no layer .*@nn\.layer"
    )


def test_arguments_of_init() -> None:
    check_message(lambda: nn.Linear.init(4, 3, 2), TypeError, r"^Linear\.init: key is 4, .*not a random key")
    check_message(lambda: nn.Linear.init(KEY, 0, 2), ValueError, r"^Linear\.init: in_features=0")
    check_message(lambda: nn.Linear.init(KEY, 2.0, 2), TypeError, r"^Linear\.init: in_features is 2\.0, not a whole")
    check_message(lambda: nn.BatchNorm.init(KEY), TypeError, r"^BatchNorm\.init: features is key<fry>\[\], not a whole")
    check_message(lambda: nn.Dropout(50), ValueError, r"^Dropout: rate=50 .*from 0 to 1")
    form = r"Write Linear\.init\(key, in_features, out_features\)"
    check_message(lambda: nn.Linear.init(4, 3), TypeError, r"^Linear\.init: missing .*'out_features' .*" + form)  # type: ignore[call-arg]
    check_message(lambda: nn.Linear.init(KEY, 4, 3, bias=False), TypeError, r"^Linear\.init: .*'bias'.*" + form)  # type: ignore[call-arg]
    check_message(lambda: nn.Linear(4, 3), TypeError, r"^Linear: kernel is 4, .* no parameter .*" + form)
    check_message(lambda: nn.Linear(KEY), TypeError, r"^Linear: kernel is a random key, .* no parameter .*" + form)
    check_message(
        lambda: nn.Linear(KEY, 4, 3),  # type: ignore[call-arg]
        TypeError,
        r"^Linear: too many .*Write Linear\(kernel\), or Linear\.init\(key, in_features, out_features\), which makes",
    )
    check_message(
        lambda: nn.Stack.init(2, lambda key: MODEL), TypeError, r"^Stack\.init: .*'make'.*\(key, length, make\)"
    )  # type: ignore[call-arg, arg-type]
    check_message(lambda: nn.Sequential(MODEL, nn.relu), TypeError, r"^Sequential: .*Write Sequential\(layers\)\.$")  # type: ignore[call-arg]
    check_message(lambda: nn.Sequential([nn.Dropout]), TypeError, r"^Sequential: type .* a class: give an instance")
    check_message(lambda: nn.Sequential(MODEL), TypeError, r"^Sequential: layers is .*Give a list")
    check_message(lambda: nn.Sequential([3]), TypeError, r"^Sequential: .*neither a layer nor a function")


def test_what_is_not_a_run() -> None:
    for thing in (True, KEY, STATE, "train"):
        for call in (lambda t: MODEL(X, t), lambda t: MODEL.norm(X, run=t), lambda t: nn.Sequential([MODEL])(X, t)):
            check_message(
                lambda call=call, thing=thing: call(thing),
                TypeError,
                r"^(Net|BatchNorm|Sequential): run is .*, which is not a run .*nn\.Run\(model, state, key=key",
            )
    for key in (0, "a", tg.random.split(KEY, 2), np.zeros(2, np.float32)):
        check_message(lambda key=key: nn.Run(MODEL, STATE, key=key), TypeError, r"^Run: key is .*, .*not a random key")
    nn.Run(MODEL, STATE, key=jax.random.PRNGKey(0))
    nn.Run(MODEL, STATE, key=jax.random.key(0))


def test_inputs_that_layers_do_not_take() -> None:
    images = np.ones((2, 3, 8, 8), np.float32)
    conv = nn.Conv.init(KEY, 3, 4, (3, 3))
    check_message(lambda: conv(images), ValueError, r"^Conv: .*has 8 features.* takes 3 .*numpy\.moveaxis\(x, 1, -1\)")
    assert conv(np.moveaxis(images, 1, -1)).shape == (2, 8, 8, 4)
    grey = nn.Conv.init(KEY, 1, 4, (3, 3))
    check_message(lambda: grey(images[:, 0]), ValueError, r"^Conv: .*has 8 features.* takes 1 .*x\[\.\.\., None\]")
    assert grey(images[:, 0, ..., None]).shape == (2, 8, 8, 4)
    both = nn.Sequential([nn.LSTM.init(KEY, 4, 3), nn.Linear.init(KEY, 3, 2)])
    check_message(lambda: both(np.ones((2, 5, 4), np.float32)), TypeError, r"^Linear: .*\(outputs, state\)")
