"""What JAX's `shard_map` is told, and tells, of what differs from device to device. Uses types alone."""

from __future__ import annotations

from typing import Any

import jax
from jax import lax

from .tape import varying_in_jax


def mapped_by_jax() -> dict[str, int]:
    """The axes, with their sizes, of a `jax.shard_map` around this that keeps track of what differs along them.

    With `check_vma=False` it does not, and neither can we: what is replicated cannot be told from what is not.
    """
    mesh = jax.sharding.get_abstract_mesh()
    names = mesh.manual_axes
    return {name: mesh.shape[name] for name in names} if names and varying_in_jax(lax.axis_index(names[0])) else {}


def marked(x: Any, axes: frozenset[str]) -> Any:
    """`x`, marked for such a `jax.shard_map` as varying along these axes too."""
    if not axes:
        return x
    missing = (axes & mapped_by_jax().keys()) - varying_in_jax(x)
    return lax.pcast(x, tuple(sorted(missing)), to="varying") if missing else x
