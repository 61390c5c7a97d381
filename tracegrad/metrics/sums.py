"""Sums that do not depend on how what is summed was divided: pairs of numbers, what is not lost in rounding."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from .. import numpy as tnp
from ..errors import called, here
from ..op import Op
from ..parallel import axis_index, axis_size, psum
from ..recording import state as recording_state
from ..tape import Aval, aval_of, make_aval


class Sum(NamedTuple):
    """A running sum, in twice the digits of its dtype: counts are exact up to 2**48 in float32.

    Attributes:
      high: the sum, rounded; any shape.
      low: what rounding took from it; the same shape.
    """

    high: Any
    low: Any

    def value(self) -> Any:
        return tnp.add(self.high, self.low)


def _add(a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
    # The error of a sum is itself a float, found by subtracting (Knuth, The Art of Computer Programming 2, 4.2.2).
    total = lax.add(a[0], b[0])
    part = lax.sub(total, a[0])
    error = lax.add(lax.sub(a[0], lax.sub(total, part)), lax.sub(b[0], part))
    error = lax.add(error, lax.add(a[1], b[1]))
    high = lax.add(total, error)
    low = lax.sub(error, lax.sub(high, total))
    # Beside something infinite there is nothing to correct; NaN is in the first part alone.
    finite = lax.is_finite(high)
    zero = lax.full_like(low, 0)
    return lax.select(lax.is_finite(total), high, total), lax.select(finite, low, zero)


def _reduce(high: Any, low: Any, *, axes: tuple[int, ...]) -> Any:
    zero = np.zeros((), high.dtype)
    return lax.reduce((high, low), (zero, zero), _add, axes)


def _reduced(high: Aval, low: Aval, *, axes: tuple[int, ...]) -> list[Aval]:
    shape = tuple(n for i, n in enumerate(high.shape) if i not in axes)
    return [make_aval(shape, high.dtype)] * 2


_sum = Op("exact_sum", _reduce, None, shape=_reduced, multiple=True)


def dtype() -> Any:
    """Of sums: float32, or float64 with JAX's x64 flag."""
    return jax.dtypes.canonicalize_dtype(float)


def zero(*shape: int) -> Sum:
    return Sum(tnp.zeros(shape, dtype()), tnp.zeros(shape, dtype()))


def sum_of(x: Any, axes: tuple[int, ...]) -> Sum:
    """The sum of an array over some of its axes."""
    x = tnp.astype(x, dtype())
    return Sum(*_sum(x, tnp.zeros(aval_of(x).shape, dtype()), axes=axes))


def constant(n: int) -> Sum:
    """A number of examples that is known: to sum ones would have XLA count them while it compiles, which is slow."""
    high = np.asarray(n, dtype())
    return Sum(tnp.asarray(high), tnp.asarray(np.asarray(n - int(high), dtype())))


def plus(a: Sum, b: Sum) -> Sum:
    return Sum(*_sum(*[tnp.stack([x, y]) for x, y in zip(a, b, strict=True)], axes=(0,)))


def gathered(tree: Any, axis_name: str) -> Any:
    """What each device along a mapped axis has, of every array in a pytree, along a new first axis.

    Raises:
      ValueError: if it is the same on all of them.
    """
    place = tnp.arange(axis_size(axis_name)) == axis_index(axis_name)
    tape = recording_state.tape
    tracked = tape is not None and axis_name in tape.axes
    if tracked and not any(axis_name in aval_of(leaf).varying for leaf in jax.tree.leaves(tree)):
        raise ValueError(
            f"{called()}: the state is the same on all devices along {axis_name!r} {here()}: it would be counted once "
            "for each. Reduce a state that was updated with each device's own share of the batch, once."
        )

    def one(x: Any) -> Any:
        x = tnp.asarray(x)
        # Each element is one device's number and the others' zeros, so that their sum is exact.
        return psum(tnp.where(place.reshape(-1, *[1] * x.ndim), x[None], tnp.zeros((), x.dtype)), axis_name)

    return jax.tree.map(one, tree)


def summed(parts: Sum) -> Sum:
    """The sum of what `gathered` returns."""
    return Sum(*_sum(*parts, axes=(0,)))
