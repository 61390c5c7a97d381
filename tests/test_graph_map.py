"""`graph_map` against JAX run node by node: values, derivatives of both orders, under each transform, and messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_message, x64

H = 3
RNG = np.random.default_rng(0)


def by_node(cells: Any, params: Any, graphs: Any, streams: Any, outputs: str = "roots") -> Any:
    """What `graph_map` returns, each node by itself, over JAX and with no plan: lists of (cell, children[, row])."""
    roots, every, seen = [], [[] for _ in cells], [0] * len(cells)
    for graph in graphs:
        rows = []
        for entry in graph:
            rows.append(entry[2] if len(entry) == 3 else seen[entry[0]])
            seen[entry[0]] += 1
        states: dict[int, Any] = {}

        def state(i: int, graph: Any = graph, states: Any = states, rows: Any = rows) -> Any:
            if i not in states:
                cell, children = graph[i][:2]
                x = () if streams[cell] is None else (jax.tree.map(lambda a: a[rows[i]], streams[cell]),)
                # Where there are sums of states, a state is a vector.
                read = [sum([state(n) for n in c], jnp.zeros(H)) if isinstance(c, list) else state(c) for c in children]
                states[i] = cells[cell](params, *x, *read)
            return states[i]

        for i, entry in enumerate(graph):
            every[entry[0]].append(state(i))
        roots.append(state(len(graph) - 1))
    stacked = [jax.tree.map(lambda *xs: jnp.stack(xs), *rows) if rows else None for rows in [roots, *every]]
    return stacked[0] if outputs == "roots" else tuple(stacked[1:])


def as_list(tree: Any) -> list[Any]:
    """A tree of nested tuples as a list of nodes."""
    nodes: list[Any] = []

    def put(part: Any) -> int:
        nodes.append((1, [put(p) for p in part]) if isinstance(part, tuple) else (0, (), part))
        return len(nodes) - 1

    put(tree)
    return nodes


def random_tree(rng: Any, leaves: int, words: int = 5) -> Any:
    if leaves == 1:
        return int(rng.integers(words))
    left = int(rng.integers(1, leaves))
    return random_tree(rng, left, words), random_tree(rng, leaves - left, words)


def pair(np_: Any) -> Any:
    return lambda p, x: np_.tanh(x * p["k"]), lambda p, a, b: np_.sin(a @ p["w"]) * b


class Case(NamedTuple):
    """Cells as a function of an array namespace, a graph for `graph_plan`, and the same as lists for the reference."""

    cells: Callable[[Any], Any]
    params: Any
    streams: Any
    graphs: Any
    lists: Any = None


def tree_lstm(np_: Any) -> Any:
    def sigmoid(x: Any) -> Any:
        return 0.5 + 0.5 * np_.tanh(0.5 * x)

    def leaf(p: Any, x: Any) -> Any:
        return np_.tanh(x @ p["leaf"]), x

    def node(p: Any, left: Any, right: Any) -> Any:
        z = np_.concatenate([left[0], right[0]]) @ p["w"] + p["b"]
        i, f, g, o, u = np_.split(z, 5)
        c = sigmoid(i) * np_.tanh(u) + sigmoid(f) * left[1] + sigmoid(g) * right[1]
        return sigmoid(o) * np_.tanh(c), c

    return leaf, node


TREE_PARAMS = {"leaf": RNG.normal(size=(H, H)), "w": RNG.normal(size=(2 * H, 5 * H)) / 2, "b": RNG.normal(size=5 * H)}
WORDS = RNG.normal(size=(5, H))
TREES = [random_tree(np.random.default_rng(i), n) for i, n in enumerate([1, 4, 9, 2])]


def mutual(np_: Any) -> Any:
    """Four cells of which three read each other; rows of two types, one with an integer and a scalar."""

    def start(p: Any, x: Any) -> Any:
        return {"h": x, "n": np_.asarray(1, dtype=np.int32), "s": np_.sum(x) * p["k"]}

    def unary(p: Any, a: Any) -> Any:
        return {"h": np_.tanh(a["h"] * p["k"]), "n": a["n"] + 1, "s": a["s"] * 0.5}

    def binary(p: Any, x: Any, a: Any, b: Any) -> Any:
        count = a["n"] + b["n"]
        h = np_.tanh(p["w"] @ (a["h"] + b["h"]) / count + x[0])
        return {"h": h, "n": count, "s": a["s"] * b["s"] + x[1]}

    def score(p: Any, a: Any, b: Any) -> Any:
        return np_.dot(a["h"], b["h"]) * a["s"]

    return start, unary, binary, score


MUTUAL = [
    [(0, ()), (0, ()), (1, [0]), (2, [2, 1]), (1, [3]), (2, [4, 3]), (1, [5]), (3, [6, 0])],
    [(0, ()), (1, [0]), (1, [1]), (2, [0, 2]), (3, [3, 3])],
]


def chain(np_: Any) -> Any:
    """Two chains that run in opposite directions, and what reads both, as in a tagger."""

    def start(p: Any) -> Any:
        return p["h0"]

    def forwards(p: Any, x: Any, h: Any) -> Any:
        return np_.tanh(x @ p["u"] + h @ p["w"])

    def backwards(p: Any, x: Any, h: Any) -> Any:
        return np_.tanh(x @ p["v"] - h @ p["w"])

    def tag(p: Any, y: Any, f: Any, b: Any) -> Any:
        z = np_.concatenate([f, b]) @ p["t"]
        return np_.log(np_.sum(np_.exp(z))) - z[y]

    return start, forwards, backwards, tag


def tagger(lengths: list[int]) -> list[Any]:
    graphs = []
    for n in lengths:
        # The chain that runs backwards is listed last word first, and reads its own rows of the stream.
        before = sum(lengths[: len(graphs)])
        graph: list[Any] = [(0, ())]
        graph += [(1, [i]) for i in range(n)]
        graph += [(2, [n + i if i else 0], before + n - 1 - i) for i in range(n)]
        graph += [(3, [1 + i, 2 * n - i]) for i in range(n)]
        graphs.append(graph)
    return graphs


def child_sum(np_: Any) -> Any:
    def leaf(p: Any, x: Any) -> Any:
        return x

    def gate(p: Any, parent: Any, child: Any) -> Any:
        return child / (1 + np_.exp(-(parent @ p["f"] + child)))

    def node(p: Any, x: Any, kept: Any, children: Any) -> Any:
        return np_.tanh(x + kept + children @ p["w"])

    return leaf, gate, node


def stack(cells: Any, *others: Any) -> Any:
    return jnp.stack([*cells, *others])


SUMS = [
    [(0, ()), (0, ()), (0, ()), (1, [0, 1]), (1, [2, 1]), (2, [[3, 4], [0, 1, 2]]), (2, [[], [5]])],
    [(0, ()), (2, [[], []]), (1, [1, 0]), (2, [[2], [0, 1]])],
]

DAG = [
    [(0, (), 4), (1, [0, 0]), (1, [0, 1]), (1, [2, 0]), (1, [3, 1]), (1, [4, 0])],
    [(1, [2, 3]), (1, [2, 0]), (0, (), 1), (0, (), 2), (1, [1, 0])],
]

CASES = {
    "trees": Case(tree_lstm, TREE_PARAMS, (WORDS, None), TREES, [as_list(t) for t in TREES]),
    "a node read by many": Case(pair, {"k": RNG.normal(size=H), "w": RNG.normal(size=(H, H))}, (WORDS, None), DAG),
    "cells that read each other": Case(
        mutual, {"k": RNG.normal(), "w": RNG.normal(size=(H, H))},
        (RNG.normal(size=(3, H)), None, (RNG.normal(size=(3, H)), RNG.normal(size=3)), None), MUTUAL,
    ),
    "chains": Case(
        chain,
        {"h0": RNG.normal(size=H), "t": RNG.normal(size=(2 * H, 2))} | {k: RNG.normal(size=(H, H)) for k in "uvw"},
        (None, *(RNG.normal(size=(9, H)),) * 2, np.arange(9) % 2), tagger([4, 2, 3]),
    ),
    "sums of children": Case(
        child_sum, {"f": RNG.normal(size=(H, H)), "w": RNG.normal(size=(H, H))},
        (RNG.normal(size=(4, H)), None, RNG.normal(size=(4, H))), SUMS,
    ),
}  # fmt: skip


def total(out: Any, np_: Any) -> Any:
    """A scalar of all floats in a result."""
    leaves = [x for x in jax.tree.leaves(out) if jnp.issubdtype(x.dtype, jnp.floating)]
    return sum(np_.sum(np_.sin(x * (i + 1.0))) for i, x in enumerate(leaves))


def functions(case: Case) -> tuple[Any, Any, Any]:
    """A scalar of parameters and streams that are floats, ours and over JAX, and these arguments."""
    leaves, tree = jax.tree.flatten(case.streams)
    floats = [i for i, x in enumerate(leaves) if x.dtype.kind == "f"]

    def streams(values: Any) -> Any:
        new = list(leaves)
        for i, x in zip(floats, values, strict=True):
            new[i] = x
        return jax.tree.unflatten(tree, new)

    def ours(args: Any, plan: Any) -> Any:
        return total(tg.graph_map(case.cells(tnp), args[0], plan, streams(args[1])), tnp)

    def theirs(args: Any) -> Any:
        return total(by_node(case.cells(jnp), args[0], case.lists or case.graphs, streams(args[1])), jnp)

    return ours, theirs, (case.params, [leaves[i] for i in floats])


def check_close(a: Any, b: Any, tolerance: float = 1e-10) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


@pytest.mark.parametrize("name", CASES)
def test_values_and_derivatives_as_node_by_node(name: str) -> None:
    case = CASES[name]
    ours, theirs, args = functions(case)
    plan = tg.graph_plan(case.graphs)
    with x64():
        check_close(tg.value_and_grad(ours)(args, plan), jax.jit(jax.value_and_grad(theirs))(args))


def test_single_precision_under_jit() -> None:
    case = CASES["trees"]
    ours, theirs, args = functions(case)
    args = jax.tree.map(lambda x: np.asarray(x, np.float32), args)
    plan = tg.graph_plan(case.graphs)
    check_close(tg.jit(tg.grad(ours))(args, plan), jax.jit(jax.grad(theirs))(args), 1e-5)


@pytest.mark.parametrize("name", ["a node read by many", "cells that read each other", "sums of children"])
def test_second_derivatives(name: str) -> None:
    ours, theirs, args = functions(CASES[name])
    plan = tg.graph_plan(CASES[name].graphs)

    def square(g: Any) -> Any:
        return sum((x * x).sum() for x in jax.tree.leaves(g))

    with x64():
        mine = tg.jit(tg.grad(lambda args, plan: square(tg.grad(ours)(args, plan))))(args, plan)
        check_close(mine, jax.jit(jax.grad(lambda args: square(jax.grad(theirs)(args))))(args), 1e-9)


def small(plan: Any, w: Any, x: Any) -> Any:
    """A cell that reads streams and one that closes over nothing: the cheapest of trees."""
    return tg.graph_map((lambda w, x: x * w, lambda w, a, b: tnp.tanh(a * b + w)), w, plan, (x, None))


def small_by_node(trees: Any, w: Any, x: Any) -> Any:
    def state(t: Any) -> Any:
        return jnp.tanh(state(t[0]) * state(t[1]) + w) if isinstance(t, tuple) else x[t] * w

    return jnp.stack([state(t) for t in trees])


GROUPS = [[((0, 1), 2), 3], [((1, (2, 3)), 0), (0, (1, 3))]]


def leaf(w: Any, x: Any) -> Any:
    return x * w


def node(w: Any, a: Any, b: Any) -> Any:
    return a * b + w


W, X = np.float32(0.7), np.linspace(-1, 2, 4, dtype=np.float32)


def test_vmap_and_pmap_over_plans() -> None:
    plans = [tg.graph_plan(g) for g in GROUPS]
    plans = [tg.graph_plan(g, like=plans) for g in GROUPS]
    together = jax.tree.map(lambda *x: np.stack(x), *plans)
    expected = [jax.value_and_grad(lambda w, g=g: small_by_node(g, w, X).sum())(W) for g in GROUPS]
    value = tg.vmap(small, in_axes=(0, None, None))(together, W, X)
    check_close(value, np.stack([small_by_node(g, W, X) for g in GROUPS]), 1e-6)
    slope = tg.grad(lambda w: tg.vmap(small, in_axes=(0, None, None))(together, w, X).sum())(W)
    check_close(slope, sum(g for _, g in expected), 1e-5)

    def loss(w: Any, plan: Any) -> Any:
        return tg.psum(small(plan, w, X).sum(), "d")

    mapped = tg.pmap(tg.value_and_grad(loss), axis_name="d", in_axes=(None, 0), devices=jax.devices()[:2])
    values, slopes = mapped(W, together)
    check_close(values, np.full(2, sum(v for v, _ in expected)), 1e-5)
    check_close(slopes, np.full(2, sum(g for _, g in expected)), 1e-5)


def test_all_nodes_in_the_order_in_which_they_are_listed() -> None:
    plan = tg.graph_plan(MUTUAL, outputs="nodes")
    case = CASES["cells that read each other"]
    with x64():
        mine = tg.graph_map(case.cells(tnp), case.params, plan, case.streams)
        for rows, expected in zip(
            mine, by_node(case.cells(jnp), case.params, MUTUAL, case.streams, "nodes"), strict=True
        ):
            for a, b in zip(jax.tree.leaves(rows), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a[: len(b)], b, rtol=1e-12)
                assert not np.asarray(a[len(b) :]).any()


def test_new_graphs_need_no_new_program() -> None:
    rng = np.random.default_rng(0)
    compiled = []

    @tg.jit
    @tg.grad
    def slope(w: Any, plan: Any) -> Any:
        compiled.append(plan.form)
        return small(plan, w, X).sum()

    for _ in range(64):
        trees = [random_tree(rng, int(rng.integers(2, 40)), 4) for _ in range(16)]
        slope(W, tg.graph_plan(trees))
    assert len(compiled) <= 5
    check_close(slope(W, tg.graph_plan(trees)), jax.grad(lambda w: small_by_node(trees, w, X).sum())(W), 1e-4)


def test_only_a_gradient_keeps_what_it_reads() -> None:
    plan = tg.graph_plan(TREES)
    cells = tree_lstm(tnp)

    def roots(p: Any) -> Any:
        return total(tg.graph_map(cells, p, plan, (WORDS, None)), tnp)

    (forward,) = [n for n in tg.trace(roots)(TREE_PARAMS).nodes if n.op.name == "graph"]
    first, second = [n for n in tg.trace(tg.grad(roots))(TREE_PARAMS).nodes if n.op.name == "graph"]
    assert len(forward.outputs) == 2  # the roots' h and c
    assert len(first.outputs) > 2
    assert all(v.aval.shape[:1] != (H, H) for v in first.outputs)
    assert {v.aval.shape for v in second.outputs} >= {(H, H), (2 * H, 5 * H), (5 * H,)}


def test_an_infinity_in_one_tree_is_that_trees_alone() -> None:
    trees = [((0, 1), 2), (3, 1), (2, 2)]
    x = np.array([1.0, 2.0, 3.0, np.inf], np.float32)
    plan = tg.graph_plan(trees)

    def ours(w: Any, x: Any) -> Any:
        return tg.graph_map((leaf, node), w, plan, (x, None))

    def theirs(w: Any, x: Any, tree: int) -> Any:
        def state(t: Any) -> Any:
            return node(w, *map(state, t)) if isinstance(t, tuple) else leaf(w, x[t])

        return state(trees[tree])

    for tree in range(3):
        value, mine = tg.value_and_grad(lambda w, x, tree=tree: ours(w, x)[tree], argnums=(0, 1))(W, x)
        check = jax.value_and_grad(theirs, argnums=(0, 1))(W, x, tree)
        check_close((value, mine), check, 1e-6)
        assert np.isfinite(check[1][0]) == (tree != 1)


def test_what_only_fills_a_step_up_spoils_nothing() -> None:
    """A row that is repeated, of zeros or of a pole, owes and is owed nothing."""
    plan = tg.graph_plan([[(0, ()), (1, [0])]])
    cells = (lambda w, x: x, lambda w, a: w / a)
    x = np.array([2.0], np.float32)
    value, slopes = tg.value_and_grad(lambda w, x: tg.graph_map(cells, w, plan, (x, None)).sum(), (0, 1))(W, x)
    check_close((value, slopes), (W / 2, (np.float32(0.5), -W / 4 * np.ones(1))), 1e-6)
    second = tg.grad(lambda x: tg.grad(lambda x: tg.graph_map(cells, W, plan, (x, None)).sum())(x).sum())(x)
    check_close(second, 2 * W / 8 * np.ones(1), 1e-6)


def test_cells_may_close_over_arrays_and_be_jitted() -> None:
    scale = tnp.asarray(np.float32(1.5))
    plan = tg.graph_plan(GROUPS[0])

    def ours(w: Any, scale: Any) -> Any:
        node = tg.jit(lambda w, a, b: tnp.tanh(a * b + w) * scale)
        return tg.graph_map((lambda w, x: x * w, node), w, plan, (X, None)).sum()

    def theirs(w: Any, scale: Any) -> Any:
        def state(t: Any) -> Any:
            return jnp.tanh(state(t[0]) * state(t[1]) + w) * scale if isinstance(t, tuple) else X[t] * w

        return sum(state(t) for t in GROUPS[0])

    mine, other = (g(f, argnums=(0, 1))(W, scale) for g, f in ((tg.grad, ours), (jax.grad, theirs)))
    check_close(mine, other, 1e-5)


def test_inside_loops_branches_and_checkpoints() -> None:
    plan = tg.graph_plan(GROUPS[0])

    def looped(lib: Any, f: Any) -> Any:
        return lambda w: lib.scan(lambda c, _: (0.5 * c + f(w * c).sum(), None), w, None, length=2)[0]

    def ours(w: Any) -> Any:
        inner = looped(tg, tg.checkpoint(lambda w: small(plan, w, X)))
        return tg.cond(w > 0, inner, lambda w: w, w)

    check_close(tg.grad(ours)(W), jax.grad(looped(jax.lax, lambda w: small_by_node(GROUPS[0], w, X)))(W), 1e-4)


def test_a_row_that_is_not_there_is_nan_where_it_is_not_known() -> None:
    plan = tg.graph_plan([(0, 9), (0, 1)])
    out = tg.jit(small)(plan, W, X)
    assert np.isnan(out[0])
    assert np.isfinite(out[1])


def cells_of(*cells: Any) -> Callable[..., Any]:
    return lambda plan=None, streams=None: tg.graph_map(
        cells, W, tg.graph_plan([((0, 1), 2)]) if plan is None else plan, (X, None) if streams is None else streams
    )


def test_messages() -> None:
    check_message(
        cells_of(leaf), ValueError, r"graph_map: the plan has nodes of cell 1, and there are the cells 0 \(leaf\)"
    )
    check_message(
        cells_of(leaf, lambda w, a: a), TypeError,
        r"graph_map: cell 1 is <lambda>\(w, a\), and the plan calls it with params, 2 children",
    )  # fmt: skip
    check_message(
        cells_of(node, node), TypeError, r"cell 0 is node\(.*, and the plan calls it with params, x, 0 children"
    )
    check_message(
        cells_of(leaf, lambda w, a, b: (a, b)), TypeError,
        r"cell 1 \(<lambda>\) returns \(f32\[\], f32\[\]\), and cell 0 \(leaf\) returns f32\[\] .*same place",
    )  # fmt: skip
    check_message(lambda: cells_of(leaf, node)(plan=3), TypeError, "plan is i32.*Give what graph_plan returns")
    check_message(lambda: cells_of(leaf, node)(streams=(X,)), TypeError, "streams is tuple.*for 2 cells")
    check_message(
        lambda: cells_of(leaf, node)(streams=(X[:2], None)), ValueError,
        r"the stream of cell 0 \(leaf\) is f32\[2\] .*The plan reads row 2",
    )  # fmt: skip
    check_message(cells_of(leaf, 3), TypeError, "cell 1 is i32.*not a function")
    tapped = cells_of(lambda w, x: tg.tap("x", x), node)
    check_message(lambda: tg.capture(tapped)(), TypeError, r"cell 0 .* taps a value .*Return it")
    keys = tg.random.split(tg.random.key(0), 3)
    check_message(
        lambda: cells_of(lambda w, x: x, node)(streams=(keys, None)), TypeError, r"cell 0 .* returns a random key"
    )
    check_message(
        lambda: tg.graph_map((lambda w, a: a, lambda w, a: a), W, tg.graph_plan([[(0, [[]]), (0, [0])]])), TypeError,
        r"cells \[0\] read only each other's states",
    )  # fmt: skip

    def summed(w: Any, plan: Any) -> Any:
        return tg.graph_map((lambda w, x: x, lambda w, a, b: tg.psum(a * b, "d")), w, plan, (X, None)).sum()

    plan = jax.tree.map(lambda x: np.stack([x, x]), tg.graph_plan([(0, 1)]))
    check_message(
        lambda: tg.pmap(summed, axis_name="d", in_axes=(None, 0), devices=jax.devices()[:2])(W, plan), ValueError,
        r"cell 1 \(<lambda>\) communicates over 'd'",
    )  # fmt: skip
