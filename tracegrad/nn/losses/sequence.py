"""Losses of sequences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from ... import numpy as tnp
from ...control import scan
from ...errors import called, describe, here
from ...names import listed
from ...numpy.arguments import integer
from ...ops import astype, log_softmax, reduce_logsumexp
from ...ops.arraylike import from_list, type_of
from .arguments import array, known, reduced, sure, within

_NEVER = -math.inf
"""The logarithm of the probability of what cannot be."""


def ctc(
    predictions: Any,
    targets: Any,
    *,
    logit_lengths: Any = None,
    label_lengths: Any = None,
    blank: int = 0,
    weights: Any = None,
    reduction: str = "mean",
) -> Any:
    """-log of the probability of all alignments of frames with labels, for sequences whose alignment is not known.

    An alignment names a class for each frame; repeats of a class and then blanks are dropped, and what is left are the
    labels. The sum over alignments is taken by the forward recursion of Graves et al., "Connectionist temporal
    classification" (2006), in logarithms, in time O(T S).

    Args:
      predictions: logits, or log-probabilities, of each frame; shape `(N, T, K)`.
      targets: integer labels, shape `(N, S)`, none of them the blank; after the last one of a sequence, -1.
      logit_lengths: how many frames each sequence has, integers of shape `(N,)`; by default T.
      label_lengths: how many labels each has, in place of -1 after the last one.
      blank: the class that stands between labels.
      weights, reduction: as the module says; the loss has shape `(N,)`.

    Returns:
      The loss; infinite, with derivative 0, for a sequence of too few frames for its labels.

    Raises:
      TypeError, ValueError: for shapes that do not fit, and for known labels and lengths out of range. Under `@jit`
        the loss of such a sequence is NaN.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> logits = np.zeros((1, 2, 2), np.float32)  # "1 1", "1 blank" and "blank 1" are read as 1, "blank blank" not
      >>> round(float(np.exp(-nn.ctc(logits, np.array([[1]])))), 4)
      0.75
    """
    predictions, targets = array("predictions", predictions), from_list(targets)
    n, frames, classes, length = _sizes(predictions, targets)
    if type_of(targets).dtype.itemsize < 4:
        targets = astype(targets, dtype=np.dtype(np.int32))
    blank = integer(blank, "blank")
    if not 0 <= blank < classes:
        raise ValueError(f"{called()}: blank={blank} {here()} is a class: give one from 0 to {classes - 1}")
    logit_lengths = _lengths("logit_lengths", logit_lengths, n, frames)
    label_lengths = _lengths("label_lengths", label_lengths, n, length)
    there, allowed = _check_labels(targets, label_lengths, classes, blank)

    dtype = type_of(predictions).dtype
    log_p = log_softmax(astype(predictions, dtype=np.dtype(np.float32)) if dtype.itemsize < 4 else predictions, axis=2)
    # The states of the recursion: blank, label, blank, label, ..., blank.
    blanks = tnp.full((n, length + 1, 1), blank)
    states = tnp.where(there & allowed, targets, blank)[:, :, None]
    states = tnp.concatenate([tnp.concatenate([blanks[:, :-1], states], 2).reshape(n, 2 * length), blanks[:, 0]], 1)
    # A label may follow another one without a blank between them, if it differs; a blank may not.
    skips = tnp.concatenate([tnp.full((n, 2), False), (states[:, 2:] != states[:, :-2]) & (states[:, 2:] != blank)], 1)[
        :, : 2 * length + 1
    ]
    emitted = tnp.take_along_axis(log_p, tnp.broadcast_to(states[:, None], (n, frames, 2 * length + 1)), 2)

    place = tnp.arange(2 * length + 1)
    start = tnp.broadcast_to(tnp.where(place == 0, 0.0, _NEVER).astype(log_p.dtype), (n, 2 * length + 1))

    def step(alpha: Any, inputs: Any) -> Any:
        t, log_p = inputs
        moved = tnp.pad(alpha, ((0, 0), (2, 0)), constant_values=_NEVER)
        new = tnp.logaddexp(alpha, moved[:, 1:-1])
        new = tnp.logaddexp(new, tnp.where(skips, moved[:, :-2], _NEVER)) + log_p
        return new if logit_lengths is None else tnp.where(t < logit_lengths[:, None], new, alpha), None

    alpha, _ = scan(step, start, (tnp.arange(frames), tnp.moveaxis(emitted, 1, 0)))
    last = 2 * tnp.sum(there, 1)[:, None]
    likelihood = reduce_logsumexp(tnp.where((place == last) | (place == last - 1), alpha, _NEVER), axes=(1,))
    # Where there is no alignment, there is nothing to learn from.
    none = likelihood == _NEVER
    loss = tnp.where(none, math.inf, -tnp.where(none, 0.0, likelihood))
    loss = loss * tnp.where(tnp.all(allowed, 1), 1.0, math.nan)
    for lengths, most in ((logit_lengths, frames), (label_lengths, length)):
        loss = loss if lengths is None else sure(loss, lengths, 0, most)
    return reduced(astype(loss, dtype=dtype), weights, reduction)


def _sizes(predictions: Any, targets: Any) -> tuple[int, int, int, int]:
    """The number of sequences, of frames, of classes, and of labels."""
    try:
        p, t = type_of(predictions), type_of(targets)
    except TypeError:
        raise TypeError(f"{called()}: targets is {describe(targets)}, which is not an array {here()}") from None
    if p.ndim != 3 or t.ndim != 2 or p.shape[0] != t.shape[0]:
        raise ValueError(
            f"{called()}: predictions of shape {p.shape} and targets of shape {t.shape} {here()}. Give shapes (N, T, "
            "K) and (N, S): sequences, frames, classes, and labels, with -1 after the last one of a sequence."
        )
    if not jnp.issubdtype(t.dtype, jnp.integer):
        raise TypeError(f"{called()}: labels must be integers, not {t} {here()}. Give the number of each class.")
    n, frames, classes = p.shape
    return n, frames, classes, t.shape[1]


def _lengths(name: str, lengths: Any, n: int, most: int) -> Any:
    if lengths is None:
        return None
    lengths = from_list(lengths)
    aval = type_of(lengths)
    if aval.shape != (n,) or not jnp.issubdtype(aval.dtype, jnp.integer):
        raise ValueError(
            f"{called()}: {name} is {describe(lengths)} {here()}. Give an integer a sequence, shape ({n},)."
        )
    within(name, lengths, 0, most, "It counts what a sequence has of the second axis")
    return tnp.asarray(lengths)


def _allowed(np: Any, targets: Any, lengths: Any, classes: int, blank: int) -> tuple[Any, Any]:
    """Which labels there are, and which may stand where they do: no blank, and none after a -1."""
    there = targets != -1 if lengths is None else np.arange(targets.shape[1]) < lengths[:, None]
    label = (targets >= 0) & (targets < classes) & (targets != blank)
    gap = np.concatenate([np.full((targets.shape[0], 1), False), ~there[:, :-1]], 1)
    return there, ~there | (label & ~gap[:, : targets.shape[1]])


def _check_labels(targets: Any, lengths: Any, classes: int, blank: int) -> tuple[Any, Any]:
    """`_allowed`, an error where it is known that one may not."""
    values, known_lengths = known(targets), None if lengths is None else known(lengths)
    if values is not None and (lengths is None or known_lengths is not None):
        _, allowed = _allowed(np, values, known_lengths, classes, blank)
        if not allowed.all():
            i, j = (int(k) for k in np.argwhere(~allowed)[0])
            raise ValueError(
                f"{called()}: targets[{i}, {j}] is {values[i, j]} {here()}. Labels are from 0 to {classes - 1}, not "
                f"{blank}, which is the blank, and stand before any -1."
            )
    return _allowed(tnp, tnp.asarray(targets), lengths, classes, blank)


__all__ = ["ctc"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
