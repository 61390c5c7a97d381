"""A drawing as SVG: strips, one above the other, so that folding one away leaves the rest in its place."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterable, Iterator

from ..tape import Var
from .layout import BOX, CODE, HEIGHT, LINE, PILL, RAIL, SIDE, End, Layout, Rail, box_height, laid_out
from .model import Box, Drawing, Row, Section

CHARACTER = 6.63
"""The width of a character, in a monospaced font of 11 pixels."""

VALUES = 30
"""How many characters of a line of values there is room for beside the small picture."""

FOLDED, HEADING = 44, 24
"""The heights of a folded section and of the heading of an open one."""

BEHIND = 4
"""How far the second box of a folded section stands out behind the first."""


def escaped(text: str) -> str:
    """Text as it stands in XML, where most control characters cannot."""
    return html.escape(re.sub(r"[^\t\n -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", text))


def cut(text: str, width: float) -> str:
    """As much of a text as there is room for."""
    room = max(1, int(width / CHARACTER))
    return text if len(text) <= room else text[: room - 1] + "\N{HORIZONTAL ELLIPSIS}"


def tail(text: str, width: float) -> str:
    """As much of the end of a text as there is room for."""
    room = max(1, int(width / CHARACTER))
    return text if len(text) <= room else "\N{HORIZONTAL ELLIPSIS}" + text[1 - room :]


def number(x: float) -> str:
    return str(int(x)) if x == int(x) else f"{x:.1f}"


class Strips:
    """The strips of one drawing: each a piece of SVG, and its height."""

    def __init__(self, made: Drawing) -> None:
        self.drawing = made
        self.layout: Layout = laid_out(made)
        self.bodies = {body: Strips(body) for box in made.boxes for body in box.bodies}
        # The gradient of a function may be in a body alone, as in that of a pmap: it is not made small.
        self.width: float = max([self.layout.width, *(body.width for body in self.bodies.values())])

    # -- strips

    def row(self, row: Row, before: Row | None) -> tuple[str, float]:
        """A row; its line is written unless it is that of the row before."""
        height = self.layout.height[row.number]
        parts = list(self.lines(row, height, before))
        parts += self.edges(self.layout.rails[row.number], row.number, row.number + 1, height, folded=False)
        for group in row.groups:
            if group.forward is None and all(box.node is not group.node for box in group.backward):
                ys = [self.layout.y[box] for box in group.backward]
                x, y = self.layout.left + BOX / 2, (ys[0] + ys[-1]) / 2 + 4
                parts.append(f'<text class="k" x="{number(x)}" y="{number(y)}" text-anchor="middle">')
                parts.append(f"{escaped(group.node.op.name)}: value not needed</text>")
        parts += [part for box in row.boxes for part in (self.box(box), *self.pills(box))]
        return "".join(parts), height

    def folded(self, section: Section) -> tuple[str, float]:
        """A folded section: a box on each side, into which go the lines of all that is in it."""
        touching = self.touching(section)
        parts = list(self.title(section, "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}", FOLDED / 2))
        parts += self.edges(touching, section.start, section.stop, FOLDED, folded=True)
        times = f"{section.times} \N{MULTIPLICATION SIGN} " if section.times else ""
        for count, x, kind in zip(section.count(), (self.layout.left, self.layout.right), "fb", strict=True):
            if count:
                text = f"{times}{count // (section.times or 1)} steps" if count > 1 else "1 step"
                text = f"{count} steps in {section.times} turns" if section.times and count % section.times else text
                y = FOLDED / 2 - HEIGHT / 2
                shape = [
                    f'<rect x="{number(x + d)}" y="{number(y - d)}" width="{BOX}" height="{HEIGHT}"/>'
                    for d in (BEHIND, 0)
                ]
                text = ("\N{NABLA} " if kind == "b" else "") + text
                parts.append(
                    f'<g class="{kind} s">{"".join(shape)}<text x="{number(x + BOX / 2)}" y="{number(y + 16)}" '
                )
                parts.append(f'text-anchor="middle">{text}</text></g>')
        return "".join(parts), FOLDED

    def heading(self, section: Section) -> tuple[str, float]:
        """What stands over an open section."""
        crossing = [r for r in self.touching(section) if r.first[0] < section.start <= r.last[0]]
        parts = list(self.title(section, "\N{BLACK DOWN-POINTING SMALL TRIANGLE}", HEADING / 2))
        parts += _paths((_CLASS[rail.kind], f"M{number(rail.x)} 0V{HEADING}") for rail in crossing)
        return "".join(parts), HEADING

    def body(self, row: Row, title: str, opened: bool) -> tuple[str, float]:
        """What stands over the body of a step of a row."""
        crossing = [r for r in self.layout.rails[row.number] if r.last[0] > row.number]
        sign = "\N{BLACK DOWN-POINTING SMALL TRIANGLE}" if opened else "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}"
        parts = list(_paths((_CLASS[rail.kind], f"M{number(rail.x)} 0V{HEADING}") for rail in crossing))
        parts.append(f'<text class="h" x="24" y="16">{sign} {escaped(cut(title, CODE + PILL + BOX - 30))}</text>')
        return "".join(parts), HEADING

    def touching(self, section: Section) -> list[Rail]:
        return list(dict.fromkeys(r for i in range(section.start, section.stop) for r in self.layout.rails[i]))

    # -- their parts

    def title(self, section: Section, sign: str, y: float) -> Iterator[str]:
        times = (
            f" {section.detail} {section.times} times" if section.times else f" {section.detail}" * bool(section.detail)
        )
        room = CODE + PILL - 20 - (len(times) + 2) * CHARACTER
        yield f'<text class="h" x="8" y="{number(y + 4)}">{sign} {escaped(cut(section.title, room))}'
        yield f'<tspan class="k">{escaped(times)}</tspan></text>' if times else "</text>"

    def lines(self, row: Row, height: float, before: Row | None) -> Iterator[str]:
        """The user's line, at the left."""
        if before is not None and (before.where, before.code) == (row.where, row.code):
            return
        room = int((CODE - 16) / CHARACTER)
        y = 22.0
        yield f'<text class="k" x="8" y="{number(y)}">{escaped(cut(row.where, CODE - 16))}</text>'
        count = max(1, int((height - y - 4) / 14))
        lines = textwrap.wrap(row.code, room, break_on_hyphens=False)
        for text in [*lines[: count - 1], *[cut(" ".join(lines[count - 1 :]), CODE - 16)][: len(lines) >= count]]:
            y += 14
            yield f'<text class="c" x="8" y="{number(y)}">{escaped(text)}</text>'

    def edges(self, rails: list[Rail], start: int, stop: int, height: float, folded: bool) -> Iterator[str]:
        """The pieces of these rails in the rows from `start` to `stop`, which are one strip of this height."""
        pieces: list[tuple[str, str]] = []
        for rail in rails:
            here = [end for end in rail.ends if start <= end.row < stop]
            above, below = rail.first[0] < start, rail.last[0] >= stop
            if folded:
                if not above and not below:
                    continue
                here = self.gathered(rail, here, height)
            ys = [end.y for end in here]
            top, bottom = (0.0 if above else min(ys)), (height if below else max(ys))
            if bottom > top:
                pieces.append((_CLASS[rail.kind], f"M{number(rail.x)} {number(top)}V{number(bottom)}"))
            pieces += [piece for end in here for piece in _branch(rail, end)]
        return _paths(pieces)

    def gathered(self, rail: Rail, ends: list[End], height: float) -> list[End]:
        """The ends of a rail in a folded section, as one end at its box."""
        if not ends:
            return []
        into = any(end.into for end in ends) and all(end.into for end in ends)
        half = HEIGHT / 2
        if rail.straight:
            down = (rail.kind == "forward") == into
            return [End(0, height / 2 - half - BEHIND if down else height / 2 + half, rail.x, into)]
        x = ends[0].x + BEHIND * (rail.x > ends[0].x)
        return [End(0, height / 2 + (-5 if into else 5), x, into)]

    def box(self, box: Box) -> str:
        x, height = self.layout.x(box), box_height(box)
        y = self.layout.y[box] - height / 2
        nabla = "\N{NABLA} " if box.backward else ""
        room = BOX - 16 - (len(box.type) + 1) * CHARACTER
        head = f"{nabla}{box.names} = " if box.names else nabla
        operands = " ".join(tail(name, 12 * CHARACTER) for name in box.operands)
        left = cut(f"{head}{box.op} {operands}".rstrip(), room)
        before, op, after = left[: len(head)], left[len(head) :][: len(box.op)], left[len(head) + len(box.op) :]
        reads = " ".join(str(s.number) for s in map(self.drawing.made.get, dict.fromkeys(box.node.inputs)) if s)
        title = f"{box.text}\n{box.where}  {box.code}" + "".join(f"\n{line}" for line in box.values)
        parts = [
            f'<g class="{"b" if box.backward else "f"}" tabindex="0" data-n="{box.number}" data-r="{reads}">',
            f"<title>{escaped(title)}</title>",
            f'<rect x="{number(x)}" y="{number(y)}" width="{BOX}" height="{number(height)}"/>',
            f'<text x="{number(x + 8)}" y="{number(y + 16)}">{escaped(before)}<tspan class="o">{escaped(op)}</tspan>',
            f'{escaped(after)}</text><text class="t" x="{number(x + BOX - 8)}" y="{number(y + 16)}" text-anchor="end">',
            f"{escaped(box.type)}</text>",
        ]
        for i, line in enumerate(box.values):
            at = y + HEIGHT + 5 + i * LINE
            short = line if len(line) <= VALUES else cut(line.partition(", mean")[0], VALUES * CHARACTER)
            parts.append(f'<text class="v" x="{number(x + 8)}" y="{number(at)}">{escaped(short)}</text>')
        if box.thumbnail:
            place = {"x": number(x + BOX - 46), "y": number(y + HEIGHT - 4), "height": LINE * len(box.values)}
            parts.append(box.thumbnail.format(**place))
        return "".join(parts) + "</g>"

    def pills(self, box: Box) -> Iterator[str]:
        """The inputs of a forward step and what is returned of any: at the outer side."""
        given = [] if box.backward else [v for v in dict.fromkeys(box.node.inputs) if v in self.drawing.given]
        texts = [self.given(v) for v in given]
        for v in box.node.outputs:
            texts += [(f"out{path}", f"out{path}: {v.aval}", "out") for path in self.drawing.returned.get(v, ())]
        y, height = self.layout.y[box], 15
        edge = self.layout.x(box) + (BOX if box.backward else 0)
        outer = SIDE * RAIL + 14
        left = edge + outer if box.backward else edge - outer - PILL + 6
        shown = texts[:2] if len(texts) <= 2 else [texts[0], (f"and {len(texts) - 1} more", "", texts[1][2])]
        for i, (text, _, side) in enumerate(shown):
            middle = y + (i - (len(shown) - 1) / 2) * (height + 2)
            near = left if box.backward else left + PILL - 6
            rest = "\n".join(full for _, full, _ in texts)
            arrow = f"M{number(near)} {number(middle)}H{number(edge)}"
            if side == "in":
                arrow += "m-5 -3l5 3l-5 3"
            yield f'<path class="{"g" if box.backward else "e"} a" d="{arrow}"/>'
            yield f'<g class="{side}"><title>{escaped(rest)}</title><rect x="{number(left)}" '
            yield f'y="{number(middle - height / 2)}" width="{PILL - 6}" height="{height}" rx="7"/>'
            yield f'<text x="{number(left + (PILL - 6) / 2)}" '
            yield f'y="{number(middle + 4)}" text-anchor="middle">{escaped(tail(text, PILL - 10))}</text></g>'

    def given(self, v: Var) -> tuple[str, str, str]:
        """An input: what is written on it, with its value if it is a number, and what it is in full."""
        name, values = self.drawing.given[v], self.drawing.values.get(v, [])
        short = f"{name} = {values[0]}" if values and not v.aval.shape else name
        return short, "\n".join([f"{name}: {v.aval}", *values]), "in"


def _branch(rail: Rail, end: End) -> Iterator[tuple[str, str]]:
    """The end of a rail: a line from it to the box, and a tip where it goes in."""
    x, y = end.x, end.y
    if not rail.straight:
        yield _CLASS[rail.kind], f"M{number(rail.x)} {number(y)}H{number(x)}"
    if end.into:
        if rail.straight:
            back = 4 if rail.kind == "backward" else -4
            tip = f"M{number(x - 3)} {number(y + back)}L{number(x)} {number(y)}L{number(x + 3)} {number(y + back)}"
        else:
            back = -5 if x > rail.x else 5
            tip = f"M{number(x + back)} {number(y - 3)}L{number(x)} {number(y)}L{number(x + back)} {number(y + 3)}"
        yield f"{_CLASS[rail.kind]} a", tip


def _paths(pieces: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Lines of the same class as one path."""
    together: dict[str, list[str]] = {}
    for kind, line in pieces:
        together.setdefault(kind, []).append(line)
    for kind, lines in together.items():
        yield f'<path class="{kind}" d="{"".join(lines)}"/>'


_CLASS = {"forward": "e", "backward": "g", "saved": "d"}
