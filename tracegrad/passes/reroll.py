"""Re-rolling: a run of equal blocks, such as the turns of an unrolled loop or layers, becomes a loop. Uses the tape."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from .. import ops
from ..errors import describe_source
from ..ops.shape import concatenate, pad, reshape, slice_, split_op, weak_op
from ..tape import Aval, Node, Tape, Var, make_aval
from ..tracer import Literal, Tracer
from ..verify import verified
from .dead_code import dead_code
from .outline import symbols_of
from .rolled import Choice, Place, Read, Row, Table, Window, filled, joined, loop, row, stacked

TURNS = 4
"""How many turns a loop has at least."""

SAVED = 24
"""How many nodes a loop takes out of the program at least."""

GRAM = 6
"""How many nodes in a row have to recur before a repetition is looked for."""

PERIODS = 16
"""How many periods are tried."""

LAG = 4
"""How many turns back a turn may read."""

BODY = 24
"""How many nodes a turn of the compiled loop has at least: as many of short ones are compiled together."""

COPIED = 1 << 10
"""How many bytes a value has at least that is read where it is, and not copied beside those of the other turns."""

REPLAYED = 2
"""For how many turns a value that is quickly computed is so anew, rather than kept for all."""

LONG = 3_000
"""Nodes beyond which a program is rolled that XLA would make one function of: compiling that takes too long."""

_FUSED = frozenset([
    ops.alias, ops.astype, ops.broadcast_in_dim, ops.integer_pow, ops.iota, ops.reshape, ops.slice_, ops.split_op,
    ops.transpose, ops.where,
])  # fmt: skip
"""What XLA computes together with arithmetic on its operands."""

_CHEAP = frozenset([
    ops.abs_, ops.add, ops.alias, ops.astype, ops.broadcast_in_dim, ops.equal, ops.greater, ops.greater_equal,
    ops.integer_pow, ops.less, ops.less_equal, ops.maximum, ops.minimum, ops.mul, ops.neg, ops.not_equal, ops.reshape,
    ops.sign, ops.square, ops.sub, ops.transpose, ops.where, ops.div, ops.mul_no_nan_op, ops.mul_either_op, ops.relu,
])  # fmt: skip
"""What a loop computes again, rather than read what another loop has kept for it."""


def reroll(tape: Tape, said: MutableSequence[str] | None = None) -> Tape:
    """`tape` with runs of equal blocks replaced by loops, in itself and in its bodies; `said` grows by what was done."""
    known = tape.made.get(reroll)
    if known is None:
        notes: list[str] = []
        known = tape.made[reroll] = (verified(_rolled(tape, notes)), notes)
    if said is not None:
        said.extend(known[1])
    return known[0]  # type: ignore[no-any-return]


def _rolled(tape: Tape, said: list[str]) -> Tape:
    nodes = [_inside(node, said) for node in tape.nodes]
    if any(a is not b for a, b in zip(nodes, tape.nodes, strict=True)):
        tape = tape.replace(nodes=tuple(nodes))
    if len(nodes) < SAVED * TURNS / (TURNS - 1):
        return tape
    plain = _ordered(_join(nodes, tape.outputs))
    regions = _regions(plain, tape.outputs)
    if not regions:
        return tape
    said += [region.text() for region in regions]
    return dead_code(_Writer(tape, plain, regions).tape())


def _inside(node: Node, said: list[str]) -> Node:
    """The node, with its bodies rolled."""
    changed: dict[str, Any] = {}
    for name, value in node.params.items():
        if isinstance(value, Tape):
            new: Any = reroll(value, said)
            if new is not value:
                changed[name] = new
        elif isinstance(value, tuple) and value and all(isinstance(x, Tape) for x in value):
            new = tuple([reroll(x, said) for x in value])
            if any(a is not b for a, b in zip(new, value, strict=True)):
                changed[name] = new
    if not changed:
        return node
    params = node.params | changed
    return Node(node.op, node.inputs, params, node.outputs, node.code, node.offset, node.grad, node.of)


# -- a program in which blocks are equal


@dataclass(eq=False)
class _Sum:
    """A sum of padded parts, all of one size and at places of their own, and of a few other values."""

    size: tuple[int, ...] | None
    parts: dict[tuple[int, ...], Var]
    others: list[Var]
    nodes: list[Node]


def _join(nodes: Sequence[Node], outputs: Sequence[Var]) -> list[Node]:
    """The nodes, with sums of padded parts as one node where the last part is there.

    They are the cotangents of what a turn reads of an array; their padding differs from turn to turn.
    """
    uses = Counter(v for node in nodes for v in node.inputs)
    uses.update(outputs)
    sums: dict[Var, _Sum] = {}
    taken: set[Var] = set()
    twice: dict[int, list[Node]] = {}
    for node in nodes:
        out = node.outputs[0]
        if node.op is pad:
            x, zero = node.inputs
            start = tuple([lo for lo, _, _ in node.params["config"]])
            # So parts that start elsewhere have nothing in common.
            apart = all(
                lo >= 0 and hi >= 0 and not inner and n and lo % n == 0
                for (lo, hi, inner), n in zip(node.params["config"], x.aval.shape, strict=True)
            )
            if apart and zero.tape is None and zero.value == 0 and x.aval.dtype == out.aval.dtype:
                sums[out] = _Sum(x.aval.shape, {start: x}, [], [node])
        elif node.op is ops.add and node.inputs[0] is not node.inputs[1]:
            known = [sums.get(v) if uses[v] == 1 else None for v in node.inputs]
            if not any(known) or any(v.aval is not out.aval for v in node.inputs):
                continue
            both = [s or _Sum(None, {}, [v], []) for s, v in zip(known, node.inputs, strict=True)]
            less, more = sorted(both, key=lambda s: len(s.parts))
            fits = less.size is None or less.size == more.size
            if fits and len(less.others + more.others) <= 2:
                # Each is read here alone. What a turn reads twice has two cotangents.
                for start in less.parts.keys() & more.parts.keys():
                    x, y = less.parts[start], more.parts[start]
                    new = Tracer(x.aval, x.tape)
                    twice.setdefault(id(node), []).append(_like(node, ops.add, [x, y], {}, (new,)))
                    less.parts[start] = new
                more.parts |= less.parts
                more.others += less.others
                more.nodes += [*less.nodes, node]
                sums[out] = more
                taken.update(v for v, s in zip(node.inputs, known, strict=True) if s)
    final = {id(s.nodes[-1]): s for v, s in sums.items() if v not in taken and len(s.parts) >= TURNS}
    gone = {id(node) for s in final.values() for node in s.nodes}
    result = []
    for node in nodes:
        if id(node) not in gone:
            result.append(node)
            continue
        result += twice.get(id(node), [])
        if id(node) in final:
            result += _as_one(final[id(node)], node)
    return result


def _as_one(found: _Sum, last: Node) -> list[Node]:
    (out,) = last.outputs
    params = {"shape": out.aval.shape, "starts": tuple(found.parts)}
    xs = list(found.parts.values())
    steps = [out, *[Tracer(out.aval, out.tape) for _ in found.others]][::-1]
    result = [_like(last, joined, xs, params, (steps[0],))]
    for before, after, other in zip(steps, steps[1:], found.others, strict=False):
        result.append(_like(last, ops.add, [before, other], {}, (after,)))
    return result


def _like(node: Node, op: Any, inputs: Sequence[Var], params: dict[str, Any], outputs: tuple[Var, ...]) -> Node:
    return Node(op, inputs, params, outputs, node.code, node.offset, node.grad)


def _ordered(nodes: Sequence[Node]) -> list[Node]:
    """The nodes in an order in which nothing of one turn stands among another's.

    What reads literals alone comes first; parts of an array when it is there; what a list of parts is reshaped to
    where it is read first, and what is reshaped to be joined when it is there.
    """
    first_use: dict[Var, Node] = {}
    joins: dict[Var, bool] = {}
    maker = {v: node for node in nodes for v in node.outputs}
    for node in nodes:
        for v in node.inputs:
            first_use.setdefault(v, node)
            joins[v] = joins.get(v, True) and (node.op is concatenate or node.op is joined)
    free: set[Var] = set()
    first: list[Node] = []
    after: dict[int, list[Node]] = {}
    before: dict[int, list[Node]] = {}
    rest: list[Node] = []
    for node in nodes:
        if all(v.tape is None or v in free for v in node.inputs):
            free.update(node.outputs)
            first.append(node)
            continue
        v, out = node.inputs[0], node.outputs[0]
        source = maker.get(v)
        if node.op is slice_ or node.op is split_op or (node.op is reshape and joins.get(out, False)):
            if source is None or v in free:
                first.append(node)
            else:
                after.setdefault(id(source), []).append(node)
        elif node.op is reshape and source is not None and source.op in (slice_, split_op) and out in first_use:
            before.setdefault(id(first_use[out]), []).append(node)
        else:
            rest.append(node)
    result: list[Node] = []

    def put(node: Node) -> None:
        stack = [(node, False)]
        while stack:
            node, ready = stack.pop()
            early = before.pop(id(node), None) if not ready else None
            if early:
                stack.append((node, True))
                stack += [(x, False) for x in reversed(early)]
                continue
            result.append(node)
            stack += [(x, False) for x in reversed(after.pop(id(node), []))]

    for node in [*first, *rest]:
        put(node)
    return result


# -- where blocks repeat


@dataclass(eq=False)
class _Region:
    """A run of equal blocks.

    Attributes:
      start, period: where it begins, and how many nodes a block has.
      blocks: its nodes, turn by turn.
      slots: what each operand of a block is: of the same block ("made", p, o), of an earlier one ("carry", lag, p, o),
        the same in all ("const", v), another in each ("each", the values of all turns).
      again: values of other loops that a turn computes anew, each with the node that shows how, and its operands.
    """

    start: int
    period: int
    blocks: list[list[Node]]
    slots: dict[tuple[int, int], tuple[Any, ...]]
    place: dict[Var, tuple[int, int, int]] = field(default_factory=dict)
    again: dict[_Ids, tuple[Node, int, list[tuple[Any, ...]]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for i, block in enumerate(self.blocks):
            for p, node in enumerate(block):
                for o, v in enumerate(node.outputs):
                    self.place[v] = (i, p, o)

    @property
    def turns(self) -> int:
        return len(self.blocks)

    @property
    def end(self) -> int:
        return self.start + self.period * self.turns

    def each(self) -> dict[_Ids, tuple[Var, ...]]:
        """The lists of values of which each turn reads one."""
        lists = [slot[1] for slot in self.slots.values() if slot[0] == "each"]
        lists += [slot[1] for _, _, slots in self.again.values() for slot in slots if slot[0] == "each"]
        found = {_ids(vs): vs for vs in lists}
        return {ids: vs for ids, vs in found.items() if ids not in self.again}

    def reads(self) -> tuple[list[tuple[Var, ...]], list[Var]]:
        """What is read of the program before it: turn by turn, and once."""
        once = self.consts()
        for (p, s), slot in self.slots.items():
            if slot[0] == "carry":
                once += [block[p].inputs[s] for block in self.blocks[: slot[1]]]
        return list(self.each().values()), once

    def consts(self) -> list[Var]:
        slots = [*self.slots.values(), *[slot for _, _, slots in self.again.values() for slot in slots]]
        return list(dict.fromkeys(slot[1] for slot in slots if slot[0] == "const" and slot[1].tape is not None))

    def text(self) -> str:
        node = self.blocks[0][0]
        mark = "∇ " if node.grad else ""
        return f"rolled: {self.turns} turns of {self.period} nodes, {mark}{describe_source(node.source)}"


_Ids = tuple[Any, ...]


def _literally(v: Var) -> Any:
    return (v.value.__class__, repr(v.value), v.aval)


def _ids(vs: Sequence[Var]) -> _Ids:
    return tuple([id(v) if v.tape is not None else _literally(v) for v in vs])


def _regions(nodes: list[Node], outputs: Sequence[Var]) -> list[_Region]:
    runs = _repetitions(symbols_of(nodes))
    if not runs:
        return []
    last_use = {v: i for i, node in enumerate(nodes) for v in node.inputs}
    last_use.update((v, len(nodes)) for v in outputs)
    views = _Views(nodes)
    found: list[_Region] = []
    for start, period, length in runs:
        start, length = _cut(nodes, start, period, length, last_use)
        region = _classified(nodes, start, period, length // period, views)
        if region is not None:
            views.add(region)
            found.append(region)
    return found


def _repetitions(symbols: Any) -> list[tuple[int, int, int]]:
    """Where the sequence repeats itself: (start, length of a block, length of the run), none overlapping."""
    n = len(symbols)
    last: dict[bytes, int] = {}
    distances: Counter[int] = Counter()
    data = symbols.astype(np.int32).tobytes()
    for i in range(n - GRAM + 1):
        gram = data[4 * i : 4 * (i + GRAM)]
        before = last.get(gram)
        if before is not None:
            distances[i - before] += 1
        last[gram] = i
    found = []
    for period, _ in distances.most_common(PERIODS):
        same = np.concatenate(([False], symbols[:-period] == symbols[period:], [False]))
        edges = np.flatnonzero(same[1:] != same[:-1])
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            length = end - start + period
            if _enough(length // period, period):
                found.append(((length // period - 1) * period, -period, start, length))
    free = np.ones(n, bool)
    chosen = []
    for _, negative, start, length in sorted(found, reverse=True):
        # Of what overlaps a longer one, the longest part that does not.
        cuts = [-1, *np.flatnonzero(~free[start : start + length]).tolist(), length]
        before, after = max(zip(cuts, cuts[1:], strict=False), key=lambda pair: pair[1] - pair[0])
        start, length = start + before + 1, after - before - 1
        if _enough(length // -negative, -negative):
            free[start : start + length] = False
            chosen.append((start, -negative, length))
    return sorted(chosen)


def _enough(turns: int, period: int) -> bool:
    return turns >= TURNS and (turns - 1) * period >= SAVED


def _bytes(aval: Aval) -> int:
    return math.prod(aval.shape) * int(getattr(aval.dtype, "itemsize", 8))


def _cut(nodes: list[Node], start: int, period: int, length: int, last_use: dict[Var, int]) -> tuple[int, int]:
    """The run from where the fewest bytes pass from block to block."""
    turns = length // period
    spare = length % period if turns == TURNS else period - 1
    middle = start + turns // 2 * period
    costs = []
    for shift in range(min(spare, period - 1) + 1):
        cut = middle + shift
        passed = [v for node in nodes[cut - period : cut] for v in node.outputs]
        costs.append(sum(_bytes(v.aval) for v in passed if cut <= last_use.get(v, -1) < cut + period))
    shift = costs.index(min(costs))
    return start + shift, length - shift


def _classified(nodes: list[Node], start: int, period: int, turns: int, views: _Views) -> _Region | None:
    """The longest run of these blocks, around the one in the middle, that is a loop."""
    blocks = [nodes[start + i * period : start + (i + 1) * period] for i in range(turns)]
    at = {v: (i, p, o) for i, b in enumerate(blocks) for p, node in enumerate(b) for o, v in enumerate(node.outputs)}
    middle = turns // 2

    def kind(i: int, p: int, s: int) -> tuple[Any, ...]:
        v = blocks[i][p].inputs[s]
        where = at.get(v) if v.tape is not None else None
        if where is None:
            return ("each",)
        return ("made", *where[1:]) if where[0] == i else ("carry", i - where[0], *where[1:])

    kinds: dict[tuple[int, int], tuple[Any, ...]] = {}
    for p, node in enumerate(blocks[middle]):
        for s, v in enumerate(node.inputs):
            kinds[p, s] = k = kind(middle, p, s)
            beside = blocks[middle + 1 if k[0] == "carry" and middle + 1 < turns else middle - 1][p].inputs[s]
            if k[0] in ("carry", "each") and v.tape is not None and beside is v:
                kinds[p, s] = ("const", v)
    if max([k[1] for k in kinds.values() if k[0] == "carry"], default=0) > LAG:
        return None

    def fits(i: int, first: bool) -> bool:
        for (p, s), k in kinds.items():
            if k[0] == "const":
                if blocks[i][p].inputs[s] is not k[1]:
                    return False
            elif not (k[0] == "carry" and first) and k[0] != "each" and kind(i, p, s) != k:
                return False
        return True

    lo = hi = middle
    while lo > 0 and fits(lo, False) and fits(lo - 1, True):
        lo -= 1
    while hi < turns - 1 and fits(hi + 1, False):
        hi += 1
    # What is given is made before the loop.
    lists = [(p, s) for (p, s), k in kinds.items() if k[0] == "each"]
    given = [k[1] for k in kinds.values() if k[0] == "const"]
    while True:
        read = given + [blocks[i][p].inputs[s] for i in range(lo, hi + 1) for p, s in lists]
        inside = [at[v][0] for v in read if v.tape is not None and v in at]
        late = [i for i in inside if i >= lo]
        if not late:
            break
        lo = max(late) + 1
        if not _enough(hi - lo + 1, period):
            return None
    lo, hi = views.trimmed([[blocks[i][p].inputs[s] for i in range(lo, hi + 1)] for p, s in lists], lo, hi, period)
    if not _enough(hi - lo + 1, period):
        return None
    slots: dict[tuple[int, int], tuple[Any, ...]] = {}
    for (p, s), k in kinds.items():
        slots[p, s] = k
        if k[0] == "each":
            vs = tuple([blocks[i][p].inputs[s] for i in range(lo, hi + 1)])
            alike = vs[0].tape is None and all(v.tape is None and _literally(v) == _literally(vs[0]) for v in vs)
            slots[p, s] = ("const", vs[0]) if alike else ("each", vs)
    region = _Region(start + lo * period, period, blocks[lo : hi + 1], slots)
    if len(nodes) <= LONG and all(node.op.numbers or node.op in _FUSED for node in region.blocks[0]):
        return None
    views.recompute(region)
    return region


class _Views:
    """What is known of single values as parts of others: of an array, or of what a loop stacks."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.regions: list[_Region] = []
        self.owner: dict[Var, tuple[_Region, int, int, int]] = {}
        self.part: dict[Var, tuple[Var, tuple[int, ...]]] = {}
        for node in nodes:
            if node.op is slice_ and all(s == 1 for s in node.params["strides"]):
                self.part[node.outputs[0]] = (node.inputs[0], node.params["start"])
            elif node.op is split_op:
                axis, at = node.params["axis"], 0
                for v, size in zip(node.outputs, node.params["sizes"], strict=True):
                    start = tuple([at if a == axis else 0 for a in range(v.aval.ndim)])
                    self.part[v] = (node.inputs[0], start)
                    at += size

    def add(self, region: _Region) -> None:
        self.regions.append(region)
        self.owner.update((v, (region, *where)) for v, where in region.place.items())

    def of(self, v: Var) -> tuple[Any, tuple[int, ...]]:
        """What a value is a part of, and where."""
        if v.tape is None:
            return ("literal",), ()
        part = self.part.get(v)
        if part is not None and part[0] not in self.owner:
            return ("window", id(part[0]), v.aval.shape), part[1]
        where = self.owner.get(v)
        if where is not None:
            region, i, p, o = where
            return ("row", region, p, o), (i,)
        return ("one",), ()

    def trimmed(self, lists: list[list[Var]], lo: int, hi: int, period: int) -> tuple[int, int]:
        """The turns in which each list reads regular parts of one array, if they are nearly all."""
        first, last = 0, hi - lo
        for vs in lists:
            middle = len(vs) // 2
            seen = [self.of(v) for v in vs]
            if seen[middle][0][0] == "one":
                continue
            steps = [None if a[0] != b[0] else _apart(a[1], b[1]) for a, b in zip(seen, seen[1:], strict=False)]
            i = j = middle
            wanted = steps[middle - 1]
            if wanted is None:
                continue
            while i > 0 and steps[i - 1] == wanted:
                i -= 1
            while j < len(vs) - 1 and steps[j] == wanted:
                j += 1
            if 4 * (j - i + 1) >= 3 * len(vs):
                first, last = max(first, i), min(last, j)
        if 4 * (last - first + 1) < 3 * (hi - lo + 1) or not _enough(last - first + 1, period):
            return lo, hi
        return lo + first, lo + last

    def regular(self, vs: Sequence[Var]) -> tuple[Any, tuple[int, ...], tuple[int, ...]] | None:
        """What all of these are parts of, where the first is, and how far apart they are, if all are equally far."""
        seen = [self.of(v) for v in vs]
        if seen[0][0][0] not in ("window", "row") or any(what != seen[0][0] for what, _ in seen):
            return None
        steps = {_apart(a, b) for (_, a), (_, b) in zip(seen, seen[1:], strict=False)}
        return (seen[0][0], seen[0][1], steps.pop()) if len(steps) == 1 else None

    def recompute(self, region: _Region) -> None:
        """Finds what the turns need not read of an earlier loop, since it is quickly made of what they read anyway."""
        read = {ids: vs for ids, vs in region.each().items()}
        order = {v: n for n, v in enumerate(self.owner)}
        rows = [ids for ids, vs in read.items() if (r := self.regular(vs)) is not None and r[0][0] == "row"]
        # From the last made to the first, so that what one is made of is still among what is read.
        for ids in sorted(rows, key=lambda ids: -order[read[ids][0]]):
            vs = read[ids]
            owners = [self.owner[v] for v in vs]
            makers = [r.blocks[i][p] for r, i, p, _ in owners]
            node = makers[0]
            if node.op not in _CHEAP:
                continue
            slots: list[tuple[Any, ...]] = []
            for s in range(len(node.inputs)):
                operands = tuple([m.inputs[s] for m in makers])
                key = _ids(operands)
                if len(set(key)) == 1:
                    slots.append(("const", operands[0]))
                elif key != ids and (key in read or self._quick(operands)):
                    slots.append(("each", operands))
                else:
                    break
            else:
                if any(slot[0] == "each" for slot in slots):
                    region.again[ids] = (node, owners[0][3], slots)

    def _quick(self, vs: tuple[Var, ...]) -> bool:
        """Whether reading these costs no memory: they are numbers, or parts of an array that is there anyway."""
        if all(v.tape is None for v in vs):
            return True
        found = self.regular(vs)
        return found is not None and found[0][0] == "window"


# -- writing the program


class _Writer:
    """Writes the program with its regions as loops."""

    def __init__(self, tape: Tape, nodes: list[Node], regions: list[_Region]) -> None:
        self.old, self.nodes, self.regions = tape, nodes, regions
        self.holder = nodes[0].outputs[0].tape
        self.views = _Views(nodes)
        for region in regions:
            self.views.add(region)
        self.new: list[Node] = []
        self.env: dict[Var, Var] = {}
        self.rows: dict[tuple[int, int, int], Var] = {}
        self.buffers: dict[int, Var] = {}
        inside = {i for r in regions for i in range(r.start, r.end)}
        self.outside = [node for i, node in enumerate(nodes) if i not in inside]
        self.placed = self._placed()
        self.wanted: dict[_Region, set[Var]] = {region: set() for region in regions}
        self.replayed: set[Var] = set()
        single = list(tape.outputs)
        for node in self.outside:
            skipped = self.placed.get(id(node))
            single += [v for v in node.inputs if skipped is None or v not in skipped[0].place]
        for region in regions:
            lists, rest = region.reads()
            single += rest
            for vs in lists:
                if self.views.regular(vs) is None:
                    single += vs
                else:
                    self._want(vs)
        self._want_single(single)

    def _want(self, vs: Sequence[Var]) -> None:
        for v in vs:
            where = self.views.owner.get(v)
            if where is not None:
                self.wanted[where[0]].add(v)

    def _want_single(self, single: Sequence[Var]) -> None:
        """Wants values of few turns: what is quickly computed of others is so anew, unless it is kept anyway."""
        kept = {self.views.owner[v][::2] for vs in self.wanted.values() for v in vs}
        waiting = [v for v in dict.fromkeys(single) if v in self.views.owner]
        turns: dict[Any, set[int]] = {}
        for v in waiting:
            region, i, p, o = self.views.owner[v]
            turns.setdefault((region, p, o), set()).add(i)
        while waiting:
            v = waiting.pop()
            region, i, p, o = self.views.owner[v]
            node = region.blocks[i][p]
            few = len(turns.get((region, p, o), ())) <= REPLAYED
            if v in self.replayed or v in self.wanted[region]:
                continue
            if node.op in _CHEAP and few and i < region.turns - 1 and (region, p) not in kept:
                self.replayed.add(v)
                waiting += [x for x in node.inputs if x in self.views.owner]
            else:
                self.wanted[region].add(v)

    def _placed(self) -> dict[int, tuple[_Region, int, int, Place]]:
        """The nodes that join what a loop makes, each turn one part: the loop writes these where they belong."""
        found = {}
        for node in self.outside:
            if node.op is not concatenate and node.op is not joined:
                continue
            out = node.outputs[0].aval
            if out.weak_type or jax.dtypes.issubdtype(out.dtype, jax.dtypes.extended):
                continue
            owned: dict[tuple[_Region, int, int], dict[int, tuple[int, ...]]] = {}
            for v, start in zip(node.inputs, _starts(node), strict=True):
                where = self.views.owner.get(v)
                if where is not None:
                    region, i, p, o = where
                    owned.setdefault((region, p, o), {})[i] = start
            for (region, p, o), at in owned.items():
                parts = [v for v in node.inputs if region.place.get(v, (0, -1, -1))[1:] == (p, o)]
                if len(at) != region.turns or len(parts) != region.turns:
                    continue
                places = [at[i] for i in range(region.turns)]
                steps = {_apart(a, b) for a, b in zip(places, places[1:], strict=False)}
                if len(steps) == 1 and len(owned) == 1:
                    found[id(node)] = region, p, o, Place(out.shape, places[0], steps.pop())
        return found

    def tape(self) -> Tape:
        starts = {region.start: region for region in self.regions}
        i = 0
        while i < len(self.nodes):
            region = starts.get(i)
            if region is not None:
                self.write(region)
                i = region.end
                continue
            node = self.nodes[i]
            if id(node) in self.placed:
                self._fill(node)
            else:
                self.new.append(node.with_inputs([self.get(v, node) for v in node.inputs]))
            i += 1
        outputs = tuple([self.get(v, self.nodes[-1]) for v in self.old.outputs])
        return self.old.replace(nodes=tuple(self.new), outputs=outputs)

    def emit(self, like: Node, op: Any, inputs: Sequence[Var], params: dict[str, Any]) -> tuple[Var, ...]:
        avals = op.infer(tuple([v.aval for v in inputs]), params)
        outputs = tuple([Tracer(aval, self.holder) for aval in avals])
        self.new.append(_like(like, op, list(inputs), params, outputs))
        return outputs

    def get(self, v: Var, like: Node) -> Var:
        """A value of the old program, in the new one."""
        if v.tape is None:
            return v
        known = self.env.get(v)
        if known is None:
            where = self.views.owner.get(v)
            if where is None:
                return v
            region, i, p, o = where
            if v in self.replayed:
                node = region.blocks[i][p]
                outputs = tuple([Tracer(out.aval, self.holder) for out in node.outputs])
                inputs = [self.get(x, like) for x in node.inputs]
                self.new.append(_like(node, node.op, inputs, node.params, outputs))
                self.env.update(zip(node.outputs, outputs, strict=True))
                return outputs[o]
            (known,) = self.emit(like, row, [self.rows[id(region), p, o]], {"index": i})
            known = self.env[v] = self._weak(known, v, like)
        return known

    def _weak(self, new: Var, old: Var, like: Node) -> Var:
        return self.emit(like, weak_op, [new], {"dtype": old.aval.dtype})[0] if old.aval.weak_type else new

    def _fill(self, node: Node) -> None:
        """What a loop has written, with the parts that others make."""
        region, *_ = self.placed[id(node)]
        buffer = self.buffers[id(node)]
        rest = [(s, v) for s, v in zip(_starts(node), node.inputs, strict=True) if v not in region.place]
        if rest:
            params = {"starts": tuple([start for start, _ in rest])}
            (buffer,) = self.emit(node, filled, [buffer, *[self.get(v, node) for _, v in rest]], params)
        self.env[node.outputs[0]] = buffer

    def write(self, region: _Region) -> None:
        like, turns = region.blocks[0][0], region.turns
        model = region.blocks[turns // 2]
        new = self._body_value
        carries: dict[Any, list[Var]] = {}
        first: dict[Any, list[Var]] = {}
        operands: dict[tuple[int, int], Var | tuple[int, int]] = {}
        consts = {v: new(v.aval) for v in region.consts()}
        lists = region.each()
        parts = {ids: new(vs[0].aval) for ids, vs in lists.items()}
        for (p, s), slot in region.slots.items():
            if slot[0] == "made":
                operands[p, s] = slot[1:]
            elif slot[0] == "carry":
                _, lag, q, o = slot
                begin = [block[p].inputs[s] for block in region.blocks[:lag]]
                key = (q, o, lag, _ids(begin))
                if key not in carries:
                    carries[key] = [new(region.blocks[0][q].outputs[o].aval) for _ in range(lag)]
                    first[key] = begin
                operands[p, s] = carries[key][0]
        made: dict[tuple[int, int], Var] = {}
        nodes: list[Node] = []
        again: dict[_Ids, Var] = {}

        def value(slot: tuple[Any, ...]) -> Var:
            if slot[0] == "const":
                return slot[1] if slot[1].tape is None else consts[slot[1]]
            ids = _ids(slot[1])
            return parts[ids] if ids in parts else again[ids]

        # What was found first is made of what was found later.
        for ids, (node, o, slots) in reversed(region.again.items()):
            outputs = tuple([new(v.aval) for v in node.outputs])
            nodes.append(_like(node, node.op, [value(slot) for slot in slots], node.params, outputs))
            again[ids] = outputs[o]
        for p, node in enumerate(model):
            inputs = []
            for s in range(len(node.inputs)):
                operand = operands.get((p, s))
                if operand is None:
                    operand = value(region.slots[p, s])
                inputs.append(made[operand] if type(operand) is tuple else operand)
            outputs = tuple([new(v.aval) for v in node.outputs])
            made.update(((p, o), v) for o, v in enumerate(outputs))
            nodes.append(_like(node, node.op, inputs, node.params, outputs))

        carry_in, carry_out, begin = [], [], []
        for key, chain in carries.items():
            for d, v in enumerate(chain):
                carry_in.append(v)
                carry_out.append(chain[d + 1] if d + 1 < len(chain) else made[key[0], key[1]])
                begin.append(self.get(first[key][d], like))
        kept: dict[tuple[int, int], None] = {}
        last: dict[tuple[int, int], Var] = {}
        for v in sorted(self.wanted[region], key=region.place.__getitem__):
            i, p, o = region.place[v]
            if i == turns - 1 and not jax.dtypes.issubdtype(v.aval.dtype, jax.dtypes.extended):
                last[p, o] = v
            else:
                kept[p, o] = None
        finals: list[tuple[Var, int]] = []
        for place, v in last.items():
            if place in kept:
                continue
            if all(x is not made[place] for x in carry_out):
                carry_in.append(new(v.aval))
                carry_out.append(made[place])
                zero = Literal(make_aval((), v.aval.dtype), None, 0.0)
                begin += self.emit(like, ops.broadcast_in_dim, [zero], {"shape": v.aval.shape, "dims": ()})
            finals.append((v, next(c for c, x in enumerate(carry_out) if x is made[place])))
        places = [(key, p, o, place) for key, (r, p, o, place) in self.placed.items() if r is region]
        sources: dict[Var, int] = {}
        reads = [self._read(vs, sources, like) for vs in lists.values()]
        body = self.old.replace(
            inputs=(*carry_in, *parts.values(), *consts.values()),
            nodes=tuple(nodes),
            outputs=(*carry_out, *[made[k] for k in kept], *[made[p, o] for _, p, o, _ in places]),
            name=f"{self.old.name}_loop", out_tree=None, arguments=None,
        )  # fmt: skip
        body = reroll(dead_code(body))
        params = {
            "turn": body, "carried": len(carry_in), "sources": len(sources), "reads": tuple(reads),
            "places": tuple([place for *_, place in places]), "length": turns,
            "unroll": max(1, min(turns, round(BODY / max(1, len(body.nodes))))),
        }  # fmt: skip
        outs = self.emit(like, loop, [*begin, *sources, *[self.get(v, like) for v in consts]], params)
        for v, c in finals:
            self.env[v] = self._weak(outs[c], v, like)
        for c, (p, o) in enumerate(kept):
            self.rows[id(region), p, o] = outs[len(carry_in) + c]
        for c, (key, *_) in enumerate(places):
            self.buffers[key] = outs[len(carry_in) + len(kept) + c]

    def _body_value(self, aval: Aval) -> Var:
        return Tracer(aval, self.holder)

    def _read(self, vs: Sequence[Var], sources: dict[Var, int], like: Node) -> Read:
        """How the turns get theirs of these."""
        if all(v.tape is None for v in vs):
            return Table(tuple([v.value for v in vs]), vs[0].aval.dtype)
        found = self.views.regular(vs)
        if found is None and _bytes(vs[0].aval) >= COPIED:
            return Choice(tuple([sources.setdefault(self.get(v, like), len(sources)) for v in vs]))
        if found is None:
            (array,) = self.emit(like, stacked, [self.get(v, like) for v in vs], {})
            return Row(sources.setdefault(array, len(sources)), 0, 1)
        what, start, step = found
        if what[0] == "window":
            array = self.get(self.views.part[vs[0]][0], like)
            return Window(sources.setdefault(array, len(sources)), start, step, what[2])
        _, region, p, o = what
        return Row(sources.setdefault(self.rows[id(region), p, o], len(sources)), start[0], step[0])


def _starts(node: Node) -> Sequence[tuple[int, ...]]:
    """Where the operands of a node that joins them begin."""
    if node.op is joined:
        return node.params["starts"]  # type: ignore[no-any-return]
    axis = node.params["axis"]
    sizes = [v.aval.shape[axis] for v in node.inputs]
    ndim = node.outputs[0].aval.ndim
    return [tuple([at if a == axis else 0 for a in range(ndim)]) for at in np.cumsum([0, *sizes[:-1]]).tolist()]


def _apart(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    return tuple([y - x for x, y in zip(a, b, strict=True)])
