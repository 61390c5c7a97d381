"""The primitives, by kind, each with value, shape and derivative in one place. Use the record `Op`, and each other."""

# ruff: noqa: F403
from .at import *
from .banded import *
from .bessel import *
from .collectives import *
from .conv import *
from .elementwise import *
from .fft import *
from .gather import *
from .indexing import *
from .linalg import *
from .linear import *
from .matrix_functions import *
from .reduce import *
from .shape import *
from .sort import *
from .special import *
