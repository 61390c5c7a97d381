"""`graph_plan`: the structure of graphs as integers, packed into steps. Uses messages, and the structure.

All of it happens on the host, with NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ..concrete import Concrete
from ..errors import describe, here
from .structure import Kind, Structure, layouts, places

Ints = np.ndarray[Any, Any]

LANES = (8, 32, 128)
"""How many nodes a step may run at once."""

STEP = 16
"""What a step costs beside its lanes, in lanes."""

FEWEST_STEPS, FEWEST_ROUNDS = 8, 16
"""Capacities begin here and double: the fewer there are, the fewer programs."""


class Edges(NamedTuple):
    """Which cells read which: places of cells and the cells read there, places in all, and the cells of roots."""

    reads: frozenset[tuple[int, int, int]]
    arity: frozenset[tuple[int, int]]
    roots: frozenset[int]

    def joined(self, other: Edges) -> Edges:
        return Edges(*[a | b for a, b in zip(self, other, strict=True)])


_NONE = Edges(frozenset(), frozenset(), frozenset())


class Form(NamedTuple):
    """What is static of a plan: the structure, which cell each kind runs, and what is returned of it.

    A kind without a cell (-1) passes on rows of others: those that are the result.
    """

    structure: Structure
    cells: tuple[int, ...]
    outputs: str


@jax.tree_util.register_pytree_node_class
class Plan:
    """Graphs as integers: what `graph_plan` returns and `graph_map` runs.

    A plan is a pytree with one leaf, `integers`, so that it is an argument of `@jit` functions like any array, and
    plans of one `form` can be stacked for `vmap` and `pmap`: `jax.tree.map(lambda *x: np.stack(x), *plans)`. All plans
    of one form run in one compiled program.

    Attributes:
      integers: the array that says which rows each node reads, and when it runs.
      form: what is static: cells, steps and lanes. It can be hashed and compared.
      nodes: how many nodes run, and `edges`, which cells read which: of a plan as `graph_plan` made it, else `None`.
    """

    def __init__(self, integers: Any, form: Form, nodes: int | None = None, edges: Edges | None = None) -> None:
        self.integers = integers
        self.form = form
        self.nodes = nodes
        self.edges = edges

    def tree_flatten(self) -> tuple[tuple[Any], Form]:
        return (self.integers,), self.form

    @classmethod
    def tree_unflatten(cls, form: Form, children: tuple[Any]) -> Plan:
        return cls(children[0], form)

    def __repr__(self) -> str:
        kinds = [
            f"cell {c}: at most {k.steps} {'step' if k.steps == 1 else 'steps'} of {k.lanes}"
            for c, k in zip(self.form.cells, self.form.structure.kinds, strict=True)
            if c >= 0
        ]
        nodes = "" if self.nodes is None else f"{self.nodes} nodes; "
        return f"Plan({nodes}{', '.join(kinds)})"


def graph_plan(
    graphs: Sequence[Any],
    *,
    outputs: str = "roots",
    like: Plan | Sequence[Plan] = (),
    lanes: int | None = None,
) -> Plan:
    """Graphs as integers, for `graph_map`: in which steps their nodes run, and what each reads.

    Args:
      graphs: a list of graphs, each in one of three forms.

        - Nested tuples, for trees of two cells. An integer is a leaf, of cell 0, that reads this row of the stream of
          its cell; a tuple is a node of cell 1 with its parts as children: `((0, 1), 2)`.
        - A list of nodes, for trees, chains and any graph without cycles. A node is `(cell, children)` or
          `(cell, children, row)`: the number of its cell, the numbers of the nodes that it reads, and the row of the
          stream of its cell. Without `row` the nodes of a cell read its rows in the order in which they are listed. A
          child may be a list of nodes, of which the sum is read: of none, zeros. The last node is the root.
        - A pair of NumPy arrays of integers, which says the same of large graphs: the cells, `(nodes,)`, and the
          children, `(nodes, places)`, with -1 at places that are not there, or before the children of a cell with fewer.

      outputs: "roots" for a result with a row for each graph; "nodes" for one with a row for each node.
      like: one or more plans whose capacities this one gets, so that it runs in the program of the largest.
      lanes: how many nodes a step runs at once, for all cells. By default a number that suits the levels of the graphs.

    Steps, and how many nodes read one, are bucketed: the plans of the minibatches of a data set have few forms.

    Raises:
      ValueError: if a graph has a cycle, a child that is not there, or nodes of a cell with different numbers of
        children; if there is no graph; or if it has more than `like` has room for. The message names the node.

    Example:
      >>> import tracegrad as tg
      >>> tg.graph_plan([((0, 1), 2), (3, 4)])
      Plan(8 nodes; cell 0: at most 8 steps of 8, cell 1: at most 8 steps of 8)
    """
    if outputs not in ("roots", "nodes"):
        raise ValueError(f"graph_plan: outputs is {describe(outputs)} {here()}. Give 'roots' or 'nodes'.")
    if lanes is not None and (type(lanes) is not int or lanes < 1):
        raise ValueError(f"graph_plan: lanes is {describe(lanes)} {here()}. Give a number of nodes.")
    nodes = _read(graphs)
    if outputs == "roots":
        nodes = _reached(nodes)
    models = [like] if isinstance(like, Plan) else like
    if not isinstance(models, (list, tuple)) or not all(isinstance(x, Plan) and x.edges for x in models):
        raise TypeError(f"graph_plan: like is {describe(like)} {here()}. Give plans as graph_plan made them, or one.")
    return _packed(nodes, outputs, _room(models), lanes)


# -- reading what was given


class Nodes(NamedTuple):
    """All graphs as one: the cell of each node, the row of streams that it reads; edges, those to one node side by side.

    Nodes that are read stand in `order` before those that read them. `first` is the number of each graph's first node.
    """

    cell: Ints
    row: Ints
    reader: Ints
    place: Ints
    child: Ints
    arity: dict[int, int]
    roots: Ints
    first: Ints

    def name(self, i: int) -> str:
        """A node as a message names it."""
        g = int(np.searchsorted(self.first, i, side="right")) - 1
        return f"node {i - self.first[g]} of graph {g} (cell {self.cell[i]})"


class _Reader:
    """Collects nodes and edges, graph by graph."""

    def __init__(self) -> None:
        self.cell: list[int] = []
        self.row: list[int] = []
        self.reader: list[int] = []
        self.place: list[int] = []
        self.child: list[int] = []
        self.arity: dict[int, tuple[int, str]] = {}
        self.seen: dict[int, int] = {}
        self.sorted = True

    def tree(self, graph: Any, g: int) -> None:
        """Nested tuples: children before their parents."""
        cell, row, reader, place, child = self.cell, self.row, self.reader, self.place, self.child
        first = len(cell)
        stack: list[tuple[Any, int]] = [((graph,), 0)]
        done: list[list[int]] = [[]]
        while True:
            parts, i = stack[-1]
            if i == len(parts):
                stack.pop()
                if not stack:
                    return
                made = done.pop()
                n = len(cell)
                if self.arity.setdefault(1, (len(made), f"node {n - first} of graph {g}"))[0] != len(made):
                    raise self.other_arity(1, len(made), n - first, g)
                reader += [n] * len(made)
                place += range(len(made))
                child += made
                cell.append(1)
                row.append(0)
                done[-1].append(n)
                continue
            stack[-1] = parts, i + 1
            part = parts[i]
            if type(part) is tuple:
                if not part:
                    raise ValueError(
                        f"graph_plan: graph {g} has a node without children, () {here()}. A leaf is an integer: the "
                        "row of the stream that it reads."
                    )
                stack.append((part, 0))
                done.append([])
            elif isinstance(part, (int, np.integer)) and not isinstance(part, bool):
                if part < 0:
                    raise ValueError(f"graph_plan: graph {g} has the leaf {part} {here()}. Rows are counted from 0.")
                done[-1].append(len(cell))
                cell.append(0)
                row.append(int(part))
            else:
                raise TypeError(
                    f"graph_plan: graph {g} has the part {describe(part)} {here()}. A node of nested tuples is a "
                    "tuple, a leaf an integer. A list of (cell, children) says the same of any graph."
                )

    def listed(self, graph: Sequence[Any], g: int) -> None:
        first, size = len(self.cell), len(graph)
        if not size:
            raise ValueError(f"graph_plan: graph {g} has no nodes {here()}.")
        for i, entry in enumerate(graph):
            if not isinstance(entry, (tuple, list)) or len(entry) not in (2, 3) or not _is_int(entry[0]):
                raise TypeError(
                    f"graph_plan: node {i} of graph {g} is {describe(entry)} {here()}. Give (cell, children), or (cell, "
                    "children, row): a number, a sequence of node numbers, a number."
                )
            cell, children = int(entry[0]), entry[1]
            if cell < 0 or not isinstance(children, (tuple, list, np.ndarray)):
                raise TypeError(
                    f"graph_plan: node {i} of graph {g} has the cell {describe(entry[0])} and the children "
                    f"{describe(children)} {here()}. Cells are counted from 0, and children are a sequence of node "
                    "numbers."
                )
            if self.arity.setdefault(cell, (len(children), f"node {i} of graph {g}"))[0] != len(children):
                raise self.other_arity(cell, len(children), i, g)
            for p, c in enumerate(children):
                for one in c if isinstance(c, (tuple, list)) else (c,):
                    if not _is_int(one):
                        raise TypeError(
                            f"graph_plan: node {i} of graph {g} (cell {cell}) has the child {describe(one)} {here()}. "
                            "Give the number of a node, or a list of numbers for their sum."
                        )
                    if not 0 <= one < size:
                        raise self.not_there(i, cell, one, g, size)
                    self.sorted &= one < i
                    self.reader.append(first + i)
                    self.place.append(p)
                    self.child.append(first + int(one))
            count = self.seen.get(cell, 0)
            self.seen[cell] = count + 1
            row = count
            if len(entry) == 3:
                row = entry[2]
                if not _is_int(row) or row < 0:
                    raise TypeError(
                        f"graph_plan: node {i} of graph {g} (cell {cell}) reads the row {describe(row)} {here()}. "
                        "Give a number from 0 on."
                    )
            self.cell.append(cell)
            self.row.append(int(row))

    def arrays(self, graph: Any, g: int) -> None:
        cells, children = graph
        if (
            cells.ndim != 1 or children.ndim != 2 or len(cells) != len(children) or not len(cells)
            or cells.dtype.kind not in "iu" or children.dtype.kind not in "iu"
        ):  # fmt: skip
            raise TypeError(
                f"graph_plan: graph {g} is a pair of {describe(cells)} and {describe(children)} {here()}. Give integers "
                "(nodes,), and integers (nodes, places), of one node at least."
            )
        there = children >= 0
        size, first, counts = len(cells), len(self.cell), there.sum(1)
        wrong = np.argwhere((children < -1) | (children >= size))
        if len(wrong):
            i, p = wrong[0]
            raise self.not_there(int(i), int(cells[i]), int(children[i, p]), g, size)
        row = np.zeros(size, np.int64)
        for cell in np.unique(cells).tolist():
            if cell < 0:
                raise TypeError(f"graph_plan: graph {g} has the cell {cell} {here()}. Cells are counted from 0.")
            which = np.flatnonzero(cells == cell)
            arity = self.arity.setdefault(cell, (int(counts[which[0]]), f"node {which[0]} of graph {g}"))[0]
            other = which[counts[which] != arity]
            if len(other):
                raise self.other_arity(cell, int(counts[other[0]]), int(other[0]), g)
            count = self.seen.get(cell, 0)
            row[which] = count + np.arange(len(which))
            self.seen[cell] = count + len(which)
        nodes = np.nonzero(there)[0]
        found = children[there]
        self.sorted &= bool((found < nodes).all())
        self.reader += (nodes + first).tolist()
        self.place += (there.cumsum(1) - 1)[there].tolist()
        self.child += (found + first).tolist()
        self.cell += cells.tolist()
        self.row += row.tolist()

    def other_arity(self, cell: int, count: int, i: int, g: int) -> ValueError:
        before, where = self.arity[cell]
        return ValueError(
            f"graph_plan: node {i} of graph {g} (cell {cell}) has {count} children, and {where} has {before} {here()}. "
            "All nodes of a cell have as many: give those that have more or fewer a cell of their own, or a child that "
            "is a list of nodes, of which the sum is read."
        )

    def not_there(self, i: int, cell: int, child: Any, g: int, size: int) -> ValueError:
        return ValueError(
            f"graph_plan: node {i} of graph {g} (cell {cell}) has the child {child}, and the graph has the nodes 0 to "
            f"{size - 1} {here()}. Children are numbers of nodes of the same graph."
        )


def _is_int(x: Any) -> bool:
    return isinstance(x, (int, np.integer)) and not isinstance(x, bool)


def _read(graphs: Sequence[Any]) -> Nodes:
    if isinstance(graphs, (Concrete, jax.core.Tracer)) or not isinstance(graphs, (list, tuple)) or not len(graphs):
        raise ValueError(
            f"graph_plan: graphs is {describe(graphs)} {here()}. Give a list of graphs, of one at least: nested tuples, "
            "lists of (cell, children), or pairs of arrays."
        )
    reader = _Reader()
    first, roots = [], []
    for g, graph in enumerate(graphs):
        first.append(len(reader.cell))
        if type(graph) is list:
            reader.listed(graph, g)
        elif type(graph) is tuple and len(graph) == 2 and all(isinstance(x, np.ndarray) for x in graph):
            reader.arrays(graph, g)
        else:
            reader.tree(graph, g)
        roots.append(len(reader.cell) - 1)
    columns = [np.array(x, np.int64) for x in (reader.cell, reader.row, reader.reader, reader.place, reader.child)]
    nodes = Nodes(
        *columns, {k: n for k, (n, _) in sorted(reader.arity.items())}, np.array(roots), np.array(first)
    )  # fmt: skip
    if 0 not in nodes.arity and (nodes.cell == 0).any():
        nodes.arity[0] = 0
    return nodes if reader.sorted else _sorted(nodes)


def _sorted(nodes: Nodes) -> Nodes:
    """The edges in an order in which a node's own come after those of its children.

    Raises:
      ValueError: if there is none, because of a cycle.
    """
    count = len(nodes.cell)
    begin = np.searchsorted(nodes.reader, np.arange(count + 1)).tolist()
    child = nodes.child.tolist()
    state = bytearray(count)  # 1 while its children are gone through, 2 when all are done
    order: list[int] = []
    for start in range(count):
        stack = [(start, begin[start])] if not state[start] else []
        state[start] = state[start] or 1
        while stack:
            n, e = stack[-1]
            if e == begin[n + 1]:
                stack.pop()
                state[n] = 2
                order.append(n)
                continue
            stack[-1] = n, e + 1
            c = child[e]
            if state[c] == 1:
                circle = [n for n, _ in stack[[n for n, _ in stack].index(c) :]]
                shown = ", which reads ".join(nodes.name(n) for n in [*circle[:4], circle[0]][:5])
                raise ValueError(
                    f"graph_plan: a cycle: {nodes.name(circle[0])} reads {shown.partition(', which reads ')[2]}"
                    f"{' and so on' if len(circle) > 4 else ''} {here()}. A node can read only what is made before it."
                )
            if not state[c]:
                state[c] = 1
                stack.append((c, begin[c]))
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    by = np.argsort(rank[nodes.reader], kind="stable")
    return nodes._replace(reader=nodes.reader[by], place=nodes.place[by], child=nodes.child[by])


def _reached(nodes: Nodes) -> Nodes:
    """Without the nodes that no root depends on."""
    read = np.zeros(len(nodes.cell), bool)
    read[nodes.child] = True
    read[nodes.roots] = True
    if read.all():
        return nodes
    reached = np.zeros(len(nodes.cell), bool)
    reached[nodes.roots] = True
    for n, c in zip(nodes.reader[::-1].tolist(), nodes.child[::-1].tolist(), strict=True):
        if reached[n]:
            reached[c] = True
    new = np.cumsum(reached) - 1
    kept = reached[nodes.reader]
    cell = nodes.cell[reached]
    return nodes._replace(
        cell=cell, row=nodes.row[reached], reader=new[nodes.reader[kept]], place=nodes.place[kept],
        child=new[nodes.child[kept]], roots=new[nodes.roots], first=nodes.first,
        arity={k: n for k, n in nodes.arity.items() if (cell == k).any()},
    )  # fmt: skip


# -- packing


def _bucket(n: int, least: int) -> int:
    while least < n:
        least *= 2
    return least


class Room(NamedTuple):
    """The capacities of other plans: for each cell its kind there, without pools; how many rows are returned."""

    outputs: str
    edges: Edges
    kinds: dict[int, Kind]
    returned: int


def _room(plans: Sequence[Plan]) -> Room | None:
    """What there is room for in the largest of these, cell by cell."""
    if not plans:
        return None
    forms = [plan.form for plan in plans]
    edges, kinds, returned = _NONE, dict[int, Kind](), {f.structure.kinds[-1].lanes for f in forms}
    for plan, form in zip(plans, forms, strict=True):
        edges = edges.joined(plan.edges or _NONE)
        for c, kind in zip(form.cells, form.structure.kinds, strict=True):
            if c < 0:
                continue
            known = kinds.get(c, kind)
            if known.lanes != kind.lanes:
                raise ValueError(
                    f"graph_plan: of the plans in like, one runs {known.lanes} nodes of cell {c} a step and another "
                    f"{kind.lanes} {here()}. Make them with the same lanes=."
                )
            joints = [
                tuple([(0, max(m, n)) for (_, m), (_, n) in zip(x, y, strict=True)])
                for x, y in ((known.slots, kind.slots), (known.ports, kind.ports))
            ]
            kinds[c] = Kind(max(known.steps, kind.steps), kind.lanes, *joints, max(known.rounds, kind.rounds))
    if len({form.outputs for form in forms}) > 1 or (forms[0].outputs == "roots" and len(returned) > 1):
        raise ValueError(
            f"graph_plan: the plans in like return differently much {here()}: give plans with the same outputs=, and "
            "with equally many graphs."
        )
    return Room(forms[0].outputs, edges, kinds, max(returned))


def _packed(nodes: Nodes, outputs: str, room: Room | None, lanes: int | None) -> Plan:
    edges = _edges(nodes, outputs)
    if room is not None:
        if room.outputs != outputs:
            raise _unlike(f"outputs={outputs!r}")
        for what, own, there in zip(("reads", "arity", "roots"), edges, room.edges, strict=True):
            for x in sorted(own - there):
                raise _unlike({
                    "reads": lambda x: f"nodes of cell {x[0]} that read nodes of cell {x[2]} at place {x[1]}",
                    "arity": lambda x: f"nodes of cell {x[0]} with {x[1]} children",
                    "roots": lambda x: f"roots of cell {x}",
                }[what](x))  # fmt: skip
        edges = room.edges
    # What follows of it: everything but the capacities.
    places_of = dict(sorted(edges.arity))
    cells = list(places_of)
    number = {c: k for k, c in enumerate(cells)}
    arity = list(places_of.values())
    reads = [(number[k], place, number[c]) for k, place, c in sorted(edges.reads)]
    pool_of, slot_pools = _pools(cells, arity, reads, sorted(number[c] for c in edges.roots))
    phases = _phases(len(cells), [(k, c) for k, _, c in reads])
    index = np.zeros(max(cells) + 1, np.int64)
    index[cells] = np.arange(len(cells))
    kind = index[nodes.cell]
    width = max(arity) + 1
    phase_of = {k: n for n, phase in enumerate(phases) for k in phase}

    # How many nodes of the same phase stand below each node.
    height = [0] * len(kind)
    phase = np.array([phase_of[k] for k in range(len(cells))])[kind]
    same = phase[nodes.reader] == phase[nodes.child]
    for n, c in zip(nodes.reader[same].tolist(), nodes.child[same].tolist(), strict=True):
        if height[c] >= height[n]:
            height[n] = height[c] + 1
    heights = np.array(height)

    kinds: list[Kind] = []
    position = np.zeros(len(kind), np.int64)
    rows: list[Ints] = []  # the nodes of each kind, as they run
    firsts: list[Ints] = []  # the first step of each level, and the end
    for k in range(len(cells)):
        which = np.flatnonzero(kind == k)
        levels = np.bincount(heights[which], minlength=1)
        model = room.kinds[cells[k]] if room is not None else None
        wide = model.lanes if model is not None else lanes or _lanes(levels)
        start = np.concatenate([[0], np.cumsum(-(-levels // wide))])
        by = which[np.argsort(heights[which], kind="stable")]
        before = np.concatenate([[0], np.cumsum(levels)])
        position[by] = start[heights[by]] * wide + np.arange(len(by)) - before[heights[by]]
        rows.append(by)
        firsts.append(start)
        steps, rounds = _bucket(int(start[-1]), FEWEST_STEPS), _bucket(len(levels), FEWEST_ROUNDS)
        if model is not None:
            if start[-1] > model.steps:
                raise _exceeded(cells[k], f"{start[-1]} steps of {wide} nodes", f"{model.steps}")
            steps, rounds = model.steps, model.rounds
        kinds.append(Kind(steps, wide, (), (), rounds))
    for together in phases:
        # In each round of a phase some kind takes a step.
        most = max(kinds[k].rounds for k in together)
        if room is not None and any(kinds[k].rounds == 1 for k in together):
            most = _bucket(sum(kinds[k].steps for k in together), FEWEST_ROUNDS)
        for k in together:
            if room is not None and len(firsts[k]) - 1 > most and len(together) > 1:
                raise _exceeded(cells[k], f"{len(firsts[k]) - 1} rounds", f"{most}")
            kinds[k] = kinds[k]._replace(rounds=most if len(together) > 1 else 1)

    # What is returned: rows that are read once more.
    if outputs == "roots":
        returned = [nodes.roots]
        if room is not None and len(nodes.roots) != room.returned:
            raise _exceeded(None, f"{len(nodes.roots)} graphs", f"{room.returned}, in each plan like it")
        sources = [pool_of[kind[nodes.roots[0]]]]
    else:
        returned = [np.flatnonzero(kind == k) for k in range(len(cells))]
        sources = pool_of
    reader, place, child = nodes.reader, nodes.place, nodes.child
    for n, which in enumerate(returned):
        kinds.append(Kind(1, kinds[n].rows if outputs == "nodes" else len(which), (), ()))
        slot_pools.append([sources[n]])
        reader = np.concatenate([reader, len(kind) + np.arange(len(which))])
        place = np.concatenate([place, np.zeros(len(which), np.int64)])
        child = np.concatenate([child, which])
        kind = np.concatenate([kind, np.full(len(which), len(cells) + n)])
        position = np.concatenate([position, np.arange(len(which))])
        rows.append(which)
        firsts.append(np.array([0, 1]))
    phases += [(k,) for k in range(len(cells), len(kinds))]

    slot_rank, slot_most = _ranks(reader * width + place, kind[reader], place, len(kinds), width)
    port_rank, port_most = _ranks(child, kind[child], None, len(kinds), 1)
    whole = []
    for k, own in enumerate(kinds):
        slots = tuple([(p, _bucket(max(int(slot_most[k, i]), 1), 1)) for i, p in enumerate(slot_pools[k])])
        ports = ((pool_of[k], _bucket(max(int(port_most[k, 0]), 1), 1)),) if k < len(cells) else ()
        if room is not None and k < len(cells):
            model = room.kinds[cells[k]]
            for there, needed, what in (
                (model.slots, slots, "nodes read at one place"),
                (model.ports, ports, "readers"),
            ):
                for (_, most), (_, n) in zip(there, needed, strict=True):
                    if n > most:
                        raise _exceeded(cells[k], f"{n} {what}", f"{most}")
            slots = tuple([(p, n) for (p, _), (_, n) in zip(slots, model.slots, strict=True)])
            ports = tuple([(p, n) for (p, _), (_, n) in zip(ports, model.ports, strict=True)])
        whole.append(own._replace(slots=slots, ports=ports))
    structure = Structure(tuple(whole), tuple(tuple(p) for p in phases))
    integers = _integers(structure, kind, position, nodes.row, rows, firsts, reader, place, child, slot_rank, port_rank)
    made = Form(structure, (*cells, *[-1] * (len(kinds) - len(cells))), outputs)
    return Plan(integers, made, len(nodes.cell), edges)


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


def _edges(nodes: Nodes, outputs: str) -> Edges:
    width, count = max(nodes.arity.values()) + 1, max(nodes.arity) + 1
    joined = np.unique((nodes.cell[nodes.reader] * width + nodes.place) * count + nodes.cell[nodes.child]).tolist()
    roots = set(nodes.cell[nodes.roots].tolist()) if outputs == "roots" else ()
    return Edges(
        frozenset((j // count // width, j // count % width, j % count) for j in joined),
        frozenset(nodes.arity.items()), frozenset(roots),
    )  # fmt: skip


def _lanes(levels: Ints) -> int:
    """How many nodes a step runs, for levels of so many."""
    return min(LANES, key=lambda w: int((-(-levels // w)).sum()) * (w + STEP))


def _pools(
    cells: Sequence[int], arity: Sequence[int], reads: Sequence[tuple[int, int, int]], roots: Sequence[int]
) -> tuple[list[int], list[list[int]]]:
    """For each kind the pool of what it makes, and those of what its places read: one for all that an edge joins."""
    count = len(cells)
    parent = list(range(count))

    def find(k: int) -> int:
        while parent[k] != k:
            k = parent[k]
        return k

    at: dict[tuple[int, int], int] = {}
    for k, place, c in reads:
        if (k, place) in at:
            parent[find(c)] = find(at[k, place])
        at[k, place] = c
    for c in roots[1:]:
        parent[find(c)] = find(roots[0])
    number: dict[int, int] = {}
    ports = [number.setdefault(find(k), len(number)) for k in range(count)]
    for k in range(count):
        for place in range(arity[k]):
            if (k, place) not in at:
                raise ValueError(
                    f"graph_plan: no node of cell {cells[k]} has a child at place {place} {here()}. What would be read "
                    "there is not known: leave the place out."
                )
    return ports, [[ports[at[k, place]] for place in range(arity[k])] for k in range(count)]


def _phases(count: int, reads: Sequence[tuple[int, int]]) -> list[tuple[int, ...]]:
    """The kinds that read each other in a circle together, and each after those that it reads."""
    below: dict[int, set[int]] = {k: set() for k in range(count)}
    for k, c in reads:
        below[k].add(c)
    reach = {k: set(v) for k, v in below.items()}
    while any(len(v) < len(v | {x for c in v for x in reach[c]}) for v in reach.values()):
        reach = {k: v | {x for c in v for x in reach[c]} for k, v in reach.items()}
    found: list[tuple[int, ...]] = []
    left = list(range(count))
    while left:
        k = next(k for k in left if all(c not in left or k in reach[c] for c in reach[k]))
        together = tuple([j for j in left if j == k or (j in reach[k] and k in reach[j])])
        found.append(together)
        left = [j for j in left if j not in together]
    return found


def _ranks(group: Ints, kind: Ints, place: Ints | None, kinds: int, width: int) -> tuple[Ints, Ints]:
    """For each edge how many edges of its group come before it; and for each kind (and place) the size of the largest."""
    most = np.zeros((kinds, width), np.int64)
    if not len(group):
        return np.zeros(0, np.int64), most
    by = np.argsort(group, kind="stable")
    ordered = group[by]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    starts = np.flatnonzero(new)
    rank = np.empty(len(group), np.int64)
    rank[by] = np.arange(len(group)) - starts[np.cumsum(new) - 1]
    np.maximum.at(most, (kind, 0 if place is None else place), rank + 1)
    return rank, most


def _integers(
    structure: Structure, kind: Ints, position: Ints, row: Ints, rows: Sequence[Ints], firsts: Sequence[Ints],
    reader: Ints, place: Ints, child: Ints, slot_rank: Ints, port_rank: Ints,
) -> Ints:  # fmt: skip
    layout, size = layouts(structure)
    (slot_bases, slot_sizes), (port_bases, port_sizes) = places(structure)
    array = np.zeros(size, np.int32)

    def view(where: tuple[int, tuple[int, ...]]) -> Ints:
        start, shape = where
        return array[start : start + int(np.prod(shape))].reshape(shape)

    width = max((len(b) for b in slot_bases), default=0) or 1
    bases = np.zeros((len(structure.kinds), width), np.int64)
    for k, own in enumerate(slot_bases):
        bases[k, : len(own)] = own
    port_base = np.array([own[0] if own else 0 for own in port_bases])
    made = port_base[kind] + position  # the row of each node's port
    for k, (own, where) in enumerate(zip(structure.kinds, layout, strict=True)):
        bounds = view(where.bounds)
        levels = firsts[k]
        if own.rounds == 1:
            bounds[:] = 1, 0, levels[-1]
        else:
            bounds[0] = own.rounds
            bounds[1:] = levels[-1]
            bounds[1 : 1 + len(levels)] = levels
        valid = view(where.valid)
        at = position[rows[k]] if k < len(rows) and not _returns(structure, k) else np.arange(len(rows[k]))
        valid[at] = 1
        # A lane that is no node's repeats the step's last node, so that it computes nothing that the node does not.
        lanes = valid.reshape(own.steps, own.lanes)
        last = np.maximum(lanes.sum(1) - 1, 0)
        copy = np.minimum(np.arange(own.lanes), last[:, None])
        source = view(where.source)
        if not _returns(structure, k):
            source[at] = row[rows[k]]
        source[:] = np.take_along_axis(source.reshape(own.steps, own.lanes), copy, 1).ravel()
        mine = kind[reader] == k
        for i, (pool, _) in enumerate(own.slots):
            part = view(where.slots[i])
            part[:] = port_sizes[pool]
            which = mine & (place == i)
            to = position[reader[which]]
            part[to // own.lanes, slot_rank[which], to % own.lanes] = made[child[which]]
            part[:] = np.take_along_axis(part, copy[:, None], 2)
        for i, (pool, _) in enumerate(own.ports):
            part = view(where.ports[i])
            part[:] = slot_sizes[pool]
            which = kind[child] == k
            to = position[child[which]]
            reading = reader[which]
            part[to // own.lanes, port_rank[which], to % own.lanes] = (
                bases[kind[reading], place[which]] + position[reading]
            )
    # How many rounds there are is the same for all kinds of a phase.
    for phase in structure.phases:
        if len(phase) > 1:
            most = max(len(firsts[k]) - 1 for k in phase)
            for k in phase:
                view(layout[k].bounds)[0] = most
    return array


def _returns(structure: Structure, k: int) -> bool:
    """Whether a kind only passes on what is returned."""
    return not structure.kinds[k].ports
