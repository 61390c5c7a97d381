"""Layers made of layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import called, describe, here
from ..names import listed
from .layers import Run, is_layer, layer, static


@layer
class Function:
    """A function of one array as a layer, such as an activation: `Function(nn.relu)`."""

    fun: Callable[..., Any] = static()

    def __call__(self, x: Any, run: Run | None = None) -> Any:
        """`fun(x)`."""
        return self.fun(x)


def as_layer(x: Any) -> Any:
    """A layer, of a layer or of a function."""
    if is_layer(x):
        return x
    if not callable(x) or isinstance(x, type):
        raise TypeError(f"{called()}: {describe(x)} is neither a layer nor a function {here()}.")
    return Function(x)


@layer
class Sequential:
    """Layers one after the other; functions of one array may be among them.

    Attributes:
      layers: a sequence of layers and functions.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> k1, k2 = random.split(random.key(0))
      >>> model = nn.Sequential([nn.Linear.init(k1, 4, 16), nn.relu, nn.Linear.init(k2, 16, 3)])
      >>> model(np.ones((8, 4), np.float32)).shape
      (8, 3)
      >>> model[1]
      Function(fun=relu)
    """

    layers: Sequence[Any]

    def __post_init__(self) -> None:
        if not isinstance(self.layers, (list, tuple)):
            raise TypeError(
                f"{called()}: layers is {describe(self.layers)} {here()}. Give a list: nn.Sequential([first, second])."
            )
        object.__setattr__(self, "layers", tuple([as_layer(x) for x in self.layers]))

    def __call__(self, x: Any, run: Run | None = None) -> Any:
        """Each layer of the result of the one before."""
        for part in self.layers:
            x = part(x, run)
        return x

    def __getitem__(self, i: int) -> Any:
        """The layer at a position."""
        return self.layers[i]

    def __len__(self) -> int:
        """The number of layers."""
        return len(self.layers)


__all__ = ["Function", "Sequential"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
