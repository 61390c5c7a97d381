"""The primitives, by kind, each with its value, its shape and its derivative in one place."""

# ruff: noqa: F403
from .elementwise import *
from .shape import *
from .linear import *
from .reduce import *
from .indexing import *
from .sort import *
from .conv import *
