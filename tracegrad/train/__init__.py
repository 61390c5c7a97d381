"""What a training loop is made of. Uses array namespaces, and random keys."""

from typing import TYPE_CHECKING

from ..names import listed
from . import data

__all__ = ["data"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
