"""The tape as a picture: SVG, HTML that folds, DOT, and what differs between two. Uses the tape as text."""

from __future__ import annotations

from typing import Any

from ..tape import Tape
from .model import drawing
from .page import interactive
from .still import still
from .svg import Strips


def _svg(tape: Tape) -> str:
    return still(Strips(drawing(tape)))


def _html(tape: Tape) -> str:
    strips = Strips(drawing(tape))
    return interactive(strips, still(strips))


def _mimebundle(tape: Tape, include: Any = None, exclude: Any = None) -> dict[str, str]:
    strips = Strips(drawing(tape))
    picture = still(strips)
    return {"text/html": interactive(strips, picture), "image/svg+xml": picture, "text/plain": str(tape)}


Tape.to_svg = _svg  # type: ignore[attr-defined]
Tape.to_html = Tape._repr_html_ = _html  # type: ignore[attr-defined]
Tape._repr_mimebundle_ = _mimebundle  # type: ignore[attr-defined]
