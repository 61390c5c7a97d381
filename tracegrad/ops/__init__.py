"""The primitives, by kind, each with its value, its shape and its derivative in one place."""

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
