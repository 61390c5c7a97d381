"""What is tried before a training: the loss at first, a few examples by heart, and a range of learning rates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tests.reference import check_message
from tracegrad import nn, optimizers, train

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(96, 8)).astype(np.float32), RNG.integers(0, 4, 96)
SEEN = (X[:, 0] > 0) * 2 + (X[:, 1] > 0)


def loss(model: Any, x: Any, y: Any) -> Any:
    return nn.losses.sparse_categorical_cross_entropy(model(x), y, from_logits=True)


def model(scale: float = 1.0) -> Any:
    return nn.MLP.init(tg.random.key(0), (8, 32, 4), kernel_init=nn.initializers.normal(scale * 8**-0.5))


def test_the_initial_loss_is_log_k() -> None:
    found = train.check_initial_loss(lambda *args: (loss(*args), "aux"), model(0.01), X, Y, num_classes=4)
    np.testing.assert_allclose(found, [np.log(4), np.log(4)], rtol=1e-3)
    with pytest.warns(train.TrainingWarning, match=r"log 4 = 1.386 is expected.*lower the initial scale") as caught:
        found = train.check_initial_loss(loss, model(5.0), X, Y, num_classes=4)
    assert caught[0].filename == __file__
    m = model(5.0)
    (k1, b1), (k2, b2) = ((np.asarray(part.kernel, np.float64), np.asarray(part.bias)) for part in m.layers)
    logits = np.maximum(X.astype(np.float64) @ k1 + b1, 0) @ k2 + b2
    want = (np.log(np.exp(logits).sum(1)) - logits[np.arange(96), Y]).mean()
    np.testing.assert_allclose(found.loss, want, rtol=1e-4)
    with pytest.warns(train.TrainingWarning, match=r"is expected\. The model knows too much"):
        train.check_initial_loss(lambda *args: loss(*args) / 4, model(0.01), X, Y, num_classes=4)
    with pytest.warns(train.TrainingWarning, match=r"is nan, .*not finite"):
        train.check_initial_loss(loss, model(0.01), X * np.nan, Y, num_classes=4)


def test_a_few_examples_by_heart() -> None:
    start = model()
    found = train.overfit_tiny(loss, start, X, Y, steps=400)
    assert found.reached and found.losses[-1] <= 0.01 < found.losses[0]
    np.testing.assert_allclose(found.losses[0], float(loss(start, X[:20], Y[:20])), rtol=1e-5)
    assert (np.asarray(found.params(X[:20])).argmax(1) == Y[:20]).all()
    with pytest.warns(train.TrainingWarning, match=r"of 5 examples is .* after 30 steps.*no gradient gets to"):
        stuck = train.overfit_tiny(loss, start, X, Y, size=5, steps=30, optimizer=optimizers.sgd(0.0))
    assert not stuck.reached and len(stuck.losses) == 30
    with pytest.warns(train.TrainingWarning, match="too small, it is regularized"):
        same = np.zeros_like(X)
        same[:, 0] = 1
        assert not train.overfit_tiny(loss, start, same, Y, steps=60).reached
    with pytest.warns(train.TrainingWarning, match="learning rate is too high"):
        train.overfit_tiny(
            lambda w, x: ((x @ w) ** 4).mean(), np.ones(8, np.float32), X, optimizer=optimizers.sgd(1e3), steps=40
        )


def test_the_range_of_learning_rates(tmp_path) -> None:  # type: ignore[no-untyped-def]
    # A parabola of curvature 1: a step at rate r multiplies w by 1 - r, so that the loss falls below 2 and rises above.
    options: dict[str, Any] = {"min_lr": 1e-3, "max_lr": 100.0, "steps": 50, "smoothing": 0.0}
    found = train.lr_range_test(
        lambda w, x: (w * w / 2).sum() + 0 * x.sum(), np.float32(1), [X], optimizers.sgd, **options
    )
    rates = np.geomspace(1e-3, 100, 50)
    np.testing.assert_allclose(found.learning_rates, rates[: len(found.losses)], rtol=1e-5)
    factors = np.cumprod([1, *np.abs(1 - rates)])[: len(found.losses)]
    np.testing.assert_allclose(found.losses[:30], (factors**2 / 2)[:30], rtol=1e-3)
    assert len(found.losses) < 50 and 0.02 < found.suggestion < 1
    loader = train.data.DataLoader((X, SEEN), 32, seed=0)
    start = model()
    found = train.lr_range_test(loss, start, loader, optimizers.sgd, max_lr=1e3)
    assert 1e-2 < found.suggestion < 10 and found.losses[0] > 1
    mean, want = 0.0, []
    for i, value in enumerate(found.losses, 1):
        mean = 0.9 * mean + 0.1 * value
        want.append(mean / (1 - 0.9**i))
    np.testing.assert_allclose(found.smoothed, want, rtol=1e-10)
    with pytest.warns(train.TrainingWarning, match="has not fallen at any learning rate from 1e-08 to 1e-07"):
        low = train.lr_range_test(loss, start, [(X, SEEN)], optimizers.sgd, min_lr=1e-8, max_lr=1e-7, steps=10)
    assert np.isnan(low.suggestion)
    pytest.importorskip("matplotlib")
    for one in (found, low):
        assert one.plot(tmp_path / "range.png").axes[0].get_xscale() == "log"
    assert (tmp_path / "range.png").stat().st_size > 1000


def test_bad_input() -> None:
    m = model()
    check_message(
        lambda: train.check_initial_loss(loss, m, X, Y, num_classes=1), ValueError, "^check_initial_loss: num_classes=1"
    )
    check_message(
        lambda: train.check_initial_loss(lambda m, x: m(x), m, X, num_classes=4), TypeError, r"loss is f32\[96,4\]"
    )
    check_message(lambda: train.check_initial_loss(3, m, X, Y, num_classes=4), TypeError, "not a function")  # type: ignore[arg-type]
    check_message(lambda: train.overfit_tiny(loss, m, X, Y[:3]), ValueError, r"^overfit_tiny: the batch is f32\[96,8\]")
    check_message(lambda: train.overfit_tiny(loss, m), ValueError, "the batch is nothing")
    check_message(lambda: train.overfit_tiny(loss, m, X, Y, steps=0), ValueError, "steps=0")
    check_message(lambda: train.overfit_tiny(lambda m, x, y: m(x), m, X, Y), TypeError, "scalar")
    test, sgd = train.lr_range_test, optimizers.sgd
    check_message(lambda: test(loss, m, [], sgd), ValueError, "^lr_range_test: batches is empty")
    check_message(lambda: test(loss, m, iter([(X, Y)]), sgd), ValueError, "used up after 1 batches .* 100 steps")
    check_message(lambda: test(loss, m, [(X, Y)], sgd, min_lr=0.0), ValueError, r"min_lr=0.0, .*above 0")
    check_message(lambda: test(loss, m, [(X, Y)], sgd(0.1)), TypeError, "optimizer is .*not a function")  # type: ignore[arg-type]
