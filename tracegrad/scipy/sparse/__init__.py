"""Sparse operators, as far as `jax.scipy.sparse`."""

from typing import TYPE_CHECKING

from ...names import listed
from . import linalg

__all__ = ["linalg"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
