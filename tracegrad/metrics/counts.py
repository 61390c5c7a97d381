"""What is counted by class: the confusion matrix, precision, recall and F1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from .. import numpy as tnp
from ..errors import describe, here
from ..tape import aval_of
from .arguments import check_indices, chosen_class, in_range, is_float, need_indices, of_binary, same_shape
from .base import Comparison
from .sums import Sum, plus, zero


@dataclass(frozen=True)
class _Classified(Comparison):
    """Labels against predicted labels: given, of scores of classes, or of one score and a threshold."""

    num_classes: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.num_classes, (int, np.integer)) or self.num_classes < 2:
            raise ValueError(
                f"{self.name}: num_classes={self.num_classes!r} {here()}. Give how many there are, 2 or more."
            )

    @property
    def _threshold(self) -> float:
        return getattr(self, "threshold", 0.5)

    def _check(self, prediction: Any, target: Any) -> tuple[int, ...]:
        p, t = aval_of(prediction), aval_of(target)
        if is_float(target):
            raise TypeError(
                f"the targets are {describe(target)}, and labels are integers. Convert them, target.astype(int), or "
                "give target.argmax(-1) for one-hot ones."
            )
        if not is_float(prediction) and p.ndim == t.ndim + 1:
            raise ValueError(
                f"predictions {describe(prediction)} and targets {describe(target)}: integer predictions are labels. "
                "Give scores as floats, or labels of the targets' shape, as prediction.argmax(-1)."
            )
        if not is_float(prediction) or (p.shape == t.shape and self.num_classes == 2):
            return same_shape(prediction, target)
        shape = need_indices(prediction, target, f"{self.name} with target.argmax(-1)")
        if p.shape[-1] != self.num_classes:
            raise ValueError(
                f"predictions of shape {p.shape} have {p.shape[-1]} classes along the last axis, and the metric has "
                f"num_classes={self.num_classes}. Make it with num_classes={p.shape[-1]}."
            )
        return shape

    def _check_values(self, counted: Any, prediction: Any, target: Any) -> None:
        check_indices("targets", target, self.num_classes, counted)
        if prediction.dtype.kind in "iub":
            check_indices("predictions", prediction, self.num_classes, counted)
        # By their shape alone, they may be labels of sequences of this length.
        rows = target.ndim > 1 and target.shape == prediction.shape and target.shape[-1] == self.num_classes
        if (
            rows
            and len(target)
            and np.array_equal(np.sort(target, -1)[..., -2:], np.broadcast_to([0, 1], (*target.shape[:-1], 2)))
        ):
            raise ValueError(
                f"the targets are one-hot ({describe(target)}), and this metric counts labels. Give "
                "target.argmax(-1), and predictions of that shape, or float ones of shape (..., K)."
            )

    def _labels(self, prediction: Any, target: Any) -> tuple[Any, Any, Any]:
        """Predicted and true labels, and which of them are both in range; where they are not, they are 0."""
        predicted = prediction
        if is_float(prediction):
            p, t = aval_of(prediction), aval_of(target)
            predicted = chosen_class(prediction) if p.ndim > t.ndim else of_binary(prediction, self._threshold)
        good = in_range(predicted, self.num_classes) & in_range(target, self.num_classes)
        predicted, target = (tnp.where(good, tnp.astype(x, int), 0) for x in (predicted, target))
        return predicted, target, good


def histogram(index: Any, size: int, weights: Any, good: Any) -> Sum:
    """How much weight each index has; NaN everywhere if one that has weight is not good."""
    counted, bad = (1.0, ~good) if weights is None else (tnp.astype(weights, float), ~good & (weights != 0))
    counts = tnp.zeros(size).at[tnp.where(good, index, 0).reshape(-1)].add(tnp.where(good, counted, 0.0).reshape(-1))
    counts = tnp.where(tnp.any(bad), np.nan, counts)
    return Sum(counts, tnp.zeros(size))


def _ratio(a: Any, b: Any, otherwise: Any) -> Any:
    return tnp.where(b == 0, otherwise, a / tnp.where(b == 0, 1, b))


# -- confusion matrix


class ConfusionState(NamedTuple):
    """counts: how much weight each true class has for each predicted one, row by row in one axis."""

    counts: Sum


@dataclass(frozen=True)
class ConfusionMatrix(_Classified):
    """How often each class (row) was predicted as each class (column): scikit-learn's `confusion_matrix`.

    Targets are integer labels of shape `(...)`. Predictions are labels of that shape; scores of shape `(..., K)`, of
    which the greatest decides; or, for two classes, one score each, of the targets' shape, against a threshold.

    Attributes:
      num_classes: K, 2 or more.
      normalize: "true" divides rows by their sums, "pred" columns, "all" everything by the total; 0 where that is 0.
      threshold: one score above it stands for class 1.

    Returns (`result`):
      Floats of shape `(K, K)`.

    Example:
      >>> import tracegrad as tg
      >>> confusion = tg.metrics.ConfusionMatrix(3)
      >>> state, matrix = confusion(confusion.reset(), [0, 2, 2], [0, 1, 2])
      >>> matrix.tolist()
      [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    """

    normalize: Literal["true", "pred", "all"] | None = None
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalize not in ("true", "pred", "all", None):
            raise ValueError(
                f"ConfusionMatrix: normalize={self.normalize!r} {here()}. Choose 'true', 'pred', 'all' or None."
            )

    def reset(self) -> ConfusionState:
        return ConfusionState(zero(self.num_classes**2))

    def _update(self, state: ConfusionState, weights: Any, prediction: Any, target: Any) -> ConfusionState:
        predicted, true, good = self._labels(prediction, target)
        cell = true * self.num_classes + predicted
        return ConfusionState(plus(state.counts, histogram(cell, self.num_classes**2, weights, good)))

    def _seen(self, state: ConfusionState) -> Any:
        return state.counts.value()

    def _result(self, state: ConfusionState) -> Any:
        counts = state.counts.value().reshape(self.num_classes, self.num_classes)
        axis = {"true": 1, "pred": 0, "all": None}
        empty = tnp.all(counts == 0)
        if self.normalize is not None:
            counts = _ratio(counts, tnp.sum(counts, axis[self.normalize], keepdims=True), 0)
        return tnp.where(empty, np.nan, counts)


# -- precision, recall, F1


class ClassState(NamedTuple):
    """hit: the weight of each class where it was predicted rightly; predicted, true: where it was predicted; was."""

    hit: Sum
    predicted: Sum
    true: Sum


@dataclass(frozen=True)
class _ByClass(_Classified):
    average: Literal["binary", "micro", "macro", "weighted"] | None = "binary"
    threshold: float = 0.5
    zero_division: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.average not in ("binary", "micro", "macro", "weighted", None):
            raise ValueError(
                f"{self.name}: average={self.average!r} {here()}. Choose 'binary', 'micro', 'macro', 'weighted' or "
                "None."
            )
        if self.average == "binary" and self.num_classes != 2:
            raise ValueError(
                f"{self.name}: average='binary' is for class 1 of two, and num_classes={self.num_classes} {here()}. "
                "Choose average='macro', 'micro', 'weighted', or None for one number a class."
            )
        if self.zero_division not in (0, 1) and not np.isnan(self.zero_division):
            raise ValueError(f"{self.name}: zero_division={self.zero_division!r} {here()}. Give 0.0, 1.0 or nan.")

    def reset(self) -> ClassState:
        return ClassState(zero(self.num_classes), zero(self.num_classes), zero(self.num_classes))

    def _update(self, state: ClassState, weights: Any, prediction: Any, target: Any) -> ClassState:
        predicted, true, good = self._labels(prediction, target)
        counted = 1.0 if weights is None else weights
        # What is not good is so among the hits too.
        hit = tnp.where((predicted == true) | ~good, counted, 0.0)
        new = [
            histogram(label, self.num_classes, w, good)
            for label, w in ((true, hit), (predicted, weights), (true, weights))
        ]
        return ClassState(*map(plus, state, new))

    def _seen(self, state: ClassState) -> Any:
        return state.true.value()

    def _share(self, hit: Any, predicted: Any, true: Any) -> Any:
        """The metric of counts: of each class, or of all together."""
        raise NotImplementedError

    def _result(self, state: ClassState) -> Any:
        hit, predicted, true = (part.value() for part in state)
        empty = tnp.all(true == 0)
        if self.average == "micro":
            hit, predicted, true = tnp.sum(hit), tnp.sum(predicted), tnp.sum(true)
        each = self._share(hit, predicted, true)
        if self.average == "binary":
            each = each[1]
        if self.average in ("macro", "weighted"):
            # A class that is neither among the targets nor predicted is none of those that scikit-learn knows of.
            weight = tnp.astype(predicted + true != 0, float) if self.average == "macro" else true
            weight = (
                tnp.where(tnp.isnan(each) & ~tnp.isnan(true), 0, weight) if np.isnan(self.zero_division) else weight
            )
            total = tnp.sum(weight)
            each = _ratio(tnp.sum(tnp.where(weight == 0, 0, weight * each)), total, self.zero_division)
        return tnp.where(empty, np.nan, each)


class Precision(_ByClass):
    """Of what was predicted to be of a class, the share that is.

    Targets are integer labels of shape `(...)`. Predictions are labels of that shape; scores of shape `(..., K)`, of
    which the greatest decides; or, for two classes, one score each, of the targets' shape, against a threshold.

    Attributes:
      num_classes: K, 2 or more.
      average: as in scikit-learn. "binary" for class 1 of two; "micro" of all classes' counts together; "macro" for the
        mean over the classes that occur among targets or predictions; "weighted" for the mean weighted by how often
        classes occur among the targets; None for one number a class.
      threshold: one score above it stands for class 1.
      zero_division: the value where there is nothing to divide by: 0, 1, or nan, which averages leave out.

    Example:
      >>> import tracegrad as tg
      >>> precision = tg.metrics.Precision()
      >>> state, value = precision(precision.reset(), [0.9, 0.8, 0.1], [1, 0, 1])
      >>> float(value)
      0.5
    """

    def _share(self, hit: Any, predicted: Any, true: Any) -> Any:
        return _ratio(hit, predicted, self.zero_division)


class Recall(_ByClass):
    """Of what is of a class, the share that was predicted to be.

    Predictions, targets and settings are those of `Precision`.

    Example:
      >>> import tracegrad as tg
      >>> recall = tg.metrics.Recall(3, average="macro")
      >>> state, value = recall(recall.reset(), [0, 1, 2, 2], [0, 1, 1, 2])
      >>> round(float(value), 4)
      0.8333
    """

    def _share(self, hit: Any, predicted: Any, true: Any) -> Any:
        return _ratio(hit, true, self.zero_division)


class F1(_ByClass):
    """The harmonic mean of precision and recall, 2 hit / (predicted + true).

    Predictions, targets and settings are those of `Precision`. The mean of several classes is that of their F1
    (van Rijsbergen, Information Retrieval, 1979).

    Example:
      >>> import tracegrad as tg
      >>> f1 = tg.metrics.F1(3, average=None)
      >>> state, value = f1(f1.reset(), [0, 1, 2, 2], [0, 2, 1, 2])
      >>> value.tolist()
      [1.0, 0.0, 0.5]
    """

    def _share(self, hit: Any, predicted: Any, true: Any) -> Any:
        return _ratio(2 * hit, predicted + true, self.zero_division)


__all__ = ["F1", "ClassState", "ConfusionMatrix", "ConfusionState", "Precision", "Recall"]
