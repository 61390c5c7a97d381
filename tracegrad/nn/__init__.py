"""Functions that networks are made of: activations, convolution and pooling, dropout, losses."""

# ruff: noqa: F403
from .. import initializers as initializers
from . import losses as losses
from .activations import *
from .functional import avg_pool as avg_pool
from .functional import conv as conv
from .functional import dropout as dropout
from .functional import max_pool as max_pool
from .losses import *
