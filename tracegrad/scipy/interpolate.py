"""Interpolation, with the signatures of `jax.scipy.interpolate`.

Example:
  >>> import tracegrad.numpy as np
  >>> from tracegrad.scipy.interpolate import RegularGridInterpolator
  >>> f = RegularGridInterpolator(([0.0, 1.0, 3.0],), [0.0, 2.0, 3.0])
  >>> print(f([0.5, 2.0]))
  [1.  2.5]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.scipy.interpolate import RegularGridInterpolator as _Interpolator

from .. import numpy as tnp
from ..borrow import borrow
from ..errors import describe, here
from ..names import listed
from ..numpy.arguments import type_of
from ..numpy.creation import from_list

__all__ = ["RegularGridInterpolator"]


def _interpolate(axes: int, method: str, values: Any, fill_value: Any, *arrays: Any) -> Any:
    """At `arrays`, of which the first are the grid."""
    xi = arrays[axes:] if len(arrays) > axes + 1 else arrays[axes]
    return _Interpolator(arrays[:axes], values, method, fill_value=fill_value)(xi)


_interpolated = borrow(_interpolate, "What the interpolator gives.", ["axes", "method"], module=__name__)


@jax.tree_util.register_pytree_node_class
class RegularGridInterpolator:
    """A function that is known at the points of a rectangular grid, and interpolated between them.

    It is a pytree of its grid, its values and what stands outside: they may be traced values, and it may be an argument
    or a result of a function that is differentiated or mapped.

    Args:
      points: for each axis of the grid, its places in ascending order, at least two.
      values: the values there, of the shape of the grid, and more axes behind if each value is an array.
      method: "linear", or "nearest".
      bounds_error: False.
      fill_value: what it gives outside of the grid; None for extrapolation.

    Called as `f(xi, method=None)`, with `xi` of shape (..., d) for d axes, or a tuple of d arrays that broadcast. It has
    derivatives in places, values and grid; at a place of the grid in a coordinate, that of the cell below.

    Raises:
      ValueError: if shapes do not fit.
      NotImplementedError: for bounds_error=True.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> from tracegrad.scipy.interpolate import RegularGridInterpolator
      >>> grid, values = (np.array([0.0, 1.0, 3.0]),), np.array([0.0, 2.0, 3.0])
      >>> print(tg.grad(lambda values: RegularGridInterpolator(grid, values)([0.25, 2.0]).sum())(values))
      [0.75 0.75 0.5 ]
      >>> print(tg.grad(lambda x: RegularGridInterpolator(grid, values)([x])[0])(0.25))
      2.0
    """

    def __init__(
        self, points: Any, values: Any, method: str = "linear", bounds_error: bool = False, fill_value: Any = np.nan
    ) -> None:
        self.method = _known(method)
        if bounds_error:
            raise NotImplementedError(
                f"RegularGridInterpolator: bounds_error=True {here()}: whether a place is outside is known only when a "
                "compiled program runs. Compare min and max of the places with the grid before."
            )
        self.bounds_error = bounds_error
        self.grid = tuple(from_list(p) for p in points)
        self.values = from_list(values)
        self.fill_value = fill_value
        shape = type_of(self.values).shape
        sizes = [type_of(p).shape for p in self.grid]
        if len(sizes) > len(shape) or any(size != (n,) or n < 2 for size, n in zip(sizes, shape, strict=False)):
            raise ValueError(
                f"RegularGridInterpolator: points have shapes {sizes}, and values {describe(self.values)} {here()}. "
                "Give for each axis of the grid a vector of at least two places, as many as values has there."
            )

    def __call__(self, xi: Any, method: str | None = None) -> Any:
        method = self.method if method is None else _known(method)
        count = len(self.grid)
        xi = tuple(from_list(x) for x in xi) if isinstance(xi, tuple) else from_list(xi)
        if not isinstance(xi, tuple):
            shape = type_of(xi).shape
            if len(shape) == 0 and count == 1:
                xi = tnp.reshape(xi, (1,))
            elif len(shape) == 0 or (shape[-1] != count if len(shape) > 1 else shape[0] % count):
                raise ValueError(
                    f"RegularGridInterpolator: xi is {describe(xi)}, and the grid has {count} axes {here()}. Its last "
                    "axis must have that size."
                )
        elif len(xi) != count:
            raise ValueError(
                f"RegularGridInterpolator: xi has {len(xi)} arrays, and the grid {count} axes {here()}. Give one an axis."
            )
        xi = xi if isinstance(xi, tuple) else (xi,)
        return _interpolated(count, method, self.values, self.fill_value, *self.grid, *xi)

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return (self.grid, self.values, self.fill_value), (self.method, self.bounds_error)

    @classmethod
    def tree_unflatten(cls, aux: tuple[Any, ...], children: tuple[Any, ...]) -> RegularGridInterpolator:
        new = object.__new__(cls)
        new.grid, new.values, new.fill_value = children
        new.method, new.bounds_error = aux
        return new


def _known(method: Any) -> str:
    if method not in ("linear", "nearest"):
        raise ValueError(f'RegularGridInterpolator: method is {describe(method)} {here()}. Give "linear" or "nearest".')
    return str(method)


if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
