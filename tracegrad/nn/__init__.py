"""What networks are made of: layers, and the functions in them: activations, convolution, losses. Use ops."""

# ruff: noqa: F403
from typing import TYPE_CHECKING

from .. import activations, initializers
from ..activations import *
from ..names import listed
from . import (
    attention,
    containers,
    convolution,
    functional,
    hierarchical,
    layers,
    linear,
    losses,
    normalization,
    recurrent,
    regularization,
    statistics,
    summaries,
    transformer,
    trees,
)
from .attention import *
from .containers import *
from .convolution import *
from .functional import *
from .hierarchical import *
from .layers import *
from .linear import *
from .losses import *
from .normalization import *
from .recurrent import *
from .regularization import *
from .statistics import *
from .summaries import *
from .transformer import *
from .trees import *

__all__ = ["initializers", "losses"]
__all__ += activations.__all__
__all__ += attention.__all__
__all__ += containers.__all__
__all__ += convolution.__all__
__all__ += functional.__all__
__all__ += hierarchical.__all__
__all__ += layers.__all__
__all__ += linear.__all__
__all__ += losses.__all__
__all__ += normalization.__all__
__all__ += recurrent.__all__
__all__ += regularization.__all__
__all__ += statistics.__all__
__all__ += summaries.__all__
__all__ += transformer.__all__
__all__ += trees.__all__

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
