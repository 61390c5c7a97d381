"""SciPy's names over tracegrad's ops, with the signatures of `jax.scipy`.

Example:
  >>> import tracegrad as tg
  >>> float(tg.grad(tg.scipy.special.erf)(0.0)) > 1.128
  True
"""

from . import linalg as linalg
from . import special as special
