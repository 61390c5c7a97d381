"""Passes: from tape to tape, one a file."""

from ..tape import Tape
from .common_subexpressions import common_subexpressions
from .dead_code import dead_code
from .fold import fold


def optimize(tape: Tape) -> Tape:
    """The passes that every program goes through before it is lowered."""
    return dead_code(common_subexpressions(fold(dead_code(tape))))


__all__ = ["common_subexpressions", "dead_code", "fold", "optimize"]
