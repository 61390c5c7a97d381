"""Functions that networks are made of: activations, convolution and pooling, dropout, losses. Use ops."""

# ruff: noqa: F403
from typing import TYPE_CHECKING

from .. import initializers
from ..names import listed
from . import activations, functional, losses
from .activations import *
from .functional import *
from .losses import *

__all__ = ["initializers", "losses"]
__all__ += activations.__all__
__all__ += functional.__all__
__all__ += losses.__all__

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
