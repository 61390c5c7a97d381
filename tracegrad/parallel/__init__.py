"""Many devices: `pmap`, and what the devices tell each other. Use bodies, vmap and the ops of collectives."""

from typing import TYPE_CHECKING

from ..names import listed
from .collectives import (
    all_gather,
    all_to_all,
    axis_index,
    axis_size,
    pmax,
    pmean,
    pmin,
    ppermute,
    pshuffle,
    psum,
    psum_scatter,
    sum_gradients,
)
from .mapping import pmap, split_batch

__all__ = [
    "all_gather", "all_to_all", "axis_index", "axis_size", "pmap", "pmax", "pmean", "pmin", "ppermute", "pshuffle",
    "psum", "psum_scatter", "split_batch", "sum_gradients",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
