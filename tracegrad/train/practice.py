"""What is tried before a training: the loss at first, a few examples by heart, and a range of learning rates."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from ..compile import jit
from ..errors import called, describe, here, need_function
from ..names import listed
from ..numpy.arguments import is_known
from ..optimizers import adam, apply_updates
from ..tape import aval_of
from ..transforms import value_and_grad
from .extras import figure_of
from .reports import warn

Loss = Callable[..., Any]
Floats = np.ndarray[Any, Any]

_LOOK = 25
"""Every how many steps the loss is read."""


class InitialLoss(NamedTuple):
    """loss: before any training; expected: log K for K classes."""

    loss: float
    expected: float


def check_initial_loss(
    loss_fn: Loss, params: Any, *batch: Any, num_classes: int, tolerance: float = 0.2
) -> InitialLoss:
    """The loss of a classifier that was not trained yet, beside log K, and a warning if it is far from that.

    A model that knows nothing gives each of K classes the probability 1 / K, of which the cross-entropy is log K.
    Karpathy, "CS231n: Convolutional neural networks for visual recognition" (2016).

    Args:
      loss_fn: `loss_fn(params, *batch)`, the mean cross-entropy over a batch, or a pair of it and anything.
      params: as they are at first.
      batch: what `loss_fn` takes besides.
      num_classes: K, 2 or more.
      tolerance: how far from log K the loss may be, relative to it.

    Raises:
      TypeError: if `loss_fn` is not a function, or its value is no scalar, or not known, as under `@jit`.
      ValueError: if `num_classes` is less than 2.

    Warns:
      TrainingWarning: if the loss is further from log K.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> from tracegrad import initializers, nn, train
      >>> def loss(model, x, y):
      ...     return nn.losses.sparse_categorical_cross_entropy(model(x), y, from_logits=True)
      >>> model = nn.Linear.init(tg.random.key(0), 8, 10, kernel_init=initializers.normal(1e-3))
      >>> x, y = np.ones((20, 8), np.float32), np.arange(20) % 10
      >>> found = train.check_initial_loss(loss, model, x, y, num_classes=10)
      >>> round(found.loss, 2), round(found.expected, 2)
      (2.3, 2.3)
    """
    need_function(loss_fn, called(), "loss_fn", "check_initial_loss(loss_fn, params, x, y, num_classes=10)")
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(
            f"{called()}: num_classes={num_classes!r} {here()}. Give how many classes there are, 2 or more."
        )
    out = loss_fn(params, *batch)
    value = out[0] if isinstance(out, tuple) and len(out) == 2 else out
    if not is_known(value) or np.shape(value) != ():
        raise TypeError(
            f"{called()}: the loss is {describe(value)} {here()}, not a number. Return the mean over the batch, and "
            "call this outside @jit."
        )
    found = InitialLoss(float(value), math.log(num_classes))
    if not abs(found.loss - found.expected) <= tolerance * found.expected:
        text = (
            f"the loss before training is {found.loss:.4g}, and log {num_classes} = {found.expected:.4g} is expected. "
        )
        if not math.isfinite(found.loss):
            text += "Look at the inputs and at the initial scale: something is not finite (NaN or infinite)."
        elif found.loss > found.expected:
            text += (
                "The model is sure of what it cannot know: lower the initial scale of the last layer, such as "
                "kernel_init=initializers.normal(1e-2), and normalize the inputs; or the labels do not fit the classes."
            )
        else:
            text += (
                "The model knows too much: look whether the parameters were trained, the labels are among the inputs, "
                "one class is much more frequent, or the loss is divided twice."
            )
        warn(text)
    return found


class OverfitTiny(NamedTuple):
    """What `overfit_tiny` has found.

    Attributes:
      reached: whether the loss got down to the target.
      losses: of each step, the first before any.
      params: at the end.
    """

    reached: bool
    losses: Floats
    params: Any


def overfit_tiny(
    loss_fn: Loss,
    params: Any,
    *batch: Any,
    optimizer: Any = None,
    size: int = 20,
    steps: int = 1000,
    target: float = 0.01,
) -> OverfitTiny:
    """Trains on a few examples until their loss is almost 0, and warns if it does not get there.

    A model that cannot learn a few examples by heart has a mistake in it: Karpathy, "CS231n" (2016). Switch off
    regularization and dropout for it.

    Args:
      loss_fn: `loss_fn(params, *batch)`, a scalar, or a pair of it and anything.
      params: as they are at first; they stay as they are.
      batch: arrays, or pytrees of them, with the examples along their first axes.
      optimizer: by default `optimizers.adam(1e-2)`.
      size: how many examples are taken, the first ones.
      steps: how many are taken at most.
      target: at which loss it is enough.

    Raises:
      TypeError: if `loss_fn` is not a function, or its value is no scalar.
      ValueError: if there are no examples, or not as many in one array as in another; if `size` or `steps` is not
        positive.

    Warns:
      TrainingWarning: if the loss does not get down to the target.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> from tracegrad import nn, train
      >>> def loss(model, x, y):
      ...     return nn.losses.sparse_categorical_cross_entropy(model(x), y, from_logits=True)
      >>> rng = np.random.default_rng(0)
      >>> x, y = rng.normal(size=(100, 8)).astype(np.float32), rng.integers(0, 4, 100)
      >>> train.overfit_tiny(loss, nn.MLP.init(tg.random.key(0), (8, 64, 4)), x, y).reached
      True
    """
    need_function(loss_fn, called(), "loss_fn", "overfit_tiny(loss_fn, params, x, y)")
    _need_positive(size=size, steps=steps)
    # 0 stands for a number, which has no examples.
    lengths = {aval_of(x).shape[0] if aval_of(x).ndim else 0 for x in jax.tree.leaves(batch)}
    if len(lengths) != 1 or 0 in lengths:
        given = ", ".join([describe(x) for x in jax.tree.leaves(batch)]) or "nothing"
        raise ValueError(
            f"{called()}: the batch is {given} {here()}. Give arrays with as many examples along the first axis of "
            "each, and let loss_fn close over everything else."
        )
    few = jax.tree.map(lambda x: x[:size], batch)
    optimizer = adam(1e-2) if optimizer is None else optimizer
    step = _step(loss_fn, optimizer)
    state = optimizer.init(params)
    losses: list[Any] = []
    while len(losses) < steps:
        params, state, value = step(params, state, *few)
        losses.append(value)
        # Read now and then alone: a loop that waits for each step is slow.
        if len(losses) % _LOOK == 0 and not target < float(value) < math.inf:
            break
    found = np.array(jax.device_get(losses), np.float64)
    reached = bool(found[-1] <= target)
    if not reached:
        count = min(size, *lengths)
        text = f"the loss of {count} examples is {found[-1]:.4g} after {len(found)} steps, from {found[0]:.4g}, "
        text += f"and {target:g} is the target. A model learns so few by heart, unless "
        if not math.isfinite(found[-1]):
            text += "the learning rate is too high, as it is here: the loss is not finite. Lower it."
        elif found[-1] > 0.98 * found[0]:
            text += (
                "no gradient gets to its parameters, the learning rate is far too low (train.lr_range_test), or the "
                "labels do not belong to the inputs. train.Monitor shows each layer."
            )
        else:
            text += (
                "it is too small, it is regularized (leave out weight decay and dropout for this), equal examples have "
                "different labels, or the learning rate is wrong (train.lr_range_test). More steps may do, too."
            )
        warn(text)
    return OverfitTiny(reached, found, params)


class LRRangeTest(NamedTuple):
    """What `lr_range_test` has found; `plot()` draws it.

    Attributes:
      learning_rates: of each step.
      losses: of each step, before it.
      smoothed: a running mean of them.
      suggestion: the rate at which the smoothed loss falls most steeply, over the logarithm of the rate; NaN if it does
        not fall.
    """

    learning_rates: Floats
    losses: Floats
    smoothed: Floats
    suggestion: float

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws the loss over the learning rate, with the suggestion.

        Args:
          path: an image file to write; in a notebook the figure that is returned shows itself.

        Returns:
          A `matplotlib.figure.Figure`.

        Raises:
          ImportError: without matplotlib.
        """
        figure = figure_of(6, 4)
        axes = figure.subplots()
        axes.semilogx(self.learning_rates, self.losses, ".", alpha=0.3, label="loss of each step")
        axes.semilogx(self.learning_rates, self.smoothed, label="smoothed")
        if math.isfinite(self.suggestion):
            axes.axvline(self.suggestion, color="grey", linestyle=":", label=f"steepest: {self.suggestion:.2g}")
        # What it is at the end, when it has exploded, would leave nothing else to see.
        shown = self.smoothed[np.isfinite(self.smoothed)]
        if len(shown):
            low, first = min(shown.min(), self.losses[np.isfinite(self.losses)].min()), shown[0]
            margin = 0.1 * (first - low) or 0.1 * abs(first) or 1.0
            axes.set_ylim(low - margin, first + 5 * margin)
        axes.set(xlabel="learning rate", ylabel="loss", title="learning rate range test")
        axes.legend()
        if path is not None:
            figure.savefig(path, dpi=120)
        return figure


def lr_range_test(
    loss_fn: Loss,
    params: Any,
    batches: Iterable[Any],
    optimizer: Callable[[Any], Any],
    *,
    min_lr: float = 1e-6,
    max_lr: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.9,
    stop_factor: float = 4.0,
) -> LRRangeTest:
    """Trains for some steps while the learning rate rises exponentially, to see from where to where it is of use.

    Smith, "Cyclical learning rates for training neural networks" (2017). It stops when the smoothed loss is
    `stop_factor` times its least, or not finite. The smoothed loss is an exponential moving average with the correction
    for its start that Adam has; the rate at which it falls most steeply, over the logarithm of the rate and before its
    minimum, is suggested: Gugger, "How do you find a good learning rate" (2018).

    Args:
      loss_fn: `loss_fn(params, *batch)`, a scalar, or a pair of it and anything.
      params: as they are at first; they stay as they are.
      batches: an iterable; a tuple or a list in it is the arguments of `loss_fn`, anything else the only one. It is
        gone through again as often as needed.
      optimizer: makes one of a schedule of the learning rate, such as `optimizers.adam`.
      min_lr, max_lr: the rates of the first and the last step.
      steps: how many, 10 or more.
      smoothing: the weight of what was before in the running mean, from 0 to below 1.
      stop_factor: above 1.

    Raises:
      TypeError: if `loss_fn` or `optimizer` is not a function, or the loss is no scalar.
      ValueError: if there is no batch, or a number is out of its range.

    Warns:
      TrainingWarning: if the loss does not fall at any of the rates.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> from tracegrad import nn, optimizers, train
      >>> def loss(model, x, y):
      ...     return nn.losses.sparse_categorical_cross_entropy(model(x), y, from_logits=True)
      >>> x = np.random.default_rng(0).normal(size=(320, 8)).astype(np.float32)
      >>> y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
      >>> loader = train.data.DataLoader((x, y), 32, seed=0)
      >>> model = nn.MLP.init(tg.random.key(0), (8, 32, 3))
      >>> found = train.lr_range_test(loss, model, loader, optimizers.sgd, max_lr=100)
      >>> 1e-2 < found.suggestion < 10
      True
    """
    need_function(loss_fn, called(), "loss_fn", "lr_range_test(loss_fn, params, batches, optimizers.adam)")
    need_function(optimizer, called(), "optimizer", "lr_range_test(loss_fn, params, batches, optimizers.adam)")
    _need_positive(steps=steps)
    if not (0 < min_lr < max_lr < math.inf and steps >= 10 and 0 <= smoothing < 1 and stop_factor > 1):
        raise ValueError(
            f"{called()}: min_lr={min_lr!r}, max_lr={max_lr!r}, steps={steps!r}, smoothing={smoothing!r}, "
            f"stop_factor={stop_factor!r} {here()}. Give rates above 0, the lower first, 10 steps or more, a smoothing "
            "from 0 to below 1, and a factor above 1."
        )
    growth = math.log(max_lr / min_lr) / (steps - 1)
    made = optimizer(lambda count: min_lr * np.exp(growth * count))
    step = _step(loss_fn, made)
    state, mean = made.init(params), 0.0
    losses: list[float] = []
    smoothed: list[float] = []
    for batch in _again(batches, steps):
        params, state, value = step(params, state, *batch)
        losses.append(float(value))
        mean = smoothing * mean + (1 - smoothing) * losses[-1]
        smoothed.append(mean / (1 - smoothing ** len(losses)))
        if not math.isfinite(losses[-1]) or (len(losses) > 10 and smoothed[-1] > stop_factor * min(smoothed) > 0):
            break
    rates = min_lr * np.exp(growth * np.arange(len(losses)))
    suggestion = _steepest(rates, np.array(smoothed), smoothing)
    if math.isnan(suggestion):
        warn(
            f"the loss has not fallen at any learning rate from {rates[0]:.2g} to {rates[-1]:.2g}: it was "
            f"{losses[0]:.4g} at first. Start at a lower min_lr; if that does not do, train.overfit_tiny finds out "
            "whether the model learns."
        )
    return LRRangeTest(rates, np.array(losses), np.array(smoothed), suggestion)


def _steepest(rates: Floats, smoothed: Floats, smoothing: float) -> float:
    """The rate of the steepest fall before the minimum, or NaN if there is none to speak of.

    The first steps, before the running mean has its width, are noise, and so are differences of neighbours.
    """
    finite = smoothed[np.isfinite(smoothed)]
    start = round(1 / (1 - smoothing)) - 1
    least = start + int(finite[start:].argmin()) if len(finite) > start else start
    if least == start or finite[start] - finite[least] < 0.01 * abs(finite[start]):
        return math.nan
    width = max(1, start // 2)
    ends = [(max(i - width, start), min(i + width, least)) for i in range(start, least + 1)]
    slopes = [(finite[j] - finite[i]) / (j - i) for i, j in ends]
    return float(rates[start + int(np.argmin(slopes))])


def _again(batches: Iterable[Any], steps: int) -> Iterator[tuple[Any, ...]]:
    """So many batches, from the beginning again where they end."""
    count = 0
    while count < steps:
        before = count
        for batch in batches:
            yield tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
            count += 1
            if count == steps:
                return
        if count == before:
            raise ValueError(
                f"{called()}: batches is {'empty' if not count else f'used up after {count} batches'} {here()}, "
                f"and {steps} steps are to be made. Give a list or a loader, which can be gone through again."
            )


def _step(loss_fn: Loss, optimizer: Any) -> Callable[..., Any]:
    def loss(params: Any, *batch: Any) -> Any:
        out = loss_fn(params, *batch)
        return out[0] if isinstance(out, tuple) and len(out) == 2 else out

    @jit
    def step(params: Any, state: Any, *batch: Any) -> Any:
        value, grads = value_and_grad(loss)(params, *batch)
        updates, state = optimizer.update(grads, state, params)
        return apply_updates(params, updates), state, value

    return step


def _need_positive(**numbers: Any) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{called()}: {name}={value!r} {here()}. Give a number of 1 or more.")


__all__ = ["InitialLoss", "LRRangeTest", "OverfitTiny", "check_initial_loss", "lr_range_test", "overfit_tiny"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
