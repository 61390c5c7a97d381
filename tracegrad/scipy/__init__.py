"""SciPy's names, with the signatures of `jax.scipy`. Use the other array namespaces, and what these use.

Example:
  >>> import tracegrad as tg
  >>> float(tg.grad(tg.scipy.special.erf)(0.0)) > 1.128
  True
"""

from typing import TYPE_CHECKING

from ..names import listed
from . import linalg, special

__all__ = [
    "cluster", "fft", "integrate", "interpolate", "linalg", "ndimage", "optimize", "signal", "sparse", "spatial",
    "special", "stats",
]  # fmt: skip

# What is named above and not imported is a submodule that is imported when it is first used: JAX's own takes a while.
if TYPE_CHECKING:
    from . import cluster, fft, integrate, interpolate, ndimage, optimize, signal, sparse, spatial, stats
else:
    __getattr__, __dir__ = listed(__name__)
