"""Losses of scores: what is right must be ahead of what is wrong by a margin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import called, here
from ...names import listed
from ...ops import abs_, add, mul, reduce_sum, relu, reshape, square, sub, where
from ...ops.arraylike import type_of
from .arguments import array, by_label, hits, known, labels_of, matches, pair, reduced, same_shape, sure, without
from .regression import distance


def _signed(predictions: Any, targets: Any) -> Any:
    """1 - t s, for targets that are -1 or 1."""
    predictions, targets = pair(predictions, targets)
    values = known(targets)
    if values is not None and not (np.abs(values) == 1).all():
        wrong = values.flat[int(np.argmax(np.abs(values) != 1))]
        raise ValueError(
            f"{called()}: a target is {wrong}, and must be -1 or 1 {here()}. Give 2 * t - 1 for targets t of 0 or 1; "
            "targets come second: (predictions, targets)."
        )
    return sure(sub(1, mul(predictions, targets)), abs_(targets), 1, 1)


def hinge(predictions: Any, targets: Any, *, weights: Any = None, reduction: str = "mean") -> Any:
    """max(0, 1 - t s) for scores s and targets t of -1 or 1, element by element; derivative 0 at the hinge.

    Args:
      predictions: scores; any shape.
      targets: -1 or 1; of the same shape.
      weights, reduction: as the module says.

    Raises:
      ValueError: for shapes that differ, and for known targets that are neither -1 nor 1. Under `@jit` the loss of
        such targets is NaN.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> nn.hinge(np.array([0.25, -2.0]), np.array([1, 1]), reduction="none").tolist()
      [0.75, 3.0]
    """
    return reduced(relu(_signed(predictions, targets)), weights, reduction)


def squared_hinge(predictions: Any, targets: Any, *, weights: Any = None, reduction: str = "mean") -> Any:
    """max(0, 1 - t s)^2: `hinge`, squared.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> nn.squared_hinge(np.array([0.5, -2.0]), np.array([1, 1]), reduction="none").tolist()
      [0.25, 9.0]
    """
    return reduced(square(relu(_signed(predictions, targets))), weights, reduction)


def max_margin(
    predictions: Any, targets: Any, *, margin: Any = 1.0, weights: Any = None, reduction: str = "mean"
) -> Any:
    """max(0, margin + s_c - s) for scores s of what is right and s_c of what is wrong; derivative 0 at the hinge.

    Collobert and Weston, "A unified architecture for natural language processing" (2008).

    Args:
      predictions: the scores s of the true examples; any shape.
      targets: the scores s_c of the corrupt ones; of the same shape. Both have a gradient.
      margin: by how much the true ones are to be ahead.
      weights, reduction: as the module says.

    Raises:
      ValueError: for shapes that differ.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> nn.max_margin(np.array([3.0, 1.0]), np.array([0.0, 0.5]), reduction="none").tolist()
      [0.0, 0.5]
    """
    predictions, targets = pair(predictions, targets)
    return reduced(relu(add(margin, sub(targets, predictions))), weights, reduction)


def multiclass_svm(
    predictions: Any,
    targets: Any,
    *,
    margin: Any = 1.0,
    weights: Any = None,
    reduction: str = "mean",
    ignore_index: int | None = -1,
) -> Any:
    """sum_{j != y} max(0, s_j - s_y + margin) for scores s and integer labels y; derivative 0 at a hinge.

    Weston and Watkins, "Support vector machines for multi-class pattern recognition" (1999).

    Args:
      predictions: scores; shape `(..., K)`.
      targets: integer labels from 0 to K - 1; shape `(...)`.
      margin: by how much the label's score is to be ahead of every other.
      weights, reduction, ignore_index: as in `sparse_categorical_cross_entropy`.

    Raises:
      TypeError, ValueError: as `sparse_categorical_cross_entropy` does.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> float(nn.multiclass_svm(np.array([[3.0, 1.0, 2.5]]), np.array([0])))
      0.5
    """
    predictions = array("predictions", predictions)
    shape = type_of(predictions).shape
    targets = labels_of(shape, targets, ignore_index, "Give the number of the class, not a row of numbers")
    scores = without(predictions, matches(targets, ignore_index))
    last = len(shape) - 1
    hit = hits(targets, shape[-1])
    own = reshape(reduce_sum(where(hit, scores, 0), axes=(last,)), shape=(*shape[:-1], 1))
    terms = where(hit, 0, relu(add(sub(scores, own), margin)))
    loss = by_label(reduce_sum(terms, axes=(last,)), targets, shape[-1], ignore_index)
    return reduced(loss, weights, reduction, targets, ignore_index)


def triplet(
    anchors: Any,
    positives: Any,
    negatives: Any,
    *,
    margin: Any = 1.0,
    squared: bool = False,
    weights: Any = None,
    reduction: str = "mean",
) -> Any:
    """max(0, |a - p| - |a - n| + margin), with lengths along the last axis; derivative 0 at the hinge.

    A length of 0 has derivative 0. Schroff, Kalenichenko and Philbin, "FaceNet" (2015), whose lengths are squared.

    Args:
      anchors, positives, negatives: features; shape `(..., H)`, the same of all three.
      margin: by how much a negative is to be further away than a positive.
      squared: whether to take the squares of the lengths.
      weights, reduction: as the module says; the loss has shape `(...)`.

    Raises:
      ValueError: for shapes that differ.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> a, p, n = np.zeros((1, 2)), np.array([[3.0, 4.0]]), np.array([[0.0, 5.5]])
      >>> float(nn.triplet(a, p, n)), float(nn.triplet(a, p, n, squared=True))
      (0.5, 0.0)
    """
    anchors = array("anchors", anchors)
    positives, negatives = array("positives", positives), array("negatives", negatives)
    same_shape(anchors, positives, ("anchors", "positives"))
    same_shape(anchors, negatives, ("anchors", "negatives"))
    if not type_of(anchors).shape:
        raise ValueError(f"{called()}: anchors of shape () {here()}: the last axis has the features")
    near, far = (distance(sub(anchors, x), squared) for x in (positives, negatives))
    return reduced(relu(add(sub(near, far), margin)), weights, reduction)


__all__ = ["hinge", "max_margin", "multiclass_svm", "squared_hinge", "triplet"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
