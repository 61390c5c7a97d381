"""`graph_plan`: forms of graphs, what is bucketed, plans like others, and messages."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_message

X = np.linspace(0.5, 1.5, 8, dtype=np.float32)


def cells(np_: Any) -> Any:
    return (
        lambda w, x: x,
        lambda w, a, b: np_.tanh(a - w * b),
        lambda w, x, a: np_.sin(x + a),
        lambda w, a, b, c: a * b + c,
    )


def by_hand(graphs: Any, w: Any) -> Any:
    """The roots, in plain Python."""
    run, seen, roots = cells(np), [0] * 4, []
    for graph in graphs:
        rows, states = [], {}
        for entry in graph:
            rows.append(entry[2] if len(entry) == 3 else seen[entry[0]])
            seen[entry[0]] += 1

        def state(i: int, graph: Any = graph, states: Any = states, rows: Any = rows) -> Any:
            if i not in states:
                cell, children = graph[i][:2]
                x = (X[rows[i] % 8],) if cell in (0, 2) else ()
                read = [sum(map(state, c), np.float32(0)) if isinstance(c, list) else state(c) for c in children]
                states[i] = run[cell](w, *x, *read)
            return states[i]

        roots.append(state(len(graph) - 1))
    return np.stack(roots)


ARITY = (0, 2, 1, 3)


def random_graph(rng: Any, size: int) -> list[Any]:
    """Nodes of four cells that read any before them, or sums of them, in a random order."""
    nodes: list[Any] = [(0, (), int(rng.integers(8))), (1, [0, 0]), (2, [1], 3), (3, [2, 1, 0])]
    for n in range(4, size):
        cell = int(rng.integers(4))
        children = [
            [int(c) for c in rng.integers(n, size=rng.integers(4))] if rng.random() < 0.2 else int(rng.integers(n))
            for _ in range(ARITY[cell])
        ]
        nodes.append((cell, children, int(rng.integers(8))) if cell in (0, 2) else (cell, children))
    place = [*rng.permutation(size - 1).tolist(), size - 1]
    moved: list[Any] = [None] * size
    for (cell, children, *row), at in zip(nodes, place, strict=True):
        to = [[place[i] for i in c] if isinstance(c, list) else place[c] for c in children]
        moved[at] = (cell, to, *row)
    return moved


def test_any_graph_runs_in_the_program_of_a_larger_one() -> None:
    rng = np.random.default_rng(0)
    graphs = [[random_graph(rng, int(rng.integers(5, 60))) for _ in range(3)] for _ in range(12)]
    plans = [tg.graph_plan(g, lanes=4) for g in graphs]
    plans = [tg.graph_plan(g, like=plans) for g in graphs]
    assert len({plan.form for plan in plans}) == 1
    run = tg.jit(lambda w, plan: tg.graph_map(cells(tnp), w, plan, (X, None, X, None)))
    for plan, g in zip(plans, graphs, strict=True):
        np.testing.assert_allclose(run(np.float32(0.3), plan), by_hand(g, np.float32(0.3)), rtol=1e-4, atol=1e-5)


FORMS: list[tuple[Any, Any]] = [
    (((0, 1), 2), [(0, (), 0), (0, (), 1), (1, [0, 1]), (0, (), 2), (1, (2, 3))]),
    (5, [(0, (), 5)]),
    (
        (np.array([0, 0, 1, 1]), np.array([[-1, -1], [-1, -1], [0, 1], [2, 0]])),
        [(0, ()), (0, ()), (1, [0, 1]), (1, [2, 0])],
    ),
    ([(1, [1, 2]), (0, ()), (0, ()), (1, [0, 1])], [(0, (), 0), (0, (), 1), (1, [0, 1]), (1, [2, 0])]),
    # What no root depends on does not run.
    ([(0, ()), (0, ()), (1, [0, 0]), (1, [1, 1])], [(0, (), 1), (1, [0, 0])]),
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_forms_of_one_graph(form: Any) -> None:
    a, b = (tg.graph_plan([g]) for g in form)
    assert a.nodes == b.nodes
    roots = [tg.graph_map(cells(tnp)[:2], 0.3, plan, (X, None)) for plan in (a, b)]
    np.testing.assert_array_equal(*roots)


def test_a_plan_is_a_pytree_with_one_leaf() -> None:
    plan = tg.graph_plan([((0, 1), 2), 3])
    (integers,), tree = jax.tree.flatten(plan)
    assert integers.dtype == np.int32
    assert jax.tree.unflatten(tree, [integers]).form == plan.form
    assert jax.tree.structure(tg.graph_plan([(2, (0, 1)), 1])) == tree
    assert (
        repr(plan)
        == "Plan(6 nodes; cell 0: at most 8 steps of 32, cell 1: at most 8 steps of 32, cell 1: at most 32 steps of 8)"
    )


def test_long_chains_and_deep_trees() -> None:
    tree: Any = 0
    for _ in range(5000):
        tree = (tree, 1)
    plan = tg.graph_plan([tree])
    run = tg.jit(lambda plan: tg.graph_map(cells(tnp)[:2], np.float32(0.1), plan, (X, None)))
    state = X[0]
    for _ in range(5000):
        state = np.tanh(state - np.float32(0.1) * X[1])
    np.testing.assert_allclose(run(plan), [state], rtol=1e-5)


def plan(*graphs: Any, **options: Any) -> Any:
    return lambda: tg.graph_plan(list(graphs), **options)


def comb(leaves: int) -> Any:
    tree: Any = (0, 1)
    for _ in range(leaves - 2):
        tree = (tree, 2)
    return tree


CYCLE = [(0, ()), (1, [0, 2]), (1, [0, 3]), (1, [1, 0])]
SMALL = tg.graph_plan([((0, 1), (2, 3))], lanes=1)


@pytest.mark.parametrize(
    ("call", "kind", "pattern"),
    [
        (plan((0, 1), CYCLE), ValueError,
         r"a cycle: node 1 of graph 1 \(cell 1\) reads node 2 .*, which reads node 3 .*, which reads node 1"),
        (plan([(0, ()), (1, [0, 2])]), ValueError,
         r"node 1 of graph 0 \(cell 1\) has the child 2, and the graph has the nodes 0 to 1"),
        (plan([(0, ()), (1, [0, -1])]), ValueError, r"node 1 of graph 0 \(cell 1\) has the child -1"),
        (plan((np.zeros(2, int), np.array([[-1], [5]]))), ValueError, r"node 1 of graph 0 \(cell 0\) has the child 5"),
        (plan((0, 1), ((0, 1, 2), 3)), ValueError,
         r"node 3 of graph 1 \(cell 1\) has 3 children, and node 2 of graph 0 has 2"),
        (plan([(0, ()), (1, [0]), (1, [1, 0])]), ValueError,
         r"node 2 of graph 0 \(cell 1\) has 2 .* node 1 of graph 0 has 1"),
        (plan((np.array([0, 1, 1]), np.array([[-1, -1], [0, -1], [0, 1]]))), ValueError,
         r"node 2 of graph 0 \(cell 1\) has 2"),
        (plan(((), 1)), ValueError, r"graph 0 has a node without children, \(\)"),
        (plan((0.5, 1)), TypeError, r"graph 0 has the part f32\[\]~"),
        (plan((-1, 1)), ValueError, r"graph 0 has the leaf -1"),
        (plan([(0, 1)]), TypeError, r"node 0 of graph 0 has the cell .* and the children"),
        (plan([3]), TypeError, r"node 0 of graph 0 is i32"),
        (plan([(0, ["a"])]), TypeError, r"node 0 of graph 0 \(cell 0\) has the child str 'a'"),
        (plan([(0, (), -2)]), TypeError, r"node 0 of graph 0 \(cell 0\) reads the row"),
        (plan([]), ValueError, "graph 0 has no nodes"),
        (plan(), ValueError, "graphs is .*of one at least"),
        (lambda: tg.graph_plan(3), ValueError, "graphs is .*Give a list of graphs"),  # type: ignore[arg-type]
        (plan((np.zeros(2), np.zeros((2, 1), int))), TypeError, "graph 0 is a pair of"),
        (plan((0, 1), outputs="leaves"), ValueError, "outputs is str 'leaves'"),
        (plan((0, 1), lanes=0), ValueError, "lanes is"),
        (plan((0, 1), like=3), TypeError, "like is i32"),
        (plan((0, 1), (1, 2), like=SMALL), ValueError, "2 graphs, and the plan that it is to be like has room for 1"),
        (plan(comb(300), like=SMALL), ValueError,
         "a capacity is exceeded: cell 0 has 300 steps of 1 nodes, .*room for 256"),
        (plan(((0, 1), 2), like=tg.graph_plan([(0, 1)])), ValueError,
         "nodes of cell 1 that read nodes of cell 1 at place 0"),
        (plan([(0, ()), (2, [0])], like=SMALL), ValueError,
         "there are nodes of cell 2 .*and in the plan that it is to be like"),
        (plan([(1, [[], []]), (1, [0, 0])]), None, ""),
        (plan([(0, [[]])]), ValueError, "no node of cell 0 has a child at place 0"),
    ],
)  # fmt: skip
def test_messages(call: Any, kind: Any, pattern: str) -> None:
    if kind is None:
        call()
    else:
        check_message(call, kind, pattern)
