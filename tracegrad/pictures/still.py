"""The picture that stands by itself: one SVG, in which what is folded stays folded."""

from __future__ import annotations

from .model import Box, Drawing, Row, Section
from .style import STATIC
from .svg import Strips, escaped, number

INDENT = 26.0
"""How far a body is moved in."""


def still(strips: Strips) -> str:
    """A drawing as one SVG that needs nothing else: no script, no font, no network."""
    parts, height = _frame(strips)
    head = headline(strips.drawing)
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {number(strips.width)} {number(height + 30)}" '
    start += f'width="{number(strips.width)}" height="{number(height + 30)}" role="img"><title>{escaped(head)}</title>'
    start += f'<style>{STATIC}</style><rect width="100%" height="100%" style="fill:var(--bg)"/>'
    return f'{start}<text class="h" x="8" y="20">{escaped(head)}</text>{_moved(0, 30, parts)}</svg>'


def headline(made: Drawing) -> str:
    """What a drawing is of, in a line."""
    forward, backward = made.root.count()
    text = f"{made.title}: {forward} forward step{'s' * (forward != 1)}"
    text += f", {backward} backward (\N{NABLA}, dashed)" if backward else ""
    given = [name for v, name in made.given.items() if v in made.returned]
    text += f"; returns {', '.join(given)} as given" if given else ""
    return text + (f"; not shown: {made.idle} that no result needs" if made.idle else "")


def body_title(box: Box, body: Drawing) -> str:
    forward, backward = body.root.count()
    counts = [f"{forward} step{'s' * (forward != 1)}"] * bool(forward) + [f"{backward} backward"] * bool(backward)
    return f"{body.role} {body.title}: {', '.join(counts) or 'no steps'}{box.runs}{noted(body)}"


def noted(body: Drawing) -> str:
    """Of which runs of a body its values are."""
    return f"; values: {body.note}" * bool(body.note)


def _moved(x: float, y: float, content: str, scale: float = 1.0) -> str:
    by = f" scale({scale:.4f})" if scale != 1.0 else ""
    return f'<g transform="translate({number(x)},{number(y)}){by}">{content}</g>'


def _frame(strips: Strips) -> tuple[str, float]:
    """All strips that show, one above the other, and their height."""
    parts: list[str] = []
    y = 0.0
    before: Row | None = None

    def add(strip: tuple[str, float]) -> None:
        nonlocal y
        parts.append(_moved(0, y, strip[0]))
        y += strip[1]

    def section(whole: Section) -> None:
        nonlocal before, y
        for part in whole.parts:
            if isinstance(part, Row):
                add(strips.row(part, before))
                before = part
                for box in part.boxes:
                    for body in box.bodies:
                        before = None
                        add(strips.body(part, body_title(box, body), body.open))
                        if body.open:
                            add(_inside(strips.bodies[body], strips.width))
            elif part.open:
                add(strips.heading(part))
                before = None
                section(part)
            else:
                add(strips.folded(part))
                before = None

    section(strips.drawing.root)
    return "".join(parts), y


def _inside(inner: Strips, width: float) -> tuple[str, float]:
    """A body in its frame."""
    scale = min(1.0, (width - INDENT - 4) / inner.width)
    content, height = _frame(inner)
    frame = f'<rect class="frame" x="{number(INDENT)}" y="1" width="{number(width - INDENT - 2)}" '
    frame += f'height="{number(height * scale)}" rx="4"/>'
    return frame + _moved(INDENT + 2, 1, content, scale), height * scale + 8
