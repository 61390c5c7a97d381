"""`graph_map`: cells over graphs, in one compiled program for all of them. Uses plans, bodies, and the op."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import numpy as tnp
from ..body import call, leaf_aval, record_body, taken
from ..errors import describe, here, name_of
from ..lower import replay
from ..ops import astype, stop_gradient, take, where
from ..ops.collectives import communicates, vary
from ..passes import optimize
from ..recording import Recording
from ..tape import NOWHERE, Aval, Tape, Var, make_aval
from ..tracer import new_input, operand
from ..verify import verified
from .op import Cell, graph
from .plan import Plan
from .structure import Layout, layouts, part_of

tree_flatten, tree_unflatten = jax.tree.flatten, jax.tree.unflatten

State = tuple[Any, list[Aval]]
"""What a node makes: the structure of its state, and the types of its leaves."""


def graph_map(cells: Sequence[Callable[..., Any]], params: Any, plan: Plan, streams: Any = None) -> Any:
    """Runs a cell at each node of graphs, in one compiled program for graphs of any shape.

    A node's cell is called as `cell(params, x, *children)`: with its row of the cell's stream, if the cell has one, and
    the states of its children, pytrees as the cells there return them. Nodes that do not wait for each other run
    together, and so do their gradients; only what a step computes follows from the cells, so that new graphs need no
    new program.

    Args:
      cells: the functions, in the order in which the plan numbers them. Those whose states are read at the same place
        return the same structure, shapes and dtypes.
      params: a pytree of arrays that all cells take. What they close over is shared too.
      plan: of `graph_plan`. It may be an argument of a `@jit` function.
      streams: for each cell a pytree of arrays with a row for each of its nodes, or `None` for a cell without. Which
        row a node reads, the plan says.

    Returns:
      The states of the roots, stacked: a pytree of arrays with a row for each graph. Of a plan with `outputs="nodes"`,
      a tuple with such a pytree for each cell, with a row for each of its nodes in the order in which they were listed,
      then zeros as far as the plan has room (`None` for a cell that the plan has no nodes of).

    Differentiation keeps of each node what its cell's backward pass reads, and nothing without it. The gradient of a
    matrix that cells share is one product of matrices a step.

    Raises:
      TypeError: if a cell takes other children than the plan has for it, or states differ; the message names the cell.
      ValueError: if the plan is for other cells, or a stream has too few rows. Under `@jit`, where the rows are not
        known, a node whose row is not there reads NaN.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> def leaf(w, x):
      ...     return x
      >>> def node(w, left, right):
      ...     return w * (left + right)
      >>> plan = tg.graph_plan([((0, 1), 2), (3, 0)])
      >>> x = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
      >>> tg.graph_map((leaf, node), 2.0, plan, streams=(x, None)).tolist()
      [18.0, 10.0]
      >>> float(tg.grad(lambda w: tg.graph_map((leaf, node), w, plan, (x, None))[0])(2.0))
      15.0
    """
    streams = _checked(cells, plan, streams)
    form = plan.form
    layout = layouts(form.structure)[0]
    integers = plan.integers
    leaves, tree = tree_flatten(params)
    rows = [
        [] if c < 0 else _rows(integers, layout[k], streams[c], c, cells[c], leaf_aval(integers, "graph_map"))
        for k, c in enumerate(form.cells)
    ]
    axes = NOWHERE.union(*[leaf_aval(x, "graph_map").varying for x in (integers, *leaves, *itertools.chain(*rows))])
    while True:
        bodies, captured, states = _recorded(cells, form, streams, rows, leaves, tree, axes)
        found = axes.union(*[leaf_aval(x, "graph_map").varying for values in captured for x in values])
        if found == axes:
            break
        axes = found
    given = [
        [*rows[k], *(leaves if c >= 0 else ()), *captured[k]] for k, c in enumerate(form.cells)
    ]  # fmt: skip
    kinds = form.structure.kinds
    pooled = [0] * form.structure.pools()
    for kind, (_, avals) in zip(kinds, states, strict=True):
        for p, _ in kind.ports or kind.slots:
            pooled[p] = len(avals)
    summed = [Cell(len(rows[k]), (False,) * len(b.outputs)) for k, b in enumerate(bodies)]
    outs = graph(integers, [[vary(x, axes) for x in g] for g in given], bodies, form.structure, summed, pooled)
    returned: dict[int, Any] = {}
    cells_with_nodes = sorted(set(form.cells) - {-1})
    for n, k in enumerate(k for k, c in enumerate(form.cells) if c < 0):
        found_leaves = [outs[k, i] for i in range(len(bodies[k].outputs))]
        if form.outputs == "nodes":
            valid = part_of(integers, layout[k].valid) != 0
            found_leaves = [
                where(tnp.reshape(valid, (-1, *(1,) * (x.ndim - 1))), x, tnp.zeros((), x.dtype)) for x in found_leaves
            ]
        returned[cells_with_nodes[n] if form.outputs == "nodes" else 0] = tree_unflatten(states[k][0], found_leaves)
    return returned[0] if form.outputs == "roots" else tuple([returned.get(c) for c in range(len(cells))])


def _checked(cells: Any, plan: Any, streams: Any) -> tuple[Any, ...]:
    """One stream, or `None`, for each cell."""
    if not isinstance(cells, (tuple, list)):
        raise TypeError(f"graph_map: cells is {describe(cells)} {here()}. Give a tuple of functions.")
    for c, cell in enumerate(cells):
        if not callable(cell):
            raise TypeError(
                f"graph_map: cell {c} is {describe(cell)}, which is not a function {here()}. Write graph_map((leaf, "
                "node), params, plan)."
            )
    if not isinstance(plan, Plan):
        raise TypeError(f"graph_map: plan is {describe(plan)} {here()}. Give what graph_plan returns.")
    most = max(plan.form.cells)
    if most >= len(cells):
        raise ValueError(
            f"graph_map: the plan has nodes of cell {most}, and there are the cells "
            f"{', '.join(f'{c} ({name_of(f)})' for c, f in enumerate(cells))} {here()}. Give all cells, in the order "
            "in which the plan numbers them."
        )
    if streams is None:
        return (None,) * len(cells)
    if not isinstance(streams, (tuple, list)) or len(streams) != len(cells):
        raise TypeError(
            f"graph_map: streams is {describe(streams)}, for {len(cells)} cells {here()}. Give a tuple with a pytree "
            "of arrays for each cell, None for one that has no stream."
        )
    return tuple(streams)


def _rows(integers: Any, where_: Layout, stream: Any, c: int, cell: Any, aval: Aval) -> list[Any]:
    """The rows of a cell's stream, in the order in which its nodes run."""
    leaves = tree_flatten(stream)[0]
    if not leaves:
        return []
    source, valid = part_of(integers, where_.source), part_of(integers, where_.valid) != 0
    known = isinstance(integers, np.ndarray)
    found = []
    for x in leaves:
        shape = leaf_aval(x, "graph_map").shape
        most = int(source.max()) if known else 0
        if not shape or shape[0] <= most:
            row = "" if not shape else f" The plan reads row {most}."
            raise ValueError(
                f"graph_map: the stream of cell {c} ({name_of(cell)}) is {describe(x)} {here()}.{row} Give an array "
                "with a row for each node of the cell."
            )
        rows = take(tnp.asarray(x), source, 0)
        if leaf_aval(rows, "graph_map").differentiable:
            # What only fills a step up repeats a row, which it owes nothing.
            rows = where(tnp.reshape(valid, (-1, *(1,) * (len(shape) - 1))), rows, stop_gradient(rows))
        found.append(rows)
    return found


def _recorded(
    cells: Sequence[Any], form: Any, streams: Sequence[Any], rows: Sequence[Sequence[Any]], leaves: Sequence[Any],
    tree: Any, axes: frozenset[str],
) -> tuple[list[Tape], list[list[Any]], list[State]]:  # fmt: skip
    """The body of each kind, what it closes over, and the state that it returns."""
    kinds = form.structure.kinds
    pools: dict[int, tuple[State, int]] = {}
    bodies: dict[int, Tape] = {}
    captured: dict[int, list[Any]] = {}
    states: dict[int, State] = {}
    shared = tree_unflatten(tree, [_typed(leaf_aval(x, "graph_map"), axes) for x in leaves])
    while len(bodies) < len(kinds):
        ready = [k for k in range(len(kinds)) if k not in bodies and all(p in pools for p, _ in kinds[k].slots)]
        if not ready:
            left = sorted({form.cells[k] for k in range(len(kinds)) if k not in bodies and form.cells[k] >= 0})
            raise TypeError(
                f"graph_map: cells {left} read only each other's states, so that nothing says what a state is "
                f"{here()}. Let the first node be of a cell that takes no children."
            )
        for k in ready:
            children = [pools[p][0] for p, _ in kinds[k].slots]
            if form.cells[k] < 0:
                bodies[k], captured[k], states[k] = _passed_on(children[0], axes), [], children[0]
                continue
            c = form.cells[k]
            twin = next((j for j in bodies if form.cells[j] == c), None)
            if twin is not None:
                bodies[k], captured[k], states[k] = bodies[twin], captured[twin], states[twin]
                continue
            x = [
                tree_unflatten(
                    jax.tree.structure(streams[c]),
                    [
                        _typed(make_aval(a.shape[1:], a.dtype, a.weak_type, a.varying), axes)
                        for a in [leaf_aval(r, "graph_map") for r in rows[k]]
                    ],
                )
            ] if rows[k] else []  # fmt: skip
            bodies[k], captured[k], states[k] = _cell(cells[c], c, shared, x, children, axes)
            ((pool, _),) = kinds[k].ports
            known, other = pools.setdefault(pool, (states[k], c))
            if known != states[k]:
                raise TypeError(
                    f"graph_map: cell {c} ({name_of(cells[c])}) returns {_shown(states[k])}, and cell {other} "
                    f"({name_of(cells[other])}) returns {_shown(known)} {here()}. Both are read at the same place, so "
                    "that they must have the same structure, shapes and dtypes: convert with .astype."
                )
    count = range(len(kinds))
    return [bodies[k] for k in count], [captured[k] for k in count], [states[k] for k in count]


def _typed(aval: Aval, axes: frozenset[str]) -> Aval:
    return make_aval(aval.shape, aval.dtype, aval.weak_type, aval.varying | axes)


def _shown(state: State) -> str:
    return str(tree_unflatten(state[0], state[1]))


def _passed_on(state: State, axes: frozenset[str]) -> Tape:
    """The body of a node that only passes a state on."""
    with Recording("result") as tape:
        return tape.finished([new_input(tape, _typed(a, axes)) for a in state[1]])


def _cell(
    cell: Any, c: int, shared: Any, x: list[Any], children: Sequence[State], axes: frozenset[str]
) -> tuple[Tape, list[Any], State]:
    """The body of a cell: its inputs are the leaves of the children, the stream and the parameters, then the rest."""
    _check_arity(cell, c, len(x), len(children))

    def run(children: Any, x: Any, params: Any) -> Any:
        out = cell(params, *x, *children)
        if taken():
            raise TypeError(
                f"graph_map: cell {c} ({name_of(cell)}) taps a value {here()}. Return it, and tap the result."
            )
        leaves, tree = tree_flatten(out)
        for leaf in leaves:
            if jnp.issubdtype(leaf_aval(leaf, name_of(cell)).dtype, jax.dtypes.prng_key):
                raise TypeError(
                    f"graph_map: cell {c} ({name_of(cell)}) returns a random key {here()}. Give each node its own, as "
                    "a stream."
                )
        return tree_unflatten(tree, [astype(leaf, dtype=leaf_aval(leaf, name_of(cell)).dtype) for leaf in leaves])

    run.__wrapped__ = cell  # type: ignore[attr-defined]
    states = [tree_unflatten(tree, [_typed(a, axes) for a in avals]) for tree, avals in children]
    raw, captured = record_body(run, (states, x, shared), {}, name_of(cell), ambient=axes, lifts=True)
    if over := communicates(raw):
        raise ValueError(
            f"graph_map: cell {c} ({name_of(cell)}) communicates over {sorted(over)[0]!r} {here()}, and devices have "
            "different nodes. Communicate outside."
        )
    body = optimize(_inlined(raw))
    return body, captured, (raw.out_tree, [make_aval(a.shape, a.dtype) for a in (v.aval for v in body.outputs)])


def _check_arity(cell: Any, c: int, streams: int, children: int) -> None:
    try:
        signature = inspect.signature(cell)
    except (TypeError, ValueError):
        return
    given = 1 + streams + children
    try:
        signature.bind(*range(given))
    except TypeError:
        what = "params, " + ("x, " if streams else "") + f"{children} {'child' if children == 1 else 'children'}"
        raise TypeError(
            f"graph_map: cell {c} is {name_of(cell)}{signature}, and the plan calls it with {what} {here()}. A cell "
            "takes the parameters, its row of the stream if it has one, and as many states as its nodes have children."
        ) from None


def _inlined(body: Tape) -> Tape:
    """A body with the bodies that it calls in it, so that all its products of matrices are seen."""
    if all(node.op is not call for node in body.nodes):
        return body
    with Recording(body.name, axes=body.axes, imported=body.imported) as tape:
        outs = _replayed(tape, body, [new_input(tape, v.aval) for v in body.inputs])
        return verified(tape.finished([operand(tape, v) for v in outs], body.out_tree))


def _replayed(target: Recording, body: Tape, inputs: Sequence[Any]) -> list[Any]:
    env: dict[Var, Any] = dict(zip(body.inputs, inputs, strict=True))
    for node in body.nodes:
        given = [env.get(v, v) for v in node.inputs]
        if node.op is call:
            outs = _replayed(target, node.params["body"], given)
        else:
            one = Tape(tuple(dict.fromkeys(node.inputs)), (node,), node.outputs)
            outs = replay(target, one, [env.get(v, v) for v in one.inputs])
        env.update(zip(node.outputs, outs, strict=True))
    return [env.get(v, v) for v in body.outputs]


__all__ = ["graph_map"]
