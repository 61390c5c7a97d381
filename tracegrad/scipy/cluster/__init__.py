"""Clustering, as far as `jax.scipy.cluster`."""

from typing import TYPE_CHECKING

from ...names import listed
from . import vq

__all__ = ["vq"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
