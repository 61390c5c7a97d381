"""Losses of classes: cross-entropies of probabilities and of logits, and what is made of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ... import ops
from ...errors import called, describe, here
from ...names import listed
from ...op import Op
from ...ops import add, log, log1p, logistic, mul, mul_no_nan, neg, pow_, reduce_sum, softmax, sub, where
from ...ops.arraylike import from_list, type_of
from ...ops.elementwise import elementwise
from ...ops.shape import restore_axes
from ...tape import Aval, make_aval
from ...tracer import literal
from .arguments import (
    array,
    by_label,
    hits,
    in_range,
    labels_of,
    matches,
    pair,
    reduced,
    same_shape,
    sure,
    within,
    without,
)

# Cross-entropies of logits are ops of their own, and so is their gradient, prediction minus target: exact for logits of
# any size (Straka, "Training neural networks II", 2022), where a composition would subtract large numbers.


def _wide(x: Any) -> Any:
    """Sums of half-precision numbers are taken in float32, as every sum is."""
    return lax.convert_element_type(x, np.float32) if x.dtype.itemsize < 4 else x


def _over_classes(x: Any, shape: tuple[int, ...]) -> Any:
    return lax.broadcast_in_dim(x, shape, range(len(shape) - 1))


def _shifted(logits: Any) -> Any:
    """Logits of which the largest is 0."""
    return lax.sub(logits, _over_classes(lax.reduce_max(logits, (logits.ndim - 1,)), logits.shape))


def _log_probabilities(logits: Any) -> Any:
    shifted = _shifted(logits)
    total = lax.log(lax.reduce_sum(lax.exp(shifted), (logits.ndim - 1,)))
    return lax.sub(shifted, _over_classes(total, logits.shape))


def _probabilities(logits: Any) -> Any:
    e = lax.exp(_shifted(logits))
    return lax.div(e, _over_classes(lax.reduce_sum(e, (logits.ndim - 1,)), logits.shape))


def _softmax_vjp(ct: Any, p: Any) -> Any:
    """The cotangent of logits for that of probabilities `p`."""
    last = (p.ndim - 1,)
    product = mul(ct, p)
    return sub(product, mul(p, restore_axes(reduce_sum(product, axes=last), p.shape, last)))


# -- against probabilities


def _dense(logits: Any, targets: Any) -> Any:
    dtype = jnp.promote_types(logits.dtype, targets.dtype)
    logits, targets = (_wide(lax.convert_element_type(x, dtype)) for x in (logits, targets))
    zero = lax.full_like(targets, 0)
    # A class of probability 0 counts nothing, even where its log-probability is -inf.
    terms = lax.select(lax.eq(targets, zero), zero, lax.mul(targets, _log_probabilities(logits)))
    return lax.convert_element_type(lax.neg(lax.reduce_sum(terms, (logits.ndim - 1,))), dtype)


def _dense_shape(logits: Aval, targets: Aval) -> Aval:
    return make_aval(logits.shape[:-1], jnp.promote_types(logits.dtype, targets.dtype))


def _dense_logits(ct: Any, out: Any, logits: Any, targets: Any) -> Any:
    return mul(restore_axes(ct, logits.shape, (logits.ndim - 1,)), softmax_minus_target(logits, targets))


def _dense_targets(ct: Any, out: Any, logits: Any, targets: Any) -> Any:
    last = logits.ndim - 1
    return mul(restore_axes(neg(ct), logits.shape, (last,)), ops.log_softmax(logits, axis=last))


def _minus_target(logits: Any, targets: Any) -> Any:
    dtype = jnp.promote_types(logits.dtype, targets.dtype)
    logits, targets = (_wide(lax.convert_element_type(x, dtype)) for x in (logits, targets))
    total = _over_classes(lax.reduce_sum(targets, (targets.ndim - 1,)), targets.shape)
    return lax.convert_element_type(lax.sub(lax.mul(_probabilities(logits), total), targets), dtype)


def _minus_target_logits(ct: Any, out: Any, logits: Any, targets: Any) -> Any:
    last = (logits.ndim - 1,)
    total = restore_axes(reduce_sum(targets, axes=last), logits.shape, last)
    return mul(_softmax_vjp(ct, softmax(logits, axis=last[0])), total)


def _minus_target_targets(ct: Any, out: Any, logits: Any, targets: Any) -> Any:
    last = (logits.ndim - 1,)
    mean = reduce_sum(mul(ct, softmax(logits, axis=last[0])), axes=last)
    return sub(restore_axes(mean, logits.shape, last), ct)


softmax_minus_target: Op = Op(
    "softmax_minus_target",
    _minus_target,
    (_minus_target_logits, _minus_target_targets),
    shape=lambda logits, targets: make_aval(logits.shape, jnp.promote_types(logits.dtype, targets.dtype)),
)
"""`softmax(logits) - targets`, the first times the sum of the targets, which is 1 for probabilities."""

_softmax_cross_entropy: Op = Op("softmax_cross_entropy", _dense, (_dense_logits, _dense_targets), shape=_dense_shape)


# -- against labels: `on` is the target of the label's class, `off` that of the others


def _hits(labels: Any, shape: tuple[int, ...]) -> Any:
    """Where the class is the label. Comparing with every class is one fused loop; a gather, and the scatter of its
    gradient, are slower."""
    return lax.eq(_over_classes(labels, shape), lax.broadcasted_iota(labels.dtype, shape, len(shape) - 1))


def _by_row(x: Any, labels: Any, classes: int, ignore_index: int | None) -> Any:
    """`x`, 0 in rows that are ignored, NaN in those whose label is out of range."""
    known = in_range(labels, 0, classes - 1)
    none = in_range(labels, ignore_index, ignore_index) if ignore_index is not None else lax.full_like(known, False)
    if x.ndim > labels.ndim:
        known, none = _over_classes(known, x.shape), _over_classes(none, x.shape)
    return lax.select(none, lax.full_like(x, 0), lax.select(known, x, lax.full_like(x, math.nan)))


def _sparse(logits: Any, labels: Any, *, on: float, off: float, ignore_index: int | None) -> Any:
    log_p = _log_probabilities(_wide(logits))
    hit = _hits(labels, logits.shape)
    # A class whose target is 0 counts nothing, even where its log-probability is -inf.
    other = lax.mul(log_p, lax.full_like(log_p, off)) if off else lax.full_like(log_p, 0)
    chosen = lax.select(hit, lax.mul(log_p, lax.full_like(log_p, on)), other)
    loss = lax.neg(lax.reduce_sum(chosen, (logits.ndim - 1,)))
    return lax.convert_element_type(_by_row(loss, labels, logits.shape[-1], ignore_index), logits.dtype)


def _sparse_vjp(ct: Any, out: Any, logits: Any, labels: Any, **target: Any) -> Any:
    return mul(restore_axes(ct, logits.shape, (logits.ndim - 1,)), softmax_minus_label(logits, labels, **target))


def _minus_label(logits: Any, labels: Any, *, on: float, off: float, ignore_index: int | None) -> Any:
    p = _probabilities(_wide(logits))
    rest = lax.select(
        _hits(labels, logits.shape), lax.sub(p, lax.full_like(p, on)), lax.sub(p, lax.full_like(p, off)) if off else p
    )
    return lax.convert_element_type(_by_row(rest, labels, logits.shape[-1], ignore_index), logits.dtype)


def _minus_label_vjp(ct: Any, out: Any, logits: Any, labels: Any, *, ignore_index: int | None, **target: Any) -> Any:
    return _softmax_vjp(ct, softmax_minus_label(logits, labels, on=0.0, off=0.0, ignore_index=ignore_index))


softmax_minus_label: Op = Op(
    "softmax_minus_label", _minus_label, (_minus_label_vjp, None), shape=lambda logits, labels, **target: logits
)
"""`softmax(logits)` minus `on` for the label's class and `off` for the others, 0 in rows that are ignored."""

_sparse_cross_entropy: Op = Op(
    "sparse_cross_entropy",
    _sparse,
    (_sparse_vjp, None),
    shape=lambda logits, labels, **target: make_aval(labels.shape, logits.dtype),
)


# -- of two classes

sigmoid_minus_target: Op = elementwise(
    "sigmoid_minus_target",
    lambda z, t: lax.sub(lax.logistic(z), t),
    lambda ct, out, z, t: mul(ct, mul(logistic(z), logistic(neg(z)))),
    lambda ct, out, z, t: neg(ct),
    inexact=True,
)

_sigmoid_cross_entropy: Op = elementwise(
    "sigmoid_cross_entropy",
    lambda z, t: lax.add(
        lax.sub(lax.max(z, np.asarray(0, z.dtype)), lax.mul(z, t)), lax.log1p(lax.exp(lax.neg(lax.abs(z))))
    ),
    lambda ct, out, z, t: mul(ct, sigmoid_minus_target(z, t)),
    lambda ct, out, z, t: neg(mul(ct, z)),
    inexact=True,
)


# -- what the losses say of bad arguments

_LOGITS = "Pass from_logits=True if these are logits"
_ORDER = "Targets are probabilities, and come second: (predictions, targets)"


def _smoothing(a: Any) -> float:
    if not isinstance(a, (int, float)) or not 0 <= a <= 1:
        raise ValueError(
            f"{called()}: label_smoothing is {describe(a)} {here()}. It is the share of the targets that is spread "
            "over all classes: give a number from 0 to 1."
        )
    return float(a)


def _classes_last(predictions: Any, targets: Any) -> tuple[Any, Any]:
    """Predictions and targets, both with the classes along the last axis."""
    predictions, targets = array("predictions", predictions), from_list(targets)
    p = type_of(predictions).shape
    try:
        t = type_of(targets).shape
    except TypeError:
        t = p
        same_shape(predictions, targets)
    if p != t or not p:
        remedy = (
            "Use sparse_categorical_cross_entropy for integer labels, or targets of nn.one_hot(labels, classes)"
            if p[:-1] == t and p
            else "Give both the same shape"
        )
        raise ValueError(
            f"{called()}: predictions of shape {p} and targets of shape {t} {here()}: both must have the classes along "
            f"the last axis. {remedy}."
        )
    return predictions, targets


# -- classification


def categorical_cross_entropy(
    predictions: Any,
    targets: Any,
    *,
    from_logits: bool = False,
    weights: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """-sum_k t_k log p_k, for classes along the last axis.

    With logits z, log p = log_softmax(z) and the gradient is softmax(z) - t, one node of the tape (Straka,
    "Training neural networks II", 2022): it is exact for logits of any size.

    Args:
      predictions: probabilities, or logits with `from_logits=True`; shape `(..., K)`.
      targets: probabilities that sum to 1, such as one-hot rows; shape `(..., K)`. They have a gradient.
      from_logits: whether the predictions are logits.
      weights, reduction: as the module says; the loss has shape `(...)`.
      label_smoothing: a, for targets (1 - a) t + a / K (Szegedy et al., 2015).

    Raises:
      ValueError: for shapes that differ, and for known probabilities that are none. Under `@jit` the loss of a
        row with such a prediction is NaN.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> logits = np.array([[0.0, 1e4]], np.float32)
      >>> float(nn.categorical_cross_entropy(logits, np.array([[1.0, 0.0]]), from_logits=True))
      10000.0
    """
    predictions, targets = _classes_last(predictions, targets)
    within("targets", targets, 0, 1, _ORDER)
    if a := _smoothing(label_smoothing):
        targets = add(mul(targets, 1 - a), a / type_of(targets).shape[-1])
    if from_logits:
        loss = _softmax_cross_entropy(predictions, targets)
    else:
        loss = _of_probabilities(predictions, mul_no_nan(targets, log(_probable(predictions))))
    return reduced(loss, weights, reduction)


def _probable(predictions: Any) -> Any:
    """Predictions as probabilities: what is known to be none is an error."""
    within("predictions", predictions, 0, 1, _LOGITS)
    return predictions


def _of_probabilities(predictions: Any, terms: Any) -> Any:
    """Minus the sum of the terms, NaN where predictions are no probabilities."""
    last = (type_of(terms).ndim - 1,)
    return sure(neg(reduce_sum(terms, axes=last)), predictions, 0, 1, axes=last)


def sparse_categorical_cross_entropy(
    predictions: Any,
    targets: Any,
    *,
    from_logits: bool = False,
    weights: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: int | None = -1,
) -> Any:
    """-log p_y for integer labels y, the classes of the predictions along the last axis.

    With logits z the gradient is softmax(z) - onehot(y), one node of the tape.

    Args:
      predictions: probabilities, or logits with `from_logits=True`; shape `(..., K)`.
      targets: integer labels from 0 to K - 1; shape `(...)`.
      from_logits, weights, reduction, label_smoothing: as in `categorical_cross_entropy`.
      ignore_index: the label of rows that are left out: their loss and gradient are 0, and a mean does not count
        them. `None` for no such label.

    Raises:
      TypeError: for labels that are no integers.
      ValueError: for shapes that do not fit, and for a known label out of range. Under `@jit` the loss and the
        gradient of a row with such a label are NaN.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> logits = np.array([[0.0, 1e4], [0.0, 0.0], [5.0, 0.0]], np.float32)
      >>> loss = nn.sparse_categorical_cross_entropy(logits, np.array([0, 1, -1]), from_logits=True, reduction="none")
      >>> [round(float(x), 2) for x in loss]
      [10000.0, 0.69, 0.0]
    """
    predictions = array("predictions", predictions)
    shape = type_of(predictions).shape
    targets = labels_of(shape, targets, ignore_index)
    a = _smoothing(label_smoothing)
    on, off = 1 - a + a / max(1, shape[-1]), a / max(1, shape[-1])
    if from_logits:
        loss = _sparse_cross_entropy(predictions, targets, on=on, off=off, ignore_index=ignore_index)
    else:
        p = without(_probable(predictions), matches(targets, ignore_index), 1.0)
        terms = where(
            hits(targets, shape[-1]), mul(log(p), literal(on)), mul(log(p), literal(off)) if off else literal(0.0)
        )
        loss = by_label(_of_probabilities(p, terms), targets, shape[-1], ignore_index)
    return reduced(loss, weights, reduction, targets, ignore_index)


def nll(
    predictions: Any, targets: Any, *, weights: Any = None, reduction: str = "mean", ignore_index: int | None = -1
) -> Any:
    """-l_y for log-probabilities l and integer labels y: the negative log-likelihood.

    Args:
      predictions: log-probabilities, such as of `log_softmax`; shape `(..., K)`.
      targets, weights, reduction, ignore_index: as in `sparse_categorical_cross_entropy`.

    Raises:
      TypeError, ValueError: as `sparse_categorical_cross_entropy` does; a log-probability is at most 0.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> float(nn.nll(np.array([[-1.0, -2.0]], np.float32), np.array([1])))
      2.0
    """
    predictions = array("predictions", predictions)
    shape = type_of(predictions).shape
    targets = labels_of(shape, targets, ignore_index)
    remedy = "Give log-probabilities, as of log_softmax; for logits use sparse_categorical_cross_entropy"
    within("predictions", predictions, -math.inf, 0, remedy)
    last = (len(shape) - 1,)
    chosen = reduce_sum(where(hits(targets, shape[-1]), predictions, 0), axes=last)
    loss = sure(neg(chosen), without(predictions, matches(targets, ignore_index)), -math.inf, 0, axes=last)
    return reduced(by_label(loss, targets, shape[-1], ignore_index), weights, reduction, targets, ignore_index)


def binary_cross_entropy(
    predictions: Any,
    targets: Any,
    *,
    from_logits: bool = False,
    weights: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """-t log p - (1 - t) log(1 - p), element by element.

    With a logit z, p = sigmoid(z) and the gradient is sigmoid(z) - t, one node of the tape.

    Args:
      predictions: probabilities, or logits with `from_logits=True`; any shape.
      targets: 0, 1 or probabilities, of the same shape.
      from_logits, weights, reduction: as in `categorical_cross_entropy`; the loss has the shape of the predictions.
      label_smoothing: a, for targets (1 - a) t + a / 2.

    Raises:
      ValueError: as `categorical_cross_entropy` does.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> logits = np.array([-1e4, 1e4], np.float32)
      >>> nn.binary_cross_entropy(logits, np.array([1, 1]), from_logits=True, reduction="none").tolist()
      [10000.0, 0.0]
    """
    predictions, targets = _binary(predictions, targets, label_smoothing)
    return reduced(_binary_loss(predictions, targets, from_logits), weights, reduction)


def _binary(predictions: Any, targets: Any, label_smoothing: float) -> tuple[Any, Any]:
    predictions, targets = pair(predictions, targets)
    within("targets", targets, 0, 1, "Targets are 0, 1 or probabilities, and come second: (predictions, targets)")
    if a := _smoothing(label_smoothing):
        targets = add(mul(targets, 1 - a), a / 2)
    return predictions, targets


def _binary_loss(predictions: Any, targets: Any, from_logits: bool) -> Any:
    if from_logits:
        return _sigmoid_cross_entropy(predictions, targets)
    p = _probable(predictions)
    loss = neg(add(mul_no_nan(targets, log(p)), mul_no_nan(sub(1, targets), log1p(neg(p)))))
    return sure(loss, p, 0, 1)


def focal(
    predictions: Any,
    targets: Any,
    *,
    alpha: Any = None,
    gamma: float = 2.0,
    from_logits: bool = False,
    weights: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """a_t (1 - p_t)^gamma times the binary cross-entropy, element by element; p_t is the probability of the target.

    Examples that are already right count little. p_t = t p + (1 - t) (1 - p), and a_t = t alpha + (1 - t) (1 - alpha).
    Lin et al., "Focal loss for dense object detection" (2017).

    Args:
      predictions: probabilities, or logits with `from_logits=True`; any shape.
      targets: 0, 1 or probabilities, of the same shape.
      alpha: the weight of the positive class, from 0 to 1; `None` for no weights.
      gamma: how little: 0 gives `binary_cross_entropy`.
      from_logits, weights, reduction, label_smoothing: as in `binary_cross_entropy`.

    Raises:
      ValueError: as `binary_cross_entropy` does.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> round(float(nn.focal(np.array([0.5]), np.array([1.0]))), 4)  # log(2) / 4
      0.1733
    """
    predictions, targets = _binary(predictions, targets, label_smoothing)
    loss = _binary_loss(predictions, targets, from_logits)
    right, wrong = (
        (logistic(predictions), logistic(neg(predictions))) if from_logits else (predictions, sub(1, predictions))
    )
    # 1 - p_t, as a sum of what is positive, so that it keeps its digits.
    missed = add(mul(targets, wrong), mul(sub(1, targets), right))
    loss = mul_no_nan(loss, pow_(missed, literal(float(gamma)) if isinstance(gamma, (int, float)) else gamma))
    if alpha is not None:
        within("alpha", alpha, 0, 1, "It is the weight of the positive class, and 1 - alpha that of the negative one")
        loss = mul(loss, add(mul(targets, alpha), mul(sub(1, targets), sub(1, alpha))))
    return reduced(loss, weights, reduction)


def kl_divergence(
    predictions: Any,
    targets: Any,
    *,
    from_logits: bool = False,
    weights: Any = None,
    reduction: str = "mean",
) -> Any:
    """sum_k t_k (log t_k - log p_k), for classes along the last axis: the divergence of p from t, at least 0.

    It is the cross-entropy less the entropy of the targets, so in the predictions it has the gradient of
    `categorical_cross_entropy`. Kullback and Leibler, "On information and sufficiency" (1951).

    Args:
      predictions: probabilities, or logits with `from_logits=True`; shape `(..., K)`.
      targets: probabilities; shape `(..., K)`.
      from_logits, weights, reduction: as in `categorical_cross_entropy`.

    Raises:
      ValueError: as `categorical_cross_entropy` does.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> round(float(nn.kl_divergence(np.array([0.5, 0.5]), np.array([1.0, 0.0]))), 4)  # log(2)
      0.6931
    """
    predictions, targets = _classes_last(predictions, targets)
    targets = array("targets", targets)
    within("targets", targets, 0, 1, _ORDER)
    last = (type_of(targets).ndim - 1,)
    own = mul_no_nan(targets, log(targets))
    if from_logits:
        loss = add(reduce_sum(own, axes=last), _softmax_cross_entropy(predictions, targets))
    else:
        loss = _of_probabilities(predictions, sub(mul_no_nan(targets, log(_probable(predictions))), own))
    return reduced(loss, weights, reduction)


__all__ = [
    "binary_cross_entropy", "categorical_cross_entropy", "focal", "kl_divergence", "nll",
    "sparse_categorical_cross_entropy",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
