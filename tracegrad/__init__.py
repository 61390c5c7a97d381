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

from . import tracer as tracer  # isort: skip  (first: ops and the array namespace are made of tracers)
from . import checkpoint_policies as checkpoint_policies
from . import initializers as initializers
from . import lax as lax
from . import nn as nn
from . import numpy as numpy
from . import optimizers as optimizers
from . import parallel as parallel
from . import random as random
from . import scipy as scipy
from . import testing as testing
from .capture import Captured as Captured
from .capture import capture as capture
from .capture import tap as tap
from .control import associative_scan as associative_scan
from .control import cond as cond
from .control import fori_loop as fori_loop
from .control import map as map
from .control import scan as scan
from .control import switch as switch
from .control import while_loop as while_loop
from .custom import custom_vjp as custom_vjp
from .errors import LeakedTracerError as LeakedTracerError
from .errors import TracerError as TracerError
from .forward import hvp as hvp
from .forward import jacfwd as jacfwd
from .forward import jvp as jvp
from .forward import linearize as linearize
from .interop import export as export
from .interop import from_jax as from_jax
from .op import Op as Op
from .parallel import axis_index as axis_index
from .parallel import pmap as pmap
from .parallel import pmean as pmean
from .parallel import psum as psum
from .parallel import sum_gradients as sum_gradients
from .remat import checkpoint as checkpoint
from .tape import Tape as Tape
from .tracer import Tracer as Tracer
from .tracer import nan_safe as nan_safe
from .transforms import elementwise_grad as elementwise_grad
from .transforms import eval_shape as eval_shape
from .transforms import explain as explain
from .transforms import grad as grad
from .transforms import hessian as hessian
from .transforms import jacobian as jacobian
from .transforms import jacrev as jacrev
from .transforms import jit as jit
from .transforms import named_call as named_call
from .transforms import stop_gradient as stop_gradient
from .transforms import trace as trace
from .transforms import value_and_grad as value_and_grad
from .transforms import vjp as vjp
from .transforms import vmap as vmap

__version__ = "0.1.0"
