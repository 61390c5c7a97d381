"""Many devices and processes: `pmap`, `shard_map`, and what they tell each other. Uses bodies, vmap and collectives."""

from typing import TYPE_CHECKING

from ..names import listed
from .collectives import (
    all_gather,
    all_to_all,
    axis_index,
    axis_size,
    pcast,
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
from .meeting import ProcessesError
from .processes import Processes, check_alike, check_mesh, initialize
from .sharding import shard_map, with_sharding_constraint
from .sums import (
    AllReduce,
    Bucketed,
    Compressed,
    ErrorFeedback,
    GradientSum,
    Ordered,
    Sharded,
    gradient_sum,
    shard_axis,
)

__all__ = [
    "AllReduce", "Bucketed", "Compressed", "ErrorFeedback", "GradientSum", "Ordered", "Processes", "ProcessesError",
    "Sharded", "all_gather", "all_to_all", "axis_index", "axis_size", "check_alike", "check_mesh", "gradient_sum",
    "initialize", "pcast", "pmap", "pmax", "pmean", "pmin", "ppermute", "pshuffle", "psum", "psum_scatter",
    "shard_axis", "shard_map", "split_batch", "sum_gradients", "with_sharding_constraint",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
