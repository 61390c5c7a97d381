"""Passes: from tape to tape, one a file. Use ops, and lower."""

from ..collecting import long_lived
from ..tape import Tape
from ..verify import verified
from .common_subexpressions import common_subexpressions
from .dead_code import dead_code
from .fold import fold
from .fresh import fresh
from .inlined import inlined
from .outline import compiled, outline, program
from .rows import touched_rows


def optimize(tape: Tape) -> Tape:
    """The passes that every program goes through before it is lowered."""
    verified(tape)
    with long_lived():
        for step in (dead_code, fold, common_subexpressions, dead_code, touched_rows):
            tape = verified(step(tape))
    return tape


__all__ = [
    "common_subexpressions",
    "compiled",
    "dead_code",
    "fold",
    "fresh",
    "inlined",
    "optimize",
    "outline",
    "program",
    "touched_rows",
]
