"""How the elements of an array are spread, taken inside a compiled program, and as a record outside."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .. import numpy as tnp
from ..tape import aval_of

Floats = np.ndarray[Any, Any]

_COPIES = 16


class Spread(NamedTuple):
    """How the elements of an array are spread.

    Attributes:
      mean, std: of all elements; NaN if one is NaN or infinite, or there is none.
      norm: the root of the sum of their squares; NaN likewise.
      finite: the fraction of the elements that are finite; 1 if there is none.
      counts: how many of the finite elements are in each bin of a histogram.
      edges: of the bins, from the least finite element to the greatest, one more than there are bins.
    """

    mean: float
    std: float
    norm: float
    finite: float
    counts: Floats
    edges: Floats


def measured(x: Any, depth: int, bins: int) -> tuple[Any, Any]:
    """What a `Spread` is made of, for each index of the first `depth` axes.

    Returns:
      The mean, the variance, the least and the greatest finite element, along a last axis, and the counts.
    """
    x = in_float(x)
    shape = aval_of(x).shape
    x = x.reshape((*shape[:depth], -1))
    rows, size = math.prod(shape[:depth]), math.prod(shape[depth:])
    # Each line that reduces is a pass over the array, which is what a look costs: what others tell is not taken too.
    finite = tnp.isfinite(x)
    kept = tnp.where(finite, x, 0)
    mean = kept.sum(-1) / max(1, size)
    centred = kept - mean[..., None]
    variance = (centred * centred).mean(-1) if size else mean
    least = tnp.where(finite, x, np.inf).min(-1, initial=np.inf)
    greatest = tnp.where(finite, x, -np.inf).max(-1, initial=-np.inf)
    # As NumPy has it, an array of one value has it in the middle of a range of 1.
    half = tnp.where(greatest > least, 0.0, 0.5)
    low, width = (least - half)[..., None], ((greatest - least + 2 * half) / bins)[..., None]
    which = tnp.clip(((kept - low) / width).astype(np.int32), 0, bins - 1)
    # One bin more is for what is not finite. Added up in several histograms, so that an accelerator does not wait for
    # one number.
    each = bins + 1
    which = tnp.where(finite, which, bins) + each * (tnp.arange(size, dtype=np.int32) % _COPIES)
    which = which + each * _COPIES * tnp.arange(rows, dtype=np.int32).reshape((*shape[:depth], 1))
    counts = tnp.zeros(rows * _COPIES * each, np.int32).at[which.reshape(-1)].add(1)
    counts = counts.reshape((*shape[:depth], _COPIES, each)).sum(-2)[..., :bins]
    return tnp.stack([mean, variance, least, greatest], -1), counts


def in_float(x: Any) -> Any:
    """`x` in single precision, or in double if it is."""
    return x if aval_of(x).dtype == np.float64 else x.astype(np.float32)


def spreads_of(numbers: Floats, counts: Floats, sizes: list[int]) -> list[Spread]:
    """The records of what `measured` has found, of arrays of these sizes, a row each."""
    found = counts.sum(-1)
    numbers = numbers.astype(np.float64)
    low, high = np.where(found[:, None] > 0, numbers[:, 2:], (0.0, 1.0)).T
    half = np.where(high > low, 0.0, 0.5)
    edges = np.linspace(low - half, high + half, counts.shape[1] + 1, axis=-1)
    means, variances = numbers[:, :2].T
    size = np.array(sizes, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        whole = np.where(
            ((found == size) & (size > 0))[:, None],
            np.stack([means, np.sqrt(variances), np.sqrt(size * (variances + means * means))], -1),
            math.nan,
        )
    fractions = np.where(size > 0, found / np.maximum(size, 1), 1.0)
    return [
        Spread(mean, std, norm, finite, count, edge)
        for (mean, std, norm), finite, count, edge in zip(
            whole.tolist(), fractions.tolist(), counts, edges, strict=True
        )
    ]


__all__ = ["Floats", "Spread", "in_float", "measured", "spreads_of"]
