"""Sums over the shards of a batch, each a mean over its examples, and the means over all that they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .. import numpy as tnp
from ..control import fori_loop, scan
from ..parallel import pcast
from ..tape import aval_of
from .placing import AXIS
from .stepping import TrainState


def joined(rows: Sequence[Any], wholes: Sequence[Any], how: tuple[Any, tuple[bool, ...]]) -> tuple[Any, ...]:
    """The batch of these arrays."""
    tree, split = how
    arrays, others = iter(rows), iter(wholes)
    return tuple(jax.tree.unflatten(tree, [next(arrays) if s else next(others) for s in split]))


def times(x: Any, weight: Any) -> Any:
    if isinstance(weight, float):
        return x if weight == 1 else x * weight
    # A share that counts for nothing may be anything, a NaN too.
    return tnp.where(weight > 0, x * tnp.astype(weight, aval_of(x).dtype), 0)


def parted(model_state: Any) -> tuple[list[Any], list[Any]]:
    """What of a model's state is averaged over the shards, and what is not."""
    leaves = jax.tree.leaves(model_state)
    floating = [jnp.issubdtype(aval_of(x).dtype, jnp.floating) for x in leaves]
    return [x for x, f in zip(leaves, floating, strict=True) if f], [
        x for x, f in zip(leaves, floating, strict=True) if not f
    ]


def means(state: TrainState, total: dict[str, Any], others: list[Any]) -> tuple[Any, Any, Any]:
    """The loss, the new state of the model and the gradients, from the sums over all shards."""
    count = total["weight"]

    def mean(x: Any) -> Any:
        return x / tnp.astype(count, aval_of(x).dtype)

    kept, rest = iter([mean(x) for x in total["model_state"]]), iter(others)
    old = state.model_state
    new = jax.tree.map(lambda x: next(kept if jnp.issubdtype(aval_of(x).dtype, jnp.floating) else rest), old)
    return mean(total["value"]), new, jax.tree.map(mean, total["grads"])


def accumulated(
    one: Callable[..., Any], zero: dict[str, Any], first: Any, held: int, rows: Any, rest: Any, flags: Any
) -> tuple[dict[str, Any], list[Any]]:
    """The sums over a device's shards, one after another."""
    if held == 1:
        return one(first, rows, rest, None if flags is None else flags[0])  # type: ignore[no-any-return]
    apart = _apart((rows, rest), held)

    def add(carry: dict[str, Any] | None, x: Any) -> tuple[Any, Any]:
        shard, (own, left), flag = x
        found, others = one(shard, own, left, flag)
        single = {"value": found.pop("value"), "weight": found.pop("weight")}
        return jax.tree.map(lambda a, b: a + b, carry, found), (single, others)

    index = first + tnp.arange(held)
    total, (single, others) = scan(add, zero, (index, apart, flags))
    return total | {name: x.sum() for name, x in single.items()}, [x[0] for x in others]


def looped(
    one: Callable[..., Any], zero: Any, first: Any, held: int, count: Any, rows: Any, rest: Any, flags: Any
) -> tuple[dict[str, Any], list[Any]]:
    """The sums of each of a device's shards, stacked.

    How often the loop runs is known when it does: XLA makes another program of a loop that runs once.
    """
    apart, alone = _apart((rows, rest), held), held == 1
    if alone:
        # Of an axis of size 1 XLA knows the index, and takes the whole body out of the loop.
        apart, flags = jax.tree.map(lambda x: tnp.concatenate([x, x]), (apart, flags))

    def put(k: Any, stacked: Any) -> Any:
        own, left = jax.tree.map(lambda x: x[k], apart)
        found = one(first + k, own, left, None if flags is None else flags[k])
        found = jax.tree.map(lambda all_, x: tnp.astype(x, all_.dtype), stacked, found)
        return found if alone else jax.tree.map(lambda all_, x: all_.at[k].set(x), stacked, found)

    stacked = zero if alone else jax.tree.map(lambda x: tnp.zeros((held, *x.shape), x.dtype), zero)
    total, others = fori_loop(0, count, put, pcast(stacked, AXIS, to="varying"))
    if alone:
        return jax.tree.map(lambda x: x[None], total), others
    return total, [x[0] for x in others]


def _apart(tree: Any, held: int) -> Any:
    return jax.tree.map(lambda x: x.reshape(held, x.shape[0] // held, *x.shape[1:]), tree)
