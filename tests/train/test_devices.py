"""A step on many devices: the full batch's gradient of JAX on one, whatever sums it, however the batch divides."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import x64
from tracegrad import nn, optimizers, train
from tracegrad.parallel import AllReduce, Bucketed, Ordered
from tracegrad.train.checkpoints import CheckpointError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6))
Y = np.tanh(X @ RNG.normal(size=(6, 3)))
PARAMS = {"w": RNG.normal(size=(6, 16)) * 0.3, "b": np.zeros(16), "v": RNG.normal(size=(16, 3)) * 0.3}
SIZES = (64, 61, 16, 5)
"""Batches that divide and that do not, and one with less examples than devices."""


def loss(params, x, y):
    return ((tnp.tanh(x @ params["w"] + params["b"]) @ params["v"] - y) ** 2).mean()


def loss_of_jax(params, x, y):
    return ((jnp.tanh(x @ params["w"] + params["b"]) @ params["v"] - y) ** 2).mean()


def trained_by_jax(rate=0.1, steps=8):
    params, values = PARAMS, []
    for i in range(steps):
        n = SIZES[i % len(SIZES)]
        value, grads = jax.value_and_grad(loss_of_jax)(params, X[:n], Y[:n])
        params = jax.tree.map(lambda p, g: p - rate * g, params, grads)
        values.append(float(value))
    return params, values


def trained(step, state, steps=8):
    values = []
    for i in range(steps):
        n = SIZES[i % len(SIZES)]
        state, value = step(state, X[:n], Y[:n])
        values.append(float(value))
    return state, values


def near(a, b, tolerance=1e-10):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


MODULES = ["all_reduce", "bucketed", "sharded", "ordered", Ordered(5, "fused")]


@pytest.mark.parametrize("gradients", MODULES, ids=str)
@pytest.mark.parametrize("devices", [1, 3, 8])
def test_the_gradient_is_that_of_the_whole_batch(gradients, devices):
    with x64():
        optimizer = optimizers.sgd(0.1)
        step = train.data_parallel(loss, optimizer, devices=devices, gradients=gradients)
        state, values = trained(step, step.place(train.TrainState.create(PARAMS, optimizer)))
        params, expected = trained_by_jax()
        np.testing.assert_allclose(values, expected, rtol=1e-10)
        near(state.params, params)
        assert int(state.step) == 8


@pytest.mark.parametrize("gradients", ["all_reduce", "sharded"])
@pytest.mark.parametrize("microbatches", [2, 3])
def test_in_parts(gradients, microbatches):
    with x64():
        optimizer = optimizers.sgd(0.1)
        step = train.data_parallel(loss, optimizer, devices=2, gradients=gradients, microbatches=microbatches)
        state, values = trained(step, step.place(train.TrainState.create(PARAMS, optimizer)))
        params, expected = trained_by_jax()
        np.testing.assert_allclose(values, expected, rtol=1e-10)
        near(state.params, params)


@pytest.mark.parametrize("gradients", ["bfloat16", "int8"])
def test_low_precision_stays_near(gradients):
    rng = np.random.default_rng(1)
    params = {"w": rng.normal(size=(6, 64)) * 0.3, "b": np.zeros(64), "v": rng.normal(size=(64, 3)) * 0.3}
    optimizer = optimizers.sgd(0.1)
    values = {}
    for how in (gradients, "all_reduce"):
        step = train.data_parallel(loss, optimizer, gradients=how)
        state = step.place(train.TrainState.create(jax.tree.map(np.float32, params), optimizer))
        values[how] = trained(step, state, 40)[1]
    assert values[gradients] != values["all_reduce"]
    np.testing.assert_allclose(values[gradients], values["all_reduce"], rtol=0.02)


def test_strict_has_the_same_bits_on_any_number_of_devices():
    """With batch normalization, dropout, and batches that do not divide. (Counts of one process: its threads are.)"""
    keys = tg.random.split(tg.random.key(0))
    model = nn.Sequential(
        [nn.Linear.init(keys[0], 6, 8), nn.BatchNorm.init(8), nn.relu, nn.Dropout(0.3), nn.Linear.init(keys[1], 8, 3)]
    )

    def noisy(model, state, x, y, key):
        run = nn.Run(model, state, training=True, key=key)
        return ((model(x, run) - y) ** 2).mean(), run.state

    optimizer = optimizers.chain(optimizers.clip_by_global_norm(1.0), optimizers.adam(1e-2))
    found = []
    for devices in (1, 3, 8):
        step = train.data_parallel(noisy, optimizer, devices=devices, gradients="ordered")
        start = train.TrainState.create(model, optimizer, model_state=nn.init_state(model), key=tg.random.key(1))
        state = step.place(start)
        values = []
        for i in range(4):
            n = (64, 61)[i % 2]
            state, value = step(state, np.float32(X[:n]), np.float32(Y[:n]))
            values.append(np.asarray(value).tobytes())
        found.append((values, [np.asarray(x).tobytes() for x in jax.tree.leaves((state.params, state.model_state))]))
    assert all(other == found[0] for other in found)


def test_batch_normalization_over_all_devices_is_that_of_the_whole_batch():
    def model(axis_name):
        norm = nn.BatchNorm.init(6, axis_name=axis_name)
        return nn.Sequential([norm, nn.Linear.init(tg.random.key(0), 6, 3)])

    def normed(model, state, x, y):
        run = nn.Run(model, state, training=True)
        return ((model(x, run) - y) ** 2).mean(), run.state

    optimizer = optimizers.sgd(0.1)
    x, y = np.float32(X), np.float32(Y)
    alone = train.make_step(normed, optimizer)
    one = train.TrainState.create(model(None), optimizer, model_state=nn.init_state(model(None)))
    spread = train.data_parallel(normed, optimizer)
    many = spread.place(train.TrainState.create(model("data"), optimizer, model_state=nn.init_state(model("data"))))
    for _ in range(3):
        one, value = alone(one, x, y)
        many, other = spread(many, x, y)
        np.testing.assert_allclose(value, other, rtol=1e-5)
    near(one.params, many.params, 2e-5)
    near(one.model_state, many.model_state, 2e-5)
    with pytest.raises(ValueError, match=r"collectives along 'data'.*does not divide over 8 shards.*last='drop'"):
        spread(many, x[:61], y[:61])
    ordered = train.data_parallel(normed, optimizer, gradients=Ordered(8, "fused"))
    start = train.TrainState.create(model("data"), optimizer, model_state=nn.init_state(model("data")))
    with pytest.raises(ValueError, match=r"each shard by itself.*without axis_name"):
        ordered(ordered.place(start), x, y)
    strict = train.data_parallel(normed, optimizer, gradients="ordered")
    with pytest.raises(ValueError, match=r"each shard by itself.*without axis_name"):
        strict(strict.place(start), x, y)


@pytest.mark.parametrize("gradients", ["all_reduce", "ordered"])
def test_what_a_model_keeps_is_averaged_by_the_examples_and_counts_stay(gradients):
    def counting(params, state, x):
        return (params * x).mean(), {"mean": x.mean(), "steps": state["steps"] + 1, "key": state["key"]}

    optimizer = optimizers.sgd(0.0)
    step = train.data_parallel(counting, optimizer, gradients=gradients)
    kept = {"mean": np.float32(0), "steps": np.int32(0), "key": tg.random.key(3)}
    state = step.place(train.TrainState.create(np.float32(1), optimizer, model_state=kept))
    for n in (64, 13):
        x = np.float32(X[:n, 0])
        state, _ = step(state, x)
        np.testing.assert_allclose(state.model_state["mean"], x.mean(), rtol=1e-5)
    assert int(state.model_state["steps"]) == 2
    assert (jax.random.key_data(state.model_state["key"]) == jax.random.key_data(tg.random.key(3))).all()


def test_weights_count_what_a_share_is_a_mean_over():
    def weighted(params, x, y, w):
        return (w * ((x @ params["w"] @ params["v"] - y) ** 2).mean(-1)).sum() / w.sum()

    def weighted_of_jax(params, x, y, w):
        return (w * ((x @ params["w"] @ params["v"] - y) ** 2).mean(-1)).sum() / w.sum()

    with x64():
        w = RNG.uniform(size=64)
        w[40:] = 0  # Some shares count for nothing.
        optimizer = optimizers.sgd(0.1)
        step = train.data_parallel(weighted, optimizer, weight=lambda x, y, w: w.sum())
        for n in (64, 61):
            state = step.place(train.TrainState.create(PARAMS, optimizer))
            state, value = step(state, X[:n], Y[:n], w[:n])
            expected, grads = jax.value_and_grad(weighted_of_jax)(PARAMS, X[:n], Y[:n], w[:n])
            np.testing.assert_allclose(value, expected, rtol=1e-10)
            near(state.params, jax.tree.map(lambda p, g: p - 0.1 * g, PARAMS, grads))


def test_each_share_has_a_key_of_its_own_and_what_has_no_axis_is_whole():
    def noise(params, scale, x, key):
        return scale * params * tg.random.normal(key, x.shape).mean()

    optimizer = optimizers.sgd(1.0)
    step = train.data_parallel(noise, optimizer)
    key = tg.random.key(5)
    state = step.place(train.TrainState.create(np.float32(0), optimizer, key=key))
    state, _ = step(state, 2.0, np.zeros(8, np.float32))
    at_step = jax.random.fold_in(jax.random.wrap_key_data(jax.random.key_data(key)), 0)
    draws = [jax.random.normal(jax.random.fold_in(at_step, i), (1,))[0] for i in range(8)]
    np.testing.assert_allclose(state.params, -2 * np.mean(draws), rtol=1e-5)


def test_the_optimizers_state_is_split():
    params = {"w": np.zeros((64, 32), np.float32), "b": np.zeros(10, np.float32)}
    optimizer = optimizers.adam(1e-3)
    step = train.data_parallel(
        lambda p, x: ((x @ p["w"]).sum(-1) + p["b"].sum()).mean(), optimizer, gradients="sharded"
    )
    state = step.place(train.TrainState.create(params, optimizer))
    for _ in range(2):
        state, _ = step(state, np.ones((16, 64), np.float32))
        held = {x.shape: x.addressable_data(0).shape for x in jax.tree.leaves(state.opt_state)}
        assert held == {(64, 32): (8, 32), (10,): (10,), (): ()}
        assert all(x.is_fully_replicated for x in jax.tree.leaves(state.params))


@pytest.mark.parametrize("gradients", ["all_reduce", "sharded"])
def test_a_parameter_that_is_not_there(gradients):
    optimizer = optimizers.sgd(0.1)
    params = {"a": None, "w": np.ones(8, np.float32), "z": None}
    step = train.data_parallel(lambda p, x: (x @ p["w"]).mean(), optimizer, gradients=gradients)
    state, _ = step(step.place(train.TrainState.create(params, optimizer)), np.ones((8, 8), np.float32))
    np.testing.assert_allclose(state.params.pop("w"), 0.9, rtol=1e-6)
    assert state.params == {"a": None, "z": None}


def test_a_step_of_ones_own_runs_as_it_is():
    def step(params, x, y):
        value, grads = tg.value_and_grad(loss)(params, x, y)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), value

    with x64():
        spread = train.data_parallel(step)
        state, values = trained(spread, spread.place(PARAMS))
        params, expected = trained_by_jax()
        np.testing.assert_allclose(values, expected, rtol=1e-10)
        near(state, params)
        text = spread._made["own"].lower(
            spread.place(PARAMS), [jax.device_put(x, spread.rows) for x in (X, Y)], [],
            (jax.tree.structure((X, Y)), (True, True)),
        ).compile().as_text()  # fmt: skip
        assert "all-reduce" in text and "f64[8,6]" in text  # a share of 64 examples, summed over the devices


def test_an_optimizer_that_asks_for_the_loss_elsewhere():
    with x64():
        params, optimizer = {k: v.copy() for k, v in PARAMS.items()}, optimizers.lbfgs()
        one = train.make_step(loss, optimizer)
        many = train.data_parallel(loss, optimizer)
        a, b = train.TrainState.create(params, optimizer), many.place(train.TrainState.create(params, optimizer))
        for _ in range(4):
            a, value = one(a, X, Y)
            b, other = many(b, X, Y)
            np.testing.assert_allclose(other, value, rtol=1e-8)
        strict = train.data_parallel(loss, optimizer, gradients="ordered")
        with pytest.raises(NotImplementedError, match=r"at other parameters.*all_reduce"):
            strict(strict.place(train.TrainState.create(params, optimizer)), X, Y)


@pytest.mark.parametrize("gradients", ["all_reduce", "sharded", "int8", "ordered"])
def test_a_state_that_was_not_placed_is(gradients):
    optimizer = optimizers.adam(0.1)
    params = {"w": np.ones((16, 32), np.float32)}
    step = train.data_parallel(lambda p, x: ((x @ p["w"]) ** 2).mean(), optimizer, gradients=gradients, devices=2)
    for _ in range(2):
        start = train.TrainState.create(params, optimizer)
        state, value = step(start, np.ones((8, 16), np.float32))
        state, other = step(state, np.ones((8, 16), np.float32))
        assert float(value) == 256 and float(other) < 256 and len(state.params["w"].devices()) == 2


def test_what_is_not_finite_leaves_the_last_good_state():
    def bad(params, x):
        return tnp.log(params * x).mean()

    optimizer = optimizers.sgd(0.1)
    for gradients in ("all_reduce", "ordered", "sharded"):
        step = train.data_parallel(bad, optimizer, gradients=gradients)
        state = step.place(train.TrainState.create(np.float32(1), optimizer))
        good, _ = step(state, np.ones(16, np.float32))
        kept = float(good.params)
        worse, value = step(good, np.full(16, -1, np.float32))
        assert np.isnan(value) and bool(worse.failed) and float(worse.params) == kept


# -- fit


def test_fit_with_one_argument():
    x, y = np.float32(X), np.float32(Y)
    results = {}
    for parallel in (None, False, True, 2, {"devices": 4, "gradients": "sharded"}, {"gradients": Bucketed(1)}):
        loader = train.data.DataLoader((x, y), 24, seed=0)
        params = jax.tree.map(np.float32, PARAMS)
        result = train.fit(
            loss, params, loader, optimizers.adam(1e-2), epochs=3, progress=False, parallel=parallel,
            validate=lambda state: float(loss(state.params, x, y)), average=optimizers.ema(0.9),
        )  # fmt: skip
        results[str(parallel)] = result
        near(result.params, results["None"].params, 1e-5)
        np.testing.assert_allclose(result.history["val_loss"], results["None"].history["val_loss"], rtol=1e-5)


def test_fit_goes_on_from_a_checkpoint_and_says_what_else_changed(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("NPROC", "8")
    x, y = np.float32(X), np.float32(Y)

    def run(folder, steps, devices=2, gradients="ordered", **options):
        loader = train.data.DataLoader((x, y), 24, seed=0)
        return train.fit(
            loss, jax.tree.map(np.float32, PARAMS), loader, optimizers.adam(1e-2), steps=steps, progress=False,
            checkpoints=tmp_path / folder, parallel={"devices": devices, "gradients": gradients}, **options,
        )  # fmt: skip

    whole = run("whole", 9)
    run("parts", 4)
    for devices, steps in ((8, 6), (1, 9)):
        parts = run("parts", steps, devices, resume=True)
    for a, b in zip(jax.tree.leaves(parts.state), jax.tree.leaves(whole.state), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert "other terms" not in capfd.readouterr().err
    with pytest.raises(CheckpointError, match=r"under other terms \(shards: 8 then, 4 now.*gradients= that"):
        run("parts", 12, gradients=Ordered(4), resume=True)
    monkeypatch.setenv("NPROC", "16")
    run("parts", 12, resume=True)
    assert "threads: 8 then, 16 now" in capfd.readouterr().err
    run("sharded", 4, 8, "sharded")
    run("sharded", 8, 2, "sharded", resume=True)


def test_fit_explains_what_is_not_finite_also_through_collectives():
    def bad(model, state, x):
        run = nn.Run(model, state, training=True)
        return tnp.log(-(model(x, run) ** 2)).mean(), run.state

    norm = nn.BatchNorm.init(6, axis_name="data")
    with pytest.raises(train.NonFiniteError, match=r"(?s)step 1 is not finite.*log : "):
        train.fit(
            bad, norm, [(np.float32(X),)], optimizers.sgd(0.1), steps=2, parallel=True, progress=False,
            model_state=nn.init_state(norm),
        )  # fmt: skip


# -- bad input


def test_wrong_arguments():
    sgd = optimizers.sgd(0.1)
    cases = [
        (lambda: train.data_parallel("loss", sgd), TypeError, "step_or_loss"),
        (lambda: train.data_parallel(loss, "sgd"), TypeError, "optimizer"),
        (lambda: train.data_parallel(loss, sgd, devices=9), ValueError, r"devices=9, and there are 8.*jax_num_cpu"),
        (lambda: train.data_parallel(loss, sgd, devices=0), ValueError, "devices=0"),
        (lambda: train.data_parallel(loss, sgd, devices="all"), TypeError, "devices is str 'all'"),
        (lambda: train.data_parallel(loss, sgd, gradients="mean"), ValueError, "all_reduce"),
        (lambda: train.data_parallel(loss, sgd, microbatches=0), ValueError, "microbatches is 0"),
        (lambda: train.data_parallel(loss, sgd, microbatches=2, gradients="ordered"), ValueError, "more shards"),
        (lambda: train.data_parallel(loss, sgd, weight=1.0), TypeError, "weight"),
        (lambda: train.data_parallel(loss, microbatches=2), ValueError, "no optimizer"),
        (lambda: train.fit(loss, PARAMS, [(X, Y)], sgd, parallel="yes"), TypeError, "parallel is str 'yes'"),
        (lambda: train.fit(loss, PARAMS, [(X, Y)], sgd, parallel={"gpus": 2}), ValueError, "no 'gpus'.*devices"),
    ]
    for call, error, message in cases:
        with pytest.raises(error, match=message) as found:
            call()
        assert "test_devices.py" in str(found.value), found.value


def test_wrong_batches_and_states():
    sgd = optimizers.sgd(0.1)
    step = train.data_parallel(loss, sgd)
    state = step.place(train.TrainState.create(jax.tree.map(np.float32, PARAMS), sgd))
    with pytest.raises(ValueError, match=r"first axes, which differ.*\(64, 6\).*\(61, 3\)"):
        step(state, X, Y[:61])
    with pytest.raises(ValueError, match="no array with examples"):
        step(state, 1.0)
    with pytest.raises(TypeError, match=r"state is dict.*step.place"):
        step({"w": 1}, X, Y)
    other = train.data_parallel(lambda p, s, x: (p * x.mean(), {"new": s}), sgd)
    state = other.place(train.TrainState.create(np.float32(1), sgd, model_state=np.float32(1)))
    with pytest.raises(TypeError, match="model_state of another structure"):
        other(state, np.float32(X))
    assert str(step) == "DataParallel(loss, 8 devices, AllReduce())" and AllReduce() == step.gradients
