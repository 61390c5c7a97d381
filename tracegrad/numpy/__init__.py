"""NumPy's names, with the signatures and the promotion of `jax.numpy`. Use ops, vmap, and what is borrowed.

While a tape records, these functions record; otherwise they compute, and return `jax.Array`. Each takes numbers, NumPy
arrays, JAX arrays, traced values, and lists of these, alike.

Example:
  >>> import tracegrad as tg, tracegrad.numpy as np
  >>> tg.grad(lambda x: np.sum(np.sin(x) ** 2))(np.zeros(2)).tolist()
  [0.0, 0.0]
"""

# ruff: noqa: F403
from typing import TYPE_CHECKING

from ..names import listed
from . import (
    creation,
    dtypes,
    elementwise,
    fft,
    functional,
    index_tricks,
    linalg,
    manipulation,
    padding,
    polynomial,
    products,
    reductions,
    selection,
    sets,
    statistics,
    windows,
)
from .creation import *
from .dtypes import *
from .elementwise import *
from .functional import *
from .index_tricks import *
from .manipulation import *
from .padding import *
from .polynomial import *
from .products import *
from .reductions import *
from .selection import *
from .sets import *
from .statistics import *
from .windows import *

__all__ = ["fft", "linalg"]
__all__ += creation.__all__
__all__ += dtypes.__all__
__all__ += elementwise.__all__
__all__ += functional.__all__
__all__ += index_tricks.__all__
__all__ += manipulation.__all__
__all__ += padding.__all__
__all__ += polynomial.__all__
__all__ += products.__all__
__all__ += reductions.__all__
__all__ += selection.__all__
__all__ += sets.__all__
__all__ += statistics.__all__
__all__ += windows.__all__

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
