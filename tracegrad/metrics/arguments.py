"""How metrics read predictions and targets, and refuse them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import numpy as tnp
from ..errors import describe
from ..tape import aval_of


def is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(aval_of(x).dtype, jnp.inexact))


def same_shape(prediction: Any, target: Any) -> tuple[int, ...]:
    p, t = aval_of(prediction).shape, aval_of(target).shape
    if p != t:
        raise ValueError(
            f"predictions of shape {p} and targets of shape {t}. Give both the same shape: broadcasting one against "
            "the other would compare every example with every target."
        )
    return tuple(p)


def class_axis(prediction: Any, target: Any, sparse: str) -> tuple[int, ...]:
    """The shape of the examples, where predictions and targets have the classes along the last axis."""
    p, t = aval_of(prediction), aval_of(target)
    if p.shape != t.shape or not p.shape:
        remedy = "Give both the same shape, with the classes along the last axis."
        if not is_float(target) and t.shape == p.shape[:-1]:
            remedy = f"These are labels: use {sparse}, or make them one-hot with nn.one_hot(target, {p.shape[-1]})."
        raise ValueError(f"predictions {describe(prediction)} and targets {describe(target)}. {remedy}")
    return tuple(p.shape[:-1])


def need_indices(prediction: Any, target: Any, dense: str) -> tuple[int, ...]:
    """The shape of integer labels of examples, whose predictions have the classes along the last axis."""
    p, t = aval_of(prediction), aval_of(target)
    if p.shape == t.shape and p.shape:
        raise ValueError(
            f"predictions {describe(prediction)} and targets {describe(target)} have one shape: these targets are "
            f"one-hot or probabilities. Use {dense}, or give integer labels of shape {p.shape[:-1]}, such as "
            "target.argmax(-1)."
        )
    if p.shape[:-1] != t.shape or not p.shape:
        raise ValueError(
            f"predictions of shape {p.shape} need integer labels of shape {p.shape[:-1]}, one an example, not {t.shape}"
        )
    if is_float(target):
        raise TypeError(
            f"the targets are {describe(target)}, and labels are integers. Convert them: target.astype(int)."
        )
    return tuple(t.shape)


def check_indices(what: str, labels: Any, classes: int, counted: Any) -> None:
    """Raises for a known label that is no class, where it counts."""
    wrong = counted & ~((labels >= 0) & (labels < classes) & (labels == np.floor(labels)))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{what}{list(place) if place else ''} is {labels[place]}, and there are {classes} classes, from 0 to "
            f"{classes - 1}. Leave out what has no label, as padding, with a weight of 0."
        )


def check_probabilities(what: str, p: Any, counted: Any) -> None:
    """Raises for a known number that is no probability, where it counts."""
    # Rounding may take what should be 1 a little above it.
    outside = counted & ((p < 0) | (p > 1 + 1e-5))
    if outside.any():
        place = tuple(int(i) for i in np.argwhere(outside)[0])
        remedy = "Pass from_logits=True for logits." if what == "predictions" else "Give one-hot rows or probabilities."
        raise ValueError(f"{what}{list(place) if place else ''} is {p[place]}, which is no probability. {remedy}")


def in_range(labels: Any, classes: int) -> Any:
    good = (labels >= 0) & (labels < classes)
    return good & (labels == tnp.floor(labels)) if is_float(labels) else good


def probabilities(p: Any) -> Any:
    """What is no probability as NaN."""
    p = tnp.asarray(p) if is_float(p) else tnp.astype(p, float)
    return tnp.where((p < 0) | (p > 1 + 1e-5), np.nan, tnp.minimum(p, 1))


def of_binary(prediction: Any, threshold: float) -> Any:
    """1 above the threshold, 0 elsewhere, -1 for NaN."""
    return tnp.where(tnp.isnan(prediction), -1, tnp.astype(prediction > threshold, int))


def chosen_class(prediction: Any) -> Any:
    """The class of the greatest number along the last axis, -1 beside NaN."""
    chosen = tnp.argmax(prediction, -1)
    return tnp.where(tnp.any(tnp.isnan(prediction), -1), -1, chosen) if is_float(prediction) else chosen
