"""The picture that stands by itself: one SVG, in which what is folded stays folded."""

from __future__ import annotations

from .model import Box, Drawing, Row, Section
from .style import STATIC
from .svg import Strips, escaped, number

INDENT, BAR = 26.0, 26.0
"""How far a body is moved in, and the height of its heading."""


def still(made: Drawing, budget: int) -> str:
    """A drawing as one SVG that needs nothing else: no script, no font, no network."""
    strips = Strips(made)
    parts, height = _frame(strips, [budget])
    head = headline(made)
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {number(strips.width)} {number(height + 30)}" '
    start += f'width="{number(strips.width)}" height="{number(height + 30)}" role="img"><title>{escaped(head)}</title>'
    start += f'<style>{STATIC}</style><rect width="100%" height="100%" style="fill:var(--bg)"/>'
    return f'{start}<text class="h" x="8" y="20">{escaped(head)}</text>{_moved(0, 30, parts)}</svg>'


def headline(made: Drawing) -> str:
    """What a drawing is of, in a line."""
    forward, backward = made.root.count()
    text = f"{made.title}: {forward} forward step{'s' * (forward != 1)}"
    text += f", {backward} backward (\N{NABLA}, dashed)" if backward else ""
    return text + (f"; not shown: {made.idle} that no result needs" if made.idle else "")


def body_title(box: Box, body: Drawing) -> str:
    forward, backward = body.root.count()
    count = f"{forward} step{'s' * (forward != 1)}" + (f" and {backward} backward" if backward else "")
    return f"{box.op} {body.title}: {count}" + (f", run {box.runs}" if box.runs else "")


def _moved(x: float, y: float, content: str, scale: float = 1.0) -> str:
    by = f" scale({scale:.4f})" if scale != 1.0 else ""
    return f'<g transform="translate({number(x)},{number(y)}){by}">{content}</g>'


def _frame(strips: Strips, budget: list[int]) -> tuple[str, float]:
    """All strips that show, one above the other, and their height. Bodies are open while there is budget."""
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
                budget[0] -= 1
                add(strips.row(part, before))
                before = part
                for box in part.boxes:
                    for body in box.bodies:
                        add(_body(box, body, strips.width, budget))
                        before = None
            elif part.open:
                add(strips.heading(part))
                before = None
                section(part)
            else:
                add(strips.folded(part))
                before = None

    section(strips.drawing.root)
    return "".join(parts), y


def _body(box: Box, body: Drawing, width: float, budget: list[int]) -> tuple[str, float]:
    inner = Strips(body)
    opened = len(body.rows) <= budget[0]
    sign = "\N{BLACK DOWN-POINTING SMALL TRIANGLE}" if opened else "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}"
    title = f'<text class="h" x="{number(INDENT + 8)}" y="17">{sign} {escaped(body_title(box, body))}</text>'
    scale = min(1.0, (width - INDENT - 4) / inner.width)
    content, height = _frame(inner, budget) if opened else ("", 0.0)
    frame = f'<rect class="frame" x="{number(INDENT)}" y="1" width="{number(width - INDENT - 2)}" '
    frame += f'height="{number(BAR + height * scale - 4)}" rx="4"/>'
    return frame + title + (_moved(INDENT + 2, BAR - 2, content, scale) if opened else ""), BAR + height * scale + 4
