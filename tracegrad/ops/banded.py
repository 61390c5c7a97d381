"""Linear equations with a banded matrix, by elimination that keeps within the band."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..op import Op
from ..tape import Aval, Node, make_aval
from .elementwise import mul, neg, where
from .indexing import take
from .linalg import swap
from .shape import reduce_sum, reshape


def band_places(lower: int, upper: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The row of the matrix that each element of a band is in, and whether there is one."""
    rows = np.arange(n) + np.arange(lower + upper + 1)[:, None] - upper
    inside = (rows >= 0) & (rows < n)
    return np.where(inside, rows, 0), inside


def _by_row(ab: Any, lower: int, upper: int) -> Any:
    """The rows of the matrix within the band: those of the transposed matrix's band."""
    rows, inside = band_places(upper, lower, ab.shape[-1])
    return jnp.where(inside, ab[np.arange(lower + upper, -1, -1)[:, None], rows], 0)


def _solve(ab: Any, b: Any, *, lower: int, upper: int) -> Any:
    width, k = lower + upper + 1, b.shape[1]
    rows = jnp.pad(jnp.concatenate([_by_row(ab, lower, upper).T, b], axis=1), ((0, lower + 1), (0, 0)))

    # The rows that have an element in the current column: at first, of the first column.
    empty = jnp.zeros(width, ab.dtype)
    window = jnp.stack(
        [jnp.concatenate([rows[t, lower - t : width], empty[: lower - t], rows[t, width:]]) for t in range(lower + 1)]
    )

    def eliminate(window: Any, incoming: Any) -> tuple[Any, Any]:
        at = jnp.argmax(jnp.abs(window[:, 0]))
        pivot = window[at]
        window = window.at[at].set(window[0])[1:]
        window = window - window[:, :1] / pivot[0] * pivot
        shifted = jnp.concatenate([window[:, 1:width], jnp.zeros((lower, 1), ab.dtype), window[:, width:]], axis=1)
        return jnp.concatenate([shifted, incoming[None]]), pivot

    _, pivots = lax.scan(eliminate, window, rows[lower + 1 :])

    def substitute(known: Any, pivot: Any) -> tuple[Any, Any]:
        x = (pivot[width:] - pivot[1:width] @ known) / pivot[0]
        return jnp.concatenate([x[None], known])[: width - 1], x

    return lax.scan(substitute, jnp.zeros((width - 1, k), ab.dtype), pivots, reverse=True)[1]


def _lower(ab: Any, b: Any, *, lower: int, upper: int) -> Any:
    solve = partial(_solve, lower=lower, upper=upper)
    for _ in range(ab.ndim - 2):
        solve = jax.vmap(solve)
    return solve(ab, b)


def _transposed(ab: Any, lower: int, upper: int) -> Any:
    """The band of the transposed matrix."""
    rows, inside = band_places(upper, lower, ab.shape[-1])
    places = rows + np.arange(lower + upper, -1, -1)[:, None] * ab.shape[-1]
    flat = reshape(ab, shape=(*ab.shape[:-2], ab.shape[-2] * ab.shape[-1]))
    return where(inside, take(flat, places, axis=-1, mode="promise_in_bounds"), 0.0)


def _vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    ab: Any = node.inputs[0]
    x = node.outputs[0]
    lower, upper = node.params["lower"], node.params["upper"]
    y = solve_banded_op(_transposed(ab, lower, upper), cts[0], lower=upper, upper=lower)
    if not needs[0]:
        return [None, y]
    # -y x^T within the band, a right-hand side after the other.
    rows, inside = band_places(lower, upper, ab.shape[-1])
    left, right = take(swap(y), rows, axis=-1, mode="promise_in_bounds"), swap(x)
    right = reshape(right, shape=(*right.shape[:-1], 1, right.shape[-1]))
    outer = reduce_sum(mul(left, right), axes=(left.ndim - 3,))
    return [where(inside, neg(outer), 0.0), y if needs[1] else None]


def _types(ab: Aval, b: Aval, *, lower: int, upper: int) -> Aval:
    return make_aval(b.shape, b.dtype)


solve_banded_op: Op = Op("solve_banded", _lower, _vjp, shape=_types)
"""`x` with `a @ x = b`, `a` given by its band `(..., lower + upper + 1, n)`, 0 outside of the matrix."""

__all__ = ["band_places", "solve_banded_op"]
