"""Geometry, as far as `jax.scipy.spatial`."""

from typing import TYPE_CHECKING

from ...names import listed
from . import transform

__all__ = ["transform"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
