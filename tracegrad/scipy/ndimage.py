"""Images of any number of axes, with the signatures of `jax.scipy.ndimage`.

Example:
  >>> import tracegrad as tg, tracegrad.numpy as np
  >>> image = np.array([[0.0, 1.0], [2.0, 3.0]])
  >>> at = lambda row: tg.scipy.ndimage.map_coordinates(image, [row, 0.5], order=1)
  >>> float(at(0.25)), float(tg.grad(at)(0.25))
  (1.0, 2.0)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.scipy.ndimage as jndimage

from ..borrow import borrow
from ..names import listed

map_coordinates = borrow(
    jndimage.map_coordinates,
    """The values of an array between its elements.

    Args:
      input: an array.
      coordinates: for each axis of `input`, an array of places along it, in elements; these have one shape.
      order: 0 for the nearest element, 1 for linear interpolation.
      mode: what is beyond the edges: "constant" (`cval`), "nearest", "wrap", "mirror" or "reflect".
      cval: a number, no traced value.

    Returns:
      An array of the shape of the coordinates.

    Raises:
      NotImplementedError: for another order or mode.
      ValueError: if there are not as many coordinates as axes.
    """,
    "order",
    "cval",
    module=__name__,
)

__all__ = ["map_coordinates"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
