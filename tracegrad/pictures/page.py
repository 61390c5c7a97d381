"""The picture in a notebook: HTML that folds and is searched, and without its script shows the still picture."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from .model import Row, Section
from .still import body_title, headline
from .style import SCRIPT, page
from .svg import Strips, escaped, number

OPEN = ' open=""'


def interactive(strips: Strips, picture: str) -> str:
    """A drawing as HTML that needs nothing else.

    Where scripts are taken out, as on GitHub and in a notebook that is not trusted, what remains is `picture`: all else
    is in a script, since styles and the attribute `hidden` are taken out too.
    """
    made = strips.drawing
    head = escaped(headline(made))
    image = base64.b64encode(picture.encode()).decode()
    content = "".join(_section(strips, made.root))
    return (
        f'<div class="tracegrad" aria-label="{head}"><style>{page(strips.width)}</style>'
        f'<img class="still" alt="{head}" src="data:image/svg+xml;base64,{image}"><script type="text/html">'
        '<div class="bar"><input type="search" placeholder="search" aria-label="search the steps"/>'
        '<button type="button">unfold all</button><button type="button">fold all</button>'
        f'<span class="note" data-text="{head}">{head}</span></div>'
        f'<div class="scroll"><div class="strips">{content}</div></div>'
        '<pre aria-live="polite">Click a step, or go to it with Tab and the arrow keys.</pre>'
        f"</script><script>{SCRIPT}</script></div>"
    )


def _strip(strips: Strips, strip: tuple[str, float], name: str = "") -> str:
    content, height = strip
    extra = f' class="{name}"' if name else ""
    return f'<svg{extra} viewBox="0 0 {number(strips.width)} {number(height)}">{content}</svg>'


def _section(strips: Strips, section: Section) -> Iterator[str]:
    before: Row | None = None
    for part in section.parts:
        if isinstance(part, Row):
            yield _strip(strips, strips.row(part, before))
            before = part
            for box in part.boxes:
                for body in box.bodies:
                    before = None
                    title = body_title(box, body)
                    yield f"<details{OPEN * body.open}><summary>"
                    yield _strip(strips, strips.body(part, title, False), "closed")
                    yield _strip(strips, strips.body(part, title, True), "opened")
                    yield '</summary><div class="body">'
                    yield from _section(strips.bodies[body], body.root)
                    yield "</div></details>"
        else:
            before = None
            yield f"<details{OPEN * part.open}><summary>"
            yield _strip(strips, strips.folded(part), "closed") + _strip(strips, strips.heading(part), "opened")
            yield "</summary>"
            yield from _section(strips, part)
            yield "</details>"
