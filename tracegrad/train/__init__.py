"""What a training loop is made of. Uses array namespaces, random keys, optimizers, and the parameters of layers.

`fit` is a loop over a jitted step; each of its parts works alone: `make_step` and `TrainState`, `History`, `Progress`,
`EarlyStopping`, `Checkpoints`, `save_weights`. Checkpoints need orbax-checkpoint and weights safetensors
(`pip install 'tracegrad[train]'`). `random_search`, `grid_search` and `coarse_to_fine` look for hyperparameters, and
`Monitor` looks at the layers.
"""

# ruff: noqa: F403
from typing import TYPE_CHECKING

from ..names import listed
from . import (
    callbacks,
    checkpoints,
    data,
    devices,
    ensembles,
    history,
    loop,
    monitors,
    practice,
    progress,
    reports,
    results,
    search,
    spaces,
    stepping,
    weights,
)
from .callbacks import *
from .checkpoints import *
from .devices import *
from .ensembles import *
from .history import *
from .loop import *
from .monitors import *
from .practice import *
from .progress import *
from .reports import *
from .results import *
from .search import *
from .spaces import *
from .stepping import *
from .weights import *

__all__ = ["data"]
__all__ += callbacks.__all__
__all__ += checkpoints.__all__
__all__ += devices.__all__
__all__ += ensembles.__all__
__all__ += history.__all__
__all__ += loop.__all__
__all__ += monitors.__all__
__all__ += practice.__all__
__all__ += progress.__all__
__all__ += reports.__all__
__all__ += results.__all__
__all__ += search.__all__
__all__ += spaces.__all__
__all__ += stepping.__all__
__all__ += weights.__all__

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
