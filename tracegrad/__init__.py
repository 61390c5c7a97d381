"""Reverse-mode autodiff on a tape you can read, compiled by XLA."""

from . import tracer as tracer  # noqa: I001
from . import numpy as numpy
from .op import Op as Op
from .tape import Tape as Tape
from .tracer import Tracer as Tracer
from .transforms import explain as explain, grad as grad, hessian as hessian, hvp as hvp, jacobian as jacobian, jit as jit, stop_gradient as stop_gradient, trace as trace, value_and_grad as value_and_grad, vjp as vjp, vmap as vmap
from . import parallel as parallel
from .parallel import axis_index as axis_index, pmap as pmap, pmean as pmean, psum as psum, sum_gradients as sum_gradients
