"""Why a loss or a gradient is not finite, from the last good state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..compile import jit
from ..transforms import value_and_grad
from .stepping import TrainState, point_of, value_at
from .weights import named_leaves


def explain_nonfinite(loss: Callable[..., Any], state: TrainState, batch: tuple[Any, ...]) -> str:
    """Says in words what is not finite in a step, which is taken again: of the batch, the parameters, the loss, the
    gradients.

    `fit` calls this, and stops with what it says.

    Args:
      loss: as `fit` was given it.
      state: that before the step; all its arrays are there.
      batch: the arguments of the step.
    """
    for name, tree in (("batch", batch), ("parameters", state.params), ("model_state", state.model_state)):
        if bad := _not_finite(tree):
            return f"The {name} already had {', '.join(bad[:3])} before it was computed."
    again = value_and_grad(lambda params, state, batch: value_at(loss, state, batch)(params), has_aux=True)
    (value, _), grads = jit(again)(point_of(state.params), state, batch)
    if not np.isfinite(value):
        return f"The batch and the parameters are finite, and the loss of them is {float(value)}."
    bad = _not_finite(grads)
    return f"The loss, {float(value):.4g}, is finite, and the gradient is not: {', '.join(bad[:3])}."


def _not_finite(tree: Any) -> list[str]:
    found = []
    for name, leaf in named_leaves(tree).items():
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        count = int(jnp.sum(~jnp.isfinite(leaf)))
        if count:
            found.append(f"{count} of {np.size(leaf)} numbers in {name or 'it'} that are not finite")
    return found


__all__ = ["explain_nonfinite"]
