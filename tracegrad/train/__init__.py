"""What a training loop is made of. Uses array namespaces, random keys, optimizers, and the parameters of layers."""

# ruff: noqa: F403
from typing import TYPE_CHECKING

from ..names import listed
from . import data, ensembles, results, search, spaces
from .ensembles import *
from .results import *
from .search import *
from .spaces import *

__all__ = ["data"]
__all__ += ensembles.__all__ + results.__all__ + search.__all__ + spaces.__all__

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
