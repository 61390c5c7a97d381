"""What `graph_plan` is given, read: graphs in each of their forms become nodes and edges. Uses messages alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ..concrete import Concrete
from ..errors import describe, here

Ints = np.ndarray[Any, Any]


class Nodes(NamedTuple):
    """All graphs as one: of each node its cell, and the row of streams that it reads; edges; the roots.

    Edges to one node stand together, after those to the nodes that it reads. `arity` says how many children the nodes
    of each cell have, `first` is the number of each graph's first node.
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
        if (before := self.arity.setdefault(0, (0, f"a leaf of graph {g}"))[0]) != 0:
            raise ValueError(
                f"graph_plan: graph {g} is of nested tuples, whose leaves are of cell 0, and {self.arity[0][1]}, of "
                f"cell 0, has {before} children {here()}. Write it as a list of (cell, children)."
            )
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
                    f"graph_plan: node {i} of graph {g} is {describe(entry)} {here()}. Give (cell, children), or "
                    "(cell, children, row): a number, a sequence of node numbers, a number."
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
                f"graph_plan: graph {g} is a pair of {describe(cells)} and {describe(children)} {here()}. Give "
                "integers (nodes,), and integers (nodes, places), of one node at least."
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


def read(graphs: Sequence[Any]) -> Nodes:
    if isinstance(graphs, (Concrete, jax.core.Tracer)) or not isinstance(graphs, (list, tuple)) or not len(graphs):
        raise ValueError(
            f"graph_plan: graphs is {describe(graphs)} {here()}. Give a list of graphs, of one at least: nested "
            "tuples, lists of (cell, children), or pairs of arrays."
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
    cell, row, *edges = [
        np.array(x, np.int64) for x in (reader.cell, reader.row, reader.reader, reader.place, reader.child)
    ]
    arity = {k: n for k, (n, _) in reader.arity.items()}
    nodes = Nodes(cell, row, edges[0], edges[1], edges[2], arity, np.array(roots), np.array(first))
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


def reached(nodes: Nodes) -> Nodes:
    """Without the nodes that no root depends on."""
    wanted = np.zeros(len(nodes.cell), bool)
    wanted[nodes.child] = True
    wanted[nodes.roots] = True
    if wanted.all():
        return nodes
    found = np.zeros(len(nodes.cell), bool)
    found[nodes.roots] = True
    for n, c in zip(nodes.reader[::-1].tolist(), nodes.child[::-1].tolist(), strict=True):
        if found[n]:
            found[c] = True
    new = np.cumsum(found) - 1
    kept = found[nodes.reader]
    cell = nodes.cell[found]
    return nodes._replace(
        cell=cell, row=nodes.row[found], reader=new[nodes.reader[kept]], place=nodes.place[kept],
        child=new[nodes.child[kept]], roots=new[nodes.roots], first=nodes.first,
        arity={k: n for k, n in nodes.arity.items() if (cell == k).any()},
    )  # fmt: skip
