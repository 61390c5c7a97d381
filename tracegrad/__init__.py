"""Reverse-mode autodiff on a tape you can read, compiled by XLA.

Example:
  >>> import numpy as np, tracegrad as tg
  >>> @tg.jit
  ... @tg.grad
  ... def slope(x):
  ...     return (np.sin(x) ** 2).sum()
  >>> slope(np.zeros(2)).tolist()
  [0.0, 0.0]
"""

from typing import TYPE_CHECKING

from . import array as array
from . import (
    checkpoint_policies,
    initializers,
    lax,
    numpy,
    parallel,
    random,
    scipy,
)
from . import inside as inside
from . import pictures as pictures
from . import show as show
from .batching import vmap
from .capture import Captured, capture, tap
from .compile import jit, memory
from .control import cond, fori_loop, scan, switch, while_loop
from .custom import custom_vjp
from .derivatives import elementwise_grad, hessian, hvp, jacfwd, jacobian, jacrev, jvp, linearize
from .errors import LeakedTracerError, TracerError
from .explain import explain
from .forensics import debug_nans, explain_nonfinite
from .graph import graph_map, graph_plan
from .interop import export, from_jax
from .loops import associative_scan, map
from .names import listed
from .op import Op
from .parallel import axis_index, pmap, pmean, psum, sum_gradients
from .pullbacks import vjp
from .remat import checkpoint
from .tape import Tape
from .tools import eval_shape, named_call, nan_safe, stop_gradient, trace
from .tracer import Tracer
from .transforms import grad, value_and_grad

__version__ = "0.1.0"

__all__ = [
    "Captured", "LeakedTracerError", "Op", "Tape", "Tracer", "TracerError", "associative_scan", "axis_index",
    "capture", "checkpoint", "checkpoint_policies", "cond", "custom_vjp", "debug_nans", "elementwise_grad",
    "eval_shape", "explain", "explain_nonfinite", "export", "fori_loop", "from_jax", "grad", "graph_map",
    "graph_plan", "hessian", "hvp",
    "initializers", "jacfwd", "jacobian", "jacrev", "jit", "jvp", "lax", "linearize", "map", "memory", "metrics",
    "named_call", "nan_safe", "nn", "numpy", "optimizers", "parallel", "pmap", "pmean", "psum", "random", "scan",
    "schedules", "scipy", "stop_gradient", "sum_gradients", "switch", "tap", "testing", "trace", "train",
    "value_and_grad", "vjp", "vmap", "while_loop",
]  # fmt: skip

# What is named above and not imported is a module that is imported when it is first used.
if TYPE_CHECKING:
    from . import metrics, nn, optimizers, schedules, testing, train
else:
    __getattr__, __dir__ = listed(__name__)
