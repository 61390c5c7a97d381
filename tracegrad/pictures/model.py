"""What a picture of a tape shows: boxes in rows, a row a line of the user's, and rows in sections that fold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import jax

from ..show import Names, Places, aliases, bodies, shown, step
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
    type: str
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


@dataclass(eq=False, slots=True)
class Group:
    """A forward step, and beside it the steps of its gradient, the last of them on top. There may be no forward box: of
    a step whose value nothing needs, or where the gradient is a tape of its own."""

    node: Node
    forward: Box | None = None
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
    groups: list[Group]
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
      role: of a body, what it is to the step that runs it.
      root: its rows, in sections.
      rows: the same, one after the other.
      made: the box that makes each value.
      given: the inputs, and what they are called.
      returned: for each value, as what it is returned.
      names: what values are called.
      idle: how many steps are not drawn, because nothing needs them.
      open: of a body, whether it is unfolded.
      values: of inputs, what they were and their gradients, if that was kept.
      runs_in: of a body, the steps that run it and its gradient, and as which of their bodies.
      note: of a body, of which of its runs the values are.
    """

    title: str
    root: Section
    rows: list[Row]
    made: dict[Var, Box]
    given: dict[Var, str]
    returned: dict[Var, list[str]]
    names: Names
    idle: int
    role: str = ""
    open: bool = False
    values: dict[Var, list[str]] = field(default_factory=dict)
    runs_in: list[tuple[Node, int]] = field(default_factory=list)
    note: str = ""

    @property
    def boxes(self) -> list[Box]:
        return [box for row in self.rows for box in row.boxes]

    def everything(self) -> Iterator[Box]:
        """All boxes, those of bodies too."""
        for box in self.boxes:
            yield box
            for body in box.bodies:
                yield from body.everything()


ROWS = 40
"""How many rows and folded sections show at first."""


def drawing(tape: Tape) -> Drawing:
    """What is drawn of a tape."""
    made = _Maker(itertools.count()).drawing(tape, None)
    unfold(made, ROWS)
    return made


class _Maker:
    def __init__(self, numbers: Iterator[int]) -> None:
        self.numbers = numbers
        self.places = Places()

    def drawing(
        self, tape: Tape, back: Tape | None, saved: dict[Var, Var] | None = None, outer: Sequence[tuple[Var, str]] = ()
    ) -> Drawing:
        """A tape, and that of its gradient, of whose inputs `saved` says what they are on the forward side.

        Inputs are called as they are `outer`, where the tape has forgotten what its arguments are called.
        """
        same = aliases(tape) | (aliases(back) if back is not None else {}) | (saved or {})
        names = Names(tape, same)
        for v, name in outer if tape.arguments is None else ():
            names.suggest(v, name)
        steps = [(node, node.grad) for node in shown(tape)]
        steps += [(node, True) for node in shown(back)] if back is not None else []
        boxes = [self.box(node, backward, names) for node, backward in steps]
        made = {v: box for box in boxes for v in box.node.outputs}
        made.update((a, made[_root(a, same)]) for a in same if _root(a, same) in made)
        groups = self.groups(tape, boxes)
        for group in groups:
            self.add_bodies(group, names)
        root = Section(tape.name or "tape", divided(self.arranged(groups)), open=True)
        rows = list(root.rows())
        for i, row in enumerate(rows):
            row.number = i
        _number(root)
        tapes = [tape] if back is None else [tape, back]
        given = {v: names[v] for t in tapes for v in t.inputs if v not in made}
        given.update((a, names[a]) for a in same if _root(a, same) in given)
        returned: dict[Var, list[str]] = {}
        for t in tapes:
            for v, path in zip(t.outputs, _paths(t), strict=True):
                returned.setdefault(_root(v, same), []).append(path)
        idle = sum(len(t.nodes) - len(aliases(t)) - len(shown(t)) for t in tapes)
        return Drawing(root.title, root, rows, made, given, returned, names, idle)

    def box(self, node: Node, backward: bool, names: Names) -> Box:
        text = step(node, names)
        operands = [names[v] for v in node.inputs]
        called = ", ".join(names[v] for v in node.outputs)
        others = len(node.outputs) - 1
        kind = (repr(node.outputs[0].aval) if node.outputs else "") + f" +{others}" * (others > 0)
        return Box(node, next(self.numbers), called, operands, kind, text, *self.places[node], backward)

    def groups(self, tape: Tape, boxes: list[Box]) -> list[Group]:
        """The boxes: forward steps in their order, and backward steps beside those they are the gradient of."""
        box_of = {box.node: box for box in boxes}
        made_by = {v: node for node in (*tape.nodes, *box_of) for v in node.outputs}
        groups = {
            node: Group(node, box_of.get(node))
            for node in tape.nodes
            if not (box_of[node].backward if node in box_of else node.grad)
        }
        by_source = {node.source: group for node, group in groups.items()}
        alone: list[Group] = []
        last: Group | None = None
        for box in boxes:
            if not box.backward:
                continue
            node: Node | None = box.node
            while node is not None and node not in groups:
                node = made_by.get(node.of) if node.of is not None else None
            if node is not None:
                last = groups[node]
            elif last is None or last.node.source != box.node.source:
                last = by_source.get(box.node.source)
                if last is None:
                    last = by_source[box.node.source] = Group(box.node)
                    alone.append(last)
            last.backward.insert(0, box)
        return [group for group in groups.values() if group.boxes] + alone[::-1]

    def arranged(self, groups: Sequence[Group]) -> list[Row | Section]:
        """Rows of these groups, with those that repeat, and those of one long line, in sections."""
        keys = [(group.node.source, group.node.op) for group in groups]
        parts: list[Row | Section] = []
        done = 0
        for start, size, count in repetitions(keys):
            parts += self.rows(groups[done:start])
            done = start + size * count
            turns: list[Row | Section] = []
            for i in range(count):
                own = groups[start + i * size : start + (i + 1) * size]
                turns.append(Section(f"{i + 1} of {count}", divided(self.arranged(own))))
            first = next(turn for turn in turns if isinstance(turn, Section))
            parts.append(Section(_lines_title(list(first.rows())), divided(turns), "repeated", count))
        rest = self.rows(groups[done:])
        # All of one line need no heading that says so.
        return rest[0].parts if not parts and len(rest) == 1 and isinstance(rest[0], Section) else parts + rest

    def rows(self, groups: Sequence[Group]) -> list[Row | Section]:
        """A row for each line, and for each time that it is run; of a long line several, in a section."""
        rows: list[Row] = []
        for group in groups:
            line = self.places[group.node]
            if not rows or (rows[-1].where, rows[-1].code) != line or _cut(rows[-1], group):
                rows.append(Row(*line, []))
            rows[-1].groups.append(group)
        parts: list[Row | Section] = []
        for (where, code), run in itertools.groupby(rows, key=lambda row: (row.where, row.code)):
            own: list[Row | Section] = list(run)
            parts += own if len(own) == 1 else [Section(code or where, divided(own), where)]
        return parts

    def add_bodies(self, group: Group, names: Names) -> None:
        """The tapes that these steps run; that of a gradient is drawn beside what it is the gradient of."""
        back = [box for box in group.backward if bodies(box.node)]
        if group.forward is not None and bodies(group.forward.node):
            partner = bodies(back[0].node) if len(back) == 1 else []
            paired = len(partner) == len(bodies(group.forward.node))
            self.add(group.forward, back[0] if paired else None, names)
            back = [] if paired else back
        for box in back:
            self.add(box, None, names)

    def add(self, box: Box, back: Box | None, names: Names) -> None:
        length = box.node.params.get("length")
        box.runs = f", run {length} times" if isinstance(length, int) else ""
        for i, (role, body) in enumerate(_roles(box.node)):
            partner = bodies(back.node)[i] if back is not None else None
            saved = _saved(box.node, body, back.node, partner) if back is not None and partner is not None else {}
            operands = box.node.inputs[max(0, len(box.node.inputs) - len(body.inputs)) :]
            pairs = zip(operands, body.inputs, strict=False)
            outer = [(v, names[u]) for u, v in pairs if u.aval is v.aval]
            box.bodies.append(self.drawing(body, partner, saved, outer))
            box.bodies[-1].role = role
            box.bodies[-1].runs_in = [(step.node, i) for step in (box, back) if step is not None]


def _saved(node: Node, body: Tape, back: Node, partner: Tape) -> dict[Var, Var]:
    """What the inputs of the gradient's body are in the body: what the step takes and returns, its body does in order.

    But what is carried from step to step of a loop is not the same value in each.
    """
    carried = int(node.params.get("carried", 0))
    known: dict[Var, Var] = {}
    for outer, inner in ((node.inputs, body.inputs), (node.outputs, body.outputs)):
        if len(outer) >= len(inner):
            known.update(list(zip(outer[len(outer) - len(inner) :], inner, strict=True))[carried:])
    offset = len(back.inputs) - len(partner.inputs)
    pairs = zip(back.inputs[offset:], partner.inputs, strict=True) if offset >= 0 else ()
    return {v: known[u] for u, v in pairs if u in known and known[u] is not v}


def _roles(node: Node) -> list[tuple[str, Tape]]:
    """The tapes that a step runs, and what each is to it: the body, a branch, the condition."""
    found = []
    for key, value in node.params.items():
        tapes = [x for x in (value if isinstance(value, tuple) else (value,)) if isinstance(x, Tape)]
        own = "" if key == "body" else f" {key}"
        found += [(f"{node.op.name}{own}{f' {i}' if len(tapes) > 1 else ''}", x) for i, x in enumerate(tapes)]
    return found


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


def _cut(row: Row, group: Group) -> bool:
    """Whether a new row begins with this group: the line is run again, or the row is long enough."""
    source = group.node.source
    again = row.groups[-1].node.source != source and any(g.node.source == source for g in row.groups)
    return again or row.height + group.height > LONG_LINE


def divided(parts: list[Row | Section]) -> list[Row | Section]:
    """The parts, in sections of sections if there are many."""
    if len(parts) <= MANY:
        return parts
    size = min(math.ceil(math.sqrt(len(parts))), MANY)
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
    """Opens sections and bodies, from the outside in, while no more than `budget` rows and folded sections show.

    Returns:
      What is left of the budget.
    """
    budget -= len(made.root.parts)
    waiting = [made.root]
    rows: list[Row] = []
    while waiting:
        for part in waiting.pop(0).parts:
            if isinstance(part, Row):
                rows.append(part)
            elif len(part.parts) <= (budget if part.times <= 4 else ROWS // 4):
                part.open = True
                budget -= len(part.parts)
                waiting.append(part)
    for body in (body for row in rows for box in row.boxes for body in box.bodies):
        body.open = len(body.root.parts) <= budget
        left = unfold(body, budget if body.open else ROWS // 4)
        budget = left if body.open else budget
    return budget
