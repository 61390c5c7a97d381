"""SciPy's names, with the signatures of `jax.scipy`. Use the other array namespaces, and what these use.

Example:
  >>> import tracegrad as tg
  >>> float(tg.grad(tg.scipy.special.erf)(0.0)) > 1.128
  True
"""

from typing import TYPE_CHECKING

from ..names import listed

__all__ = [
    "cluster", "fft", "integrate", "interpolate", "linalg", "ndimage", "optimize", "signal", "sparse", "spatial",
    "special", "stats",
]  # fmt: skip

# Each submodule is imported when it is first used: they take a while, and JAX's own more.
if TYPE_CHECKING:
    from . import (
        cluster,
        fft,
        integrate,
        interpolate,
        linalg,
        ndimage,
        optimize,
        signal,
        sparse,
        spatial,
        special,
        stats,
    )
else:
    __getattr__, __dir__ = listed(__name__)
