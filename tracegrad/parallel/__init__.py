"""Many devices: `pmap`, and what the devices tell each other. Use bodies, vmap and the ops of collectives."""

from typing import TYPE_CHECKING

from ..names import listed
from .collectives import axis_index, axis_size, pmax, pmean, pmin, psum, sum_gradients
from .mapping import pmap, split_batch

__all__ = ["axis_index", "axis_size", "pmap", "pmax", "pmean", "pmin", "psum", "split_batch", "sum_gradients"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
