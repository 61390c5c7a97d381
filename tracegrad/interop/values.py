"""What JAX sees in a traced value: an array, computed when a function of JAX asks for it.

`jax.numpy` asks through `__jax_array__`; `jax.lax` and functions under `jax.jit` look a type up in two tables of JAX's.
"""

from __future__ import annotations

from jax._src import core, dtypes

from ..concrete import jax_value
from ..tracer import Literal, Tracer


def _type(x: Tracer) -> core.ShapedArray:
    return core.ShapedArray(x.shape, x.dtype, weak_type=x.weak_type)


for kind in (Tracer, Literal):
    core.pytype_aval_mappings[kind] = _type
    dtypes.canonicalize_value_handlers[kind] = jax_value
