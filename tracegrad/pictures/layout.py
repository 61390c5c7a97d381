"""Where the boxes and the lines of a drawing stand. Lines that skip boxes run beside the column, on rails."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .model import Box, Drawing, Row

CODE, PILL, RAIL, BOX = 236, 104, 9, 244
"""The widths of the user's lines, of inputs and outputs, of a rail, and of a box."""

SIDE, MIDDLE = 5, 8
"""How many rails there are on the outer side of a column, and between the columns. What finds none is named alone."""

LINE, HEIGHT, GAP, PAD = 13, 24, 14, 7
"""The heights of a line of values, of a box without any, of the space between two, and of that around a row."""

SPREAD = 5
"""How far apart the lines into one side of a box are."""


@dataclass(eq=False, slots=True)
class End:
    """Where a line meets a box: the row, the height in it, the x of the box's edge, and whether it goes in there."""

    row: int
    y: float
    x: float
    into: bool


@dataclass(eq=False, slots=True)
class Rail:
    """A value on its way from the box that makes it to those that read it: down, or up, at one x.

    `kind` is "forward", "backward" or "saved" (what the backward side reads of the forward side, or the reverse).
    """

    kind: str
    ends: list[End]
    x: float = 0.0
    straight: bool = False
    first: tuple[int, float] = field(init=False)
    last: tuple[int, float] = field(init=False)

    def __post_init__(self) -> None:
        places = [(end.row, end.y) for end in self.ends]
        self.first, self.last = min(places), max(places)


@dataclass(eq=False, slots=True)
class Layout:
    """The places in a drawing: for each box its middle, for each row its height and the rails that touch it."""

    drawing: Drawing
    two_sided: bool
    y: dict[Box, float] = field(default_factory=dict)
    height: list[float] = field(default_factory=list)
    rails: list[list[Rail]] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Where the forward column begins."""
        return CODE + PILL + SIDE * RAIL + 14

    @property
    def right(self) -> float:
        """Where the backward column begins."""
        return self.left + BOX + MIDDLE * RAIL + 12

    @property
    def width(self) -> float:
        return self.right + BOX + SIDE * RAIL + 14 + PILL if self.two_sided else self.left + BOX + 12

    def x(self, box: Box) -> float:
        return self.right if box.backward else self.left


def box_height(box: Box) -> float:
    return HEIGHT + LINE * len(box.values)


def laid_out(made: Drawing) -> Layout:
    """The places of everything in a drawing."""
    layout = Layout(made, any(box.backward for box in made.boxes))
    for row in made.rows:
        layout.height.append(_stack(layout, row))
    layout.rails = [[] for _ in made.rows]
    row_of = {box: row.number for row in made.rows for box in row.boxes}
    rails = list(_rails(layout, row_of))
    for rail in rails:
        for i in range(rail.first[0], rail.last[0] + 1):
            layout.rails[i].append(rail)
    return layout


def _stack(layout: Layout, row: Row) -> float:
    y = float(PAD)
    for group in row.groups:
        column = sum(box_height(box) + GAP for box in group.backward)
        own = box_height(group.forward) + GAP if group.forward is not None else HEIGHT + GAP
        height = max(column, own)
        if group.forward is not None:
            layout.y[group.forward] = y + height / 2
        at = y + (height - column) / 2
        for box in group.backward:
            layout.y[box] = at + (box_height(box) + GAP) / 2
            at += box_height(box) + GAP
        y += height
    return y + PAD


def _rails(layout: Layout, row_of: dict[Box, int]) -> Iterable[Rail]:
    """The lines: straight ones to the next box of the column, and rails, each at the first x that is free."""
    made = layout.drawing
    columns = ([b for b in made.boxes if not b.backward], [b for b in made.boxes if b.backward])
    place = {box: i for column in columns for i, box in enumerate(column)}
    readers: dict[tuple[Box, bool], list[Box]] = {}
    several: dict[tuple[Box, str], int] = {}
    pending: list[Rail] = []
    for box in made.boxes:
        for v in dict.fromkeys(box.node.inputs):
            source = made.made.get(v)
            if source is None or source is box:
                continue
            next_to = source.backward == box.backward and place[box] - place[source] == (-1 if box.backward else 1)
            if next_to:
                yield _straight(layout, row_of, source, box)
            elif box not in readers.setdefault((source, box.backward), []):
                readers[source, box.backward].append(box)
    for (source, backward), boxes in readers.items():
        kind = "saved" if source.backward != backward else "backward" if backward else "forward"
        ends = [
            End(row_of[source], layout.y[source] + (0 if kind == "saved" else 6), _edge(layout, source, kind), False)
        ]
        for box in boxes:
            i = several[box, kind] = several.get((box, kind), -1) + 1
            shift = (-6 if kind != "saved" else 0) + SPREAD * (i + 1) // 2 * (-1) ** i
            ends.append(End(row_of[box], layout.y[box] + max(-9, min(9, shift)), _edge(layout, box, kind), True))
        pending.append(Rail(kind, ends))
    free: dict[str, list[tuple[int, float]]] = {}
    for rail in sorted(pending, key=lambda rail: rail.first):
        lanes = free.setdefault(rail.kind, [(-1, 0.0)] * (MIDDLE if rail.kind == "saved" else SIDE))
        lane = next((i for i, until in enumerate(lanes) if until < rail.first), None)
        if lane is not None:
            lanes[lane] = rail.last
            rail.x = _lane(layout, rail.kind, lane)
            yield rail


def _straight(layout: Layout, row_of: dict[Box, int], source: Box, box: Box) -> Rail:
    down = -1 if box.backward else 1
    x = layout.x(box) + BOX / 2
    start = End(row_of[source], layout.y[source] + down * box_height(source) / 2, x, False)
    end = End(row_of[box], layout.y[box] - down * box_height(box) / 2, x, True)
    return Rail("backward" if box.backward else "forward", [start, end], x, straight=True)


def _edge(layout: Layout, box: Box, kind: str) -> float:
    outer = kind != "saved"
    return layout.x(box) + (BOX if box.backward == outer else 0)


def _lane(layout: Layout, kind: str, lane: int) -> float:
    if kind == "saved":
        return layout.left + BOX + 8 + lane * RAIL
    return layout.right + BOX + 9 + lane * RAIL if kind == "backward" else layout.left - 9 - lane * RAIL
