"""The tape as text. Uses ops, taps and passes."""

from __future__ import annotations

import itertools
import linecache
import os
import re
from collections.abc import Iterator
from string import ascii_lowercase
from types import CodeType
from typing import Any

from .capture import tap_op
from .errors import cell_of
from .ops import alias
from .passes import dead_code
from .tape import Node, Tape, Var


def format_tape(tape: Tape, whole: bool = False) -> str:
    """The tape as text: a line a step, with shapes, dtypes and the user's line; `∇` marks gradient steps.

    What the results need is shown, which is what will run; a last line counts the steps that no result needs. Values
    are called after the user's arguments and taps, or by letters. An alias, which tells the differentiated use of an
    argument from its other uses, is shown as what it is an alias of.

    Args:
      tape: a tape, finished or not.
      whole: whether to show every step all the same.
    """
    nodes = tape.nodes if whole else shown(tape)
    names = Names(tape, {} if whole else aliases(tape))
    places = Places()
    rows: list[tuple[str, str]] = []
    for node in nodes:
        rows.append((step(node, names), _line(node, places)))
        for body in bodies(node):
            rows += [(f"  | {row}", "") for row in format_tape(body, whole).splitlines()]
    width = min(max((len(code) for code, where in rows if where), default=0), 72)
    head = ", ".join(f"{names[v]}:{v.aval}" for v in tape.inputs)
    lines = [f"{tape.name or 'tape'}({head})"]
    lines += [f"  {code.ljust(width)}  # {where}" if where else f"  {code}" for code, where in rows]
    lines.append("  return " + ", ".join(f"{names[v]}:{v.aval}" for v in tape.outputs))
    idle = len(tape.nodes) - len(nodes) - sum(node.op is alias for node in tape.nodes) * (not whole)
    if idle:
        lines.append(f"  # not shown: {idle} step{'s' if idle > 1 else ''} that no result needs")
    return "\n".join(lines)


def shown(tape: Tape) -> list[Node]:
    """The steps that the results need, but for aliases."""
    return [node for node in dead_code(tape).nodes if node.op is not alias]


def aliases(tape: Tape) -> dict[Var, Var]:
    """What each alias is an alias of."""
    return {n.outputs[0]: n.inputs[0] for n in tape.nodes if n.op is alias}


def step(node: Node, names: Names) -> str:
    """One step as text, whose results now have names."""
    inputs = "".join(f" {names[v]}" for v in node.inputs)
    if node.op is tap_op:
        names.suggest(node.outputs[0], node.params["name"])
    left = ", ".join(f"{names[v]}:{v.aval}" for v in node.outputs)
    params = ", ".join(f"{k}={_shown(v)}" for k, v in node.params.items())
    return f"{left} = {node.op.name}" + (f"[{params}]" if params else "") + inputs


def bodies(node: Node) -> list[Tape]:
    """The tapes that a step runs."""
    values = [x for value in node.params.values() for x in (value if isinstance(value, tuple) else (value,))]
    return [value for value in values if isinstance(value, Tape)]


class Names:
    """The names of the values of one tape."""

    def __init__(self, tape: Tape, same: dict[Var, Var]) -> None:
        self.same = same
        self.names: dict[Var, str] = {}
        self.taken: set[str] = set()
        self.letters = _letters()
        arguments, values = tape.arguments or (None, ())
        for v, name in zip(values, arguments.names() if arguments else (), strict=True):
            self.suggest(v, name)

    def suggest(self, v: Any, name: str) -> None:
        """`v` is called after `name`, such as `params['w']`, if that makes an identifier: `params_w`."""
        name = re.sub(r"\W+", "_", name).strip("_")
        if isinstance(v, Var) and name.isidentifier():
            self._take(v, itertools.chain([name], (f"{name}_{k}" for k in itertools.count(2))))

    def __getitem__(self, v: Var) -> str:
        while v in self.same:
            v = self.same[v]
        if v.tape is None:
            return repr(v.value)
        if v not in self.names:
            self._take(v, self.letters)
        return self.names[v]

    def _take(self, v: Var, choices: Iterator[str]) -> None:
        self.names[v] = next(n for n in choices if n not in self.taken)
        self.taken.add(self.names[v])


def _letters() -> Iterator[str]:
    """a, b, ..., z, aa, ab, ..."""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(ascii_lowercase, repeat=length))


def _shown(value: Any) -> str:
    if isinstance(value, Tape):
        return value.name or "tape"
    if isinstance(value, tuple) and any(isinstance(x, Tape) for x in value):
        return f"({', '.join(map(_shown, value))})"
    return getattr(value, "__name__", None) or str(value)


class Places:
    """The user's lines of steps: for each, where it is, and its text."""

    def __init__(self) -> None:
        # To find one line of a long function takes as long as to find them all.
        self.lines: dict[CodeType, list[int | None]] = {}
        self.known: dict[tuple[str, int], tuple[str, str]] = {}

    def __getitem__(self, node: Node) -> tuple[str, str]:
        code, filename, line = node.code, "<unknown>", 0
        if code is not None:
            if code not in self.lines:
                self.lines[code] = [position[0] for position in code.co_positions()]
            lines, i = self.lines[code], node.offset // 2
            filename, line = code.co_filename, (lines[i] if i < len(lines) else None) or code.co_firstlineno
        if (filename, line) not in self.known:
            where = f"{cell_of(filename) or os.path.basename(filename)}:{line}"
            self.known[filename, line] = where, linecache.getline(filename, line).strip()
        return self.known[filename, line]


def _line(node: Node, places: Places) -> str:
    where, text = places[node]
    return ("∇ " if node.grad else "  ") + where + (f"  {text}" if text else "")


def _text(tape: Tape, whole: bool = False) -> str:
    """A line a step, as printing shows it; with `whole`, the steps that no result needs too."""
    return format_tape(tape, whole)


def _printed(tape: Tape) -> str:
    return format_tape(tape)


Tape.text = _text  # type: ignore[method-assign, assignment]
Tape.__str__ = Tape.__repr__ = _printed  # type: ignore[method-assign, assignment]
