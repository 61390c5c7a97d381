"""Optimizers: optax's protocol, names, arguments and defaults, so that both mix. Use ops, and `@jit`.

An optimizer is a `GradientTransformation`, a pair of functions: `init(params)` returns its state, a pytree of
arrays, and `update(grads, state, params)` returns what to add to the parameters, and the next state. They work
on any pytree, eagerly (as one compiled call), under `@jit`, and in a recording, where they are differentiable.
`chain` makes one of several. Optimizers and their states can be pickled, if schedules and masks given to them can.

`update` holds its arguments against each other and against the state that `init` gives: what differs in structure or
shape is a `ValueError` that names the path.

Example:
  >>> import numpy as np, tracegrad as tg
  >>> from tracegrad import optimizers
  >>> optimizer = optimizers.adam(0.1)
  >>> params = {"w": np.array([1.0, -2.0], np.float32)}
  >>> state = optimizer.init(params)
  >>> @tg.jit
  ... def step(params, state):
  ...     grads = tg.grad(lambda params: (params["w"] ** 2).sum())(params)
  ...     updates, state = optimizer.update(grads, state, params)
  ...     return optimizers.apply_updates(params, updates), state
  >>> for _ in range(200):
  ...     params, state = step(params, state)
  >>> bool(abs(params["w"]).max() < 0.01)
  True
"""

# ruff: noqa: F403
from typing import TYPE_CHECKING

from ..names import listed
from . import averages, base, clipping, hyperparams, masking, orthogonal, quasi_newton, recipes, scaling, wrappers
from .averages import *
from .base import *
from .clipping import *
from .hyperparams import *
from .masking import *
from .orthogonal import *
from .quasi_newton import *
from .recipes import *
from .scaling import *
from .wrappers import *

__all__ = [*averages.__all__]
__all__ += base.__all__
__all__ += clipping.__all__
__all__ += hyperparams.__all__
__all__ += masking.__all__
__all__ += orthogonal.__all__
__all__ += quasi_newton.__all__
__all__ += recipes.__all__
__all__ += scaling.__all__
__all__ += wrappers.__all__

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
