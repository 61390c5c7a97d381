"""The tape as a picture: SVG, HTML that folds, DOT, and what differs between two. Uses the tape as text."""

from __future__ import annotations

from typing import Any

from ..errors import describe, here
from ..tape import Tape
from .diff import difference
from .dot import dot
from .model import drawing
from .page import interactive
from .still import still
from .svg import Strips
from .values import add_values


def _strips(tape: Tape) -> Strips:
    made = drawing(tape)
    add_values(made, tape)
    return Strips(made)


def _svg(tape: Tape) -> str:
    """The picture of the tape as one SVG that needs nothing else, in which what is folded stays folded.

    Forward steps stand at the left, and at the right, beside each, the steps of its gradient; what repeats, long lines
    and the bodies of loops are folded until some forty rows remain. It follows the reader's light or dark theme.

    Example:
      >>> import tracegrad as tg
      >>> tg.trace(tg.grad(lambda x: x * x))(3.0).to_svg()[:41]
      '<svg xmlns="http://www.w3.org/2000/svg" v'
    """
    return still(_strips(tape))


def _html(tape: Tape) -> str:
    """The picture of the tape as HTML that needs nothing else, with what is folded to unfold, and a search.

    Where scripts are taken out, as GitHub does, it shows what `to_svg` returns.
    """
    strips = _strips(tape)
    return interactive(strips, still(strips))


def _dot(tape: Tape) -> str:
    """The tape in the DOT language of Graphviz: a cluster a line of the user's, and one a body.

    Example:
      >>> import tracegrad as tg
      >>> print(tg.trace(lambda x: x * x)(3.0).to_dot().splitlines()[0])
      digraph "<lambda>" {
    """
    return dot(tape)


def _diff(tape: Tape, other: Tape) -> str:
    """What the tape `other` has that this one has not, and the reverse: arguments, steps with their lines, results.

    Steps are compared by what they do (operation, parameters, types) and by where their operands come from. What
    values are called, and on which lines steps stand, makes no difference.

    Raises:
      TypeError: if `other` is not a tape.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> old, new = tg.trace(lambda x: np.sin(x) + x)(1.0), tg.trace(lambda x: np.cos(x) + x)(1.0)
      >>> print("\\n".join(line.partition("#")[0].rstrip() for line in old.diff(new).splitlines()))
      <lambda>: 2 steps; <lambda>: 2 steps
        - a:f32[]~ = sin x
        + a:f32[]~ = cos x
    """
    if not isinstance(other, Tape):
        raise TypeError(
            f"Tape.diff: other is {describe(other)}, which is not a tape {here()}. Write tape.diff(tg.trace(f)(*args))."
        )
    return difference(tape, other)


def _mimebundle(tape: Tape, include: Any = None, exclude: Any = None) -> dict[str, str]:
    strips = _strips(tape)
    picture = still(strips)
    return {"text/html": interactive(strips, picture), "image/svg+xml": picture, "text/plain": str(tape)}


Tape.to_svg, Tape.to_html, Tape.to_dot, Tape.diff = _svg, _html, _dot, _diff  # type: ignore[method-assign, assignment]
Tape._repr_html_, Tape._repr_mimebundle_ = _html, _mimebundle  # type: ignore[attr-defined]
