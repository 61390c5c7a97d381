"""`nn.layer_statistics` and `nn.lsuv`, beside NumPy in float64 and the published study of ten layers of tanh."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

import tracegrad as tg
from tests.reference import check_message
from tracegrad import nn
from tracegrad.recording import state

KEY = tg.random.key(0)


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tanhs(scale: float) -> Any:
    kernels = [normal(500, 500, seed=i) * np.float32(scale) for i in range(10)]
    return nn.Sequential([part for kernel in kernels for part in (nn.Linear(kernel), nn.tanh)])


@pytest.mark.parametrize(
    ("scale", "first", "last"),
    # Karpathy, "CS231n: Convolutional neural networks for visual recognition", lecture 5 (2016).
    [(0.01, 0.213081, 0.000001), (500**-0.5, 0.627953, 0.228008)],
)
def test_the_study_of_ten_layers_of_tanh(scale: float, first: float, last: float) -> None:
    x, model = normal(1000, 500, seed=99), tanhs(scale)
    rows = nn.layer_statistics(model, x, bins=30, range=(-1, 1))
    assert [row.path for row in rows] == [*[f"model.layers[{i}]" for i in range(20)], "model"]
    stds = [row.std for row in rows if row.kind == "Function"]
    np.testing.assert_allclose([stds[0], stds[-1]], [first, last], atol=5e-3, rtol=0)
    h = x.astype(np.float64)
    for i, row in enumerate(rows[:20]):
        h = np.tanh(h) if i % 2 else h @ np.asarray(model[i].kernel, np.float64)
        np.testing.assert_allclose([row.mean, row.std], [h.mean(), h.std()], rtol=1e-4, atol=1e-6)
        assert np.abs(row.counts - np.histogram(h, 30, (-1, 1))[0]).max() <= 3
        np.testing.assert_allclose(row.edges, np.linspace(-1, 1, 31), atol=1e-7)


def test_lsuv_of_the_study() -> None:
    x, model = normal(1000, 500, seed=99), tanhs(0.01)
    new, report = nn.lsuv(model, x, tolerance=1e-3)
    assert [row.path for row in report] == [f"model.layers[{i}]" for i in range(0, 20, 2)]
    h = old = x.astype(np.float64)
    for row in report:
        given, kernel = (np.asarray(m[2 * report.index(row)].kernel, np.float64) for m in (model, new))
        h, old = h @ kernel, old @ given
        # The factor Q of the kernel that was given, times a number: Q^T Q = 1, and R is triangular.
        gram, r = kernel.T @ kernel, kernel.T @ given
        np.testing.assert_allclose(gram / gram[0, 0], np.eye(500), atol=1e-5)
        assert (np.diagonal(r) > 0).all() and np.abs(np.tril(r, -1)).max() < 1e-5 * r.max()
        np.testing.assert_allclose([row.std_before, row.std_after], [old.std(), h.std()], rtol=1e-4)
        assert abs(h.var() - 1) < 2e-3 and row.iterations in (0, 1, 2)
        h, old = np.tanh(h), np.tanh(old)
    stds = [row.std for row in nn.layer_statistics(new, x) if row.kind == "Function"]
    np.testing.assert_allclose(stds, 0.628, atol=5e-3)


@nn.layer
class Net:
    conv: nn.Conv
    norm: nn.BatchNorm
    parts: dict[str, Any]
    drop: nn.Dropout

    def __call__(self, x: Any, run: Any = None) -> Any:
        h = self.drop(nn.relu(self.norm(self.conv(x, run), run)), run)
        h = self.parts["wide"](h.reshape(h.shape[0], -1), run)
        return self.parts["twice"](self.parts["twice"](h, run), run)


def net() -> Net:
    k1, k2, k3 = tg.random.split(KEY, 3)
    parts = {
        "wide": nn.Linear.init(k2, 36, 50, bias_init=nn.initializers.normal(0.5)),
        "twice": nn.Linear.init(k3, 50, 50),
    }
    return Net(nn.Conv.init(k1, 3, 4, (3, 3), padding="VALID"), nn.BatchNorm.init(4), parts, nn.Dropout(0.3))


def test_lsuv_of_layers_of_ones_own_with_a_state() -> None:
    x, model = 3 * normal(64, 5, 5, 3), net()
    options: dict[str, Any] = {"key": tg.random.key(1), "training": True}
    new, report = nn.lsuv(model, x, **options, tolerance=0.01)
    assert type(new) is Net and jax.tree.structure(new) == jax.tree.structure(model)
    paths = ["model.conv", "model.parts['wide']", "model.parts['twice']"]
    assert [row.path for row in report] == paths and [row.kind for row in report] == ["Conv", "Linear", "Linear"]
    # A bias of its own makes it take more than one iteration.
    assert report[1].iterations > 1
    run = nn.Run(new, nn.init_state(new), **options)
    h = new.conv(x, run)
    assert abs(np.asarray(h, np.float64).var() - 1) < 0.01
    h = new.drop(nn.relu(new.norm(h, run)), run)
    wide = np.asarray(h, np.float64).reshape(64, -1) @ np.asarray(new.parts["wide"].kernel, np.float64)
    wide += np.asarray(new.parts["wide"].bias, np.float64)
    assert abs(wide.var() - 1) < 0.01
    twice = wide @ np.asarray(new.parts["twice"].kernel, np.float64)
    np.testing.assert_allclose([row.std_after for row in report[1:]], [wide.std(), twice.std()], rtol=1e-4)
    # Columns or rows are orthogonal, and of one length; what is no kernel is what it was.
    for kernel in (new.conv.kernel, new.parts["wide"].kernel, new.parts["twice"].kernel):
        matrix = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])
        gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
        np.testing.assert_allclose(gram / gram[0, 0], np.eye(len(gram)), atol=1e-5)
    assert new.parts["wide"].bias is model.parts["wide"].bias and new.norm.scale is model.norm.scale
    rows = nn.layer_statistics(new, x, **options)
    assert [row.path for row in rows] == [
        "model.conv", "model.norm", "model.drop", *paths[1:], paths[2], "model",
    ]  # fmt: skip
    assert abs(rows[1].std - 1) < 1e-3 and state.watch is None and state.tape is None
    # In inference the running averages are still those of the start, so the norm is the identity.
    calm = nn.layer_statistics(new, x)
    np.testing.assert_allclose(calm[0].std, calm[1].std, rtol=1e-4)


def test_skip_and_dtype() -> None:
    model = nn.Sequential([nn.Linear.init(KEY, 8, 16, dtype="bfloat16"), nn.Linear.init(KEY, 16, 2)])
    new, report = nn.lsuv(model, normal(512, 8).astype("bfloat16"), skip=("model.layers[1]",))
    assert new[1].kernel is model[1].kernel and len(report) == 1
    assert new[0].kernel.dtype == "bfloat16" and abs(report[0].std_after - 1) < 0.05


def test_layers_in_transforms_and_outputs_that_are_trees() -> None:
    linear, lstm = nn.Linear.init(KEY, 3, 4), nn.LSTM.init(KEY, 4, 5)

    @nn.layer
    class Model:
        linear: Any
        lstm: Any

        def __call__(self, x: Any, run: Any = None) -> Any:
            # A closure: its values are known when the body has run.
            return self.lstm(tg.checkpoint(lambda x: self.linear(x))(x), run)[0]

    x = normal(2, 7, 3)
    rows = nn.layer_statistics(Model(linear, lstm), x)
    out = np.asarray(x @ np.asarray(linear.kernel))
    np.testing.assert_allclose([rows[0].mean, rows[0].std], [out.mean(), out.std()], rtol=1e-5)
    ys, last = lstm(out)
    expected = [np.std(v) for v in jax.tree.leaves((ys, last))]
    np.testing.assert_allclose([row.std for row in rows[1:-1]], expected, rtol=1e-4)
    assert rows[1].path == "model.lstm[0]" and rows[-1].path == "model"


def test_values_that_are_not_finite_or_missing() -> None:
    first, second = nn.layer_statistics(
        nn.Sequential([nn.Linear(np.eye(3, dtype="f")), tg.numpy.log]), np.array([[0, 1, 1]], "f")
    )[:2]
    assert first.std == pytest.approx(np.std([0, 1, 1])) and np.isnan([second.mean, second.std]).all()
    assert second.counts.sum() == 2
    (empty,) = nn.layer_statistics(nn.Linear(np.eye(3, dtype="f")), np.ones((0, 3), "f"))
    assert np.isnan(empty.mean) and empty.counts.sum() == 0 and "nan" in repr((empty,))


def test_tables() -> None:
    model = nn.Sequential([nn.Linear(np.full((2, 1), 0.5, np.float32)), nn.relu])
    x = np.array([[1, 1], [1, 1], [-1, -1], [0, 0]], np.float32)
    lines = repr(nn.layer_statistics(model, x, bins=4)).splitlines()
    assert lines[0].split() == ["layer", "kind", "mean", "std", "from", "histogram", "to"]
    assert lines[2].split() == ["model.layers[0]", "Linear", "0.250", "0.829", "-1", "▄", "▄█", "1"]
    lines = repr(nn.lsuv(model, x)[1]).splitlines()
    assert lines[0].split() == ["layer", "kind", "iterations", "std", "before", "std", "after"]
    assert lines[2].split() == ["model.layers[0]", "Linear", "1", "0.829", "1.000"]


@nn.layer
class Scale:
    kernel: Any

    def __call__(self, x: Any, run: Any = None) -> Any:
        return x * self.kernel


@nn.layer
class Pair:
    kernel: Any

    def __call__(self, x: Any, run: Any = None) -> Any:
        return x, x


STACKED = nn.Sequential([nn.Stack.init(KEY, 2, lambda k: nn.Linear.init(k, 3, 3)), nn.Linear.init(KEY, 3, 3)])
LINEAR = nn.Linear.init(KEY, 3, 3)
ONES = np.ones((4, 3), np.float32)
BROKEN = nn.Linear(np.full((3, 3), np.nan, np.float32))


@pytest.mark.parametrize(
    ("wrong", "kind", "pattern"),
    [
        (lambda: nn.lsuv(np.tanh, ONES), TypeError, "lsuv: .* not a layer"),
        (lambda: nn.layer_statistics(3, ONES), TypeError, "layer_statistics: .* not a layer"),
        (lambda: nn.lsuv(STACKED, normal(4, 3)), ValueError, r"model.layers\[0\].layer was not called .*Stack.* skip="),
        (lambda: nn.lsuv(LINEAR, 0 * ONES), ValueError, "Linear at model is the same everywhere .* different examples"),
        (lambda: nn.lsuv(LINEAR, ONES[:0]), ValueError, "Linear at model is empty .* different examples"),
        (lambda: nn.lsuv(LINEAR, np.inf * ONES), ValueError, "output of Linear at model is not finite"),
        (lambda: nn.lsuv(BROKEN, ONES), ValueError, "kernel of Linear at model is not finite"),
        (lambda: nn.lsuv(Scale(ONES[0]), ONES), TypeError, "kernel of Scale at model is f32.3. .*two axes"),
        (lambda: nn.lsuv(STACKED, ONES, skip=("head",)), ValueError, r"'head'.*model.layers\[1\]"),
        (lambda: nn.lsuv(LINEAR, ONES, tolerance=0), ValueError, "tolerance=0.*above 0"),
        (lambda: nn.lsuv(LINEAR, ONES, max_iterations=0), ValueError, "max_iterations=0.*1 iteration"),
        (lambda: nn.layer_statistics(LINEAR, ONES, bins=0), ValueError, "bins=0.*1 or more"),
        (lambda: nn.layer_statistics(LINEAR, ONES, range=(1, -1)), ValueError, r"range=\(1, -1\).*the lower first"),
        (lambda: tg.jit(lambda x: nn.lsuv(LINEAR, x)[0])(ONES), TypeError, "no value yet.*outside @jit"),
        (lambda: nn.lsuv(nn.LSTM.init(KEY, 3, 3), normal(4, 2, 3)), ValueError, "model.cell was not .*another loop"),
        (lambda: nn.lsuv(Pair(ONES.T), ONES[0]), TypeError, r"Pair at model makes tuple .*skip=\('model',\)"),
        (lambda: nn.lsuv(LINEAR, ONES, state={"a": {}}), ValueError, "no such layer"),
    ],
)
def test_bad_input(wrong: Any, kind: type[Exception], pattern: str) -> None:
    check_message(wrong, kind, pattern)
    assert state.watch is None
