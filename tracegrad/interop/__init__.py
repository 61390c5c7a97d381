"""Both ways to JAX: its functions as ops of a tape, and a tape as a program that runs without the package."""

from ..jaxpr import from_jax as from_jax
from . import primitives as primitives
from . import values as values
from .export import export as export
