"""NumPy's names over tracegrad's ops, with the signatures and the promotion of `jax.numpy`.

While a tape records, these functions record; otherwise they compute, and return `jax.Array`. Each takes numbers, NumPy
arrays, JAX arrays and traced values alike; lists only where `jax.numpy` takes them (`asarray`, `stack`, ...).

Example:
  >>> import tracegrad as tg, tracegrad.numpy as np
  >>> tg.grad(lambda x: np.sum(np.sin(x) ** 2))(np.zeros(2)).tolist()
  [0.0, 0.0]
"""

# ruff: noqa: F403
from . import fft as fft
from . import linalg as linalg
from . import methods
from .creation import *
from .dtypes import *
from .elementwise import *
from .functional import *
from .index_tricks import *
from .manipulation import *
from .polynomial import *
from .products import *
from .protocols import call_function as call_function
from .protocols import call_ufunc as call_ufunc
from .reductions import *
from .selection import *
from .sets import *
from .statistics import *
from .windows import *

methods.install()
