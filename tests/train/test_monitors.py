"""`train.Monitor`, beside NumPy in float64, on models with planted defects, and on healthy ones."""

from __future__ import annotations

import dataclasses
import itertools
import re
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_message
from tracegrad import nn, optimizers, train
from tracegrad.recording import state as recording

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(64, 8)).astype(np.float32), RNG.integers(0, 3, 64)
Y_SEEN = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def normal(*shape: int, scale: float = 1.0, seed: int = 0) -> Any:
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def classify(model: Any, x: Any, y: Any) -> Any:
    return nn.losses.sparse_categorical_cross_entropy(model(x), y, from_logits=True)


def close(spread: Any, x: Any) -> None:
    """A spread is that of this array in float64."""
    np.testing.assert_allclose([spread.mean, spread.std], [x.mean(), x.std()], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(spread.norm, np.sqrt((x**2).sum()), rtol=1e-4)
    counts, edges = np.histogram(x, len(spread.counts))
    np.testing.assert_allclose(spread.edges, edges, rtol=1e-4, atol=1e-6)
    # An element on an edge may be on either side of it.
    assert spread.counts.sum() == x.size and np.abs(spread.counts - counts).max() <= 2 and spread.finite == 1


W1, W2, B1 = normal(8, 16, scale=0.5), normal(16, 3, seed=1), normal(16, seed=2)


def forward(x: Any, y: Any) -> dict[str, Any]:
    """A perceptron of one hidden layer of relu and its gradients, written out in float64."""
    x, w1, w2, b1 = (a.astype(np.float64) for a in (x, W1, W2, B1))
    z = x @ w1 + b1
    h = np.maximum(z, 0)
    out = h @ w2
    p = np.exp(out - out.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[np.arange(len(y)), y]).mean()
    d_out = (p - np.eye(3)[y]) / len(y)
    d_h = d_out @ w2.T
    d_z = d_h * (z > 0)
    return {
        "z": z, "h": h, "out": out, "loss": loss, "d_z": d_z, "d_h": d_h, "d_out": d_out,
        "d_w1": x.T @ d_z, "d_b1": d_z.sum(0), "d_w2": h.T @ d_out,
    }  # fmt: skip


def test_the_numbers_of_layers_are_those_of_numpy() -> None:
    model = nn.Sequential([nn.Linear(W1, B1), nn.relu, nn.Linear(W2)])
    monitor = train.Monitor(classify, every=5, validation=(X[:9], Y[:9]))
    monitor(0, model, X, Y)
    moved = jax.tree.map(lambda x: 1.01 * x, model)
    monitor(1, moved, X, Y)
    (report,) = monitor.reports
    want = forward(X, Y)
    np.testing.assert_allclose(report.loss, want["loss"], rtol=1e-5)
    assert report.validation_loss is not None and report.gap is not None
    np.testing.assert_allclose(report.validation_loss, forward(X[:9], Y[:9])["loss"], rtol=1e-5)
    np.testing.assert_allclose(report.gap, report.validation_loss - report.loss)
    assert [*report.layers] == ["model.layers[0]", "model.layers[1]", "model.layers[2]"]
    for row, name in zip(report.layers.values(), ("z", "h", "out"), strict=True):
        close(row.values, want[name])
        close(row.gradients, want[f"d_{name}"])
    relu = report.layers["model.layers[1]"]
    assert (relu.kind, relu.activation, relu.units, relu.examples) == ("Function", "relu", 16, 64)
    np.testing.assert_allclose(relu.dead, (want["h"] == 0).all(0).mean())
    names = {"model.layers[0].kernel": "w1", "model.layers[0].bias": "b1", "model.layers[2].kernel": "w2"}
    for path, row in report.parameters.items():
        close(row.gradients, want[f"d_{names[path]}"])
        np.testing.assert_allclose(row.norm, np.linalg.norm({"w1": W1, "b1": B1, "w2": W2}[names[path]]), rtol=1e-5)
        np.testing.assert_allclose(row.update_ratio, 0.01, rtol=1e-3)
    assert [*report.parameters] == [*names]
    total = np.sqrt(sum((want[f"d_{name}"] ** 2).sum() for name in names.values()))
    np.testing.assert_allclose([report.gradient_norm, report.update_ratio], [total, 0.01], rtol=1e-3)
    np.testing.assert_allclose(report.varies, want["out"].std(0).max() / np.abs(want["out"]).max(), rtol=1e-4)
    assert recording.watch is None and recording.capture is None and recording.tape is None
    assert "model.layers[1]  Function" in repr(monitor) and "dead" in repr(report)


def test_a_model_of_plain_functions() -> None:
    def loss(p: Any, x: Any, y: Any) -> Any:
        h = np.maximum(x @ p["w1"] + p["b1"], 0)
        return nn.losses.sparse_categorical_cross_entropy(h @ p["w2"], y, from_logits=True), "aux"

    monitor = train.Monitor(loss)
    monitor(0, {"w1": W1, "b1": B1, "w2": W2}, X, Y)
    (report,) = monitor.reports
    want = forward(X, Y)
    assert [*report.layers] == ["params['w1']", "relu", "params['w2']"] and report.findings == ()
    assert report.layers["relu"].source.startswith("test_monitors.py:")
    for path, x, gradient in (("relu", "h", "d_h"), ("params['w2']", "out", "d_out")):
        close(report.layers[path].values, want[x])
        close(report.layers[path].gradients, want[gradient])
    close(report.parameters["params['w1']"].gradients, want["d_w1"])
    assert report.update_ratio is None


def test_layers_of_a_loop_one_by_one() -> None:
    kernels = normal(3, 8, 8, scale=0.6)
    model = nn.Stack(nn.Sequential([nn.Linear(kernels), nn.tanh]), 3)
    monitor = train.Monitor(lambda model, x: (model(x) ** 2).mean(), bins=7)
    monitor(0, model, X)
    layers = monitor.reports[0].layers
    h = X.astype(np.float64)
    hs, zs = [], []
    for k in kernels.astype(np.float64):
        zs.append(h @ k)
        h = np.tanh(zs[-1])
        hs.append(h)
    ct = 2 * h / h.size
    for i in reversed(range(3)):
        row, linear = layers[f"model.layer[{i}].layers[1]"], layers[f"model.layer[{i}].layers[0]"]
        close(row.values, hs[i])
        close(linear.values, zs[i])
        close(row.gradients, ct)
        np.testing.assert_allclose(row.saturated, (1 - hs[i] ** 2 < 0.05).mean(), atol=2e-3)
        ct = ct * (1 - hs[i] ** 2)
        close(linear.gradients, ct)
        ct = ct @ kernels[i].astype(np.float64).T
    assert [*layers][:3] == ["model.layer[0].layers[0]", "model.layer[0].layers[1]", "model.layer[1].layers[0]"]


def test_what_is_not_finite_or_constant() -> None:
    def loss(p: Any, x: Any) -> Any:
        return ((x @ p["w"]) ** 2).mean()

    monitor = train.Monitor(loss, bins=4)
    with pytest.warns(train.TrainingWarning, match=r"step 0: the output of params\['w'\] \(matmul at .* is not finite"):
        monitor(0, {"w": np.ones((2, 1), np.float32)}, np.array([[1, 1], [np.inf, 0], [2, 3]], np.float32))
        (report,) = monitor.reports
    values = report.layers["params['w']"].values
    assert np.isnan([values.mean, values.std, values.norm]).all() and values.finite == 2 / 3
    assert values.counts.tolist() == [1, 0, 0, 1] and values.edges[[0, -1]].tolist() == [2, 5]
    monitor = train.Monitor(loss, bins=4)
    monitor(0, {"w": np.zeros((2, 1), np.float32)}, np.ones((3, 2), np.float32))
    values = monitor.reports[0].layers["params['w']"].values
    np.testing.assert_array_equal(values.counts, np.histogram(np.zeros(3), 4)[0])
    assert values.edges.tolist() == [-0.5, -0.25, 0, 0.25, 0.5]


def run(loss: Any, params: Any, optimizer: Any, *batch: Any, steps: int = 22, **options: Any) -> set[str]:
    """The kinds of the warnings in some steps with a look at each tenth."""
    monitor = train.Monitor(loss, every=10, **options)
    state = optimizer.init(params)

    @tg.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = optimizer.update(tg.grad(loss)(params, *batch), state, params)
        return optimizers.apply_updates(params, updates), state

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(steps):
            monitor(i, params, *batch)
            params, state = step(params, state)
        found = {finding.kind for report in monitor.reports for finding in report.findings}
    texts = [str(w.message) for w in caught if w.category is train.TrainingWarning]
    assert bool(texts) is bool(found) and len(texts) == len(set(texts))
    return found


def mlp(sizes: tuple[int, ...], activation: Any, scale: float, bias: float = 0.0) -> Any:
    pairs = list(itertools.pairwise(sizes))
    layers = [
        nn.Linear(normal(a, b, scale=scale * a**-0.5, seed=i), np.full(b, bias * (i < len(pairs) - 1), np.float32))
        for i, (a, b) in enumerate(pairs)
    ]
    return nn.MLP(tuple(layers), activation=activation)


DEEP = (8, *[32] * 8, 3)
SGD = optimizers.sgd(0.05)

SICK: dict[str, tuple[str, Callable[[], set[str]]]] = {
    "dead relus": ("dead", lambda: run(classify, mlp((8, 32, 3), nn.relu, 1.0, -9.0), SGD, X, Y)),
    "saturated tanh": ("saturated", lambda: run(classify, mlp((8, 32, 3), nn.tanh, 20.0), SGD, X, Y)),
    "saturated sigmoid": ("saturated", lambda: run(classify, mlp((8, 32, 3), nn.sigmoid, 40.0), SGD, X, Y)),
    "vanishing tanh": ("vanishing", lambda: run(classify, mlp(DEEP, nn.tanh, 0.2), SGD, X, Y)),
    "vanishing sigmoid": ("vanishing", lambda: run(classify, mlp(DEEP, nn.sigmoid, 1.0), SGD, X, Y)),
    "exploding": ("exploding", lambda: run(classify, mlp(DEEP, nn.relu, 5.0), optimizers.sgd(0.0), X, Y)),
    "rate too high": (
        "learning rate too high",
        lambda: run(lambda w, x: (w**2).sum() / 2 + 0 * x.sum(), normal(8, 2), optimizers.sgd(1.5), X),
    ),
    "rate too low": (
        "learning rate too low",
        lambda: run(classify, mlp((8, 32, 3), nn.tanh, 1.0), optimizers.sgd(1e-6), X, Y, steps=32),
    ),
    "diverging": ("diverging", lambda: run(lambda w, x: ((x @ w) ** 2).mean(), normal(8, 2), optimizers.sgd(3.0), X)),
    "not finite": (
        "not finite", lambda: run(lambda w, x: ((x @ w) ** 4).mean(), normal(8, 2), optimizers.sgd(10.0), X)
    ),
    "overfitting": (
        "overfitting",
        lambda: run(
            classify, mlp((8, 128, 3), nn.relu, 1.4), optimizers.adam(1e-2), X[:24], Y[:24], steps=101,
            validation=(X[24:], Y[24:]),
        ),
    ),
    "an unused parameter": (
        "unused",
        lambda: run(
            lambda p, x, y: classify(p["net"], x, y), {"net": mlp((8, 4, 3), nn.tanh, 1), "more": B1}, SGD, X, Y
        ),
    ),
    "no gradient": ("no gradient", lambda: run(classify, mlp((8, 32, 3), nn.relu, 1.0, -50.0), SGD, X, Y)),
    "constant output": ("constant", lambda: run(classify, mlp((8, 32, 3), nn.relu, 1.0, -50.0), SGD, X, Y)),
}  # fmt: skip


@pytest.mark.parametrize("name", SICK)
def test_what_is_planted_is_found(name: str) -> None:
    kind, find = SICK[name]
    assert kind in find()


def test_one_cause_of_many_zeros_is_said_once() -> None:
    model = nn.MLP.init(tg.random.key(0), (8, 16, 16, 3), bias_init=nn.initializers.constant(-50.0))
    monitor = train.Monitor(classify, every=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", train.TrainingWarning)
        for i in range(2):
            monitor(i, model, X, Y)
        (text,) = [f.text for f in monitor.reports[-1].findings if f.kind == "no gradient"]
    # All but the bias of the last layer are behind the dead units.
    assert text.startswith("the gradient of model.layers[0].kernel, and that of 4 more parameters, is exactly 0: ")


def residual(key: Any) -> Any:
    """Blocks whose last kernel is 0 at first, as is that of the head: nothing in them has a gradient then."""
    zeros = nn.initializers.zeros
    keys = tg.random.split(key, 3)
    blocks = [
        nn.Residual(nn.Sequential([nn.Linear.init(k, 16, 16), nn.relu, nn.Linear.init(k, 16, 16, kernel_init=zeros)]))
        for k in keys[:2]
    ]
    return nn.Sequential([nn.Linear.init(keys[2], 8, 16), *blocks, nn.Linear.init(keys[2], 16, 3, kernel_init=zeros)])


def gated(model: Any, x: Any, y: Any) -> Any:
    """A sigmoid that gates, and one whose output is what is asked for: both may be saturated."""
    h = model["a"](x) * nn.sigmoid(20 * model["gate"](x))
    p = nn.sigmoid(30 * model["out"](h))[:, 0]
    return -tnp.log(tnp.where(y > 0, p, 1 - p) + 1e-3).mean()


ADAM = optimizers.adam(1e-3)

HEALTHY: dict[str, Callable[[], set[str]]] = {
    "relu": lambda: run(classify, mlp(DEEP, nn.relu, 1.41), ADAM, X, Y_SEEN, validation=(X, Y_SEEN)),
    "tanh": lambda: run(classify, mlp(DEEP, nn.tanh, 1.0), ADAM, X, Y_SEEN),
    "as drawn by default": lambda: run(
        classify, nn.MLP.init(tg.random.key(0), (8, 64, 64, 3)), optimizers.adam(1e-2), X, Y_SEEN, steps=62
    ),
    "zeros at first": lambda: run(classify, residual(tg.random.key(0)), ADAM, X, Y_SEEN),
    "gates and outputs": lambda: run(
        gated, {n: nn.Linear.init(tg.random.key(i), 8, 8) for i, n in enumerate(("a", "gate", "out"))}, ADAM, X, Y_SEEN
    ),
    "attention": lambda: run(
        lambda m, x: ((m(x) - x[:, ::-1]) ** 2).mean(), nn.TransformerBlock.init(tg.random.key(0), 8, 2), ADAM,
        X.reshape(8, 8, 8),
    ),
    "a rate that falls to 0": lambda: run(
        classify, mlp((8, 32, 3), nn.tanh, 1.0), optimizers.adam(lambda i: 1e-2 * (1 - tnp.minimum(i / 30, 1))), X,
        Y_SEEN, steps=62,
    ),
    "a part that is kept on purpose": lambda: run(
        lambda p, x, y: classify(p["new"], tg.stop_gradient(p["old"](x)), y),
        {"old": mlp((8, 8), nn.relu, 1), "new": mlp((8, 8, 3), nn.tanh, 1)}, ADAM, X, Y_SEEN,
    ),
    "few examples": lambda: run(classify, mlp((8, 32, 3), nn.relu, 1.41), ADAM, X[:2], Y_SEEN[:2]),
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_where_nothing_is_wrong_nothing_is_said(name: str) -> None:
    assert HEALTHY[name]() == set()


def test_the_words_of_a_warning_and_that_it_comes_once() -> None:
    model, monitor = mlp((8, 25, 3), nn.relu, 0.01, -1.0), train.Monitor(classify, every=1)
    with pytest.warns(train.TrainingWarning) as caught:
        for i in range(4):
            monitor(i, model, X, Y)
        assert len(monitor.reports) == 4
    dead = [w for w in caught if "dead on this batch" in str(w.message)]
    assert len(dead) == 1 and dead[0].filename == __file__
    assert re.fullmatch(
        r"model\.relu \(relu at test_monitors\.py:\d+\): 100% of 25 relu units are dead on this batch: 0 for all of "
        r"it, so that no gradient passes\. Lower the learning rate or the initial scale, or take leaky_relu\.",
        str(dead[0].message),
    )


def test_the_program_runs_at_its_steps_alone_and_memory_may_be_taken() -> None:
    model, traced = mlp((8, 8, 3), nn.tanh, 1.0), []

    def loss(model: Any, x: Any, y: Any) -> Any:
        traced.append(1)
        return classify(model, x, y)

    def update(model: Any) -> Any:
        return jax.tree.map(lambda w: w * 0.99, model)

    step, monitor = tg.jit(update, donate_argnums=0), train.Monitor(loss, every=4)
    looks = []
    look = monitor._program
    monitor._program = lambda *args: looks.append(1) or look(*args)  # type: ignore[func-returns-value]
    model = step(model)
    for i in range(10):
        monitor(i, model, X, Y)
        count = len(traced)
        model = step(model)
    assert len(looks) == 3 and len(traced) == count
    ratios = [report.update_ratio for report in monitor.reports]
    np.testing.assert_allclose(ratios, 0.01, rtol=1e-3)
    # Of a loop that calls it now and then, no step is seen as a whole.
    monitor = train.Monitor(loss, every=4)
    for i in (0, 4):
        monitor(i, model, X, Y)
    assert [report.update_ratio for report in monitor.reports] == [None, None]


def test_state_keys_branches_and_other_shapes() -> None:
    model = nn.Sequential([nn.Linear.init(tg.random.key(0), 8, 4), nn.BatchNorm.init(4), nn.Dropout(0.5), nn.tanh])

    def loss(model: Any, state: Any, x: Any, key: Any) -> Any:
        run = nn.Run(model, state, key=key, training=True)
        h = model(x, run)
        return tg.cond(h.sum() > 0, lambda: (h**2).mean(), lambda: (model[0](x) ** 2).mean()), run.state

    monitor = train.Monitor(loss, every=1)
    for i, x in enumerate((X, X[:20])):
        monitor(i, model, nn.init_state(model), x, key=tg.random.key(i))
    paths = [*monitor.reports[-1].layers]
    assert paths == [f"model.layers[{i}]" for i in range(4)]
    assert [report.layers[paths[0]].examples for report in monitor.reports] == [64, 20]


class Loop:
    """What `fit` gives to a callback."""

    def __init__(self, state: Any, batch: Any) -> None:
        self.state, self.batch, self.step, self.history = state, batch, 0, {}  # type: ignore[var-annotated]


def test_as_a_callback() -> None:
    model = mlp((8, 8, 3), nn.tanh, 1.0)
    monitor = train.Monitor(classify, every=2)
    loop: Any = Loop(train.TrainState.create(model, optimizers.sgd(0.1)), (X, Y))
    monitor.on_start(loop)
    for loop.step in range(1, 6):
        monitor.on_step(loop)
        if loop.step == 3:
            loop.history["val_loss"] = [9.0]
            monitor.on_epoch(loop)
    monitor.on_end(loop)
    assert [(r.step, r.validation_loss, r.update_ratio) for r in monitor.reports] == [(2, None, 0), (4, 9.0, 0)]


def test_without_a_loss_it_takes_that_of_fit() -> None:
    model, monitor = mlp((8, 8, 3), nn.tanh, 1.0), train.Monitor(every=2)
    with pytest.raises(TypeError, match=r"^Monitor: there is no loss .*Write Monitor\(loss_fn\)"):
        monitor(0, model, X, Y)
    for loss in (classify, lambda model, x, y: 2 * classify(model, x, y)):
        train.fit(loss, model, [(X, Y)] * 2, optimizers.sgd(1e-9), callbacks=[monitor], progress=False)
    first, second = monitor.reports
    assert second.loss == pytest.approx(2 * first.loss, rel=1e-5)
    with pytest.raises(TypeError, match=r"^fit: Monitor needs the loss and a TrainState"):
        train.fit(lambda s, x, y: (s, 0.0), model, [(X, Y)] * 2, callbacks=[train.Monitor(every=2)], progress=False)


def test_some_layers_alone_and_a_plot(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = nn.Sequential([mlp((8, 8, 8), nn.tanh, 1.0), nn.tanh, mlp((8, 3), nn.relu, 1.0)])
    monitor = train.Monitor(classify, every=1, layers=["model.layers[2]", "model.layers[0].tanh"])
    for i in range(2):
        monitor(i, model, X, Y)
    assert [*monitor.reports[0].layers] == ["model.layers[0].tanh", "model.layers[2].layers[0]"]
    pytest.importorskip("matplotlib")
    figure = monitor.plot(tmp_path / "monitor.png")
    assert [axes.get_title() for axes in figure.axes] == [
        "loss", "std of outputs", "gradients of outputs (norm)", "update / weight",
    ]  # fmt: skip
    assert (tmp_path / "monitor.png").stat().st_size > 1000


def test_the_plot_of_a_validation_loss_has_no_gaps() -> None:
    pytest.importorskip("matplotlib")
    monitor = train.Monitor(classify, every=1, validation=lambda *_: np.float32(2))
    for i in range(3):
        monitor(i, mlp((8, 8, 3), nn.tanh, 1.0), X, Y)
    assert len(monitor.reports) == 3  # all of them are ready
    monitor._reports[1] = dataclasses.replace(monitor._reports[1], validation_loss=None)
    line = monitor.plot().axes[0].lines[1]
    assert [*line.get_xdata()] == [0, 2] and [*line.get_ydata()] == [2, 2]


def test_bad_input() -> None:
    model = mlp((8, 8, 3), nn.tanh, 1.0)
    check_message(
        lambda: train.Monitor(classify, layers=["model.layer[0]"])(0, model, X, Y), ValueError,
        r"^Monitor: there is no layer 'model.layer\[0\]' at .*Did you mean 'model.layers\[0\]'\? There are: model",
    )  # fmt: skip
    check_message(lambda: train.Monitor(3), TypeError, "Monitor: loss_fn is .*not a function")  # type: ignore[arg-type]
    check_message(lambda: train.Monitor(classify, every=0), ValueError, r"^Monitor: every=0 .*1 or more")
    check_message(lambda: train.Monitor(classify, bins=True), ValueError, r"^Monitor: bins=True")
    check_message(lambda: train.Monitor(classify, layers="model"), TypeError, r"Give a list of paths: \['model'\]")
    check_message(lambda: train.Monitor(classify, validation=[X, Y]), TypeError, "^Monitor: validation is .*a tuple")
    check_message(lambda: train.Monitor(classify).plot(), ValueError, "plot: nothing was seen yet")
    check_message(lambda: train.Monitor(lambda m, x: m(x))(0, model, X), TypeError, "scalar")
    check_message(
        lambda: tg.jit(lambda x: train.Monitor(classify)(0, model, x, Y))(X), TypeError, "no value yet .*outside @jit"
    )
