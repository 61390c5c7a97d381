"""Layers that do something in training alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import called, here
from ..names import listed
from .functional import dropout
from .layers import Run, given, layer, static


@layer
class Dropout:
    """In training, zeroes elements at random and scales the rest by `1 / (1 - rate)`; nothing in inference.

    Srivastava et al., "Dropout" (2014).

    Attributes:
      rate: the probability of a zero, from 0 to 1.
      broadcast_dims: axes along which all elements are kept or zeroed together: `(1, 2)` for whole features of images.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> drop, x = nn.Dropout(0.5), np.ones(100, np.float32)
      >>> bool((drop(x) == x).all())
      True
      >>> sorted(set(drop(x, nn.Run(drop, key=random.key(0), training=True)).tolist()))
      [0.0, 2.0]
    """

    rate: float = static()
    broadcast_dims: tuple[int, ...] = static(default=())

    def __post_init__(self) -> None:
        if isinstance(self.rate, bool) or not isinstance(self.rate, (int, float)) or not 0 <= self.rate <= 1:
            raise ValueError(
                f"{called()}: rate={given(self.rate)} {here()} is the probability of a zero: give a number from 0 to 1."
            )

    def __call__(self, x: Any, run: Run | None = None) -> Any:
        """Any shape, of float dtype.

        Raises:
          ValueError: in training, if the run has no key.
        """
        if run is None or not run.training or self.rate == 0:
            return x
        return dropout(run.key(self), x, self.rate, broadcast_dims=self.broadcast_dims)


__all__ = ["Dropout"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
