"""Clipping: gradients that are too large, made smaller."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from .. import numpy as tnp
from .. import ops
from ..pickling import pickled_as_call
from ..tape import aval_of
from .base import GradientTransformation, abs_square, compiled_when_eager, each, stateless


@compiled_when_eager
def global_norm(tree: Any) -> Any:
    """The Euclidean norm of all the elements of a pytree, taken in float32 at least; 0 of an empty one.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> float(optimizers.global_norm({"a": np.array([3.0]), "b": np.array([4.0])}))
      5.0
    """
    total: Any = None
    for leaf in jax.tree.leaves(tree):
        aval = aval_of(leaf)
        wide = tnp.astype(leaf, np.float32) if aval.dtype.itemsize < 4 else leaf
        part = tnp.sum(abs_square(wide))
        total = part if total is None else total + part
    return tnp.zeros(()) if total is None else ops.root(total)


def _shrunk(grads: Any, norm: Any, max_norm: Any) -> Any:
    # max_norm / max(norm, max_norm): 1 below it, and no division by 0.
    return each(lambda factor, g: g * factor, [max_norm / tnp.maximum(norm, max_norm)], grads)


@pickled_as_call
def clip_by_global_norm(max_norm: Any) -> GradientTransformation:
    """g min(1, max_norm / ||g||), with the norm of all the gradients together. Pascanu, Mikolov and Bengio (2012).

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> clip = optimizers.clip_by_global_norm(1.0)
      >>> clip.update(np.array([3.0, 4.0], np.float32), clip.init(None))[0].round(3).tolist()
      [0.6000000238418579, 0.800000011920929]
    """
    return stateless(lambda grads, params, **extra: _shrunk(grads, global_norm(grads), max_norm))


@pickled_as_call
def clip_by_norm(max_norm: Any) -> GradientTransformation:
    """g min(1, max_norm / ||g||), with the norm of each array on its own."""
    return stateless(lambda grads, params, **extra: each(lambda g: _shrunk(g, global_norm(g), max_norm), [], grads))


@pickled_as_call
def clip_by_block_rms(threshold: Any) -> GradientTransformation:
    """g / max(1, rms(g) / threshold), for the root mean square of each array. Shazeer and Stern (2018)."""

    def clipped(threshold: Any, g: Any) -> Any:
        return g / tnp.maximum(1.0, ops.root(tnp.mean(abs_square(g))) / threshold)

    return stateless(lambda grads, params, **extra: each(clipped, [threshold], grads))


@pickled_as_call
def clip_by_value(max_delta: Any) -> GradientTransformation:
    """Each element clipped to [-max_delta, max_delta]; optax's `clip`."""
    return stateless(lambda grads, params, **extra: each(lambda most, g: tnp.clip(g, -most, most), [max_delta], grads))


clip = clip_by_value


__all__ = ["clip", "clip_by_block_rms", "clip_by_global_norm", "clip_by_norm", "clip_by_value", "global_norm"]
