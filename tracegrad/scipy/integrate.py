"""Integrals of sampled functions, with the signatures of `jax.scipy.integrate`.

Example:
  >>> import tracegrad as tg
  >>> float(tg.scipy.integrate.trapezoid([1.0, 2.0, 3.0], dx=0.5))
  2.0
"""

from typing import TYPE_CHECKING

from ..names import listed
from ..numpy import trapezoid

__all__ = ["trapezoid"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
