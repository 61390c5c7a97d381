"""Interpolation, with the signatures of `jax.scipy.interpolate`.

Example:
  >>> import tracegrad as tg, tracegrad.numpy as np
  >>> grid = (np.array([0.0, 1.0]), np.array([0.0, 2.0]))
  >>> between = tg.scipy.interpolate.RegularGridInterpolator(grid, np.array([[0.0, 2.0], [4.0, 6.0]]))
  >>> between(np.array([[0.5, 1.0]])).tolist()
  [3.0]
  >>> tg.grad(lambda at: between(at)[0])(np.array([[0.5, 1.0]])).tolist()
  [[4.0, 1.0]]
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.scipy.interpolate as jinterpolate

from .. import numpy as tnp
from ..borrow import borrow
from ..errors import called, describe, here
from ..names import listed
from ..numpy.arguments import from_list, inexact, type_of
from ..numpy.creation import asarray

_METHODS = ("linear", "nearest")


def _interpolated(xi: Any, values: Any, fill_value: Any, method: str, *points: Any) -> Any:
    return jinterpolate.RegularGridInterpolator(points, values, method, fill_value=fill_value)(xi)


_run = borrow(_interpolated, "The values at some points.", module=__name__)


@jax.tree_util.register_pytree_node_class
class RegularGridInterpolator:
    """A function that is known at the points of a grid, between these. It is a pytree of its arrays.

    Differentiable in the values, in the grid and in where it is taken.

    Args:
      points: for each axis of the grid, an array of coordinates that increase.
      values: an array with these axes first.
      method: "linear" or "nearest".
      bounds_error: False, the only one there is.
      fill_value: what it is outside of the grid; `None` to go on there.

    Raises:
      ValueError: for another method, and if the shapes do not fit.
      NotImplementedError: for `bounds_error`.
    """

    def __init__(
        self, points: Any, values: Any, method: str = "linear", bounds_error: bool = False, fill_value: Any = math.nan
    ) -> None:  # fmt: skip
        if bounds_error:
            raise NotImplementedError(
                f"{called()}: bounds_error=True {here()}: no value can be tested. Use fill_value."
            )
        values = asarray(from_list(values))
        points = tuple([from_list(p) for p in points])
        shapes = [type_of(p).shape for p in points]
        if shapes != [(n,) for n in values.shape[: len(points)]] or any(n < 2 for (n,) in shapes):
            raise ValueError(
                f"{called()}: points {', '.join(map(describe, points))} for values {describe(values)} {here()}. Give "
                "an array of coordinates, two at least, for each of the first axes."
            )
        self.grid, self.values = points, inexact(values, type_of(values))
        self.method, self.bounds_error, self.fill_value = _known(method), False, fill_value

    def __call__(self, xi: Any, method: str | None = None) -> Any:
        """The values at points: an array with their coordinates in the last axis, or a tuple of those of each axis."""
        if isinstance(xi, tuple):
            xi = xi[0] if len(xi) == 1 else tnp.stack(tnp.broadcast_arrays(*[asarray(x) for x in xi]), -1)
        xi = from_list(xi)
        shape = type_of(xi).shape
        if not shape:
            xi = tnp.reshape(xi, (1,))
        if len(shape) > 1 and shape[-1] != len(self.grid):
            raise ValueError(
                f"{called()}: points {describe(xi)} on a grid of {len(self.grid)} axes {here()}. Their coordinates are "
                "in the last axis."
            )
        kind = self.method if method is None else _known(method)
        return _run(xi, self.values, self.fill_value, kind, *self.grid)

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.grid, self.values, self.fill_value), self.method

    @classmethod
    def tree_unflatten(cls, method: str, parts: Any) -> RegularGridInterpolator:
        new = object.__new__(cls)
        new.grid, new.values, new.fill_value = parts
        new.method, new.bounds_error = method, False
        return new


def _known(method: Any) -> str:
    if method not in _METHODS:
        raise ValueError(f"{called()}: method={method!r} {here()}. Use 'linear' or 'nearest'.")
    return str(method)


__all__ = ["RegularGridInterpolator"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
