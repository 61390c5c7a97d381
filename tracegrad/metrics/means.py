"""Means over examples: of values, of losses, and of how often a prediction is right."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import numpy as tnp
from ..errors import describe, here
from ..nn import losses
from ..tape import aval_of
from .arguments import (
    check_indices,
    check_probabilities,
    chosen_class,
    class_axis,
    in_range,
    is_float,
    need_indices,
    of_binary,
    probabilities,
    same_shape,
)
from .base import Comparison, Metric
from .sums import Sum, constant, plus, sum_of, zero


class MeanState(NamedTuple):
    """total: the sum of the weighted values; weight: the sum of the weights."""

    total: Sum
    weight: Sum


def with_values(state: MeanState, values: Any, weights: Any) -> MeanState:
    """The state that has seen these values too."""
    shape = aval_of(values).shape
    axes = tuple(range(len(shape)))
    if weights is None:
        return MeanState(plus(state.total, sum_of(values, axes)), plus(state.weight, constant(math.prod(shape))))
    weights = tnp.broadcast_to(tnp.astype(weights, float), shape)
    # What has weight 0 may be NaN.
    values = tnp.where(weights == 0, 0, tnp.multiply(weights, values))
    return MeanState(plus(state.total, sum_of(values, axes)), plus(state.weight, sum_of(weights, axes)))


class _Averaged(Metric):
    def reset(self) -> MeanState:
        return MeanState(zero(), zero())

    def _seen(self, state: MeanState) -> Any:
        return state.weight.value()

    def _result(self, state: MeanState) -> Any:
        weight = state.weight.value()
        return tnp.where(weight == 0, np.nan, state.total.value() / tnp.where(weight == 0, 1, weight))

    _values: ClassVar[Callable[..., Any]]
    """What the mean is of, of the shape that `_check` returns."""

    def _update(self, state: MeanState, weights: Any, *arguments: Any) -> MeanState:
        return with_values(state, self._values(*arguments), weights)


class Mean(_Averaged):
    """The mean of numbers, such as the losses of batches: sum(w x) / sum(w).

    `update(state, values, weights=None)`: values of any shape.

    Example:
      >>> import tracegrad as tg
      >>> mean = tg.metrics.Mean()
      >>> state = mean.update(mean.reset(), [1.0, 2.0])
      >>> state, value = mean(state, 6.0)
      >>> float(value)
      3.0
    """

    def update(self, state: MeanState, values: Any, weights: Any = None) -> MeanState:
        """The state that has seen these values too.

        Args:
          state: from `reset`, `update`, `merge` or `all_reduce`.
          values: numbers, of any shape.
          weights: what each counts, of a shape that that of the values begins with; the values of weight 0 are ignored.

        Raises:
          ValueError, TypeError: if the shapes do not fit, or the values are no real numbers.
        """
        new: MeanState = self._run("update", state, (values,), weights)
        return new

    def _check(self, values: Any) -> tuple[int, ...]:
        if aval_of(values).dtype.kind == "c":
            raise TypeError(f"the values are {describe(values)}. Give real numbers, such as their abs().")
        return tuple(aval_of(values).shape)

    def _values(self, values: Any) -> Any:
        return values


class _AveragedComparison(_Averaged, Comparison):
    pass


class MeanSquaredError(_AveragedComparison):
    """The mean of (p - t)^2 over all elements.

    Predictions and targets are numbers of one shape.

    Example:
      >>> import tracegrad as tg
      >>> mse = tg.metrics.MeanSquaredError()
      >>> state, value = mse(mse.reset(), [1.0, 2.0], [1.0, 4.0])
      >>> float(value)
      2.0
    """

    def _check(self, prediction: Any, target: Any) -> tuple[int, ...]:
        return same_shape(prediction, target)

    def _values(self, prediction: Any, target: Any) -> Any:
        return losses.squared_error(prediction, target, reduction="none")


# -- cross-entropies


@dataclass(frozen=True)
class BinaryCrossentropy(_AveragedComparison):
    """The mean of `nn.binary_cross_entropy` over all elements.

    Attributes:
      from_logits: whether predictions are logits; else they are probabilities.
      label_smoothing: as in the loss.

    Targets are 0, 1 or probabilities, of the shape of the predictions.

    Example:
      >>> import tracegrad as tg
      >>> metric = tg.metrics.BinaryCrossentropy(from_logits=True)
      >>> state, value = metric(metric.reset(), [0.0, 0.0], [0, 1])
      >>> round(float(value), 4)
      0.6931
    """

    from_logits: bool = False
    label_smoothing: float = 0.0

    def _check(self, prediction: Any, target: Any) -> tuple[int, ...]:
        return same_shape(prediction, target)

    def _check_values(self, counted: Any, prediction: Any, target: Any) -> None:
        check_probabilities("targets", target, counted)
        if not self.from_logits:
            check_probabilities("predictions", prediction, counted)

    def _values(self, prediction: Any, target: Any) -> Any:
        prediction = prediction if self.from_logits else probabilities(prediction)
        return losses.binary_cross_entropy(
            prediction,
            probabilities(target),
            from_logits=self.from_logits,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )


@dataclass(frozen=True)
class CategoricalCrossentropy(_AveragedComparison):
    """The mean of `nn.categorical_cross_entropy` over examples.

    Attributes:
      from_logits: whether predictions are logits; else they are probabilities.
      label_smoothing: as in the loss.

    Predictions and targets, one-hot or probabilities, have one shape, with the classes along the last axis.

    Example:
      >>> import tracegrad as tg
      >>> metric = tg.metrics.CategoricalCrossentropy()
      >>> state, value = metric(metric.reset(), [[0.5, 0.5]], [[0, 1]])
      >>> round(float(value), 4)
      0.6931
    """

    from_logits: bool = False
    label_smoothing: float = 0.0

    def _check(self, prediction: Any, target: Any) -> tuple[int, ...]:
        return class_axis(prediction, target, "SparseCategoricalCrossentropy")

    def _check_values(self, counted: Any, prediction: Any, target: Any) -> None:
        check_probabilities("targets", target, counted[..., None])
        if not self.from_logits:
            check_probabilities("predictions", prediction, counted[..., None])

    def _values(self, prediction: Any, target: Any) -> Any:
        prediction = prediction if self.from_logits else probabilities(prediction)
        return losses.categorical_cross_entropy(
            prediction,
            probabilities(target),
            from_logits=self.from_logits,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )


@dataclass(frozen=True)
class SparseCategoricalCrossentropy(_AveragedComparison):
    """The mean of `nn.sparse_categorical_cross_entropy` over examples.

    Attributes:
      from_logits: whether predictions are logits; else they are probabilities.
      label_smoothing: as in the loss.

    Predictions have shape `(..., K)`; targets are integer labels from 0 to K - 1, of shape `(...)`.

    Example:
      >>> import tracegrad as tg
      >>> metric = tg.metrics.SparseCategoricalCrossentropy()
      >>> state, value = metric(metric.reset(), [[0.5, 0.5]], [1])
      >>> round(float(value), 4)
      0.6931
    """

    from_logits: bool = False
    label_smoothing: float = 0.0

    def _check(self, prediction: Any, target: Any) -> tuple[int, ...]:
        return need_indices(prediction, target, "CategoricalCrossentropy")

    def _check_values(self, counted: Any, prediction: Any, target: Any) -> None:
        check_indices("targets", target, prediction.shape[-1], counted)
        if not self.from_logits:
            check_probabilities("predictions", prediction, counted[..., None])

    def _values(self, prediction: Any, target: Any) -> Any:
        good = in_range(target, aval_of(prediction).shape[-1])
        values = losses.sparse_categorical_cross_entropy(
            prediction if self.from_logits else probabilities(prediction),
            tnp.where(good, target, 0),
            from_logits=self.from_logits,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        return tnp.where(good, values, np.nan)


class Perplexity(SparseCategoricalCrossentropy):
    """exp of the mean cross-entropy of tokens: how many equally likely ones a model chooses from.

    Predictions have shape `(..., K)`; targets are integer labels of shape `(...)`. Padding is what has weight 0:
    `weights=targets != pad`. Jelinek et al. (1977).

    Attributes:
      from_logits: whether predictions are logits; else they are probabilities.
      label_smoothing: as in the loss; 0 but for comparing with one.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> perplexity = tg.metrics.Perplexity(from_logits=True)
      >>> state, value = perplexity(perplexity.reset(), np.zeros((2, 3, 50)), np.ones((2, 3), int))
      >>> round(float(value), 3)
      50.0
    """

    def _result(self, state: MeanState) -> Any:
        return tnp.exp(super()._result(state))


# -- accuracies


class Accuracy(_AveragedComparison):
    """How often a predicted label is the target's.

    Both are integers or booleans of one shape.

    Example:
      >>> import tracegrad as tg
      >>> accuracy = tg.metrics.Accuracy()
      >>> state, value = accuracy(accuracy.reset(), [0, 2, 1, 1], [0, 2, 0, 1])
      >>> float(value)
      0.75
    """

    def _check(self, prediction: Any, target: Any) -> tuple[int, ...]:
        for what, x in (("predictions", prediction), ("targets", target)):
            if is_float(x):
                raise TypeError(
                    f"the {what} are {describe(x)}, and labels are integers. Use BinaryAccuracy or "
                    "SparseCategoricalAccuracy for probabilities, and .astype(int) for labels kept as floats."
                )
        return same_shape(prediction, target)

    def _values(self, prediction: Any, target: Any) -> Any:
        return tnp.equal(prediction, target)


@dataclass(frozen=True)
class BinaryAccuracy(_AveragedComparison):
    """How often a prediction is on the target's side of a threshold.

    Attributes:
      threshold: predictions above it stand for 1.

    Predictions are floats, as probabilities or (with `threshold=0.0`) logits; targets are 0 or 1, of their shape.

    Example:
      >>> import tracegrad as tg
      >>> accuracy = tg.metrics.BinaryAccuracy()
      >>> state, value = accuracy(accuracy.reset(), [0.9, 0.2, 0.6], [1, 0, 0])
      >>> round(float(value), 4)
      0.6667
    """

    threshold: float = 0.5

    def _check(self, prediction: Any, target: Any) -> tuple[int, ...]:
        return same_shape(prediction, target)

    def _check_values(self, counted: Any, prediction: Any, target: Any) -> None:
        check_indices("targets", target, 2, counted)

    def _values(self, prediction: Any, target: Any) -> Any:
        predicted = of_binary(prediction, self.threshold)
        good = in_range(target, 2) & (predicted >= 0)
        return tnp.where(good, tnp.astype(predicted == target, float), np.nan)


class CategoricalAccuracy(_AveragedComparison):
    """How often the class of the greatest prediction is that of the greatest target.

    Predictions (probabilities, or logits, or any scores) and targets (one-hot or probabilities) have one shape, with
    the classes along the last axis. Of equal scores the first counts.

    Example:
      >>> import tracegrad as tg
      >>> accuracy = tg.metrics.CategoricalAccuracy()
      >>> state, value = accuracy(accuracy.reset(), [[0.9, 0.1], [0.3, 0.7]], [[1, 0], [1, 0]])
      >>> float(value)
      0.5
    """

    def _check(self, prediction: Any, target: Any) -> tuple[int, ...]:
        return class_axis(prediction, target, "SparseCategoricalAccuracy")

    def _check_values(self, counted: Any, prediction: Any, target: Any) -> None:
        check_probabilities("targets", target, counted[..., None])

    def _values(self, prediction: Any, target: Any) -> Any:
        predicted, true = chosen_class(prediction), chosen_class(probabilities(target))
        return tnp.where((predicted >= 0) & (true >= 0), tnp.astype(predicted == true, float), np.nan)


class SparseCategoricalAccuracy(_AveragedComparison):
    """How often the class of the greatest prediction is the label.

    Predictions (probabilities, or logits, or any scores) have shape `(..., K)`; targets are integer labels from 0 to
    K - 1, of shape `(...)`. Of equal scores the first counts.

    Example:
      >>> import tracegrad as tg
      >>> accuracy = tg.metrics.SparseCategoricalAccuracy()
      >>> state, value = accuracy(accuracy.reset(), [[0.9, 0.1], [0.3, 0.7]], [0, 0])
      >>> float(value)
      0.5
    """

    _dense: ClassVar[str] = "CategoricalAccuracy"

    def _check(self, prediction: Any, target: Any) -> tuple[int, ...]:
        return need_indices(prediction, target, self._dense)

    def _check_values(self, counted: Any, prediction: Any, target: Any) -> None:
        check_indices("targets", target, prediction.shape[-1], counted)

    def _values(self, prediction: Any, target: Any) -> Any:
        predicted = chosen_class(prediction)
        good = in_range(target, aval_of(prediction).shape[-1]) & (predicted >= 0)
        return tnp.where(good, tnp.astype(predicted == target, float), np.nan)


@dataclass(frozen=True)
class TopK(SparseCategoricalAccuracy):
    """How often the label is among the `k` classes of the greatest predictions.

    Predictions and targets are as in `SparseCategoricalAccuracy`, which is what `TopK(1)` is: of equal scores the first
    count.

    Attributes:
      k: how many, 1 at least.

    Example:
      >>> import tracegrad as tg
      >>> top2 = tg.metrics.TopK(2)
      >>> state, value = top2(top2.reset(), [[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]], [1, 2])
      >>> float(value)
      0.5
    """

    k: int = 5

    def __post_init__(self) -> None:
        if not isinstance(self.k, (int, np.integer)) or self.k < 1:
            raise ValueError(
                f"TopK: k={self.k!r} {here()} is how many classes may be right: give an integer, 1 at least"
            )

    def _values(self, prediction: Any, target: Any) -> Any:
        classes = aval_of(prediction).shape[-1]
        good = in_range(target, classes) & (chosen_class(prediction) >= 0)
        label = tnp.where(good, target, 0)[..., None]
        score = tnp.take_along_axis(prediction, label, -1)
        before = (prediction > score) | ((prediction == score) & (tnp.arange(classes) < label))
        return tnp.where(good, tnp.astype(tnp.sum(before, -1) < self.k, float), np.nan)


__all__ = [
    "Accuracy", "BinaryAccuracy", "BinaryCrossentropy", "CategoricalAccuracy", "CategoricalCrossentropy", "Mean",
    "MeanSquaredError", "MeanState", "Perplexity", "SparseCategoricalAccuracy", "SparseCategoricalCrossentropy", "TopK",
]  # fmt: skip
