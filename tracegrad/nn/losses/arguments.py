"""What every loss asks of its arguments, and how it is reduced."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...activations import _classes
from ...errors import called, describe, here
from ...op import Op
from ...ops import astype, div, equal, maximum, minimum, mul, mul_no_nan, reduce_sum, reshape, where
from ...ops.arraylike import from_list, type_of
from ...tape import Aval, Var, make_aval
from ...tracer import literal

# -- values that are known


def known(x: Any) -> np.ndarray[Any, Any] | None:
    """The value of `x` where it is there already, else `None`: nothing that was recorded runs for it."""
    if isinstance(x, Var):
        x = x.value
    if x is None or isinstance(x, jax.core.Tracer) or (isinstance(x, jax.Array) and not x.is_fully_addressable):
        return None
    return np.asarray(x)


def _place(bad: np.ndarray[Any, Any]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))


def _at(name: str, place: tuple[int, ...]) -> str:
    return f"{name}[{', '.join(map(str, place))}]" if place else name


def _slack(dtype: Any) -> float:
    """By how much rounding may take a number over a limit."""
    return 8 * float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.floating) else 0.0  # type: ignore[no-untyped-call]


def within(name: str, x: Any, low: float, high: float, remedy: str, exact: bool = False) -> None:
    """Raises if an element of `x` is known to be below `low` or above `high`; unless `exact`, by more than rounding."""
    values = known(x)
    if values is None or not values.size:
        return
    slack = 0.0 if exact else _slack(values.dtype)
    if values.min() >= low - slack and values.max() <= high + slack:
        return
    bad = (values < low - slack) | (values > high + slack)
    if bad.any():  # Not where it is NaN, which shows by itself.
        place = _place(bad)
        limits = [f"at least {low:g}"] * (low > -math.inf) + [f"at most {high:g}"] * (high < math.inf)
        raise ValueError(
            f"{called()}: {_at(name, place)} is {values[place]}, and must be {' and '.join(limits)} {here()}. {remedy}"
        )


def _one_or_nan(x: Any, *, low: float, high: float, axes: tuple[int, ...], dtype: Any) -> Any:
    if jnp.issubdtype(x.dtype, jnp.floating):
        slack = _slack(x.dtype)
        inside = lax.ge(x, lax.full_like(x, low - slack)) & lax.le(x, lax.full_like(x, high + slack))
        inside |= lax.ne(x, x)
    else:
        inside = in_range(x, int(low), int(high))
    inside = lax.reduce_and(inside, axes)
    return lax.select(inside, lax.full(inside.shape, 1, dtype), lax.full(inside.shape, math.nan, dtype))


def _one_or_nan_shape(x: Aval, *, low: float, high: float, axes: tuple[int, ...], dtype: Any) -> Aval:
    return make_aval(tuple(n for i, n in enumerate(x.shape) if i not in axes), dtype)


_one_or_nan_op = Op("one_or_nan", _one_or_nan, None, shape=_one_or_nan_shape)


def sure(loss: Any, x: Any, low: float, high: float, axes: tuple[int, ...] = ()) -> Any:
    """`loss`, but NaN with all its derivatives where an element of `x` is below `low` or above `high`."""
    dtype = np.dtype(type_of(loss).dtype)
    return mul(loss, _one_or_nan_op(x, low=low, high=high, axes=axes, dtype=dtype))


def in_range(labels: Any, low: int, high: int) -> Any:
    """Whether integers are from `low` to `high`, over `jax.lax`, whatever their dtype can hold."""
    info = jnp.iinfo(labels.dtype)
    low, high = max(low, int(info.min)), min(high, int(info.max))
    if low > high:
        return lax.full(labels.shape, False, np.bool_)
    return lax.ge(labels, lax.full_like(labels, low)) & lax.le(labels, lax.full_like(labels, high))


# -- shapes and dtypes


def array(name: str, x: Any) -> Any:
    """`x`, a list as an array, integers and booleans as floats."""
    x = from_list(x)
    dtype = _type(name, x).dtype
    return x if jnp.issubdtype(dtype, jnp.inexact) else astype(x, dtype=jax.dtypes.canonicalize_dtype(float))


def _type(name: str, x: Any) -> Aval:
    try:
        return type_of(x)
    except TypeError:
        raise TypeError(f"{called()}: {name} is {describe(x)}, which is not an array {here()}") from None


def same_shape(predictions: Any, targets: Any, names: tuple[str, str] = ("predictions", "targets")) -> None:
    p, t = _type(names[0], predictions).shape, _type(names[1], targets).shape
    if p != t:
        raise ValueError(
            f"{called()}: {names[0]} of shape {p} and {names[1]} of shape {t} {here()}. Give both the same shape: "
            "broadcasting one against the other would compare every example with every target."
        )


def pair(predictions: Any, targets: Any) -> tuple[Any, Any]:
    """Predictions and targets of one shape, both of floats."""
    predictions, targets = array("predictions", predictions), from_list(targets)
    same_shape(predictions, targets)
    if not jnp.issubdtype(type_of(targets).dtype, jnp.inexact):
        targets = astype(targets, dtype=np.dtype(type_of(predictions).dtype))
    return predictions, targets


PROBABILITIES = "Use categorical_cross_entropy for probabilities, such as one-hot rows"


def labels_of(shape: tuple[int, ...], targets: Any, ignore_index: int | None, instead: str = PROBABILITIES) -> Any:
    """Labels, one for each row of predictions of this shape, which has the classes along the last axis.

    Raises:
      TypeError: if they are no integers.
      ValueError: if the shape is another, and for a label that is known to be out of range.
    """
    targets = from_list(targets)
    t = _type("targets", targets)
    if not shape:
        raise ValueError(
            f"{called()}: predictions of shape () {here()}: the last axis has the classes, so give at least one axis"
        )
    if not jnp.issubdtype(t.dtype, jnp.integer):
        raise TypeError(
            f"{called()}: labels must be integers, not {t} {here()}. {instead}; or make them integers with "
            "labels.astype(int)."
        )
    if t.shape != shape[:-1]:
        remedy = ""
        if t.shape == shape:
            remedy = f". {instead}, or give labels.argmax(-1)"
        elif t.shape == (*shape[:-1], 1):
            remedy = ". Drop the last axis with labels[..., 0]"
        raise ValueError(
            f"{called()}: predictions of {shape[-1]} classes need labels of shape {shape[:-1]}, one an example, not "
            f"{t.shape} {here()}{remedy}"
        )
    _check_labels(targets, shape[-1], ignore_index)
    return astype(targets, dtype=np.dtype(np.int32)) if t.dtype.itemsize < 4 else targets


def _check_labels(targets: Any, classes: int, ignore_index: int | None) -> None:
    if ignore_index is not None and type(ignore_index) is not int:
        raise TypeError(f"{called()}: ignore_index is {describe(ignore_index)} {here()}. Give an integer, or None.")
    values = known(targets)
    # As unsigned numbers, negative ones are large: one pass tells that all is well.
    if values is None or not values.size or values.view(f"u{values.dtype.itemsize}").max() < classes:
        return
    bad = (values < 0) | (values >= classes)
    if ignore_index is not None:
        bad &= values != ignore_index
    if bad.any():
        place = _place(bad)
        ignored = "" if ignore_index is None else f" The label {ignore_index} (ignore_index) leaves a row out."
        raise ValueError(
            f"{called()}: {_at('targets', place)} is {values[place]}, and for predictions of {classes} classes labels "
            f"are from 0 to {classes - 1} {here()}.{ignored}"
        )


def hits(targets: Any, classes: int) -> Any:
    """Where the class, along a new last axis, is the label; for a label out of range, the nearest class."""
    t = type_of(targets)
    near = minimum(maximum(targets, 0), literal(max(0, classes - 1)))
    return equal(reshape(near, shape=(*t.shape, 1)), _classes(t, classes, t.ndim))


def matches(targets: Any, ignore_index: int | None) -> Any:
    """Which rows are ignored; `None` if none can be."""
    if ignore_index is None or not _holds(type_of(targets).dtype, ignore_index):
        return None
    return equal(targets, literal(ignore_index))


def _holds(dtype: Any, value: int) -> bool:
    info = jnp.iinfo(dtype)
    return bool(info.min <= value <= info.max)


def without(x: Any, ignored: Any, fill: float = 0) -> Any:
    """`x`, with `fill` in the rows that are ignored: nothing there reaches the value or a derivative."""
    if ignored is None:
        return x
    shape = type_of(ignored).shape
    return where(reshape(ignored, shape=(*shape, *(1,) * (type_of(x).ndim - len(shape)))), fill, x)


def by_label(loss: Any, targets: Any, classes: int, ignore_index: int | None) -> Any:
    """`loss`, 0 in rows that are ignored, and NaN with its derivatives in those whose label is out of range."""
    ignored = matches(targets, ignore_index)
    return without(sure(loss, without(targets, ignored), 0, classes - 1), ignored)


# -- reduction


def _kept(labels: Any, *, ignore_index: int, dtype: Any) -> Any:
    ignored = lax.eq(labels, lax.full_like(labels, ignore_index))
    count = lax.reduce_sum(lax.convert_element_type(~ignored, np.int32), range(labels.ndim))
    return lax.convert_element_type(lax.max(count, np.int32(1)), dtype)


_kept_op = Op("count_kept", _kept, None, shape=lambda labels, *, ignore_index, dtype: make_aval((), dtype))
"""How many labels are not the one that is ignored; 1 if none, so that the mean of nothing is 0."""


def reduced(loss: Any, weights: Any, reduction: str, targets: Any = None, ignore_index: int | None = None) -> Any:
    """The loss of all, from that of each: weighted, and reduced as the module's docstring says.

    Args:
      targets, ignore_index: labels of the shape of the loss, and which of them do not count.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{called()}: reduction={reduction!r} {here()}: choose 'mean', 'sum' or 'none'")
    aval = type_of(loss)
    shape = aval.shape
    if weights is not None:
        weights = from_list(weights)
        w = _type("weights", weights)
        if w.shape != shape[: w.ndim]:
            raise ValueError(
                f"{called()}: weights of shape {w.shape} for losses of shape {shape} {here()}. Their shape must be the "
                f"leading part of it: one weight an example has shape {shape[:1]}."
            )
        weights = reshape(weights, shape=(*w.shape, *(1,) * (len(shape) - w.ndim)))
        # A row of weight 0 counts nothing, whatever its loss is.
        loss = mul_no_nan(weights, loss)
        aval = type_of(loss)
    if reduction == "none":
        return loss
    if reduction == "mean" and 0 in shape:
        raise ValueError(
            f"{called()}: the mean of no losses: their shape is {shape} {here()}. Leave empty batches out, or take "
            "reduction='sum', which is 0."
        )
    axes = tuple(range(len(shape)))
    # Half precision has too few digits to count in, and too small a range to sum in.
    narrow = aval.dtype.itemsize < 4
    total: Any = astype(loss, dtype=np.dtype(np.float32)) if narrow else loss
    total = reduce_sum(total, axes=axes) if axes else total
    if reduction == "mean":
        total = div(total, _divisor(total, shape, targets, ignore_index))
    return astype(total, dtype=aval.dtype) if narrow else total


def _divisor(total: Any, shape: tuple[int, ...], targets: Any, ignore_index: int | None) -> Any:
    if ignore_index is None or not _holds(type_of(targets).dtype, ignore_index):
        return literal(float(math.prod(shape)))
    return _kept_op(targets, ignore_index=ignore_index, dtype=np.dtype(type_of(total).dtype))
