"""Nodes and edges packed into steps: what is static of a plan, and its integers. Uses messages, and the structure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import here
from .reading import Ints, Nodes
from .structure import Joint, Kind, Structure, layouts, places

WIDE = 128
"""From how many nodes a level on, on average, a step runs so many at once. Few data sets have levels near that size,
and so the minibatches of one have the same lanes, and the same program."""

STEP = 12
"""What a step costs beside its lanes, in lanes."""

FEWEST_STEPS, FEWEST_ROWS, FEWEST_ROUNDS = 2, 256, 16
"""Capacities begin here and double: the fewer there are, the fewer programs."""


class Edges(NamedTuple):
    """Which cells read which: places of cells and the cells read there, places in all, and the cells of roots."""

    reads: frozenset[tuple[int, int, int]]
    arity: frozenset[tuple[int, int]]
    roots: frozenset[int]


class Form(NamedTuple):
    """What is static of a plan: the structure, which cell each kind runs, and what is returned of it.

    A kind without a cell (-1) passes on rows of others: those that are the result.
    """

    structure: Structure
    cells: tuple[int, ...]
    outputs: str


class Room(NamedTuple):
    """The capacities of other plans: for each cell its kinds there, without pools; how many rows are returned."""

    outputs: str
    edges: Edges
    kinds: dict[int, list[Kind]]
    returned: int


class Part(NamedTuple):
    """The nodes of a kind, in the order in which they run, and the first step of each of their levels, and the end."""

    cell: int
    lanes: int
    nodes: Ints
    starts: Ints


def room_of(plans: Sequence[tuple[Form, Edges]]) -> Room | None:
    """What there is room for in the largest of these, kind by kind."""
    if not plans:
        return None
    kinds: dict[int, list[Kind]] = {}
    for form, _ in plans:
        for c in set(form.cells) - {-1}:
            own = [k for k, cell in zip(form.structure.kinds, form.cells, strict=True) if cell == c]
            known = kinds.get(c, own)
            if [k.lanes for k in known] != [k.lanes for k in own]:
                raise ValueError(
                    f"graph_plan: the plans in like run different numbers of nodes of cell {c} a step {here()}. Make "
                    "them with the same lanes=."
                )
            kinds[c] = [_larger(a, b) for a, b in zip(known, own, strict=True)]
    first = plans[0][0]
    returned = {form.structure.kinds[-1].lanes for form, _ in plans}
    if len({form.outputs for form, _ in plans}) > 1 or (first.outputs == "roots" and len(returned) > 1):
        raise ValueError(
            f"graph_plan: the plans in like return differently much {here()}: give plans with the same outputs=, and "
            "with equally many graphs."
        )
    edges = Edges(*[frozenset().union(*parts) for parts in zip(*[e for _, e in plans], strict=True)])
    return Room(first.outputs, edges, kinds, max(returned))


def _larger(a: Kind, b: Kind) -> Kind:
    slots, ports = (
        tuple([(0, max(m, n)) for (_, m), (_, n) in zip(x, y, strict=True)])
        for x, y in ((a.slots, b.slots), (a.ports, b.ports))
    )
    return Kind(max(a.steps, b.steps), a.lanes, slots, ports, max(a.rounds, b.rounds))


def packed(nodes: Nodes, outputs: str, room: Room | None, lanes: int | None) -> tuple[Ints, Form, Edges]:
    """The integers of these graphs, what is static of them, and which cells read which."""
    edges = _edges(nodes, outputs)
    if room is not None:
        _check_alike(edges, outputs, room)
        edges = room.edges
    arity = dict(sorted(edges.arity))
    cells = list(arity)
    pool_of, slot_pools = _pools(arity, edges)
    phases = _phases(cells, edges)
    height = _heights(nodes, phases)

    parts: list[Part] = []
    kinds: list[Kind] = []
    kind = np.zeros(len(nodes.cell), np.int64)
    position = np.zeros(len(nodes.cell), np.int64)
    order: list[list[tuple[int, ...]]] = []
    own_of: dict[int, list[int]] = {}
    for c in cells:
        which = np.flatnonzero(nodes.cell == c)
        levels = np.bincount(height[which], minlength=1)
        itself = (c,) in phases and any(k == c == child for k, _, child in edges.reads)
        models = room.kinds[c] if room is not None else []
        alone = any(phase == (c,) for phase in phases)
        widths = tuple([k.lanes for k in models]) or ((lanes,) if lanes else _widths(levels, alone, itself))
        own_of[c] = []
        for n, (wide, first, end) in enumerate(_cuts(levels, widths)):
            k = len(parts)
            mine = which[(height[which] >= first) & (height[which] < end)]
            by = mine[np.argsort(height[mine], kind="stable")]
            starts = np.concatenate([[0], np.cumsum(-(-levels[first:end] // wide))])
            before = np.concatenate([[0], np.cumsum(levels[first:end])])
            level = height[by] - first
            kind[by] = k
            position[by] = starts[level] * wide + np.arange(len(by)) - before[level]
            parts.append(Part(c, wide, by, starts))
            steps, rounds = (
                _bucket(int(starts[-1]), max(FEWEST_STEPS, _bucket(-(-FEWEST_ROWS // wide), 1))),
                _bucket(len(starts) - 1, FEWEST_ROUNDS),
            )
            if models:
                if starts[-1] > models[n].steps:
                    raise _exceeded(c, f"{starts[-1]} steps of {wide} nodes", str(models[n].steps))
                steps, rounds = models[n].steps, models[n].rounds
            kinds.append(Kind(steps, wide, (), (), rounds))
            own_of[c].append(k)
    for together in phases:
        members = [k for c in together for k in own_of[c]]
        if len(together) == 1:
            order.append([(k,) for k in members])
            continue
        order.append([tuple(members)])
        # In each round some kind of the phase takes a step.
        apart = room is not None and any(kinds[k].rounds == 1 for k in members)
        most = _bucket(sum(kinds[k].steps for k in members), 1) if apart else max(kinds[k].rounds for k in members)
        for k in members:
            if len(parts[k].starts) - 1 > most:
                raise _exceeded(parts[k].cell, f"{len(parts[k].starts) - 1} rounds", str(most))
            kinds[k] = kinds[k]._replace(rounds=-most)
    kinds = [k._replace(rounds=max(-k.rounds, 1)) for k in kinds]

    # What is returned: rows that are read once more.
    reader, place, child = nodes.reader, nodes.place, nodes.child
    count = len(kinds)
    if outputs == "roots":
        if room is not None and len(nodes.roots) != room.returned:
            raise _exceeded(None, f"{len(nodes.roots)} graphs", f"{room.returned}, in each plan like it")
        returned = [(nodes.cell[nodes.roots[0]], nodes.roots, len(nodes.roots))]
    else:
        returned = [(c, np.flatnonzero(nodes.cell == c), sum(kinds[k].rows for k in own_of[c])) for c in cells]
    for c, which, size in returned:
        at = np.arange(len(which))
        reader = np.concatenate([reader, len(kind) + at])
        place = np.concatenate([place, np.zeros_like(at)])
        child = np.concatenate([child, which])
        kind = np.concatenate([kind, np.full(len(at), len(kinds))])
        position = np.concatenate([position, at])
        slot_pools[-1 - len(kinds)] = [pool_of[c]]
        parts.append(Part(-1 - len(kinds), size, at, np.array([0, 1])))
        kinds.append(Kind(1, size, (), ()))
    order.append([(k,) for k in range(count, len(kinds))])

    width = max(arity.values()) + 1
    slot_rank, slot_most = _ranks(reader * width + place, kind[reader], place, len(kinds), width)
    port_rank, port_most = _ranks(child, kind[child], np.zeros_like(child), len(kinds), 1)
    for k, part in enumerate(parts):
        ends: tuple[tuple[Joint, ...], ...] = (
            tuple([(p, _bucket(int(slot_most[k, i]), 1)) for i, p in enumerate(slot_pools[part.cell])]),
            ((pool_of[part.cell], _bucket(int(port_most[k, 0]), 1)),) if part.cell >= 0 else (),
        )
        if room is not None and part.cell >= 0:
            model = room.kinds[part.cell][own_of[part.cell].index(k)]
            for there, needed in zip((model.slots, model.ports), ends, strict=True):
                for (_, most), (_, n) in zip(there, needed, strict=True):
                    if n > most:
                        raise _exceeded(part.cell, f"{n} edges at one place", str(most))
            ends = tuple([
                tuple([(p, n) for (p, _), (_, n) in zip(mine, there, strict=True)])
                for mine, there in zip(ends, (model.slots, model.ports), strict=True)
            ])  # fmt: skip
        kinds[k] = kinds[k]._replace(slots=ends[0], ports=ends[1])
    structure = Structure(tuple(kinds), tuple([phase for phases in order for phase in phases]))
    graph = Graph(kind, position, nodes.row, reader, place, child, slot_rank, port_rank)
    form = Form(structure, tuple([max(part.cell, -1) for part in parts]), outputs)
    return integers_of(structure, parts, graph), form, edges


def _bucket(n: int, least: int) -> int:
    while least < n:
        least *= 2
    return least


def _unlike(what: str) -> ValueError:
    return ValueError(
        f"graph_plan: there are {what}, and in the plan that it is to be like there are none {here()}. Leave like out, "
        "or make that plan of graphs that have all there is."
    )


def _exceeded(cell: int | None, needed: str, room: str) -> ValueError:
    who = "the result has" if cell is None else f"cell {cell} has"
    return ValueError(
        f"graph_plan: a capacity is exceeded: {who} {needed}, and the plan that it is to be like has room for {room} "
        f"{here()}. Give a larger plan as like, or several, or leave it out."
    )


def _check_alike(edges: Edges, outputs: str, room: Room) -> None:
    """Raises unless these graphs have no other cells and edges than those of the plans that they are to be like."""
    if room.outputs != outputs:
        raise _unlike(f"outputs={outputs!r}")
    for k, place, c in sorted(edges.reads - room.edges.reads):
        raise _unlike(f"nodes of cell {k} that read nodes of cell {c} at place {place}")
    for c, n in sorted(edges.arity - room.edges.arity):
        raise _unlike(f"nodes of cell {c} with {n} children")
    for c in sorted(edges.roots - room.edges.roots):
        raise _unlike(f"roots of cell {c}")


def _edges(nodes: Nodes, outputs: str) -> Edges:
    width, count = max(nodes.arity.values()) + 1, max(nodes.arity) + 1
    joined = np.unique((nodes.cell[nodes.reader] * width + nodes.place) * count + nodes.cell[nodes.child]).tolist()
    roots = set(nodes.cell[nodes.roots].tolist()) if outputs == "roots" else ()
    return Edges(
        frozenset((j // count // width, j // count % width, j % count) for j in joined),
        frozenset(nodes.arity.items()), frozenset(roots),
    )  # fmt: skip


def _widths(levels: Ints, alone: bool, itself: bool) -> tuple[int, ...]:
    """How many nodes of a cell a step runs at once.

    Of a cell that reads itself, and is alone in its phase, the first levels have other steps than the rest: the higher
    a level is, the fewer nodes it has.
    """
    many = levels.sum() >= WIDE * np.count_nonzero(levels)
    if not alone:
        return (128,) if many else (16,)
    if not itself:
        return (128,) if levels.sum() >= 16 * WIDE else (32,)
    return (128, 32) if many else (32, 8)


def _cuts(levels: Ints, lanes: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """For each kind of a cell with levels of so many nodes: its lanes, its first level and the one after its last."""
    if len(lanes) == 1:
        return [(lanes[0], 0, len(levels))]
    wide, narrow = (np.concatenate([[0], np.cumsum(-(-levels // w) * (w + STEP))]) for w in lanes)
    cut = int(np.argmin(wide - narrow))
    return [(lanes[0], 0, cut), (lanes[1], cut, len(levels))]


def _heights(nodes: Nodes, phases: Sequence[tuple[int, ...]]) -> Ints:
    """How many nodes of the same phase stand below each node."""
    phase_of = np.zeros(int(nodes.cell.max()) + 1, np.int64)
    for n, together in enumerate(phases):
        phase_of[[c for c in together if c < len(phase_of)]] = n
    phase = phase_of[nodes.cell]
    same = phase[nodes.reader] == phase[nodes.child]
    height = [0] * len(nodes.cell)
    for n, c in zip(nodes.reader[same].tolist(), nodes.child[same].tolist(), strict=True):
        if height[c] >= height[n]:
            height[n] = height[c] + 1
    return np.array(height)


def _pools(arity: dict[int, int], edges: Edges) -> tuple[dict[int, int], dict[int, list[int]]]:
    """For each kind the pool of what it makes, and those of what its places read: one for all that an edge joins."""
    parent = {c: c for c in arity}

    def find(c: int) -> int:
        while parent[c] != c:
            c = parent[c]
        return c

    at: dict[tuple[int, int], int] = {}
    joined = [((k, place), c) for k, place, c in sorted(edges.reads)] + [((-1, 0), c) for c in sorted(edges.roots)]
    for slot, c in joined:
        parent[find(c)] = find(at.setdefault(slot, c))
    number: dict[int, int] = {}
    ports = {c: number.setdefault(find(c), len(number)) for c in arity}
    for c, count in arity.items():
        for place in range(count):
            if (c, place) not in at:
                raise ValueError(
                    f"graph_plan: no node of cell {c} has a child at place {place} {here()}. What would be read there "
                    "is not known: leave the place out."
                )
    return ports, {c: [ports[at[c, place]] for place in range(n)] for c, n in arity.items()}


def _phases(cells: Sequence[int], edges: Edges) -> list[tuple[int, ...]]:
    """The cells that read each other in a circle together, and each after those that it reads."""
    reach: dict[int, set[int]] = {k: set() for k in cells}
    for k, _, c in edges.reads:
        reach[k].add(c)
    for through in cells:
        for k in cells:
            if through in reach[k]:
                reach[k] |= reach[through]
    found: list[tuple[int, ...]] = []
    left = list(cells)
    while left:
        k = next(k for k in left if all(c not in left or k in reach[c] for c in reach[k]))
        together = tuple([j for j in left if j == k or (j in reach[k] and k in reach[j])])
        found.append(together)
        left = [j for j in left if j not in together]
    return found


def _ranks(group: Ints, kind: Ints, place: Ints, kinds: int, width: int) -> tuple[Ints, Ints]:
    """For each edge how many edges of its group come before it; for each kind and place the size of the largest."""
    most = np.zeros((kinds, width), np.int64)
    if not len(group):
        return np.zeros(0, np.int64), most
    by = np.argsort(group, kind="stable")
    ordered = group[by]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    starts = np.flatnonzero(new)
    rank = np.empty(len(group), np.int64)
    rank[by] = np.arange(len(group)) - starts[np.cumsum(new) - 1]
    np.maximum.at(most.ravel(), kind * width + place, rank + 1)
    return rank, most


class Graph(NamedTuple):
    """Nodes: the kind of each, its row among those of the kind, the row of streams that it reads. Edges, and for each
    how many of the reader's, at that place, and of the child's come before it."""

    kind: Ints
    position: Ints
    row: Ints
    reader: Ints
    place: Ints
    child: Ints
    slot_rank: Ints
    port_rank: Ints


def integers_of(structure: Structure, parts: Sequence[Part], graph: Graph) -> Ints:
    """The array that `Layout` describes."""
    layout, size = layouts(structure)
    (slot_bases, slot_sizes), (port_bases, port_sizes) = places(structure)
    array = np.zeros(size, np.int32)

    def view(where: tuple[int, tuple[int, ...]]) -> Ints:
        start, shape = where
        return array[start : start + math.prod(shape)].reshape(shape)

    slot_base = np.zeros((len(parts), 1 + max(map(len, slot_bases))), np.int64)
    for k, bases in enumerate(slot_bases):
        slot_base[k, : len(bases)] = bases
    port_base = np.array([bases[0] if bases else 0 for bases in port_bases])
    reading, read = graph.kind[graph.reader], graph.kind[graph.child]
    to, of = graph.position[graph.reader], graph.position[graph.child]
    made, wanted = port_base[read] + of, slot_base[reading, graph.place] + to
    for k, (kind, where, part) in enumerate(zip(structure.kinds, layout, parts, strict=True)):
        bounds = view(where.bounds)
        bounds[1:] = part.starts[-1]
        bounds[:2] = 1, 0
        if kind.rounds > 1:
            bounds[1 : 1 + len(part.starts)] = part.starts
        at = graph.position[part.nodes] if part.cell >= 0 else part.nodes
        valid = view(where.valid)
        valid[at] = 1
        # A lane that is no node's repeats the step's last node, so that it computes nothing that the node does not.
        lanes = valid.reshape(kind.steps, kind.lanes)
        copy = np.minimum(np.arange(kind.lanes), np.maximum(lanes.sum(1) - 1, 0)[:, None])
        if part.cell >= 0:
            source = view(where.source)
            source[at] = graph.row[part.nodes]
            source[:] = np.take_along_axis(source.reshape(lanes.shape), copy, 1).ravel()
        for i, (pool, _) in enumerate(kind.slots):
            rows = view(where.slots[i])
            rows[:] = port_sizes[pool]
            mine = np.flatnonzero((reading == k) & (graph.place == i))
            rows[to[mine] // kind.lanes, graph.slot_rank[mine], to[mine] % kind.lanes] = made[mine]
            rows[:] = np.take_along_axis(rows, copy[:, None], 2)
        for i, (pool, _) in enumerate(kind.ports):
            rows = view(where.ports[i])
            rows[:] = slot_sizes[pool]
            mine = np.flatnonzero(read == k)
            rows[of[mine] // kind.lanes, graph.port_rank[mine], of[mine] % kind.lanes] = wanted[mine]
    # How many rounds there are is the same for all kinds of a phase.
    for phase in structure.phases:
        if len(phase) > 1:
            most = max(len(parts[k].starts) - 1 for k in phase)
            for k in phase:
                view(layout[k].bounds)[0] = most
    return array
