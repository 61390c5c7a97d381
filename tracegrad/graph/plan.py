"""`graph_plan`: the structure of graphs as integers, packed into steps. Uses messages, and the structure.

All of it happens on the host, with NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from ..errors import describe, here
from .packing import Edges, Form, packed, room_of
from .reading import reached, read


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
            f"cell {c}: at most {k.steps} steps of {k.lanes}"
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
          children, `(nodes, places)`, with -1 at places that are not there.

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
      Plan(8 nodes; cell 0: at most 8 steps of 32, cell 1: at most 8 steps of 32, cell 1: at most 32 steps of 8)
    """
    if outputs not in ("roots", "nodes"):
        raise ValueError(f"graph_plan: outputs is {describe(outputs)} {here()}. Give 'roots' or 'nodes'.")
    if lanes is not None and (type(lanes) is not int or lanes < 1):
        raise ValueError(f"graph_plan: lanes is {describe(lanes)} {here()}. Give a number of nodes.")
    nodes = read(graphs)
    if outputs == "roots":
        nodes = reached(nodes)
    models = [like] if isinstance(like, Plan) else like
    if not isinstance(models, (list, tuple)) or not all(isinstance(x, Plan) and x.edges for x in models):
        raise TypeError(f"graph_plan: like is {describe(like)} {here()}. Give plans as graph_plan made them, or one.")
    integers, form, edges = packed(nodes, outputs, room_of([(p.form, p.edges) for p in models if p.edges]), lanes)
    return Plan(integers, form, len(nodes.cell), edges)
