"""The functions of `jax.lax`, under its names, recorded and differentiable. Use ops, loops, and what is borrowed.

For what NumPy has no name for: general convolutions, gathers, scatters and windows, sorting by several keys, running
extrema, bits. Operands of different dtypes promote and broadcast as in `jax.numpy`, where `jax.lax` would refuse them.

Example:
  >>> import numpy as np, tracegrad as tg
  >>> f = lambda x: tg.lax.cummax(x).sum()
  >>> tg.grad(f)(np.array([1.0, 3.0, 2.0], np.float32)).tolist()
  [1.0, 2.0, 0.0]
"""

# ruff: noqa: F403
from typing import TYPE_CHECKING

# Types, names of options, and functions of shapes: nothing of these is computed on arrays.
from jax.lax import (
    AccuracyMode,
    ConvDimensionNumbers,
    ConvGeneralDilatedDimensionNumbers,
    DotAlgorithm,
    DotAlgorithmPreset,
    DotDimensionNumbers,
    FftType,
    GatherDimensionNumbers,
    GatherScatterMode,
    Precision,
    PrecisionLike,
    RoundingMethod,
    ScatterDimensionNumbers,
    broadcast_shapes,
    conv_dimension_numbers,
    conv_general_permutations,
    conv_general_shape_tuple,
    conv_shape_tuple,
    conv_transpose_shape_tuple,
    padtype_to_pads,
    reduce_window_shape_tuple,
)

from ..control import cond, fori_loop, scan, switch, while_loop
from ..loops import associative_scan, map
from ..names import listed
from ..parallel.collectives import (
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
)
from ..tools import stop_gradient
from . import elementwise, products, reductions, shapes
from .elementwise import *
from .products import *
from .reductions import *
from .shapes import *

__all__ = [
    "AccuracyMode", "ConvDimensionNumbers", "ConvGeneralDilatedDimensionNumbers", "DotAlgorithm",
    "DotAlgorithmPreset", "DotDimensionNumbers", "FftType", "GatherDimensionNumbers", "GatherScatterMode",
    "Precision", "PrecisionLike", "RoundingMethod", "ScatterDimensionNumbers", "all_gather", "all_to_all",
    "associative_scan", "axis_index", "axis_size", "broadcast_shapes", "cond", "conv_dimension_numbers",
    "conv_general_permutations", "conv_general_shape_tuple", "conv_shape_tuple", "conv_transpose_shape_tuple",
    "fori_loop", "map", "padtype_to_pads", "pcast", "pmax", "pmean", "pmin", "ppermute", "pshuffle", "psum",
    "psum_scatter", "reduce_window_shape_tuple", "scan", "stop_gradient", "switch", "while_loop",
]  # fmt: skip
__all__ += elementwise.__all__
__all__ += products.__all__
__all__ += reductions.__all__
__all__ += shapes.__all__

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
