"""Losses: functions of predictions and targets, in this order.

Each is computed per example and then reduced. `weights` has the leading part of the shape of the unreduced loss: one
weight an example, for example. `reduction` is "mean" (weighted: the sum of weight times loss over the sum of the
weights, 0 if these are all 0), "sum" or "none". What does not fit is a `ValueError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import ops
from ..errors import called, here
from ..names import listed
from ..op import Op
from ..ops import (
    abs_,
    add,
    div,
    equal,
    less_equal,
    log,
    logistic,
    mul,
    mul_no_nan,
    neg,
    reduce_sum,
    relu,
    reshape,
    softmax,
    square,
    sub,
    where,
)
from ..ops.elementwise import elementwise
from ..ops.shape import restore_axes
from ..tape import Aval, aval_of, make_aval
from ..tracer import literal
from .activations import _classes, _float, one_hot

# Cross-entropies of logits are ops of their own: their gradient is prediction minus target, exact for logits of
# any size (Straka, "Training neural networks II", 2022), where a composition would subtract large numbers.


def _log_probabilities(logits: Any) -> Any:
    last = logits.ndim - 1
    keep = range(last)
    top = lax.broadcast_in_dim(lax.reduce_max(logits, (last,)), logits.shape, keep)
    shifted = lax.sub(logits, top)
    total = lax.log(lax.reduce_sum(lax.exp(shifted), (last,)))
    return lax.sub(shifted, lax.broadcast_in_dim(total, logits.shape, keep))


def _dense(logits: Any, targets: Any) -> Any:
    dtype = jnp.promote_types(logits.dtype, targets.dtype)
    # Sums of half-precision numbers are taken in float32, as every sum is.
    wide = np.float32 if dtype.itemsize < 4 else dtype
    logits, targets = lax.convert_element_type(logits, wide), lax.convert_element_type(targets, wide)
    zero = lax.full(targets.shape, 0, wide)
    # A class of probability 0 counts nothing, even where its log-probability is -inf.
    terms = lax.select(lax.eq(targets, zero), zero, lax.mul(targets, _log_probabilities(logits)))
    return lax.convert_element_type(lax.neg(lax.reduce_sum(terms, (logits.ndim - 1,))), dtype)


def _dense_shape(logits: Aval, targets: Aval) -> Aval:
    if logits.shape != targets.shape:
        raise ValueError(
            f"predictions of shape {logits.shape} and targets of shape {targets.shape}: both must have the classes "
            "along the last axis. Use sparse_categorical_cross_entropy for integer labels."
        )
    return make_aval(logits.shape[:-1], jnp.promote_types(logits.dtype, targets.dtype))


def _dense_logits(ct: Any, out: Any, logits: Any, targets: Any) -> Any:
    last = (logits.ndim - 1,)
    total = restore_axes(reduce_sum(targets, axes=last), logits.shape, last)
    rest = sub(mul(softmax(logits, axis=last[0]), total), targets)
    return mul(restore_axes(ct, logits.shape, last), rest)


def _dense_targets(ct: Any, out: Any, logits: Any, targets: Any) -> Any:
    last = logits.ndim - 1
    return mul(restore_axes(neg(ct), logits.shape, (last,)), ops.log_softmax(logits, axis=last))


_softmax_cross_entropy: Op = Op("softmax_cross_entropy", _dense, (_dense_logits, _dense_targets), shape=_dense_shape)


def _sparse(logits: Any, labels: Any) -> Any:
    last = logits.ndim - 1
    wide = lax.convert_element_type(logits, np.float32) if logits.dtype.itemsize < 4 else logits
    # Comparing with every class is one fused loop; a gather, and the scatter of its gradient, are slower.
    each = lax.broadcast_in_dim(labels, logits.shape, range(last))
    hit = lax.eq(each, lax.broadcasted_iota(labels.dtype, logits.shape, last))
    chosen = lax.select(hit, _log_probabilities(wide), lax.full(logits.shape, 0, wide.dtype))
    return lax.convert_element_type(lax.neg(lax.reduce_sum(chosen, (last,))), logits.dtype)


def _sparse_shape(logits: Aval, labels: Aval) -> Aval:
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers, not {labels}. Use categorical_cross_entropy for probabilities.")
    if logits.shape[:-1] != labels.shape or not logits.shape:
        raise ValueError(
            f"predictions of shape {logits.shape} need labels of shape {logits.shape[:-1]}, one an example, not "
            f"{labels.shape}"
        )
    return make_aval(labels.shape, logits.dtype)


def _sparse_vjp(ct: Any, out: Any, logits: Any, labels: Any) -> Any:
    last = logits.ndim - 1
    p = softmax(logits, axis=last)
    hit = equal(reshape(labels, shape=(*labels.shape, 1)), _classes(labels, logits.shape[last], last))
    return mul(restore_axes(ct, logits.shape, (last,)), where(hit, sub(p, 1.0), p))


_sparse_cross_entropy: Op = Op("sparse_cross_entropy", _sparse, (_sparse_vjp, None), shape=_sparse_shape)

_sigmoid_cross_entropy = elementwise(
    "sigmoid_cross_entropy",
    lambda z, t: lax.add(
        lax.sub(lax.max(z, np.asarray(0, z.dtype)), lax.mul(z, t)), lax.log1p(lax.exp(lax.neg(lax.abs(z))))
    ),
    lambda ct, out, z, t: mul(ct, sub(logistic(z), t)),
    lambda ct, out, z, t: neg(mul(ct, z)),
    inexact=True,
)


def _reduced(loss: Any, weights: Any, reduction: str) -> Any:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{called()}: reduction={reduction!r} {here()}: choose 'mean', 'sum' or 'none'")
    shape = aval_of(loss).shape
    count: Any = literal(float(max(1, int(np.prod(shape)))))
    if weights is not None:
        w = aval_of(weights)
        if w.shape != shape[: w.ndim]:
            raise ValueError(
                f"{called()}: weights of shape {w.shape} for losses of shape {shape} {here()}. Their shape must be the "
                f"leading part of it: one weight an example has shape {shape[:1]}."
            )
        weights = reshape(weights, shape=(*w.shape, *(1,) * (len(shape) - w.ndim)))
        loss = mul(loss, weights)
    axes = tuple(range(len(shape)))
    if reduction == "none":
        return loss
    total = reduce_sum(loss, axes=axes) if axes else loss
    if reduction == "sum":
        return total
    if weights is not None:
        repeated = float(np.prod(shape[w.ndim :]))
        dtype = np.dtype(aval_of(loss).dtype)
        count = mul(reduce_sum(ops.astype(weights, dtype=dtype), axes=axes), literal(repeated))
        count = where(equal(count, 0), 1, count)
    return div(total, count)


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

    With logits z, log p = log_softmax(z) and the gradient is softmax(z) - t, in this form (Straka,
    "Training neural networks II", 2022): it is exact for logits of any size.

    Args:
      predictions: probabilities, or logits with `from_logits=True`; shape `(..., K)`.
      targets: probabilities that sum to 1, such as one-hot rows; shape `(..., K)`. They have a gradient.
      from_logits: whether the predictions are logits.
      label_smoothing: a, for targets (1 - a) t + a / K (Szegedy et al., 2015).

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> logits = np.array([[0.0, 1e4]], np.float32)
      >>> float(nn.categorical_cross_entropy(logits, np.array([[1.0, 0.0]]), from_logits=True))
      10000.0
    """
    predictions = _float(predictions)
    if label_smoothing:
        classes = aval_of(targets).shape[-1]
        targets = add(mul(targets, 1 - label_smoothing), label_smoothing / classes)
    if from_logits:
        loss = _softmax_cross_entropy(predictions, targets)
    else:
        _same_shape(predictions, targets)
        terms = mul_no_nan(targets, log(predictions))
        loss = neg(reduce_sum(terms, axes=(aval_of(terms).ndim - 1,)))
    return _reduced(loss, weights, reduction)


def sparse_categorical_cross_entropy(
    predictions: Any,
    targets: Any,
    *,
    from_logits: bool = False,
    weights: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """-log p_y for integer labels y, the classes of the predictions along the last axis.

    Args:
      predictions: probabilities, or logits with `from_logits=True`; shape `(..., K)`.
      targets: integer labels from 0 to K - 1; shape `(...)`.
      from_logits, label_smoothing: as in `categorical_cross_entropy`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> logits = np.array([[0.0, 1e4], [0.0, 0.0]], np.float32)
      >>> loss = nn.sparse_categorical_cross_entropy(logits, np.array([0, 1]), from_logits=True, reduction="sum")
      >>> round(float(loss), 2)
      10000.69
    """
    predictions = _float(predictions)
    if label_smoothing:
        _sparse_shape(aval_of(predictions), aval_of(targets))
        p = aval_of(predictions)
        dense = one_hot(targets, p.shape[-1], dtype=p.dtype)
        return categorical_cross_entropy(
            predictions,
            dense,
            from_logits=from_logits,
            weights=weights,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    loss = _sparse_cross_entropy(predictions, targets) if from_logits else neg(_pick(log, predictions, targets))
    return _reduced(loss, weights, reduction)


def _pick(fn: Any, x: Any, labels: Any) -> Any:
    """`fn` of the element at the label along the last axis."""
    a, n = aval_of(x), aval_of(labels)
    _sparse_shape(a, n)
    hit = equal(reshape(labels, shape=(*n.shape, 1)), _classes(n, a.shape[-1], n.ndim))
    return fn(reduce_sum(where(hit, x, 0), axes=(n.ndim,)))


def nll(predictions: Any, targets: Any, *, weights: Any = None, reduction: str = "mean") -> Any:
    """-l_y for log-probabilities l and integer labels y: the negative log-likelihood.

    Args:
      predictions: log-probabilities, such as of `log_softmax`; shape `(..., K)`.
      targets: integer labels; shape `(...)`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> float(nn.nll(np.array([[-1.0, -2.0]], np.float32), np.array([1])))
      2.0
    """
    return _reduced(neg(_pick(lambda x: x, predictions, targets)), weights, reduction)


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

    With a logit z, p = sigmoid(z) and the gradient is sigmoid(z) - t, in this form.

    Args:
      predictions: probabilities, or logits with `from_logits=True`; any shape.
      targets: 0, 1 or probabilities, of the same shape.
      from_logits: as in `categorical_cross_entropy`.
      label_smoothing: a, for targets (1 - a) t + a / 2.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> logits = np.array([-1e4, 1e4], np.float32)
      >>> nn.binary_cross_entropy(logits, np.array([1, 1]), from_logits=True, reduction="none").tolist()
      [10000.0, 0.0]
    """
    predictions = _float(predictions)
    _same_shape(predictions, targets)
    if label_smoothing:
        targets = add(mul(targets, 1 - label_smoothing), label_smoothing / 2)
    if from_logits:
        loss = _sigmoid_cross_entropy(predictions, targets)
    else:
        loss = neg(add(mul_no_nan(targets, log(predictions)), mul_no_nan(sub(1, targets), ops.log1p(neg(predictions)))))
    return _reduced(loss, weights, reduction)


def hinge(predictions: Any, targets: Any, *, weights: Any = None, reduction: str = "mean") -> Any:
    """max(0, 1 - t s) for scores s and targets t of -1 or 1; derivative 0 at the hinge.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> nn.hinge(np.array([0.25, -2.0]), np.array([1, 1]), reduction="none").tolist()
      [0.75, 3.0]
    """
    _same_shape(predictions, targets)
    return _reduced(relu(sub(1, mul(predictions, targets))), weights, reduction)


# -- regression


def _same_shape(predictions: Any, targets: Any) -> None:
    p, t = aval_of(predictions).shape, aval_of(targets).shape
    if p != t:
        raise ValueError(
            f"{called()}: predictions of shape {p} and targets of shape {t} {here()}. Give both the same shape: "
            "broadcasting one against the other would compare every example with every target."
        )


def squared_error(predictions: Any, targets: Any, *, weights: Any = None, reduction: str = "mean") -> Any:
    """(p - t)^2, element by element.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> float(nn.squared_error(np.array([1.0, 2.0]), np.array([1.0, 4.0])))
      2.0
    """
    _same_shape(predictions, targets)
    return _reduced(square(sub(predictions, targets)), weights, reduction)


def absolute_error(predictions: Any, targets: Any, *, weights: Any = None, reduction: str = "mean") -> Any:
    """|p - t|, element by element; derivative 0 at 0.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> float(nn.absolute_error(np.array([1.0, 2.0]), np.array([1.0, 4.0])))
      1.0
    """
    _same_shape(predictions, targets)
    return _reduced(abs_(sub(predictions, targets)), weights, reduction)


def huber(predictions: Any, targets: Any, delta: Any = 1.0, *, weights: Any = None, reduction: str = "mean") -> Any:
    """e^2 / 2 for an error |e| <= delta, else delta (|e| - delta / 2). Huber (1964).

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> nn.huber(np.array([0.5, 3.0]), np.array([0.0, 0.0]), reduction="none").tolist()
      [0.125, 2.5]
    """
    _same_shape(predictions, targets)
    error = sub(predictions, targets)
    e = abs_(error)
    inside = less_equal(e, delta)
    # The square of the error itself: that of its absolute value has a second derivative of 0 at 0.
    loss = where(inside, mul(square(error), literal(0.5)), mul(delta, sub(e, mul(delta, literal(0.5)))))
    return _reduced(loss, weights, reduction)


__all__ = [
    "absolute_error", "binary_cross_entropy", "categorical_cross_entropy", "hinge", "huber", "nll",
    "sparse_categorical_cross_entropy", "squared_error",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
