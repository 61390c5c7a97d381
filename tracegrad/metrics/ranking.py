"""The area under the curve: how well scores put what is positive before what is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from .. import numpy as tnp
from ..activations import sigmoid
from ..errors import describe, here
from ..numpy.arguments import is_known
from ..tape import aval_of
from .arguments import check_indices, check_probabilities, in_range, is_float, same_shape
from .base import Comparison, State
from .counts import histogram
from .sums import Sum, dtype, plus, sum_of, zero


class HistogramState(NamedTuple):
    """positive, negative: the weight of positive and of negative examples between each two thresholds."""

    positive: Sum
    negative: Sum


class ScoreState(NamedTuple):
    """score, target, weight: what was seen, in the first `seen` places; weight 0 in the others."""

    score: Any
    target: Any
    weight: Any
    seen: Any


@dataclass(frozen=True)
class AUC(Comparison):
    """The area under the ROC curve, or the precision-recall curve, of two classes.

    By default it is of the points of `num_thresholds` thresholds, spread evenly over [0, 1], joined by straight lines:
    its state is small. With a `capacity` the state holds up to that many scores, and the area is exact: for "ROC" the
    chance that a positive example has a greater score than a negative one, ties counting a half (Hanley and McNeil,
    1982). For "PR" it is the average precision, sum_n (R_n - R_(n-1)) P_n: straight lines would promise too much (Davis
    and Goadrich, 2006).

    Predictions are scores, and targets 0 or 1 of their shape. Scores are probabilities if there is no capacity.

    Attributes:
      num_thresholds: 2 or more; the first and the last leave nothing and everything out.
      curve: "ROC" or "PR".
      from_logits: whether predictions are logits, of which the probabilities are compared with the thresholds.
      capacity: for how many scores the exact area has room. Beyond it, `update` is an error where values are known, and
        the result is NaN under `jit`.

    Returns (`result`):
      A number from 0 to 1; NaN where an example of either class is missing.

    Example:
      >>> import tracegrad as tg
      >>> auc = tg.metrics.AUC(capacity=100)
      >>> state, value = auc(auc.reset(), [0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
      >>> float(value)
      0.75
    """

    num_thresholds: int = 200
    curve: Literal["ROC", "PR"] = "ROC"
    from_logits: bool = False
    capacity: int | None = None

    def __post_init__(self) -> None:
        if self.curve not in ("ROC", "PR"):
            raise ValueError(f"AUC: curve={self.curve!r} {here()}. Choose 'ROC' or 'PR'.")
        if not isinstance(self.num_thresholds, (int, np.integer)) or self.num_thresholds < 2:
            raise ValueError(f"AUC: num_thresholds={self.num_thresholds!r} {here()}. Give an integer, 2 at least.")
        if self.capacity is not None and (not isinstance(self.capacity, (int, np.integer)) or self.capacity < 1):
            raise ValueError(f"AUC: capacity={self.capacity!r} {here()}. Give how many scores to keep, or None.")

    def reset(self) -> State:
        if self.capacity is None:
            return HistogramState(zero(self.num_thresholds + 1), zero(self.num_thresholds + 1))
        empty = tnp.zeros(self.capacity, dtype())
        return ScoreState(empty, empty, empty, tnp.zeros((), np.int32))

    def _check(self, prediction: Any, target: Any) -> tuple[int, ...]:
        if not is_float(prediction):
            raise TypeError(f"the predictions are {describe(prediction)}. Give scores, floats, and no labels.")
        return same_shape(prediction, target)

    def _check_values(self, counted: Any, prediction: Any, target: Any) -> None:
        check_indices("targets", target, 2, counted)
        if self.capacity is None and not self.from_logits:
            check_probabilities("predictions", prediction, counted)

    def update(self, state: State, prediction: Any, target: Any, weights: Any = None) -> State:
        """As of every metric of predictions and targets, and a `ValueError` where the capacity does not suffice."""
        state = super().update(state, prediction, target, weights)
        self._check_room("update", state)
        return state

    def merge(self, a: State, b: State) -> State:
        """The state that has seen what two have seen; a `ValueError` where the capacity does not suffice."""
        state = super().merge(a, b)
        self._check_room("merge", state)
        return state

    def _check_room(self, how: str, state: State) -> None:
        if self.capacity is not None and is_known(state.seen) and int(state.seen) > self.capacity:
            raise ValueError(
                f"AUC.{how}: {int(state.seen)} scores, and capacity={self.capacity} {here()}. Make it with more, or "
                "without a capacity, for the area over thresholds."
            )

    def _update(self, state: State, weights: Any, prediction: Any, target: Any) -> State:
        prediction = tnp.astype(prediction, dtype())
        if self.capacity is not None:
            good = in_range(target, 2) & ~tnp.isnan(prediction)
            score = tnp.where(good, prediction, np.nan).reshape(-1)
            target = tnp.astype(target, dtype()).reshape(-1)
            if weights is None:
                return self._put(state, score, target, 1.0, tnp.arange(score.size), score.size)
            weights = tnp.broadcast_to(tnp.astype(weights, dtype()), aval_of(prediction).shape)
            return self._appended(state, score, target, weights.reshape(-1))
        p = sigmoid(prediction) if self.from_logits else prediction
        good = (p >= 0) & (p <= 1 + 1e-5) & in_range(target, 2)
        index = tnp.searchsorted(self._thresholds(), tnp.where(good, p, 0), side="left")
        both = tnp.where(good, index + tnp.where(target == 1, self.num_thresholds + 1, 0), 0)
        counts = histogram(both, 2 * (self.num_thresholds + 1), weights, good).high
        parts = (counts[self.num_thresholds + 1 :], counts[: self.num_thresholds + 1])
        return HistogramState(*[plus(s, Sum(c, tnp.zeros_like(c))) for s, c in zip(state, parts, strict=True)])

    def _thresholds(self) -> Any:
        inner = np.arange(1, self.num_thresholds - 1) / (self.num_thresholds - 1)
        return np.concatenate([[-np.inf], inner, [np.inf]]).astype(dtype())

    def _appended(self, state: ScoreState, score: Any, target: Any, weight: Any) -> ScoreState:
        """With more scores after those that are there; what has weight 0 is left out."""
        kept = weight != 0
        # Beyond any capacity, and dropped.
        place = tnp.where(kept, tnp.cumsum(kept) - 1, np.iinfo(np.int32).max // 2)
        return self._put(state, score, target, weight, place, tnp.sum(kept))

    def _put(self, state: ScoreState, score: Any, target: Any, weight: Any, place: Any, added: Any) -> ScoreState:
        place = state.seen + tnp.astype(place, np.int32)
        new = [x.at[place].set(y, mode="drop") for x, y in zip(state[:3], (score, target, weight), strict=True)]
        return ScoreState(new[0], new[1], new[2], tnp.astype(state.seen + added, np.int32))

    def _merge(self, a: State, b: State) -> State:
        if self.capacity is None:
            return super()._merge(a, b)
        # What did not fit is missing in the sum too.
        merged = self._appended(a, *b[:3])
        return merged._replace(seen=a.seen + b.seen)

    def _all_reduce(self, parts: State) -> State:
        if self.capacity is None:
            return super()._all_reduce(parts)
        merged = self._appended(self.reset(), *[x.reshape(-1) for x in parts[:3]])
        return merged._replace(seen=tnp.astype(tnp.sum(parts.seen), np.int32))

    def _seen(self, state: State) -> Any:
        if self.capacity is not None:
            return np.asarray(state.seen)
        return np.concatenate([np.asarray(x) for x in (state.positive.high, state.negative.high)])

    def _result(self, state: State) -> Any:
        return self._over_thresholds(state) if self.capacity is None else self._exact(state)

    def _over_thresholds(self, state: HistogramState) -> Any:
        # Above each threshold: what is in the places after it.
        tp, fp = (tnp.cumsum(x.value()[::-1])[::-1][1:] for x in state)
        p, n = (tnp.sum(x.value()) for x in state)
        missing = (p == 0) | (n == 0)
        tpr, fpr = tp / tnp.where(missing, 1, p), fp / tnp.where(missing, 1, n)
        if self.curve == "ROC":
            area = tnp.sum((fpr[:-1] - fpr[1:]) * (tpr[:-1] + tpr[1:])) / 2
        else:
            found = tp + fp
            precision = tnp.where(found == 0, 1, tp / tnp.where(found == 0, 1, found))
            area = tnp.sum((tpr[:-1] - tpr[1:]) * precision[:-1])
        return tnp.where(missing, np.nan, area)

    def _exact(self, state: ScoreState) -> Any:
        used = tnp.arange(self.capacity) < state.seen
        # Beyond every score, and without weight.
        order = tnp.argsort(tnp.where(used, state.score, np.inf))
        score, target, weight = (x[order] for x in (tnp.where(used, state.score, np.inf), state.target, state.weight))
        positive, negative = weight * (target == 1), weight * (target == 0)
        p, n = tnp.sum(positive), tnp.sum(negative)
        missing = (p == 0) | (n == 0) | (state.seen > self.capacity) | tnp.any(tnp.isnan(state.score))
        first, last = tnp.searchsorted(score, score, side="left"), tnp.searchsorted(score, score, side="right")

        def below(w: Any, place: Any) -> Any:
            return tnp.concatenate([tnp.zeros(1), tnp.cumsum(w)])[place]

        if self.curve == "ROC":
            beaten = (below(negative, first) + below(negative, last)) / 2
            area = sum_of(positive / tnp.where(missing, 1, p) * (beaten / tnp.where(missing, 1, n)), (0,)).value()
        else:
            tp, fp = p - below(positive, first), n - below(negative, first)
            found = tp + fp
            precision = tp / tnp.where(found == 0, 1, found)
            area = sum_of(positive / tnp.where(missing, 1, p) * precision, (0,)).value()
        return tnp.where(missing, np.nan, area)


__all__ = ["AUC", "HistogramState", "ScoreState"]
