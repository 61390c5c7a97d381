"""What a training loop is made of. Uses array namespaces, random keys, optimizers, and the parameters of layers."""

# ruff: noqa: F403
from typing import TYPE_CHECKING

from ..names import listed
from . import data, monitors, practice, reports
from .monitors import *
from .practice import *
from .reports import *

__all__ = ["data"]
__all__ += monitors.__all__
__all__ += practice.__all__
__all__ += reports.__all__

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
