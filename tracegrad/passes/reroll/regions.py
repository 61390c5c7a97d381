"""Where a program repeats itself, what each turn reads, and whether it becomes a loop. Uses the tape."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ... import ops
from ...errors import describe_source
from ...ops.shape import slice_, split_op
from ...tape import Aval, Node, Var
from ..outline import recurrences, symbols_of

TURNS = 4
"""How many turns a loop has at least."""

SAVED = 24
"""How many nodes a loop takes out of the program at least."""

PERIODS = 16
"""How many periods are tried."""

LAG = 4
"""How many turns back a turn may read."""

WORTH = 8
"""How many turns a loop has at least to be worth it: fewer compile as soon one after another."""

MOVED = 0.125
"""What part of what a turn makes it may move beside, from and to arrays of its own."""

TAKEN = 0.25
"""What part of what a loop reads of another it may stack for others to take it one by one."""

STEPS = 12
"""In how many steps a value is computed again at most."""

LONG = 3_000
"""Nodes beyond which a program is rolled that XLA would make one function of: compiling that takes too long."""

FUSED = frozenset([
    ops.alias, ops.astype, ops.broadcast_in_dim, ops.integer_pow, ops.iota, ops.reshape, ops.slice_, ops.split_op,
    ops.transpose, ops.where,
])  # fmt: skip
"""What XLA computes together with arithmetic on its operands."""

CHEAP = frozenset([
    ops.abs_, ops.add, ops.alias, ops.astype, ops.broadcast_in_dim, ops.equal, ops.greater, ops.greater_equal,
    ops.integer_pow, ops.less, ops.less_equal, ops.maximum, ops.minimum, ops.mul, ops.neg, ops.not_equal, ops.reshape,
    ops.sign, ops.square, ops.sub, ops.transpose, ops.where, ops.div, ops.mul_no_nan_op, ops.mul_either_op, ops.relu,
])  # fmt: skip
"""What a loop computes again, rather than read what another loop has kept for it."""


@dataclass(eq=False)
class Region:
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
    run: tuple[int, int, int] = (0, 0, 0)
    place: dict[Var, tuple[int, int, int]] = field(default_factory=dict)
    again: Steps = field(default_factory=dict)

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

    def each(self) -> dict[Ids, tuple[Var, ...]]:
        """The lists of values of which each turn reads one."""
        lists = [slot[1] for slot in self.slots.values() if slot[0] == "each"]
        lists += [slot[1] for _, _, slots in self.again.values() for slot in slots if slot[0] == "each"]
        found = {ids_of(vs): vs for vs in lists}
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


Ids = tuple[Any, ...]
Steps = dict[Ids, tuple[Node, int, list[tuple[Any, ...]]]]
"""How values, one a turn, are computed: by a node like this, of which output, and from what."""


def literally(v: Var) -> Any:
    return (v.value.__class__, repr(v.value), v.aval)


def ids_of(vs: Sequence[Var]) -> Ids:
    return tuple([id(v) if v.tape is not None else literally(v) for v in vs])


@dataclass
class Traffic:
    """What a loop moves, in bytes: what each turn makes, and for the loop as a whole, what it costs to have it.

    Attributes:
      made: of all values of a turn.
      chosen: of the values of a turn that are copied from arrays of their own, such as a layer's weights.
      taken: of what it stacks and then gives away one by one, such as the gradients of a layer's weights, for a turn.
      kept: of what it reads that another loop has stacked, for a turn.
    """

    made: int = 0
    chosen: int = 0
    taken: int = 0
    kept: int = 0


Rule = Callable[[Region, Traffic, int], bool]


def worthwhile(region: Region, traffic: Traffic, size: int) -> bool:
    """Whether a loop is better than its turns one after another, in a program of so many nodes.

    `benchmarks/roll.py` measures what this rests on.
    """
    # XLA makes one function of arithmetic alone, which keeps nothing in memory from step to step.
    if size <= LONG and is_arithmetic(region.blocks[0]):
        return False
    if region.turns < WORTH or traffic.chosen + traffic.taken > MOVED * traffic.made:
        return False
    return traffic.taken <= TAKEN * traffic.kept


def is_arithmetic(nodes: Sequence[Node]) -> bool:
    """Whether XLA makes one function of these, which is compiled into what is before and after it too."""
    return all(node.op.numbers or node.op in FUSED for node in nodes)


def candidates(nodes: list[Node], outputs: Sequence[Var]) -> list[tuple[int, int, int]]:
    """Where the nodes repeat themselves: the start of a run, the length of a block, and that of the run."""
    runs = _repetitions(symbols_of(nodes))
    last_use = {v: i for i, node in enumerate(nodes) for v in node.inputs}
    last_use.update((v, len(nodes)) for v in outputs)
    return [_cut(nodes, *run, last_use) for run in runs]


def find_regions(nodes: list[Node], runs: Sequence[tuple[int, int, int]]) -> list[Region]:
    """The loops that there are in these runs."""
    views = Views(nodes)
    found: list[Region] = []
    for start, period, length in runs:
        region = _classified(nodes, start, period, length // period, views)
        if region is not None:
            region.run = (start, period, length)
            views.recompute(region)
            views.add(region)
            found.append(region)
    return found


def _repetitions(symbols: Any) -> list[tuple[int, int, int]]:
    """Where the sequence repeats itself: (start, length of a block, length of the run), none overlapping."""
    found = []
    for period, start, end in recurrences(symbols, PERIODS):
        length = end - start + period
        if enough(length // period, period):
            found.append(((length // period - 1) * period, -period, start, length))
    free = np.ones(len(symbols), bool)
    chosen = []
    for _, negative, start, length in sorted(found, reverse=True):
        # Of what overlaps a longer one, the longest part that does not.
        cuts = [-1, *np.flatnonzero(~free[start : start + length]).tolist(), length]
        before, after = max(itertools.pairwise(cuts), key=lambda pair: pair[1] - pair[0])
        start, length = start + before + 1, after - before - 1
        if enough(length // -negative, -negative):
            free[start : start + length] = False
            chosen.append((start, -negative, length))
    return sorted(chosen)


def enough(turns: int, period: int) -> bool:
    return turns >= TURNS and (turns - 1) * period >= SAVED


def size_of(aval: Aval) -> int:
    return math.prod(aval.shape) * int(getattr(aval.dtype, "itemsize", 8))


def _cut(nodes: list[Node], start: int, period: int, length: int, last_use: dict[Var, int]) -> tuple[int, int, int]:
    """The run from where the fewest bytes pass from block to block."""
    turns = length // period
    spare = length % period if turns == TURNS else period - 1
    middle = start + turns // 2 * period
    costs = []
    for shift in range(min(spare, period - 1) + 1):
        cut = middle + shift
        passed = [v for node in nodes[cut - period : cut] for v in node.outputs]
        costs.append(sum(size_of(v.aval) for v in passed if cut <= last_use.get(v, -1) < cut + period))
    shift = costs.index(min(costs))
    return start + shift, period, length - shift


def _classified(nodes: list[Node], start: int, period: int, turns: int, views: Views) -> Region | None:
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
        if not enough(hi - lo + 1, period):
            return None
    lo, hi = views.trimmed([[blocks[i][p].inputs[s] for i in range(lo, hi + 1)] for p, s in lists], lo, hi, period)
    if not enough(hi - lo + 1, period):
        return None
    slots: dict[tuple[int, int], tuple[Any, ...]] = {}
    for (p, s), k in kinds.items():
        slots[p, s] = k
        if k[0] == "each":
            vs = tuple([blocks[i][p].inputs[s] for i in range(lo, hi + 1)])
            alike = vs[0].tape is None and all(v.tape is None and literally(v) == literally(vs[0]) for v in vs)
            slots[p, s] = ("const", vs[0]) if alike else ("each", vs)
    return Region(start + lo * period, period, blocks[lo : hi + 1], slots)


class Views:
    """What is known of single values as parts of others: of an array, or of what a loop stacks."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.regions: list[Region] = []
        self.owner: dict[Var, tuple[Region, int, int, int]] = {}
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

    def add(self, region: Region) -> None:
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
            steps = [None if a[0] != b[0] else apart(a[1], b[1]) for a, b in itertools.pairwise(seen)]
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
        if 4 * (last - first + 1) < 3 * (hi - lo + 1) or not enough(last - first + 1, period):
            return lo, hi
        return lo + first, lo + last

    def regular(self, vs: Sequence[Var]) -> tuple[Any, tuple[int, ...], tuple[int, ...]] | None:
        """What all of these are parts of, where the first is, and how far apart they are, if all are equally far."""
        seen = [self.of(v) for v in vs]
        if seen[0][0][0] not in ("window", "row") or any(what != seen[0][0] for what, _ in seen):
            return None
        steps = {apart(a, b) for (_, a), (_, b) in itertools.pairwise(seen)}
        return (seen[0][0], seen[0][1], steps.pop()) if len(steps) == 1 else None

    def recompute(self, region: Region) -> None:
        """Finds what the turns need not read of an earlier loop, since it is quickly made of what they read anyway."""
        read = region.each()
        order = {v: n for n, v in enumerate(self.owner)}
        rows = [ids for ids, vs in read.items() if (r := self.regular(vs)) is not None and r[0][0] == "row"]
        # From the last made to the first, so that what one is made of is still among what is read.
        for ids in sorted(rows, key=lambda ids: -order[read[ids][0]]):
            steps: Steps = {}
            if self._steps(read[ids], read, steps) and any(
                s[0] == "each" for _, _, slots in steps.values() for s in slots
            ):
                region.again |= steps

    def _steps(self, vs: tuple[Var, ...], read: dict[Ids, tuple[Var, ...]], steps: Steps) -> bool:
        """Whether these are quickly made of what is read, by some steps, which are added."""
        if any(v not in self.owner for v in vs):
            return False
        owners = [self.owner[v] for v in vs]
        if len({(id(r), p, o) for r, _, p, o in owners}) != 1:
            return False
        makers = [r.blocks[i][p] for r, i, p, _ in owners]
        node = makers[0]
        if node.op not in CHEAP or len(steps) > STEPS:
            return False
        slots: list[tuple[Any, ...]] = []
        for s in range(len(node.inputs)):
            operands = tuple([m.inputs[s] for m in makers])
            key = ids_of(operands)
            slots.append(("const", operands[0]) if len(set(key)) == 1 else ("each", operands))
            there = len(set(key)) == 1 or key in read or key in steps or self._there(operands, vs[0])
            if not there and not self._steps(operands, read, steps):
                return False
        steps[ids_of(vs)] = (node, owners[0][3], slots)
        return True

    def _there(self, vs: tuple[Var, ...], made: Var) -> bool:
        """Whether reading these costs less memory than what is made of them: no loop has to keep them."""
        if any(v in self.owner for v in vs):
            return False
        found = self.regular(vs)
        return found is not None or all(v.tape is None for v in vs) or size_of(vs[0].aval) * 4 <= size_of(made.aval)


def apart(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    return tuple([y - x for x, y in zip(a, b, strict=True)])
