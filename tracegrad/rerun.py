"""A tape that runs again, node by node, to see where a value stops being finite. Uses loops, vmap and pmap."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .batching import vmap_op
from .control import scan_op, switch_op, while_op
from .errors import describe_source
from .inspection import gathered
from .op import Op
from .parallel.mapping import pmap_op
from .parallel.sharding import all_specs, axes_in, joined_by, shard_map_op, split_by
from .passes import program
from .tape import Node, Tape, Var, aval_of

FINITE, INFINITE, NAN = 0, 1, 2
"""How bad a value is: an infinity is often meant, a NaN hardly ever."""

_TRIED = 8
"""Of how many operands it is tried which of them a value that is not finite comes from."""


# -- looking at values


def is_inexact(x: Any) -> bool:
    return isinstance(x, (jax.Array, np.ndarray, np.generic, float, complex)) and bool(
        jnp.issubdtype(aval_of(x).dtype, jnp.inexact)
    )


@jax.jit
def _worst(arrays: list[Any]) -> Any:
    return jnp.stack([jnp.where(jnp.isnan(x).any(), NAN, jnp.where(jnp.isinf(x).any(), INFINITE, 0)) for x in arrays])


def severities(values: Sequence[Any]) -> list[int]:
    """How bad each of some values is: 0 if it is finite or has no floats, 1 if it has an infinity, 2 if a NaN."""
    which = [i for i, x in enumerate(values) if is_inexact(x)]
    result = [FINITE] * len(values)
    if which:
        for i, s in zip(which, np.asarray(_worst([values[i] for i in which])).tolist(), strict=True):
            result[i] = s
    return result


@jax.jit
def _statistics(x: Any) -> Any:
    size = jnp.abs(x) if jnp.iscomplexobj(x) else x
    fine = jnp.isfinite(size)
    return (
        jnp.min(jnp.where(fine, size, jnp.inf), initial=jnp.inf),
        jnp.max(jnp.where(fine, size, -jnp.inf), initial=-jnp.inf),
        jnp.isnan(x).sum(),
        (jnp.isinf(x) & ~jnp.isnan(x)).sum(),
    )


def describe_range(x: Any) -> str:
    """The type of an array, the least and the greatest of its finite elements, and how many are not finite."""
    aval = aval_of(x)
    if not aval.differentiable:
        if aval.dtype.kind not in "biu" or 0 in aval.shape:
            return repr(aval)
        values = np.asarray(x)
        return f"{aval}: {values}" if not aval.shape else f"{aval}: from {values.min()} to {values.max()}"
    if 0 in aval.shape:
        return f"{aval}: empty"
    if not aval.shape:
        return f"{aval}: {_number(x)}"
    low, high, nans, infs = [np.asarray(part) for part in _statistics(x)]
    size = "of size " if aval.dtype.kind == "c" else ""
    parts = [f"{size}from {_number(low)} to {_number(high)}"] if low <= high else []
    parts += [f"{n} {word} of {_size(aval.shape)}" for n, word in ((nans, "NaN"), (infs, "infinite")) if n]
    return f"{aval}: " + ", ".join(parts or ["no finite element"]) + ("" if nans or infs else ", all finite")


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _number(x: Any) -> str:
    value = np.asarray(x)
    return f"{complex(value):.6g}" if value.dtype.kind == "c" else f"{float(value):.6g}"


def _first(x: Any, least: int) -> tuple[int, ...]:
    """Where the first element that is at least so bad stands."""
    bad = jnp.isnan(x) if least == NAN else ~jnp.isfinite(x)
    return tuple(int(i) for i in np.unravel_index(int(jnp.argmax(bad)), x.shape)) if x.ndim else ()


def _cleaned(x: Any) -> Any:
    return jnp.where(jnp.isfinite(x), x, jnp.ones_like(x))


@dataclass(frozen=True)
class Step:
    """One step of a program that gave a value that is not finite.

    Attributes:
      op: the name of the op; `types`: those of its operands and of its result.
      source: the user's line: file, line, function and text.
      backward: whether it belongs to a gradient.
      where: what it ran in, from the outside in, such as `step 3 of 10 of the scan at ...`.
      inputs, output: the type and the range of each operand, and of the result.
      element: the first element that is not finite, with the operands' elements there, where they have the same shape.
    """

    op: str
    types: str
    source: str
    backward: bool
    where: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str
    element: str

    def __str__(self) -> str:
        lines = [f"{self.op} : {self.types}, {'backward' if self.backward else 'forward'}, at {self.source}"]
        lines += [f"  in {place}" for place in self.where]
        lines += [f"  reads {text}" for text in self.inputs]
        lines.append(f"  gives {self.output}")
        if self.element:
            lines.append(f"  {self.element}")
        return "\n".join(lines)


# -- running a tape node by node


class Level(NamedTuple):
    """A mapped axis around what runs: its name, its size, how to call it, and the one place looked at, if only one."""

    name: str | None
    size: int
    what: str
    pinned: int | None = None


class Value(NamedTuple):
    """A value of the program that runs again: an array, with an axis in front for each level that has its flag."""

    array: Any
    flags: tuple[bool, ...] = ()
    record: Record | None = None


class Record:
    """That a value is not finite, and why: a step made it so, or passed it on from what it read, or it was given."""

    __slots__ = ("causes", "frame", "kind", "node", "order", "output", "severity", "step", "text")

    def __init__(self, kind: str, severity: int, order: int, causes: tuple[Record, ...] = (), text: str = "") -> None:
        self.kind = kind  # "made", "became" (NaN of infinities), "passed", or "given"
        self.severity = severity
        self.order = order
        self.causes = causes
        self.text = text
        self.node: Node | None = None
        self.frame: Frame | None = None
        self.step: Step | None = None


class Frame:
    """A tape that runs, and what runs it: the node and the frame of that, and the values there of its inputs."""

    __slots__ = ("levels", "made", "node", "note", "operands", "parent", "tape")

    def __init__(
        self,
        tape: Tape,
        parent: Frame | None = None,
        node: Node | None = None,
        operands: Sequence[Var] = (),
        levels: tuple[Level, ...] = (),
        note: str = "",
    ) -> None:
        self.tape = tape
        self.parent = parent
        self.node = node
        self.operands = dict(zip(tape.inputs, operands, strict=False))
        self.levels = levels
        self.note = note
        self.made: dict[Var, Node] | None = None

    def maker(self, v: Var) -> Node | None:
        if self.made is None:
            self.made = {out: node for node in self.tape.nodes for out in node.outputs}
        return self.made.get(v)

    def chain(self) -> list[Frame]:
        """The frames that this one runs in, from the outside in, without the outermost."""
        found: list[Frame] = []
        frame: Frame | None = self
        while frame is not None and frame.node is not None:
            found.append(frame)
            frame = frame.parent
        return found[::-1]


class Rerun:
    """One run of a tape, node by node.

    `names` are what the user calls its leaves. With `thorough`, what is in bodies whose results are finite runs
    node by node too.
    """

    def __init__(self, names: dict[Var, str], thorough: bool) -> None:
        self.names = names
        self.thorough = thorough
        self.leaves: dict[Var, Value] = {}
        self.found: list[Record] = []
        self.compiled: dict[Any, Any] = {}

    def run(self, frame: Frame, values: Sequence[Value]) -> list[Value]:
        tape = frame.tape
        env: dict[Var, Value] = dict(zip(tape.inputs, values, strict=True))
        last_use = {v: i for i, node in enumerate(tape.nodes) for v in node.inputs}
        keep = set(tape.outputs)
        for i, node in enumerate(tape.nodes):
            ins = [self.read(v, env, frame) for v in node.inputs]
            env.update(zip(node.outputs, self.step(frame, node, ins), strict=True))
            for v in node.inputs:
                if last_use[v] == i and v not in keep:
                    env.pop(v, None)
        return [self.read(v, env, frame) for v in tape.outputs]

    def read(self, v: Var, env: dict[Var, Value], frame: Frame) -> Value:
        known = env.get(v)
        if known is not None:
            return known
        flags = (False,) * len(frame.levels)
        if v not in self.leaves:
            value = v.value if v.tape is not None or v.aval.weak_type else np.asarray(v.value, v.aval.dtype)
            record = None
            (severity,) = severities([value])
            if severity:
                text = f"{self.leaf(v)}, {describe_range(value)}"
                record = Record("given", severity, len(self.found), text=text)
                self.found.append(record)
            self.leaves[v] = Value(value, (), record)
        leaf = self.leaves[v]
        return Value(leaf.array, flags, leaf.record)

    def leaf(self, v: Var) -> str:
        if v in self.names:
            return f"the argument {self.names[v]}"
        if v.tape is None or isinstance(v.value, (bool, int, float, complex)):
            return "a number of the program"
        return "an array that the function closes over or made outside the tape"

    # -- one node

    def step(self, frame: Frame, node: Node, ins: list[Value]) -> list[Value]:
        goes_down = _BODIES.get(node.op)
        if goes_down is not None:
            return goes_down(self, frame, node, ins)
        body = node.params.get("body")
        if isinstance(body, Tape) and len(body.inputs) == len(ins):
            return self.run(Frame(body, frame, node, node.inputs, frame.levels), ins)
        outs = self.apply(frame, node.op, node.params, ins, node.outputs)
        return self.noted(frame, node, ins, outs)

    def noted(self, frame: Frame, node: Node, ins: list[Value], outs: list[Value]) -> list[Value]:
        """The outputs of a node, each with a record if it is not finite."""
        bad = severities([o.array for o in outs])
        return [
            o if not s else o._replace(record=self.note(frame, node, ins, outs, i, s))
            for i, (o, s) in enumerate(zip(outs, bad, strict=True))
        ]

    def note(self, frame: Frame, node: Node, ins: list[Value], outs: list[Value], i: int, severity: int) -> Record:
        dirty = [(k, v) for k, v in enumerate(ins) if v.record is not None]
        before = max((v.record.severity for _, v in dirty if v.record is not None), default=FINITE)
        if before == FINITE:
            kind, causes = "made", dirty
        elif severity == NAN and before == INFINITE:
            kind, causes = "became", dirty
        else:
            kind, causes = "passed", self.responsible(frame, node, ins, dirty, i, severity)
        record = Record(kind, severity, len(self.found), tuple(v.record for _, v in causes if v.record is not None))
        record.node, record.frame = node, frame
        if kind != "passed":
            record.step = self.described(frame, node, ins, outs[i], severity)
        self.found.append(record)
        return record

    def responsible(
        self, frame: Frame, node: Node, ins: list[Value], dirty: list[tuple[int, Value]], i: int, severity: int
    ) -> list[tuple[int, Value]]:
        """Those of the operands that are not finite, with which alone the result is not finite either."""
        if not 1 < len(dirty) <= _TRIED:
            return dirty
        causes = []
        for k, v in dirty:
            others = [
                x if x.record is None or j == k else x._replace(array=_cleaned(x.array)) for j, x in enumerate(ins)
            ]
            out = self.apply(frame, node.op, node.params, others, node.outputs)[i]
            if severities([out.array])[0] >= severity:
                causes.append((k, v))
        return causes or dirty

    def described(self, frame: Frame, node: Node, ins: list[Value], out: Value, severity: int) -> Step:
        at = _first(out.array, severity)
        flagged = [k for k, flag in enumerate(out.flags) if flag]
        found = {k: level.pinned for k, level in enumerate(frame.levels)} | dict(zip(flagged, at, strict=False))
        where = [self.placed(f, found) for f in frame.chain()]
        own = at[len(flagged) :]
        inputs = []
        for v, x in zip(node.inputs, ins, strict=True):
            name = repr(v.value) if v.tape is None else self.names.get(v, "")
            inputs.append(f"{name + ' ' if name else ''}{describe_range(x.array)}")
        element = ""
        if all(x.flags == out.flags or not any(x.flags) for x in ins):
            shape = np.shape(out.array)
            same = [np.shape(x.array) in ((), shape) for x in ins]
            if all(same) and ins:
                read = ", ".join(_number_at(x.array, at) for x in ins)
                index = f"[{', '.join(map(str, own))}]" if own else ""
                element = f"{'at ' + index + ': ' if index else ''}{node.op.name}({read}) = {_number_at(out.array, at)}"
        if not element and own:
            element = f"first at [{', '.join(map(str, own))}]"
        types = f"{', '.join(repr(x.aval) for x in node.inputs)} -> {', '.join(repr(x.aval) for x in node.outputs)}"
        backward = node.grad or any(f.node is not None and f.node.grad for f in frame.chain())
        return Step(
            node.op.name, types, self.line(frame, node), backward, tuple(where), tuple(inputs),
            describe_range(out.array), element,
        )  # fmt: skip

    def placed(self, frame: Frame, found: dict[int, int | None]) -> str:
        """Where a frame stands; `found` says which place of each level is spoken of."""
        node, note = frame.node, frame.note
        assert node is not None and frame.parent is not None
        own = range(len(frame.parent.levels), len(frame.levels))
        at = [f"{frame.levels[k].what} {found[k]} of {frame.levels[k].size}" for k in own if found.get(k) is not None]
        note = ", ".join(at) if at else note
        text = f"{node.op.name} of {frame.tape.name}" if frame.tape.name else node.op.name
        return f"{note + ' of ' if note else ''}the {text} at {self.line(frame.parent, node)}"

    def line(self, frame: Frame | None, node: Node) -> str:
        """The user's line of a node: of one that was imported, that of what runs it."""
        while node.source is None and frame is not None and frame.node is not None:
            node, frame = frame.node, frame.parent
        return describe_source(node.source)

    def line_of(self, record: Record) -> str:
        node = record.node
        assert node is not None
        return shortly(node, self.line(record.frame, node), node.outputs)

    # -- values under levels

    def apply(
        self, frame: Frame, op: Op, params: dict[str, Any], ins: Sequence[Value], outputs: Sequence[Var]
    ) -> list[Value]:
        """The outputs of an op, computed for all that the levels map over at once."""
        arrays = [v.array for v in ins]
        if not frame.levels:
            out = op.compiled(params)(*arrays)
            return [Value(x) for x in (out if op.multiple else (out,))]

        def run(*xs: Any) -> Any:
            out = op.lower(*xs, **params)
            return tuple(out) if op.multiple else (out,)

        return self.mapped(frame.levels, (op, tuple(params.items())), run, ins, [v.aval.varying for v in outputs])

    def mapped(
        self,
        levels: tuple[Level, ...],
        key: Any,
        run: Callable[..., Any],
        ins: Sequence[Value],
        varying: Sequence[frozenset[str]],
    ) -> list[Value]:
        used = [level.name is not None or any(v.flags[k] for v in ins) for k, level in enumerate(levels)]
        full = (key, levels, tuple(v.flags for v in ins))
        compiled = self.compiled.get(full)
        if compiled is None:
            fn = run
            for k in reversed(range(len(levels))):
                if used[k]:
                    in_axes = tuple(0 if v.flags[k] else None for v in ins)
                    fn = _batched(fn, in_axes, levels[k])
            compiled = self.compiled[full] = jax.jit(fn)
        outs = []
        for array, axes in zip(compiled(*[v.array for v in ins]), varying, strict=True):
            flags, axis = [], 0
            for k, level in enumerate(levels):
                if not used[k]:
                    flags.append(False)
                elif level.pinned is not None or (level.name is not None and level.name not in axes):
                    array = _index(array, level.pinned or 0, axis)
                    flags.append(False)
                else:
                    flags.append(True)
                    axis += 1
            outs.append(Value(array, tuple(flags)))
        return outs

    def whole(self, frame: Frame, node: Node, ins: list[Value]) -> tuple[list[Value], list[int]]:
        """What a node with a body gives, compiled whole, and how bad it is."""
        outs = self.apply(frame, node.op, node.params, ins, node.outputs)
        return outs, severities([o.array for o in outs])

    # -- nodes with bodies

    def scan(self, frame: Frame, node: Node, ins: list[Value]) -> list[Value]:
        body, carried, length = node.params["body"], node.params["carried"], node.params["length"]
        scanned = node.params["scanned"]
        outs, bad = self.whole(frame, node, ins)
        if not any(bad) and not self.thorough:
            return outs
        carry, xs, consts = ins[:carried], ins[carried : carried + scanned], ins[carried + scanned :]
        records: list[Record | None] = [v.record for v in carry] + [None] * (len(outs) - carried)
        before = [0 if r is None else r.severity for r in records]
        once = program(body)
        steps = reversed(range(length)) if node.params["reverse"] else range(length)
        for k in steps:
            if not self.thorough and all(
                r is not None and r.severity >= s for r, s in zip(records, bad, strict=True) if s
            ):
                break
            values = [*carry, *[_taken(x, k) for x in xs], *consts]
            note = f"step {k} of {length}"
            results, now, new = self.once(frame, node, body, once, values, node.inputs, before, note)
            for i, r in enumerate(new):
                if now[i] > before[i] and r is not None and (records[i] is None or r.severity > records[i].severity):  # type: ignore[union-attr]
                    records[i] = r
            before = now
            carry = [
                Value(_typed(x.array, v), x.flags, records[i] if s else None)
                for i, (x, v, s) in enumerate(zip(results[:carried], body.inputs, now, strict=False))
            ]
        return self.with_records(frame, node, ins, outs, bad, records)

    def once(
        self,
        frame: Frame,
        node: Node,
        body: Tape,
        once: Callable[..., Any],
        values: list[Value],
        operands: Sequence[Var],
        before: Sequence[int],
        note: str,
    ) -> tuple[list[Value], list[int], list[Record | None]]:
        """One step of a loop, compiled; node by node too if a result is worse than it was after the step before."""
        results = self.mapped(frame.levels, id(body), once, values, [v.aval.varying for v in body.outputs])
        now = severities([x.array for x in results])
        if not self.thorough and all(s <= b for s, b in zip(now, before, strict=False)):
            return results, now, [None] * len(now)
        inner = self.run(Frame(body, frame, node, operands, frame.levels, note), values)
        return results, now, [v.record for v in inner]

    def with_records(
        self,
        frame: Frame,
        node: Node,
        ins: list[Value],
        outs: list[Value],
        bad: Sequence[int],
        records: Sequence[Record | None],
    ) -> list[Value]:
        """The outputs of a node that was run whole, with what its parts have shown."""
        result = []
        for i, (o, s) in enumerate(zip(outs, bad, strict=True)):
            record = records[i]
            if s and record is None:
                record = self.note(frame, node, ins, outs, i, s)
            result.append(o._replace(record=record if s else None))
        return result

    def while_(self, frame: Frame, node: Node, ins: list[Value]) -> list[Value]:
        params = node.params
        body, test, carried, tested = params["body"], params["cond"], params["carried"], params["tested"]
        outs, bad = self.whole(frame, node, ins)
        if not any(bad) and not self.thorough:
            return outs
        apart = {
            k
            for k, level in enumerate(frame.levels)
            if level.name is None or level.name in test.outputs[0].aval.varying
        }
        if any(v.flags[k] for v in ins for k in apart):
            return self.pinned(frame, node, ins, outs, bad)
        carry, for_test, for_body = ins[:carried], ins[carried : carried + tested], ins[carried + tested :]
        operands = (*node.inputs[:carried], *node.inputs[carried + tested :])
        records = [v.record for v in carry]
        before = [0 if r is None else r.severity for r in records]
        holds, once = program(test), program(body)
        k = 0
        while bool(self.mapped(frame.levels, id(test), holds, [*carry, *for_test], [frozenset()])[0].array):
            if not self.thorough and all(
                r is not None and r.severity >= s for r, s in zip(records, bad, strict=True) if s
            ):
                break
            values = [*carry, *for_body]
            results, now, new = self.once(frame, node, body, once, values, operands, before, f"step {k}")
            for i, r in enumerate(new):
                if now[i] > before[i] and r is not None:
                    records[i] = r
            before = now
            carry = [
                Value(_typed(x.array, v), x.flags, records[i] if s else None)
                for i, (x, v, s) in enumerate(zip(results, body.inputs, now, strict=False))
            ]
            k += 1
        return self.with_records(frame, node, ins, outs, bad, records)

    def switch(self, frame: Frame, node: Node, ins: list[Value]) -> list[Value]:
        branches = node.params["branches"]
        if any(ins[0].flags):
            outs, bad = self.whole(frame, node, ins)
            return self.pinned(frame, node, ins, outs, bad) if any(bad) or self.thorough else outs
        k = min(max(int(ins[0].array), 0), len(branches) - 1)
        note = "the branch " + (f"{k} of {len(branches)}" if len(branches) != 2 else ("of false", "of true")[k])
        return self.run(Frame(branches[k], frame, node, node.inputs[1:], frame.levels, note), ins[1:])

    def pinned(self, frame: Frame, node: Node, ins: list[Value], outs: list[Value], bad: list[int]) -> list[Value]:
        """A node whose mapped elements go different ways: those go down into it that are the first to be not finite."""
        records: list[Record | None] = [None] * len(outs)
        for i, s in enumerate(bad):
            if not s or records[i] is not None:
                continue
            at = iter(_first(outs[i].array, s))
            place = [next(at) if flag else None for flag in outs[i].flags]
            levels = tuple(
                level if p is None or level.pinned is not None else level._replace(pinned=p)
                for level, p in zip(frame.levels, place, strict=True)
            )
            inner = Frame(frame.tape, frame.parent, frame.node, (), levels, frame.note)
            inner.operands, inner.made = frame.operands, frame.made
            chosen = [_at(v, place) for v in ins]
            for j, v in enumerate(self.step(inner, node, chosen)):
                if records[j] is None:
                    records[j] = v.record
        return self.with_records(frame, node, ins, outs, bad, records)

    def vmap(self, frame: Frame, node: Node, ins: list[Value]) -> list[Value]:
        params = node.params
        level = Level(params["axis_name"], params["size"], "element")
        flags = [[b] for b in params["batched"]]
        return self.under(frame, node, ins, [level], flags, [[True]] * len(node.outputs))

    def shard_map(self, frame: Frame, node: Node, ins: list[Value]) -> list[Value]:
        mesh, in_specs = node.params["mesh"], node.params["in_specs"]
        specs = all_specs(node.params["body"], node.params["out_specs"])
        several = len(mesh.shape) > 1
        levels = [Level(k, n, f"device along {k}" if several else "device") for k, n in mesh.shape.items()]
        flags = [[level.name in axes_in(spec, mesh) for level in levels] for spec in (*in_specs, *specs)]
        # Arrays that are spread over the devices would not mix with those that are not.
        apart = [
            v._replace(array=split_by(gathered(v.array), spec, mesh, sum(v.flags)) if any(f) else gathered(v.array))
            for v, spec, f in zip(ins, in_specs, flags, strict=False)
        ]
        outs = self.under(frame, node, apart, levels, flags[: len(ins)], flags[len(ins) :])
        return [
            v._replace(array=joined_by(v.array, spec, mesh, sum(v.flags)) if any(f) else v.array)
            for v, spec, f in zip(outs, specs, flags[len(ins) :], strict=True)
        ]

    def under(
        self,
        frame: Frame,
        node: Node,
        ins: list[Value],
        levels: Sequence[Level],
        batched: Sequence[Sequence[bool]],
        flags: Sequence[Sequence[bool]],
    ) -> list[Value]:
        """What a body gives for all elements along axes, which its results have where their flags say so."""
        inner = Frame(node.params["body"], frame, node, node.inputs, (*frame.levels, *levels))
        values = [v._replace(flags=(*v.flags, *b)) for v, b in zip(ins, batched, strict=True)]
        return [_with_axes(v, levels, wanted) for v, wanted in zip(self.run(inner, values), flags, strict=True)]


def _with_axes(v: Value, levels: Sequence[Level], wanted: Sequence[bool]) -> Value:
    """A value under these innermost levels as one under the others, with an axis of its own for those wanted."""
    count = len(v.flags) - len(levels)
    array, axis = v.array, sum(v.flags[:count])
    for level, there, want in zip(levels, v.flags[count:], wanted, strict=True):
        if want and not there:
            array = jnp.asarray(array)
            shape = (*array.shape[:axis], level.size, *array.shape[axis:])
            array = jnp.broadcast_to(jnp.expand_dims(array, axis), shape)
        elif there and not want:
            array = _index(array, 0, axis)
        axis += want
    return Value(array, v.flags[:count], v.record)


_BODIES: dict[Op, Callable[[Rerun, Frame, Node, list[Value]], list[Value]]] = {
    scan_op: Rerun.scan,
    while_op: Rerun.while_,
    switch_op: Rerun.switch,
    vmap_op: Rerun.vmap,
    pmap_op: Rerun.shard_map,
    shard_map_op: Rerun.shard_map,
}
"""Ops that run their body otherwise than once, with their operands as its inputs."""


def _batched(fn: Callable[..., Any], in_axes: tuple[int | None, ...], level: Level) -> Callable[..., Any]:
    if not in_axes:
        # `jax.vmap` wants an argument to map over.
        return lambda: jax.vmap(lambda _: fn(), axis_name=level.name)(np.zeros(level.size, np.int8))
    return jax.vmap(fn, in_axes=in_axes, axis_size=level.size, axis_name=level.name)


@functools.partial(jax.jit, static_argnames="axis")
def _index(x: Any, k: Any, axis: int) -> Any:
    return lax.dynamic_index_in_dim(x, k, axis, keepdims=False)


def _taken(x: Value, k: int) -> Value:
    """Element `k` along the first axis that is not a level's."""
    return _rechecked(x._replace(array=_index(x.array, k, sum(x.flags))))


def _rechecked(x: Value) -> Value:
    """A part of a value: it may be finite where the whole is not."""
    return x if x.record is None or severities([x.array])[0] else x._replace(record=None)


def _at(v: Value, place: Sequence[int | None]) -> Value:
    """A value at one place of the levels."""
    array, flags, axis = v.array, [], 0
    for flag, p in zip(v.flags, place, strict=True):
        if flag and p is not None:
            array = _index(array, p, axis)
        elif flag:
            axis += 1
        flags.append(flag and p is None)
    return _rechecked(Value(array, tuple(flags), v.record))


def _typed(x: Any, v: Var) -> Any:
    return x if v.aval.weak_type else lax.convert_element_type(x, v.aval.dtype)


def _number_at(x: Any, at: tuple[int, ...]) -> str:
    array = jnp.asarray(x)
    value = array[at] if array.ndim else array
    return _number(value) if aval_of(value).differentiable else str(np.asarray(value))


def shortly(node: Node, line: str, outputs: Sequence[Var]) -> str:
    return f"{node.op.name} : {', '.join(repr(v.aval) for v in outputs)}{' ∇' if node.grad else ''} at {line}"
