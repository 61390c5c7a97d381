"""Both ways to JAX: its functions as ops, and a tape as a program without the package. Use all of the engine."""

from ..jaxpr import from_jax as from_jax
from . import primitives as primitives
from . import values as values
from .export import export as export
