"""What memory a compiled program takes, by the user's lines: XLA's figures, and its schedule read. Uses passes."""

from __future__ import annotations

import linecache
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax

from .errors import cell_of, source_position
from .lower import lower
from .op import Op
from .passes import optimize, reroll
from .tape import Node, Tape

_MARK = "tracegrad_step_"

_SHOWN = 20
"""How many lines of a table are shown."""


# -- what the table says


@dataclass(frozen=True)
class Row:
    """A line of the user's and what it holds at the peak: the bytes, the values (a type and an op each), the line."""

    size: int
    values: tuple[str, ...]
    line: str


@dataclass(frozen=True)
class Memory:
    """What memory a compiled program takes, in bytes. It prints as a table.

    Attributes:
      name: the function.
      arguments, results, temporaries: XLA's own figures for what goes in, comes out, and is held in between.
      reused: the bytes of donated arguments that results take over.
      peak: `arguments + results - reused + temporaries`: what the device has to have free.
      rows: what is held at the moment when most is, by line, the largest first. This is an estimate: it is computed
        from the schedule of the program that XLA made, with each value held from the step that writes it to the last
        that reads it, and the sizes of their types.
      held: the sum of the rows.
      where: the step at that moment.
    """

    name: str
    arguments: int
    results: int
    temporaries: int
    reused: int
    rows: tuple[Row, ...]
    held: int
    where: str

    @property
    def peak(self) -> int:
        return self.arguments + self.results - self.reused + self.temporaries

    def __str__(self) -> str:
        parts = f"arguments {size(self.arguments)}, results {size(self.results)}, temporaries {size(self.temporaries)}"
        if self.reused:
            parts += f", less {size(self.reused)} of donated arguments"
        lines = [f"{self.name} takes {size(self.peak)} at its peak, by XLA: {parts}."]
        lines.append(f"Most is held in {self.where}, an estimate from XLA's schedule: {size(self.held)}, of which")
        for row in self.rows[:_SHOWN]:
            share = f"{100 * row.size / self.held:3.0f} %" if self.held else ""
            shown = ", ".join(row.values[:4]) + (f" and {len(row.values) - 4} more" if len(row.values) > 4 else "")
            lines.append(f"  {size(row.size):>10} {share}  {row.line}: {shown}")
        rest = self.rows[_SHOWN:]
        if rest:
            lines.append(f"  {size(sum(r.size for r in rest)):>10}        on {len(rest)} more lines")
        return "\n".join(lines)


def size(count: int) -> str:
    """A number of bytes, for people."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{count} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


# -- marking a program, so that XLA's steps say which of the tape's they come from


class Marked:
    """A tape whose steps are named in what XLA makes of them, and their places."""

    def __init__(self) -> None:
        self.places: list[Node] = []
        self.known: dict[int, tuple[Tape, Tape]] = {}

    def tape(self, tape: Tape) -> Tape:
        """`tape`, which computes the same, with the steps named, and those of its bodies."""
        known = self.known.get(id(tape))
        if known is None:
            known = self.known[id(tape)] = tape, tape.replace(nodes=tuple(map(self._node, tape.nodes)))
        return known[1]

    def _node(self, node: Node) -> Node:
        mark = f"{_MARK}{len(self.places)}"
        self.places.append(node)
        params = {key: self._param(value) for key, value in node.params.items()}
        op, lower = node.op, node.op.lower

        def named(*args: Any, **params: Any) -> Any:
            with jax.named_scope(mark):
                return lower(*args, **params)

        stand_in = Op(op.name, named, shape=op.shape, multiple=op.multiple, numbers=op.numbers, axes=op.axes)
        return Node(stand_in, node.inputs, params, node.outputs, node.code, node.offset, node.grad)

    def _param(self, value: Any) -> Any:
        if isinstance(value, tuple) and any(isinstance(x, Tape) for x in value):
            return tuple(self._param(x) for x in value)
        return self.tape(value) if isinstance(value, Tape) else value

    def place(self, op_name: str) -> str | None:
        """The user's line for a step of XLA's with this name."""
        for mark in reversed(re.findall(rf"{_MARK}(\d+)", op_name)):
            node = self.places[int(mark)]
            if node.source is not None:
                filename, line, _ = source_position(node.source)
                text = linecache.getline(filename, line).strip()
                where = f"{cell_of(filename) or os.path.basename(filename)}:{line}"
                return ("∇ " if node.grad else "") + where + (f" `{text}`" if text else "")
        return None


# -- XLA's program, read: the wire format of protocol buffers, and a few fields of xla/service/hlo.proto


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message, each its number and its value: an int, or bytes."""
    i = 0
    while i < len(data):
        key, i = _varint(data, i)
        kind = key & 7
        if kind == 0:
            value, i = _varint(data, i)
            yield key >> 3, value
            continue
        if kind == 2:
            length, i = _varint(data, i)
        else:
            length = 8 if kind == 1 else 4
        yield key >> 3, data[i : i + length]
        i += length


def _varint(data: bytes, i: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[i]
        i += 1
        result |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return result, i


def _packed(value: Any) -> list[int]:
    """A repeated integer: packed, or one of them."""
    if isinstance(value, int):
        return [value]
    found, i = [], 0
    while i < len(value):
        number, i = _varint(value, i)
        found.append(number)
    return found


_TYPES = {
    1: ("bool", 8), 2: ("i8", 8), 3: ("i16", 16), 4: ("i32", 32), 5: ("i64", 64), 6: ("u8", 8), 7: ("u16", 16),
    8: ("u32", 32), 9: ("u64", 64), 10: ("f16", 16), 11: ("f32", 32), 12: ("f64", 64), 15: ("c64", 64),
    16: ("bf16", 16), 18: ("c128", 128), 21: ("i4", 4), 22: ("u4", 4),
}  # fmt: skip
"""XLA's element types by their number, with their bits; the others that have a size are floats of 8 bits."""


def _leaves(shape: bytes) -> list[tuple[int, str]]:
    """The arrays of a shape, each with its bytes and its type as text."""
    kind, dims, parts = 0, list[int](), list[bytes]()
    for number, value in _fields(shape):
        if number == 2:
            kind = value
        elif number == 3:
            dims += _packed(value)
        elif number == 4:
            parts.append(value)
    if kind == 13:
        return [leaf for part in parts for leaf in _leaves(part)]
    name, bits = _TYPES.get(kind, ("f8", 8)) if kind not in (0, 14, 17) else ("token", 0)
    count = 1
    for d in dims:
        count *= d
    return [(count * bits // 8, f"{name}[{','.join(map(str, dims))}]")]


class _Step:
    """An instruction of XLA's: what it is, what it reads and gives, and where it comes from."""

    __slots__ = ("called", "id", "index", "leaves", "name", "opcode", "operands", "parameter")

    def __init__(self, data: bytes) -> None:
        self.opcode = self.name = ""
        self.id = self.index = self.parameter = 0
        self.leaves: list[tuple[int, str]] = []
        self.operands: list[int] = []
        self.called: list[int] = []
        for number, value in _fields(data):
            if number == 2:
                self.opcode = value.decode()
            elif number == 3:
                self.leaves = _leaves(value)
            elif number == 7:
                self.name = next((v.decode() for n, v in _fields(value) if n == 2), "")
            elif number == 9:
                self.parameter = value
            elif number == 13:
                self.index = value
            elif number == 35:
                self.id = value
            elif number == 36:
                self.operands += _packed(value)
            elif number == 38:
                self.called += _packed(value)


class _Module:
    """The program that XLA made: its computations, each with its steps in the order in which they run."""

    def __init__(self, data: bytes) -> None:
        self.steps: dict[int, list[_Step]] = {}
        self.root: dict[int, int] = {}
        self.entry = 0
        order: dict[int, list[int]] = {}
        for number, value in _fields(data):
            if number == 3:
                key = root = 0
                steps = []
                for n, v in _fields(value):
                    if n == 2:
                        steps.append(_Step(v))
                    elif n == 5:
                        key = v
                    elif n == 6:
                        root = v
                self.steps[key], self.root[key] = steps, root
            elif number == 6:
                self.entry = value
            elif number == 7:
                for _, pair in _fields(value):
                    entry = dict(_fields(pair))
                    ids = [i for n, v in _fields(entry.get(2, b"")) if n == 1 for i in _packed(v)]
                    order[entry.get(1, 0)] = ids
        for key, ids in order.items():
            by_id = {step.id: step for step in self.steps.get(key, ())}
            if ids and set(ids) == by_id.keys():
                self.steps[key] = [by_id[i] for i in ids]

    def inside(self, step: _Step) -> list[_Step]:
        """A step, and those that it is made of if it is a fusion, from the last to the first."""
        if step.opcode != "fusion":
            return [step]
        return [step, *(s for key in step.called for s in reversed(self.steps.get(key, ())))]


_ALIASES = frozenset(["bitcast", "optimization-barrier", "domain", "add-dependency", "copy-done", "async-done"])
_NOTHING = frozenset(["constant", "after-all", "token", "partition-id", "replica-id"])


@dataclass(eq=False, slots=True)
class _Held:
    """An array of XLA's program: its bytes and type, who writes and who reads it, and from when to when it is held."""

    size: int
    type: str
    step: _Step
    argument: bool
    start: int
    end: int
    readers: list[_Step]


class _Liveness:
    """Which arrays a program holds when: each from the step that writes it to the last that reads it."""

    def __init__(self, module: _Module) -> None:
        self.module = module
        self.time = 0
        self.at: list[_Step] = []
        self.held: list[_Held] = []
        leaves = self.run(module.entry, None)
        for group in leaves:
            for h in group:
                h.end = self.time + 1
        for h in self.held:
            if h.argument:
                h.start, h.end = 0, self.time + 1

    def new(self, step: _Step, argument: bool = False) -> list[list[_Held]]:
        made = [_Held(count, text, step, argument, self.time, self.time, []) for count, text in step.leaves]
        self.held += made
        return [[h] for h in made]

    def run(self, key: int, given: list[list[list[_Held]]] | None) -> list[list[_Held]]:
        """Runs a computation, and returns the arrays that each leaf of its result may be in."""
        values: dict[int, list[list[_Held]]] = {}
        for step in self.module.steps.get(key, ()):
            self.time += 1
            self.at.append(step)
            operands = [values.get(i, []) for i in step.operands]
            for operand in operands:
                if step.opcode not in ("tuple", "get-tuple-element", *_ALIASES):
                    for group in operand:
                        for h in group:
                            h.end = max(h.end, self.time)
                            h.readers.append(step)
            values[step.id] = self.step(step, operands, given)
        return values.get(self.module.root.get(key, 0), [])

    def step(
        self, step: _Step, operands: list[list[list[_Held]]], given: list[list[list[_Held]]] | None
    ) -> list[list[_Held]]:
        kind = step.opcode
        if kind == "parameter":
            return self.new(step, True) if given is None else given[step.parameter]
        if kind == "tuple":
            return [group for operand in operands for group in operand]
        if kind == "get-tuple-element":
            return operands[0][step.index : step.index + 1] if operands else []
        if kind in _ALIASES:
            return operands[0] if operands else []
        if kind in _NOTHING:
            return [[] for _ in step.leaves]
        if kind == "while":
            # What goes round stays where it went in; what a step makes is held to its end.
            body = self.run(step.called[0], operands)
            for group in [*body, *(g for o in operands for g in o)]:
                for h in group:
                    h.end = max(h.end, self.time)
                    h.readers.append(step)
            return operands[0]
        if kind == "call":
            return self.run(step.called[0], operands)
        if kind == "conditional":
            branches = [self.run(c, [o]) for c, o in zip(step.called, operands[1:], strict=False)]
            return [[h for group in groups for h in group] for groups in zip(*branches, strict=False)]
        if kind == "dynamic-update-slice" or self._updates(step):
            same = [o for o in operands if len(o) == 1 and o[0] and o[0][0].type == step.leaves[0][1]]
            if same:
                return same[0]
        made = self.new(step)
        if kind not in ("dot", "convolution", "custom-call"):
            # Written over an operand of the same size that nothing reads later: that is held until just before.
            for h in (h for o in operands for g in o for h in g if not h.argument and h.size == made[0][0].size):
                if h.end == self.time and h.start < self.time:
                    h.end = self.time - 1
                    break
        return made

    def _updates(self, step: _Step) -> bool:
        """Whether this is a fusion that changes a slice of one of its operands in place."""
        if step.opcode != "fusion" or not step.called:
            return False
        root = self.module.root.get(step.called[0])
        return any(s.id == root and s.opcode == "dynamic-update-slice" for s in self.module.inside(step))


def read(name: str, compiled: Any, marked: Marked, named: Callable[[str], str] = str) -> Memory:
    """What memory a compiled program of JAX's takes, with the lines of the marked tape that it was made of.

    `named` is from what XLA calls a parameter to what the user calls it.
    """
    analysis = compiled.memory_analysis()
    (module,) = compiled.runtime_executable().hlo_modules()
    program = _Module(module.as_serialized_hlo_module_proto())
    live = _Liveness(program)
    change = [0] * (live.time + 3)
    for h in live.held:
        change[h.start] += h.size
        change[h.end + 1] -= h.size
    best = most = total = 0
    for t, delta in enumerate(change):
        total += delta
        if total > most:
            best, most = t, total
    lines: dict[str, tuple[int, list[str]]] = {}
    for h in live.held:
        if not h.start <= best <= h.end or not h.size:
            continue
        if h.argument:
            line, text = named(h.step.name) or f"parameter {h.step.parameter}", h.type
        else:
            # What XLA adds, such as a copy or the place of a loop's results, has no line: that is of whoever reads it.
            steps = [*program.inside(h.step), *h.readers]
            line = next(filter(None, (marked.place(step.name) for step in steps)), "made by XLA")
            text = f"{h.type} {h.step.name.rpartition('/')[2] or h.step.opcode}"
        count, texts = lines.get(line, (0, []))
        lines[line] = count + h.size, [*texts, text]
    rows = [Row(count, tuple(texts), line) for line, (count, texts) in lines.items()]
    step = live.at[min(best, live.time) - 1] if live.at else None
    where = marked.place(step.name) if step is not None else None
    return Memory(
        name,
        analysis.argument_size_in_bytes,
        analysis.output_size_in_bytes,
        analysis.temp_size_in_bytes,
        analysis.alias_size_in_bytes,
        tuple(sorted(rows, key=lambda row: -row.size)),
        most,
        where or "a step that XLA made",
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether this error of JAX's says that a device has no memory left."""
    return "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error)


def noted(error: Exception, tape: Tape) -> Exception:
    """The error; if it is that there is no memory left, followed by what takes it, in the program that was to run."""
    return followed(error, lambda: _of_tape(tape))


def followed(error: Exception, table: Callable[[], Memory]) -> Exception:
    """The error; if it is that there is no memory left, followed by a table of what takes it."""
    if out_of_memory(error):
        try:
            error.add_note(str(table()))
        except jax.errors.JaxRuntimeError as again:
            error.add_note(f"What takes the memory is not known: the program cannot be compiled again: {again}")
    return error


def _of_tape(tape: Tape) -> Memory:
    marked = Marked()
    run = lower(marked.tape(reroll(optimize(tape))))
    compiled = jax.jit(run).lower(*[v.aval.struct() for v in tape.inputs]).compile()
    return read(tape.name, compiled, marked, lambda text: "an argument, or an array or a number that is read")
