"""Arrays on many devices: put there, of each process's own part, and taken apart into one for each device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from .weights import is_key

AXIS = "data"
"""The mapped axis along which batches are split."""


def spec_of(axis: int | None) -> P:
    return P() if axis is None else P(*[None] * axis, AXIS)


def put_on(x: Any, sharding: NamedSharding) -> Any:
    """`x` on the devices in this way; every process has all of it."""
    if isinstance(x, jax.Array) and x.sharding == sharding:
        return x
    if is_key(x):
        return jax.random.wrap_key_data(put_on(jax.random.key_data(x), sharding), impl=jax.random.key_impl(x))
    if jax.process_count() == 1:
        return jax.device_put(x, sharding)
    array = np.asarray(x)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def is_global(x: Any) -> bool:
    return isinstance(x, jax.Array) and not x.is_fully_addressable


def of_all(tree: Any, sharding: NamedSharding) -> Any:
    """Arrays of which this process has its own part."""
    return jax.tree.map(
        lambda x: x if is_global(x) else jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
    )


def is_split(x: Any) -> bool:
    """Whether an array of a batch is split: what has no axes is given whole."""
    return np.ndim(x) > 0 and not is_key(x)


def own_part(x: Any) -> Any:
    """What this process has of an array of all of them. Parts of one on several devices would lie on these."""
    if not is_global(x):
        return np.asarray(x) if isinstance(x, jax.Array) and len(x.sharding.device_set) > 1 else x
    parts = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in parts])


def copy_on(x: Any, device: Any) -> Any:
    """The copy on this device of an array that all have."""
    if not isinstance(x, jax.Array):
        return jax.device_put(x, device)
    for shard in x.addressable_shards:
        if shard.device == device:
            return shard.data
    return jax.device_put(x, device)


def side_by_side(parts: Sequence[Any], size: int, sharding: NamedSharding) -> Any:
    """One array of these, one a local device, along axis 0."""
    return jax.make_array_from_single_device_arrays((size, *parts[0].shape[1:]), sharding, list(parts))


def replicated(parts: Sequence[Any], sharding: NamedSharding) -> Any:
    """One array of which each of these is a copy, one a local device."""
    if is_key(parts[0]):
        data = replicated([jax.random.key_data(x) for x in parts], sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(parts[0]))
    return jax.make_array_from_single_device_arrays(parts[0].shape, sharding, list(parts))
