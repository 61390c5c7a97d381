"""The loop: what it computes, what it keeps when it ends early, and what it says of what it cannot take."""

from __future__ import annotations

import io
import os
import re
import signal
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.train.loop
from tracegrad import nn, optimizers, schedules, train

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 3)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5], np.float32) + 0.3).astype(np.float32)
START = {"w": np.zeros(3, np.float32), "b": np.float32(0)}


def loss(params: Any, x: Any, y: Any) -> Any:
    return ((x @ params["w"] + params["b"] - y) ** 2).mean()


def batches(size: int = 16, **options: Any) -> train.data.DataLoader:
    return train.data.DataLoader((X, Y), size, **options)


def by_hand(epochs: int, rate: float) -> tuple[np.ndarray, float, list[float]]:
    """Gradient descent written out, in float64."""
    w, b, losses = np.zeros(3), 0.0, []
    loader = batches()
    for _ in range(epochs):
        for x, y in loader:
            error = x.astype(float) @ w + b - y
            losses.append((error**2).mean())
            w, b = w - rate * 2 * (error @ x) / len(x), b - rate * 2 * error.mean()
    return w, b, losses


def fit(*args: Any, **options: Any) -> train.FitResult:
    return train.fit(*args, **({"progress": False} | options))


# -- what it computes


def test_gradient_descent_is_that_written_out() -> None:
    w, b, losses = by_hand(5, 0.1)
    result = fit(loss, START, batches(), optimizers.sgd(0.1), epochs=5)
    np.testing.assert_allclose(result.params["w"], w, rtol=1e-5)
    np.testing.assert_allclose(result.params["b"], b, rtol=1e-5)
    np.testing.assert_allclose(result.history["loss"], losses, rtol=1e-4)
    assert result.history.steps("loss").tolist() == list(range(1, 16)) and result.stopped == ""
    assert START["w"].tolist() == [0, 0, 0] and int(result.state.step) == 15


def test_a_step_of_ones_own_is_called_as_it_is() -> None:
    @jax.jit
    def step(w: Any, x: Any, y: Any) -> Any:
        value, slope = jax.value_and_grad(lambda w: ((x @ w - y) ** 2).mean())(w)
        return w - 0.1 * slope, {"loss": value, "norm": jnp.abs(w).sum()}

    start, seen = jnp.zeros(3), []
    result = fit(step, start, batches(), epochs=2, callbacks=[lambda loop: seen.append((loop.step, loop.epoch))])
    w = start
    loader = batches()
    for _ in range(2):
        for x, y in loader:
            w, _ = step(w, x, y)
    np.testing.assert_array_equal(result.params, w)
    assert list(result.history) == ["loss", "norm"] and seen == [(3, 1), (6, 2)]


def test_gradients_of_several_batches_are_one_of_all() -> None:
    """Three batches of 16 are one of 48, written out."""
    result = fit(loss, START, batches(shuffle=False), optimizers.sgd(0.1), epochs=1, accumulate=3)
    error = -Y.astype(float)
    np.testing.assert_allclose(result.params["w"], -0.1 * 2 * (error @ X) / 48, rtol=1e-5)


def test_averages_of_parameters() -> None:
    points: list[np.ndarray] = []

    class Keep(train.Callback):
        def on_step(self, loop: Any) -> None:
            points.append(np.array(loop.state.params["w"]))

    result = fit(
        loss, START, batches(), optimizers.sgd(0.1), steps=6, average=optimizers.swa(start=2), callbacks=[Keep()]
    )
    np.testing.assert_allclose(result.params["w"], np.mean(points[2:], axis=0), rtol=1e-6)
    np.testing.assert_array_equal(result.state.params["w"], points[-1])
    smooth = fit(loss, START, batches(), optimizers.sgd(0.1), steps=6, average=optimizers.ema(0.5))
    weights = 0.5 ** np.arange(6, 0, -1)
    np.testing.assert_allclose(smooth.params["w"], weights @ np.array(points) / weights.sum(), rtol=1e-5)


def test_schedules_and_plateaus() -> None:
    def flat(w: Any) -> Any:
        return (0 * w).sum() + 1.0

    rate = schedules.cosine_decay_schedule(0.1, 6)
    result = fit(loss, START, batches(), optimizers.sgd(rate), steps=6)
    w, b = np.zeros(3), 0.0
    loader = batches()
    pairs = [*loader, *loader]
    for i, (x, y) in enumerate(pairs):
        error, now = x.astype(float) @ w + b - y, 0.1 * 0.5 * (1 + np.cos(np.pi * i / 6))
        w, b = w - now * 2 * (error @ x) / len(x), b - now * 2 * error.mean()
    np.testing.assert_allclose(result.params["w"], w, rtol=1e-5)
    plateau = optimizers.chain(optimizers.sgd(1.0), optimizers.reduce_on_plateau(0.5, patience=2))
    state = fit(flat, np.ones(1, np.float32), [()] * 7, plateau).state
    # The first value is the best; after two without improvement each, the scale is halved.
    assert float(state.opt_state[1].scale) == 0.125


def test_a_model_with_a_state_and_a_key() -> None:
    model = nn.Sequential([nn.Linear.init(tg.random.key(0), 3, 8), nn.BatchNorm.init(8), nn.Dropout(0.5), nn.relu])

    def loss(model: Any, state: Any, x: Any, y: Any, key: Any) -> Any:
        run = nn.Run(model, state, key=key, training=True)
        return ((model(x, run).sum(-1) - y) ** 2).mean(), run.state

    def once() -> train.FitResult:
        state, key = nn.init_state(model), tg.random.key(1)
        return fit(loss, model, batches(), optimizers.adam(1e-2), epochs=2, model_state=state, key=key)

    result, again = once(), once()
    for a, b in zip(jax.tree.leaves(result.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.any(np.asarray(result.state.model_state["layers[1]"]["mean"]) != 0)
    # The linear layer of the model that was given is as it was.
    assert model.layers[0].kernel.shape == (3, 8) and len(set(result.history["loss"])) == 6


def test_validation_and_early_stopping() -> None:
    values = iter([3.0, 1.0, 2.0, 2.5, 9.0])
    seen = []

    def validate(state: Any) -> Any:
        seen.append(np.array(state.params["w"]))
        return next(values)

    stopping = train.EarlyStopping(patience=2, restore_best_weights=True)
    result = fit(loss, START, batches(), optimizers.sgd(0.1), epochs=5, validate=validate, callbacks=[stopping])
    assert result.history["val_loss"].tolist() == [3.0, 1.0, 2.0, 2.5]
    assert result.stopped == "val_loss is not better than 1 for 2 epochs" and stopping.best == 1.0
    np.testing.assert_array_equal(result.params["w"], seen[1])
    # Of the losses of an epoch the mean counts.
    other = train.EarlyStopping("loss", min_delta=100.0)
    assert fit(loss, START, batches(), optimizers.sgd(0.1), epochs=5, callbacks=[other]).history["loss"].size == 6
    assert other.best == pytest.approx(np.mean(by_hand(1, 0.1)[2]), rel=1e-5)


@pytest.mark.parametrize(
    ("mode", "monitor", "values", "stops"),
    [
        ("auto", "val_loss", [1, 2], [False, True]),
        ("auto", "val_accuracy", [1, 2, 2], [False, False, True]),
        ("max", "val_loss", [1, 2, 1.5], [False, False, True]),
        ("min", "val_loss", [float("nan"), 1], [True, False]),
    ],
)
def test_early_stopping_alone(mode: Any, monitor: str, values: list[float], stops: list[bool]) -> None:
    stopping = train.EarlyStopping(monitor, mode=mode)
    assert [stopping.update(v) for v in values] == stops


def test_the_rate_falls_on_a_plateau_of_the_validation(tmp_path: Any) -> None:
    """The rates by hand: halved after 2 epochs without a better one; of the epoch after that nothing is counted."""
    values = [5.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    rates = [0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.07, 0.07, 0.07]

    def run(epochs: int, **options: Any) -> Any:
        given = iter(values[5:] if options.get("resume") else values)
        plateau = train.ReduceLROnPlateau(factor=0.5, patience=2, cooldown=1, min_lr=0.07)
        optimizer = optimizers.inject_hyperparams(optimizers.sgd)(learning_rate=0.4)
        options |= {"validate": lambda state: next(given), "callbacks": [plateau], "checkpoints": tmp_path / "kept"}
        return fit(loss, START, batches(), optimizer, epochs=epochs, **options)

    run(5)
    result = run(12, resume=True)
    history = result.history
    np.testing.assert_allclose(history["learning_rate"], rates, rtol=1e-6)
    assert history.steps("learning_rate").tolist() == history.steps("val_loss").tolist()
    # The steps were taken with them: three an epoch, with what was set after the epoch before.
    used = np.repeat([0.4, *rates], 3)
    wanted = START
    for step, batch in enumerate(list(batches()) * 12):
        grads = jax.grad(loss)(wanted, *batch)
        wanted = jax.tree.map(lambda w, g, step=step: w - np.float32(used[step]) * g, wanted, grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), result.params, wanted)


def test_a_schedule_beside_a_plateau_is_told() -> None:
    optimizer = optimizers.inject_hyperparams(optimizers.sgd)(learning_rate=lambda count: 0.1)
    plateau = train.ReduceLROnPlateau("loss", 0.5, patience=1, min_delta=100)
    with pytest.raises(train.FitError, match=r"set the learning rate to 0\.05, and it is 0\.1 .*a schedule sets it"):
        fit(loss, START, batches(), optimizer, epochs=4, callbacks=[plateau])


def test_evaluate_counts_examples() -> None:
    found = train.evaluate(lambda x, y: {"loss": loss(START, x, y)}, batches(20))
    assert found["loss"] == pytest.approx(float((Y.astype(float) ** 2).mean()), rel=1e-6)


def test_no_value_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value is asked for only when sixteen steps were begun after it."""
    reads: list[int] = []
    begun = [0]

    class Value:
        shape = ()

        def __init__(self, step: int) -> None:
            self.step = step

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            reads.append(begun[0] - self.step)
            return np.array(1.0)

    def step(state: Any, x: Any, y: Any) -> Any:
        begun[0] += 1
        return state, Value(begun[0])

    monkeypatch.setattr(tracegrad.train.loop, "_READ", 1e9)
    fit(step, 0, [(X, Y)] * 200)
    # At the end it waits for what is left.
    assert len(reads) == 200 and all(16 <= lag < 32 for lag in reads[:176])


def test_the_result_is_compiled_once(compiles: Any) -> None:
    fit(loss, START, batches(), optimizers.adam(0.1), epochs=1)
    data = batches()
    step = train.make_step(loss, optimizers.adam(0.1))
    state = train.TrainState.create(START, optimizers.adam(0.1))
    state, _ = step(state, X[:16], Y[:16])
    compiles()
    fit(step, state, data, epochs=3)
    assert compiles() == 0


# -- where batches come from


class Tensor:
    """An array of another library's."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.array


def test_any_iterable_of_pytrees() -> None:
    pairs = [(X[i : i + 16], Y[i : i + 16]) for i in (0, 16, 32)]
    expected = fit(loss, START, pairs, optimizers.sgd(0.1), epochs=2).params["w"]
    sources: list[tuple[Any, Any]] = [
        (loss, [list(pair) for pair in pairs]),
        (loss, [[Tensor(x), Tensor(y)] for x, y in pairs]),
        (loss, lambda: iter(pairs)),
        (lambda p, batch: loss(p, batch["x"], batch["y"]), [{"x": x, "y": y} for x, y in pairs]),
    ]
    for fun, source in sources:
        np.testing.assert_array_equal(fit(fun, START, source, optimizers.sgd(0.1), epochs=2).params["w"], expected)


def test_a_loader_of_grain() -> None:
    grain = pytest.importorskip("grain")
    rows = np.concatenate([X, Y[:, None]], 1)
    dataset = grain.MapDataset.source(rows).shuffle(seed=1).batch(16).map(lambda r: (r[:, :3], r[:, 3]))
    orders = [list(dataset), list(dataset.to_iter_dataset())]
    for source, order in zip((dataset, dataset.to_iter_dataset()), orders, strict=True):
        expected = fit(loss, START, order, optimizers.sgd(0.1), epochs=2).params["w"]
        np.testing.assert_array_equal(fit(loss, START, source, optimizers.sgd(0.1), epochs=2).params["w"], expected)


def test_a_loader_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    order = [(X[i : i + 20], Y[i : i + 20]) for i in range(0, len(X), 20)]
    expected = fit(loss, START, order, optimizers.sgd(0.1), epochs=2).params["w"]
    loader = torch.utils.data.DataLoader(data, batch_size=20)
    np.testing.assert_array_equal(fit(loss, START, loader, optimizers.sgd(0.1), epochs=2).params["w"], expected)


def test_an_array_that_numpy_cannot_take() -> None:
    class Bfloat16(Tensor):
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise TypeError("unsupported type")

    source = [(X[:16], Y[:16]), (Bfloat16(X[:16]), Y[:16])]
    message = r"^fit: at step 2, NumPy makes no array of Bfloat16 .* \(unsupported type\). Convert it where .* 1 steps"
    with pytest.raises(train.FitError, match=message) as e:
        fit(loss, START, source, optimizers.sgd(0.1))
    assert int(e.value.result.state.step) == 1


# -- what ends it


def interrupt_after(step: int) -> train.Callback:
    class Interrupt(train.Callback):
        def on_step(self, loop: Any) -> None:
            if loop.step == step:
                os.kill(os.getpid(), signal.SIGINT)

    return Interrupt()


def test_ctrl_c_ends_after_the_step_with_everything_kept(capsys: Any) -> None:
    expected = fit(loss, START, batches(), optimizers.adam(0.1), steps=7)
    handler = signal.getsignal(signal.SIGINT)
    result = fit(loss, START, batches(), optimizers.adam(0.1), epochs=100, callbacks=[interrupt_after(7)])
    assert result.stopped == "interrupted" and "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is handler
    for a, b in zip(jax.tree.leaves(result.state), jax.tree.leaves(expected.state), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(result.history["loss"], expected.history["loss"])


def test_ctrl_c_twice_ends_where_data_does_not_come() -> None:
    never = threading.Event()

    def source() -> Any:
        yield from batches()
        main = threading.main_thread().ident
        for delay in (0.05, 0.2):
            threading.Timer(delay, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
        never.wait(20)

    result = fit(loss, START, source, optimizers.sgd(0.1))
    assert result.stopped == "interrupted" and int(result.state.step) == 3 and result.history["loss"].size == 3
    assert re.fullmatch(r"FitResult\(History: 3 of loss \(last [\d.]+\); stopped: interrupted\)", repr(result))


def test_in_a_thread_there_is_no_ctrl_c() -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(fit(loss, START, batches(), optimizers.sgd(0.1))))
    thread.start()
    thread.join()
    assert found[0].history["loss"].size == 3


# -- what is not finite


def poles(w: Any, x: Any) -> Any:
    """Not finite where x is 0 (the loss), and where x is -1 (the gradient alone)."""
    return (1.0 / x + np.sqrt(np.abs(w) * (x + 1.0)) * w).sum()


@pytest.mark.parametrize("where", [1, 3, 20, 40, 60])
def test_a_loss_that_is_not_finite_ends_at_the_last_good_state(where: int) -> None:
    xs = [np.full(2, 1.0 + i, np.float32) for i in range(60)]
    xs[where - 1] = np.zeros(2, np.float32)
    good = fit(poles, np.ones(2, np.float32), xs, optimizers.adam(0.01), steps=where - 1) if where > 1 else None
    with pytest.raises(
        train.NonFiniteError, match=rf"^fit: step {where} is not finite at .*the loss of them is inf"
    ) as e:
        fit(poles, np.ones(2, np.float32), xs, optimizers.adam(0.01))
    assert e.value.step == where and e.value.batch[0].tolist() == [0, 0]
    text = str(e.value)  # The step of the tape, the line and the ways to it are those of the explanation.
    assert re.search(r"it was first not finite in\n  div : .* forward, at .*\(poles\)", text)
    assert "the argument batch[0], f32[2]: from 0 to 0, all finite" in text
    assert text.endswith("The last good state is in error.result, and the batch is error.batch.")
    result = e.value.result
    assert int(result.state.step) == where - 1 and not bool(result.state.failed)
    if good is not None:
        for a, b in zip(jax.tree.leaves(result.state), jax.tree.leaves(good.state), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(result.history["loss"], good.history["loss"])


@pytest.mark.parametrize("where", [2, 16, 60])
def test_a_gradient_that_is_not_finite_though_the_loss_is(where: int) -> None:
    def loss(w: Any, x: Any) -> Any:
        return (np.sqrt(w["a"] * x)).sum() + w["b"]

    start = {"a": np.full(2, 4.0, np.float32), "b": np.float32(0)}
    xs = [np.ones(2, np.float32)] * 60
    xs[where - 1] = np.array([1.0, 0.0], np.float32)

    def step_loss(w: Any, x: Any) -> Any:
        with tg.nan_safe(False):
            return loss(w, x)

    with pytest.raises(
        train.NonFiniteError, match=rf"step {where} .*finite, and the gradient is not: 1 of 2 numbers in a"
    ):
        fit(step_loss, start, xs, optimizers.sgd(1e-4))


def test_what_was_not_finite_before_is_said() -> None:
    bad = X[:16].copy()
    bad[3, 1] = np.nan
    with pytest.raises(train.NonFiniteError, match=r"Argument 1 of the batch already had 1 of 48 numbers in it"):
        fit(loss, START, [(bad, Y[:16])], optimizers.sgd(0.1))
    with pytest.raises(train.NonFiniteError, match=r"The parameters already had 1 of 1 numbers in b"):
        fit(loss, START | {"b": np.float32(np.inf)}, batches(), optimizers.sgd(0.1))


def test_where_it_may_be_not_finite_it_goes_on() -> None:
    xs = [np.array([1.0, v], np.float32) for v in (1.0, 0.0, 2.0)]
    result = fit(
        poles, np.ones(2, np.float32), xs, optimizers.apply_if_finite(optimizers.sgd(0.1), 5), stop_on_nonfinite=False
    )
    assert np.isfinite(result.history["loss"]).tolist() == [True, False, True]


def test_a_step_of_ones_own_that_gives_nan() -> None:
    def step(state: Any, x: Any) -> Any:
        return state + 1, np.float32(np.nan if state == 20 else 1.0)

    with pytest.raises(train.NonFiniteError, match=r"step 21 is not finite .*a loss and an optimizer") as e:
        fit(step, 0, [np.zeros(1)] * 30)
    assert e.value.step == 21 and e.value.result.history["loss"].size == 20


# -- what it cannot take


def raising(after: int) -> Any:
    loader = batches()
    for i, pair in enumerate([*loader, *loader, *loader]):
        if i == after:
            raise OSError("the disk with the pictures is gone")
        yield pair


@pytest.mark.parametrize("after", [0, 5])
def test_batches_that_raise_in_the_middle(after: int) -> None:
    with pytest.raises(train.FitError, match=rf"^fit: at step {after + 1}, batches raised OSError: the disk with") as e:
        fit(loss, START, raising(after), optimizers.sgd(0.1))
    assert e.value.step == after + 1 and isinstance(e.value.__cause__, OSError)
    assert int(e.value.result.state.step) == after
    if after:
        expected = fit(loss, START, batches(), optimizers.sgd(0.1), steps=after)
        np.testing.assert_array_equal(e.value.result.params["w"], expected.params["w"])
        assert e.value.result.history["loss"].size == after


NONE = "there is no batch in this epoch"
BATCHES: list[tuple[str, Any, dict[str, Any], int]] = [
    (NONE, [], {}, 1),
    (NONE, batches(64, last="drop"), {}, 1),
    (NONE + ".*generator.*once", (pair for pair in batches()), {"epochs": 2}, 4),
    (NONE + ".*list_iterator.*once", iter([*batches()]), {"steps": 5}, 4),
    (r"of another structure .*float32\[16,3\], float32\[16\]", [*batches(), X[:16]], {}, 4),
]


@pytest.mark.parametrize("case", BATCHES, ids=[f"{i}" for i in range(len(BATCHES))])
def test_batches_that_end_or_differ(case: tuple[str, Any, dict[str, Any], int]) -> None:
    message, source, options, step = case
    with pytest.raises(train.FitError, match=rf"^fit: at step {step}, .*{message}") as e:
        fit(loss, START, source, optimizers.sgd(0.1), **options)
    assert int(e.value.result.state.step) == step - 1


def test_ragged_batches() -> None:
    pairs = [(X[:16], Y[:16]), (X[:16], Y[:15])]
    with pytest.raises(
        train.FitError, match=r"(?s)^fit: at step 2, ValueError: sub.*f32\[16\], f32\[15\].*1 steps is in"
    ) as e:
        fit(loss, START, pairs, optimizers.sgd(0.1))
    assert int(e.value.result.state.step) == 1
    # At the first step nothing is lost, and the error is the loss's own.
    with pytest.raises(ValueError, match=r"^sub.*f32\[16\], f32\[15\]"):
        fit(loss, START, pairs[1:], optimizers.sgd(0.1))
    with pytest.warns(UserWarning, match=r"16 of the first 16 batches have different shapes .*bucket_by_length"):
        fit(lambda state, x: (state, 0.0), 0, [np.zeros(n) for n in range(1, 20)])


def test_losses_that_are_not_scalars() -> None:
    with pytest.raises(TypeError, match=r"must return a scalar, it returned f32\[16\].*mean"):
        fit(lambda p, x, y: (x @ p["w"] - y) ** 2, START, batches(), optimizers.sgd(0.1))
    with pytest.raises(train.FitError, match=r"loss is f\d+\[2\], not a scalar"):
        fit(lambda state, x: (state, np.zeros(2)), 0, [np.zeros(1)])


def test_what_a_callback_or_validate_raises_keeps_what_was_trained() -> None:
    def broken(loop: Any) -> None:
        raise KeyError("oops")

    for options in ({"callbacks": [broken]}, {"validate": broken}):
        with pytest.raises(
            train.FitError, match=r"^fit: at step 4, KeyError: 'oops'. What was trained in 3 steps"
        ) as e:
            fit(loss, START, batches(), optimizers.sgd(0.1), **options)
        assert int(e.value.result.state.step) == 3
    with pytest.raises(train.FitError, match=r"looks at 'val_loss', which was not measured .* There are loss:"):
        fit(loss, START, batches(), optimizers.sgd(0.1), callbacks=[train.EarlyStopping()])


ARGUMENTS: list[tuple[str, Any]] = [
    ("epochs is .*0", lambda: fit(loss, START, batches(), optimizers.sgd(0.1), epochs=0)),
    ("steps is .*1.5", lambda: fit(loss, START, batches(), optimizers.sgd(0.1), steps=1.5)),
    ("accumulate is .*0", lambda: fit(loss, START, batches(), optimizers.sgd(0.1), accumulate=0)),
    ("is not an optimizer", lambda: fit(loss, START, batches(), 0.1)),
    ("step_or_loss is", lambda: fit(1.0, START, batches(), optimizers.sgd(0.1))),
    ("batches is f32", lambda: fit(loss, START, X, optimizers.sgd(0.1))),
    ("batches is tuple .*DataLoader", lambda: fit(loss, START, (X, Y), optimizers.sgd(0.1))),
    ("params is the function loss .*fit\\(loss, params", lambda: fit(loss, loss, batches(), optimizers.sgd(0.1))),
    (
        "validate is DataLoader .*not a function",
        lambda: fit(loss, START, batches(), optimizers.sgd(0.1), validate=batches()),
    ),
    (
        r"a callback is the class EarlyStopping .*Write EarlyStopping\(",
        lambda: fit(loss, START, batches(), optimizers.sgd(0.1), callbacks=[train.EarlyStopping]),
    ),
    (
        "the loss returned tuple .*Return one scalar",
        lambda: fit(lambda p, x, y: (loss(p, x, y), 1.0), START, batches(), optimizers.sgd(0.1)),
    ),
    ("a callback is .* not a function", lambda: fit(loss, START, batches(), optimizers.sgd(0.1), callbacks=[3])),
    ("key= goes with a loss", lambda: fit(loss, START, batches(), key=tg.random.key(0))),
    (
        r"resume=True, and there are no checkpoints",
        lambda: fit(loss, START, batches(), optimizers.sgd(0.1), resume=True),
    ),
    ("mode='best'", lambda: train.EarlyStopping(mode="best")),
    ("patience is .*-1", lambda: train.EarlyStopping(patience=-1)),
    ("factor is 1", lambda: train.ReduceLROnPlateau(factor=1)),
    ("cooldown is -1", lambda: train.ReduceLROnPlateau(cooldown=-1)),
    (
        "ReduceLROnPlateau needs .* found 0 .*inject_hyperparams",
        lambda: fit(loss, START, batches(), optimizers.sgd(0.1), callbacks=[train.ReduceLROnPlateau("loss")]),
    ),
    ("there is no batch", lambda: train.evaluate(loss, [])),
]


@pytest.mark.parametrize("case", ARGUMENTS, ids=[name for name, _ in ARGUMENTS])
def test_arguments_that_do_not_fit(case: tuple[str, Any]) -> None:
    message, call = case
    with pytest.raises((TypeError, ValueError), match=message) as e:
        call()
    assert "test_fit.py" in str(e.value)


def test_what_is_wrong_in_the_first_call_is_told_with_the_batch() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument") as e:
        fit(loss, START, [X, X], optimizers.sgd(0.1))
    assert e.value.__notes__[-1:] == ["The first batch gave the arguments (f32[48,3]), after the parameters."]


def test_what_a_result_has_not_is_told() -> None:
    result = fit(loss, START, batches(), optimizers.sgd(0.1))
    with pytest.raises(AttributeError, match=r"no 'model'. It has params, the trained model"):
        result.model  # noqa: B018
    assert not hasattr(result, "__len__")


# -- history and progress


def test_the_history_as_a_table_and_drawn(tmp_path: Any) -> None:
    result = fit(loss, START, batches(), optimizers.sgd(0.1), epochs=2, validate=lambda state: {"val_accuracy": 0.5})
    table = result.history.to_pandas()
    assert table.shape == (6, 2) and table.index.tolist() == [1, 2, 3, 4, 5, 6]
    assert table["val_accuracy"].isna().tolist() == [True, True, False, True, True, False]
    np.testing.assert_array_equal(table["loss"], result.history["loss"])
    figure = result.history.plot(tmp_path / "curves.png")
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "val_accuracy"]
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), result.history["loss"])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    # What IPython asks of a cell's last value; it knows figures by itself only where pyplot was imported.
    assert figure._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(KeyError, match=r"acc was not measured .*loss, val_accuracy"):
        result.history["acc"]


def test_what_ends_in_the_same_word_is_drawn_together() -> None:
    history = train.History()
    for step in (1, 2):
        history.add(step, {"train accuracy": 0.5, "loss": 2.0, "test accuracy": 0.4, "val_loss": 3.0, "rate": 0.1})
    axes = history.plot().axes
    assert [(a.get_ylabel(), len(a.lines), a.get_yscale()) for a in axes] == [
        ("loss", 2, "log"),
        ("accuracy", 2, "linear"),
        ("rate", 1, "linear"),
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_says_what_is_done() -> None:
    out = Terminal()
    train.fit(loss, START, batches(), optimizers.sgd(0.1), epochs=4, progress=train.Progress(file=out))
    lines = [line.strip() for line in out.getvalue().split("\r")]
    assert any(line.endswith("compiling…") for line in lines)
    last = lines[-1]
    assert last.startswith("step 12/12 (100%), ") and "steps/s" in last and "loss" in last
    progress = train.Progress(100, file=out)
    progress.update(1)
    progress._first = (progress._first[0] - 10.0, 1)
    progress.update(41, {"loss": 0.25})
    # Forty steps in ten seconds: sixty are left.
    assert progress.text().startswith("step 41/100 (41%), 4 steps/s, 15 s left, loss 0.25")
