"""Many devices: `pmap`, and what the devices tell each other."""

from .collectives import axis_index as axis_index
from .collectives import axis_size as axis_size
from .collectives import pmax as pmax
from .collectives import pmean as pmean
from .collectives import pmin as pmin
from .collectives import psum as psum
from .collectives import sum_gradients as sum_gradients
from .mapping import pmap as pmap
from .mapping import split_batch as split_batch
