"""How the elements of an array are spread, taken inside a compiled program, and as a record outside."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
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


def measured(x: Any, depth: int, bins: int) -> dict[str, Any]:
    """What a `Spread` is made of, for each index of the first `depth` axes."""
    x = in_float(x)
    shape = aval_of(x).shape
    x = x.reshape((*shape[:depth], -1))
    rows, size = math.prod(shape[:depth]), math.prod(shape[depth:])
    finite = tnp.isfinite(x)
    kept = tnp.where(finite, x, 0)
    count = finite.sum(-1)
    mean = kept.sum(-1) / max(1, size)
    centred = kept - mean[..., None]
    found = {"count": count, "mean": mean, "var": (centred * centred).mean(-1) if size else mean}
    found["norm"] = tnp.sqrt((kept * kept).sum(-1))
    low = tnp.where(finite, x, np.inf).min(-1, initial=np.inf)
    high = tnp.where(finite, x, -np.inf).max(-1, initial=-np.inf)
    found["low"], found["high"] = low, high
    # As NumPy has it, an array of one value has it in the middle of a range of 1.
    half = tnp.where(high > low, 0.0, 0.5)
    low, width = (low - half)[..., None], ((high - low + 2 * half) / bins)[..., None]
    # Added up in several histograms, so that an accelerator does not wait for one number.
    which = tnp.clip(tnp.where(finite, (kept - low) / width, 0).astype(np.int32), 0, bins - 1)
    which = which + bins * (tnp.arange(size, dtype=np.int32) % _COPIES)
    which = which + bins * _COPIES * tnp.arange(rows, dtype=np.int32).reshape((*shape[:depth], 1))
    counts = tnp.zeros(rows * _COPIES * bins, np.int32).at[which.reshape(-1)].add(finite.reshape(-1).astype(np.int32))
    found["counts"] = counts.reshape((*shape[:depth], _COPIES, bins)).sum(-2)
    return found


def in_float(x: Any) -> Any:
    """`x` in single precision, or in double if it is."""
    return x if aval_of(x).dtype == np.float64 else x.astype(np.float32)


def spread_of(found: dict[str, Any], size: int, bins: int) -> Spread:
    """The record of what `measured` has found for one index of the first axes."""
    count = int(found["count"])
    whole = count == size and size > 0
    low, high = (float(found["low"]), float(found["high"])) if count else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return Spread(
        float(found["mean"]) if whole else math.nan,
        math.sqrt(float(found["var"])) if whole else math.nan,
        float(found["norm"]) if whole else math.nan,
        count / size if size else 1.0,
        np.asarray(found["counts"]),
        np.linspace(low, high, bins + 1),
    )


def pick(found: Any, index: tuple[int, ...]) -> Any:
    """What was found for one index of the first axes."""
    return jax.tree.map(lambda x: x[index], found)


__all__ = ["Floats", "Spread", "in_float", "measured", "pick", "spread_of"]
