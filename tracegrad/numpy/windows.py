"""Windows, as vectors of the default float type: Harris, "On the use of windows for harmonic analysis" (1978)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .. import ops
from ..errors import called, here
from ..ops import i0
from .arguments import dtype_of, integer, literal
from .creation import ones


def _places(M: Any) -> tuple[int, Any]:
    """The number of points, and their indices as floats; None where the window is 1 everywhere."""
    n = integer(M, "M")
    if n < 0:
        raise ValueError(f"{called()}: M={n} is negative {here()}. Give the number of points.")
    return n, ops.iota(dtype=dtype_of(float), shape=(n,), axis=0) if n > 1 else None


def _cosines(M: Any, weights: Sequence[float]) -> Any:
    n, k = _places(M)
    if k is None:
        return ones((n,))
    waves = [ops.cos(k * (2 * math.pi * i / (n - 1))) * weight for i, weight in enumerate(weights[1:], 1)]
    return sum(waves, weights[0])


def bartlett(M: int) -> Any:
    """The triangular window of `M` points, 0 at both ends."""
    n, k = _places(M)
    if k is None:
        return ones((n,))
    return 1.0 - ops.abs_(k * (2 / (n - 1)) - 1.0)


def hanning(M: int) -> Any:
    """The window of `M` points that is a raised cosine."""
    return _cosines(M, (0.5, -0.5))


def hamming(M: int) -> Any:
    """The window of `M` points that is a raised cosine with ends of 0.08."""
    return _cosines(M, (0.54, -0.46))


def blackman(M: int) -> Any:
    """The window of `M` points that is a sum of three cosines."""
    return _cosines(M, (0.42, -0.5, 0.08))


def kaiser(M: int, beta: Any) -> Any:
    """The window of `M` points that is a Bessel function, the narrower the larger `beta`."""
    n, k = _places(M)
    if k is None:
        return ones((n,))
    x = k * (2 / (n - 1)) - 1.0
    # 0 at the ends, where rounding must not make it negative.
    inside = ops.root(ops.maximum(1.0 - x * x, literal(0.0)))
    return ops.div(i0(ops.mul(inside, beta)), i0(beta))


__all__ = ["bartlett", "blackman", "hamming", "hanning", "i0", "kaiser"]
