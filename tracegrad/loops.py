"""Loops that are made of `scan` and of ops. Uses control flow, and vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from . import numpy as tnp
from .batching import vmap
from .control import common_length, scan
from .errors import describe, here, name_of


def map(f: Callable[..., Any], xs: Any, *, batch_size: int | None = None) -> Any:
    """`f` applied to each element along the first axis of `xs`, one after another: `vmap` with the memory of one.

    Args:
      f: from a pytree of arrays to another.
      xs: a pytree of arrays with one first axis.
      batch_size: how many elements are taken at once; the rest, if they do not divide, at the end.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.map(lambda x: x * x, np.array([1.0, 2.0])).tolist()
      [1.0, 4.0]
    """
    if batch_size is None:
        return scan(_named(lambda _, x: (None, f(x)), f), None, xs)[1]
    leaves, tree = jax.tree.flatten(xs)
    n = common_length(leaves, None)
    size = max(1, min(int(batch_size), n))
    whole = n // size * size
    parts = []
    if whole:
        chunks = [tnp.reshape(x[:whole], (n // size, size, *x.shape[1:])) for x in leaves]
        out = scan(_named(lambda _, x: (None, vmap(f)(x)), f), None, jax.tree.unflatten(tree, chunks))[1]
        parts.append(jax.tree.map(lambda y: tnp.reshape(y, (whole, *y.shape[2:])), out))
    if whole < n:
        parts.append(vmap(f)(jax.tree.unflatten(tree, [x[whole:] for x in leaves])))
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda a, b: tnp.concatenate([a, b]), *parts)


def associative_scan(fn: Callable[..., Any], elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    """All prefixes of an associative operation, in a number of steps that grows with the logarithm of the length.

    Args:
      fn: takes two pytrees of the structure of `elems`, slices along `axis`, and combines them element by element.
      elems: a pytree of arrays, all of one size along `axis`.
      reverse: whether to go from the end.

    The even prefixes are those of neighbouring pairs, combined recursively (Blelloch, "Prefix sums and their
    applications", 1990).

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.associative_scan(np.add, np.array([1.0, 2.0, 3.0, 4.0])).tolist()
      [1.0, 3.0, 6.0, 10.0]
    """
    leaves, tree = jax.tree.flatten(elems)
    if not leaves:
        return elems
    if not callable(fn):
        raise TypeError(f"associative_scan: fn is {describe(fn)}, which is not a function {here()}.")
    moved = [tnp.moveaxis(x, axis, 0) for x in leaves]
    if len({x.shape[0] for x in moved}) > 1:
        raise ValueError(
            f"associative_scan: arrays differ in size along axis {axis}: {[tuple(x.shape) for x in leaves]} {here()}."
        )
    if reverse:
        moved = [tnp.flip(x, 0) for x in moved]

    def combine(a: list[Any], b: list[Any]) -> list[Any]:
        back = [tnp.moveaxis(x, 0, axis) for x in (*a, *b)]
        out = fn(jax.tree.unflatten(tree, back[: len(a)]), jax.tree.unflatten(tree, back[len(a) :]))
        out_leaves: list[Any] = jax.tree.leaves(out)
        found: Any = jax.tree.structure(out)
        if found != tree:
            raise TypeError(f"associative_scan: fn returns {found}, it takes {tree} {here()}.")
        return [tnp.moveaxis(x, axis, 0) for x in out_leaves]

    def prefixes(xs: list[Any]) -> list[Any]:
        n = xs[0].shape[0]
        if n < 2:
            return xs
        odd = prefixes(combine([x[: n - 1 : 2] for x in xs], [x[1::2] for x in xs]))
        even = [x[:1] for x in xs]
        if n > 2:
            later = combine([x[: (n - 1) // 2] for x in odd], [x[2::2] for x in xs])
            even = [tnp.concatenate([a, b]) for a, b in zip(even, later, strict=True)]
        return [_interleaved(e, o) for e, o in zip(even, odd, strict=True)]

    out = prefixes(moved)
    if reverse:
        out = [tnp.flip(x, 0) for x in out]
    return jax.tree.unflatten(tree, [tnp.moveaxis(x, 0, axis) for x in out])


def _interleaved(even: Any, odd: Any) -> Any:
    n, rest = odd.shape[0], odd.shape[1:]
    pairs = tnp.reshape(tnp.stack([even[:n], odd], axis=1), (2 * n, *rest))
    return pairs if even.shape[0] == n else tnp.concatenate([pairs, even[n:]])


def _named(new: Any, f: Any) -> Any:
    new.__name__ = name_of(f)
    return new


__all__ = ["associative_scan", "map"]
