"""What a training loop is made of. Uses array namespaces, random keys, optimizers, and the parameters of layers.

`fit` is a loop over a jitted step; each of its parts works alone: `make_step` and `TrainState`, `History`, `Progress`,
`EarlyStopping`, `Checkpoints`, `save_weights`. Checkpoints need orbax-checkpoint and weights safetensors
(`pip install 'tracegrad[train]'`).
"""

# ruff: noqa: F403
from typing import TYPE_CHECKING

from ..names import listed
from . import data, weights
from .weights import *

__all__ = ["data"]
__all__ += weights.__all__

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
