"""What a picture of a tape shows: boxes in rows, a row a line of the user's, and rows in sections that fold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from ..show import Names, aliases, bodies, place, shown, step
from ..tape import Node, Tape, Var
from .repeats import repetitions

LONG_LINE = 12
"""A line of the user's with more boxes on top of each other than this is a section of its own."""

MANY = 24
"""A section with more parts than this is divided."""


@dataclass(eq=False, slots=True)
class Box:
    """A step. `backward` says on which side it stands, `bodies` what it runs."""

    node: Node
    number: int
    names: str
    operands: list[str]
    text: str
    where: str
    code: str
    backward: bool
    bodies: list[Drawing] = field(default_factory=list)
    runs: str = ""
    values: list[str] = field(default_factory=list)
    thumbnail: str = ""

    @property
    def op(self) -> str:
        return self.node.op.name

    @property
    def type(self) -> str:
        outputs = self.node.outputs
        return (repr(outputs[0].aval) if outputs else "") + (f" +{len(outputs) - 1}" if len(outputs) > 1 else "")


@dataclass(eq=False, slots=True)
class Group:
    """A forward step, and beside it the steps of its gradient, the last of them on top. Of a step whose value nothing
    needs there is the name alone: `absent`."""

    forward: Box | None = None
    absent: str = ""
    backward: list[Box] = field(default_factory=list)

    @property
    def boxes(self) -> list[Box]:
        return [*([self.forward] if self.forward else []), *self.backward]

    @property
    def height(self) -> int:
        """In boxes."""
        return max(1, len(self.backward))


@dataclass(eq=False, slots=True)
class Row:
    """Steps of one line of the user's, one after the other."""

    where: str
    code: str
    groups: list[Group] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    number: int = 0

    @property
    def boxes(self) -> list[Box]:
        return [box for group in self.groups for box in group.boxes]

    @property
    def height(self) -> int:
        """In boxes."""
        return sum(group.height for group in self.groups)


@dataclass(eq=False, slots=True)
class Section:
    """Rows, and sections in turn, that fold into one box."""

    title: str
    parts: list[Row | Section]
    detail: str = ""
    times: int = 0
    open: bool = False
    start: int = 0
    stop: int = 0

    def rows(self) -> Iterator[Row]:
        for part in self.parts:
            if isinstance(part, Row):
                yield part
            else:
                yield from part.rows()

    def count(self) -> tuple[int, int]:
        """How many forward and backward steps there are in it."""
        boxes = [box.backward for row in self.rows() for box in row.boxes]
        return len(boxes) - sum(boxes), sum(boxes)


@dataclass(eq=False, slots=True)
class Drawing:
    """A tape, and the tape of its gradient if that is another: what is drawn in one frame.

    Attributes:
      title: what the function is called.
      root: its rows, in sections.
      rows: the same, one after the other.
      made: the box that makes each value.
      given: the inputs, and what they are called.
      returned: for each value, as what it is returned.
      names: what values are called.
      idle: how many steps are not drawn, because nothing needs them.
    """

    title: str
    root: Section
    rows: list[Row]
    made: dict[Var, Box]
    given: dict[Var, str]
    returned: dict[Var, list[str]]
    names: Names
    idle: int

    @property
    def boxes(self) -> list[Box]:
        return [box for row in self.rows for box in row.boxes]

    def everything(self) -> Iterator[Box]:
        """All boxes, those of bodies too."""
        for box in self.boxes:
            yield box
            for body in box.bodies:
                yield from body.everything()


def drawing(tape: Tape, budget: int) -> Drawing:
    """What is drawn of a tape, with so many rows and folded sections visible at first."""
    made = _Maker(itertools.count()).drawing(tape, None)
    unfold(made, budget)
    return made


class _Maker:
    def __init__(self, numbers: Iterator[int]) -> None:
        self.numbers = numbers
        self.places: dict[Any, tuple[str, str]] = {}

    def drawing(self, tape: Tape, back: Tape | None) -> Drawing:
        same = aliases(tape) | (aliases(back) if back is not None else {})
        names = Names(tape, same)
        steps = [(node, node.grad) for node in shown(tape)]
        steps += [(node, True) for node in shown(back)] if back is not None else []
        boxes = [self.box(node, backward, names) for node, backward in steps]
        made = {v: box for box in boxes for v in box.node.outputs}
        made.update((a, made[_root(a, same)]) for a in same if _root(a, same) in made)
        rows = self.rows(tape, boxes)
        for i, row in enumerate(rows):
            row.number = i
        for group in (group for row in rows for group in row.groups):
            self.add_bodies(group)
        tapes = [tape] if back is None else [tape, back]
        given = {v: names[v] for t in tapes for v in t.inputs}
        given.update((a, names[a]) for a in same if _root(a, same) in given)
        returned: dict[Var, list[str]] = {}
        for t in tapes:
            for v, path in zip(t.outputs, _paths(t), strict=True):
                returned.setdefault(_root(v, same), []).append(path)
        root = Section(tape.name or "tape", divided(arranged(rows)), open=True)
        _number(root)
        idle = sum(len(t.nodes) - sum(n.op.name == "alias" for n in t.nodes) - len(shown(t)) for t in tapes)
        return Drawing(root.title, root, rows, made, given, returned, names, idle)

    def place(self, node: Node) -> tuple[str, str]:
        key = node.source
        if key not in self.places:
            self.places[key] = place(node)
        return self.places[key]

    def box(self, node: Node, backward: bool, names: Names) -> Box:
        text = step(node, names)
        operands = [names[v] for v in node.inputs]
        called = ", ".join(names[v] for v in node.outputs)
        return Box(node, next(self.numbers), called, operands, text, *self.place(node), backward)

    def rows(self, tape: Tape, boxes: list[Box]) -> list[Row]:
        """The boxes in rows: forward steps in their order, and backward steps beside those they are the gradient of."""
        box_of = {box.node: box for box in boxes}
        forward = {box.node for box in boxes if not box.backward}
        behind = {v: node for node in (*tape.nodes, *box_of) for v in node.outputs}
        groups: dict[Node, Group] = {}
        by_source: dict[Any, Group] = {}
        for node in tape.nodes:
            if node in forward or not node.grad:
                by_source[node.source] = groups[node] = Group(box_of.get(node), node.op.name)
        last = Group()
        for box in boxes:
            if box.backward:
                node: Node | None = box.node
                while node is not None and node not in groups:
                    node = behind.get(node.of) if node.of is not None else None
                if node is not None:
                    last = groups[node]
                elif last is by_source.get(box.node.source) or box.node.source in by_source:
                    last = by_source[box.node.source]
                elif not last.backward or last.backward[0].where != box.where or last.forward or last.absent:
                    last = groups[box.node] = by_source[box.node.source] = Group()
                last.backward.insert(0, box)
        rows: list[Row] = []
        alone: list[Row] = []
        for node, group in groups.items():
            if not group.boxes:
                continue
            own, line = (rows, self.place(node)) if node in forward or not node.grad else (alone, self.place(node))
            if not own or (own[-1].where, own[-1].code) != line or _cut(own[-1], node, group.height):
                own.append(Row(*line))
            own[-1].groups.append(group)
            own[-1].nodes.append(node)
        return rows + alone[::-1]

    def add_bodies(self, group: Group) -> None:
        """The tapes that these steps run; that of a gradient is drawn beside what it is the gradient of."""
        box = group.forward
        back = [b for b in group.backward if bodies(b.node)]
        own = bodies(box.node) if box is not None else []
        if box is not None and own:
            partner = bodies(back[0].node) if len(back) == 1 else []
            paired = len(partner) == len(own)
            box.bodies = [self.drawing(b, partner[i] if paired else None) for i, b in enumerate(own)]
            box.runs = _runs(box.node)
            back = [] if paired else back
        for b in back:
            b.bodies, b.runs = [self.drawing(body, None) for body in bodies(b.node)], _runs(b.node)


def _runs(node: Node) -> str:
    length = node.params.get("length")
    return f"{length} times" if isinstance(length, int) else ""


def _root(v: Var, same: dict[Var, Var]) -> Var:
    while v in same:
        v = same[v]
    return v


def _paths(tape: Tape) -> list[str]:
    """Where in the result of the function each output stands, as far as it is known."""
    count = len(tape.outputs)
    if tape.out_tree is None or tape.out_tree.num_leaves != count:
        return [""] * count if count == 1 else [f"[{i}]" for i in range(count)]
    tree = jax.tree.unflatten(tape.out_tree, range(count))
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def _cut(row: Row, node: Node, height: int) -> bool:
    """Whether a new row begins with this step: the line is run again, or the row is long enough."""
    last = row.nodes[-1]
    again = last.op is node.op if last.source == node.source else any(n.source == node.source for n in row.nodes)
    return again or row.height + height > LONG_LINE


def arranged(rows: Sequence[Row]) -> list[Row | Section]:
    """The rows, with those that repeat, and those of one long line, in sections."""
    keys = [(row.where, row.code, *[node.op for node in row.nodes]) for row in rows]
    parts: list[Row | Section] = []
    done = 0
    for start, size, count in repetitions(keys):
        parts += _lines(rows[done:start])
        done = start + size * count
        turns: list[Row | Section] = []
        for i in range(count):
            own = rows[start + i * size : start + (i + 1) * size]
            turns.append(Section(f"{i + 1} of {count}", divided(arranged(own) if size > 1 else list(own))))
        parts.append(Section(_lines_title(rows[start : start + size]), divided(turns), "repeated", count))
    return parts + _lines(rows[done:])


def _lines(rows: Sequence[Row]) -> list[Row | Section]:
    """The rows, with runs of rows of one line in a section."""
    parts: list[Row | Section] = []
    for (where, code), run in itertools.groupby(rows, key=lambda row: (row.where, row.code)):
        own: list[Row | Section] = list(run)
        parts += own if len(own) == 1 else [Section(code or where, divided(own), where)]
    return parts


def divided(parts: list[Row | Section]) -> list[Row | Section]:
    """The parts, in sections of sections if there are many."""
    if len(parts) <= MANY:
        return parts
    size = max(math.ceil(math.sqrt(len(parts))), math.ceil(len(parts) / MANY))
    pieces = [parts[i : i + size] for i in range(0, len(parts), size)]
    return divided([Section(_title(piece), piece) for piece in pieces])


def _title(parts: list[Row | Section]) -> str:
    first, last = parts[0], parts[-1]
    if isinstance(first, Section) and " of " in first.title and isinstance(last, Section):
        return f"{first.title.partition(' of ')[0]} to {last.title}"
    return _lines_title([row for part in (first, last) for row in ([part] if isinstance(part, Row) else part.rows())])


def _lines_title(rows: Sequence[Row]) -> str:
    first, last = rows[0].where, rows[-1].where
    if first == last:
        return rows[0].code or first
    file, _, line = last.rpartition(":")
    return f"{first} to {line}" if first.startswith(f"{file}:") else f"{first} to {last}"


def _number(section: Section) -> None:
    numbers = [row.number for row in section.rows()]
    section.start, section.stop = (min(numbers), max(numbers) + 1) if numbers else (0, 0)
    for part in section.parts:
        if isinstance(part, Section):
            _number(part)


def unfold(made: Drawing, budget: int) -> int:
    """Opens sections, from the outside in, as long as no more rows and folded sections show than `budget`."""
    budget -= len(made.root.parts)
    waiting = [made.root]
    while waiting:
        section = waiting.pop(0)
        for part in section.parts:
            if isinstance(part, Section):
                few = part.times <= 4 or len(part.parts) < budget / 4
                if len(part.parts) <= budget and few:
                    part.open = True
                    budget -= len(part.parts)
                    waiting.append(part)
    return budget
