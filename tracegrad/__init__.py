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
from . import initializers as initializers
from . import nn as nn
from . import numpy as numpy
from . import optimizers as optimizers
from . import parallel as parallel
from . import random as random
from . import testing as testing
from .errors import LeakedTracerError as LeakedTracerError
from .errors import TracerError as TracerError
from .op import Op as Op
from .parallel import axis_index as axis_index
from .parallel import pmap as pmap
from .parallel import pmean as pmean
from .parallel import psum as psum
from .parallel import sum_gradients as sum_gradients
from .tape import Tape as Tape
from .tracer import Tracer as Tracer
from .tracer import nan_safe as nan_safe
from .transforms import explain as explain
from .transforms import grad as grad
from .transforms import hessian as hessian
from .transforms import hvp as hvp
from .transforms import jacobian as jacobian
from .transforms import jit as jit
from .transforms import stop_gradient as stop_gradient
from .transforms import trace as trace
from .transforms import value_and_grad as value_and_grad
from .transforms import vjp as vjp
from .transforms import vmap as vmap

__version__ = "0.1.0"
