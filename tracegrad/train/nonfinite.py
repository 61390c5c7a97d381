"""Why a loss or a gradient is not finite, from the last good state."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..compile import jit
from ..errors import name_of
from ..forensics import explain_nonfinite
from ..transforms import value_and_grad
from .stepping import TrainState, point_of, value_at
from .weights import named_leaves


def why_not_finite(loss: Callable[..., Any], state: TrainState, batch: tuple[Any, ...]) -> str:
    """Says in words what is not finite in a step, which is taken again, and which step of its tape made it so.

    Args:
      loss: as `fit` was given it.
      state: that before the step; all its arrays are there.
      batch: the arguments of the step.
    """
    places = [*((f"Argument {i + 1} of the batch", x) for i, x in enumerate(batch))]
    places += [("The parameters", state.params), ("The model_state", state.model_state)]
    for name, tree in places:
        if bad := _not_finite(tree):
            return f"{name} already had {', '.join(bad[:3])} before it was computed."
    taken_again = functools.partial(_value, loss)
    taken_again.__name__ = name_of(loss)  # type: ignore[attr-defined]
    again = value_and_grad(taken_again, has_aux=True)
    (value, _), grads = jit(again)(point_of(state.params), state, batch)
    if not np.isfinite(value):
        what = f"The batch and the parameters are finite, and the loss of them is {float(value)}."
    else:
        bad = _not_finite(grads)
        what = f"The loss, {float(value):.4g}, is finite, and the gradient is not: {', '.join(bad[:3])}."
    found = explain_nonfinite(again)(point_of(state.params), state, batch)
    return f"{what}\n{found}" if found else what


def _value(loss: Callable[..., Any], params: Any, state: TrainState, batch: tuple[Any, ...]) -> Any:
    return value_at(loss, state, batch)(params)


def _not_finite(tree: Any) -> list[str]:
    found = []
    for name, leaf in named_leaves(tree).items():
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        count = int(jnp.sum(~jnp.isfinite(leaf)))
        if count:
            found.append(f"{count} of {np.size(leaf)} numbers in {name or 'it'} that are not finite")
    return found
