"""Recurrent layers beside flax's with the same weights, sequences of different lengths, and LSTMs over trees."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_grads, check_message, check_value, x64
from tracegrad import nn

RNG = np.random.default_rng(0)
KEY = tg.random.key(0)
F64 = np.float64
L = flax.linen


def normal(*shape: int) -> Any:
    return RNG.normal(size=shape)


def drawn(layer: Any) -> Any:
    """A layer of this structure with other, float64, parameters."""
    return jax.tree.map(lambda p: normal(*p.shape) / 2, layer)


def flax_params(cell: Any) -> Any:
    """The parameters of a cell under flax.linen's names, gate by gate."""
    if isinstance(cell, nn.RNNCell):
        return {"i": {"kernel": cell.kernel, "bias": cell.bias}, "h": {"kernel": cell.recurrent_kernel}}
    gates = "ifgo" if isinstance(cell, nn.LSTMCell) else "rzn"
    w, u, b = (jnp.split(a, len(gates), -1) for a in (cell.kernel, cell.recurrent_kernel, cell.bias))
    params = {}
    for k, gate in enumerate(gates):
        params[f"i{gate}"] = {"kernel": w[k]}
        params[f"h{gate}"] = {"kernel": u[k]}
        params["h" + gate if gates == "ifgo" else "i" + gate]["bias"] = b[k]
    if gates == "rzn":
        params["hn"]["bias"] = cell.recurrent_bias
    return params


CELLS = {"rnn": L.SimpleCell(4), "lstm": L.OptimizedLSTMCell(4), "gru": L.GRUCell(4)}
KINDS: dict[str, Any] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def layer_of(name: str, **options: Any) -> Any:
    return drawn(KINDS[name].init(KEY, 3, 4, **options))


def first_state(name: str) -> Any:
    return (normal(2, 4), normal(2, 4)) if name == "lstm" else normal(2, 4)


def theirs(name: str, reverse: bool = False, lengths: Any = None) -> Any:
    module = L.RNN(CELLS[name], return_carry=True, reverse=reverse, keep_order=True)

    def call(layer: Any, x: Any, state: Any) -> Any:
        params = {"params": {"cell": flax_params(layer.cell)}}
        state, outs = module.apply(params, x, initial_carry=state, seq_lengths=lengths)
        if lengths is not None:
            outs = jnp.where(jnp.arange(x.shape[1])[:, None] < lengths[:, None, None], outs, 0)
        return outs, state

    return call


@pytest.mark.parametrize("name", list(CELLS))
def test_values_and_derivatives_are_those_of_flax(name: str) -> None:
    layer, x, state = layer_of(name), normal(2, 4, 3), first_state(name)
    lengths = np.array([4, 2])

    def ours(layer: Any, x: Any, state: Any) -> Any:
        back = dataclasses.replace(layer, reverse=True)
        return [layer(x, initial_state=state), back(x, nn.Run(back), lengths=lengths, initial_state=state)]

    def flax_side(layer: Any, x: Any, state: Any) -> Any:
        return [theirs(name)(layer, x, state), theirs(name, True, lengths)(layer, x, state)]

    check_value(ours, flax_side, layer, x, state, rtol=1e-9, only=("eager", "jit"))
    check_grads(ours, layer, x, state, jax_fn=flax_side)


@pytest.mark.parametrize("name", list(CELLS))
def test_a_cell_is_a_step_and_the_body_of_a_scan(name: str) -> None:
    layer, x = layer_of(name), normal(2, 5, 3)
    cell = layer.cell
    with x64():
        outs, last = layer(x)
        state = cell.initial_state((2,), F64)
        for t in range(5):
            state, out = cell(state, x[:, t])
            np.testing.assert_allclose(out, outs[:, t], rtol=1e-12)
        scanned, also = tg.scan(cell, cell.initial_state((2,), F64), np.moveaxis(x, 1, 0))
        for a, b, e in zip(*(jax.tree.leaves(s) for s in (state, scanned, last)), strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-12)
            np.testing.assert_allclose(b, e, rtol=1e-12)
        np.testing.assert_allclose(np.moveaxis(also, 0, 1), outs, rtol=1e-12)
        alone, _ = layer(x[0])
        np.testing.assert_allclose(alone, outs[0], rtol=1e-12)
        many, _ = layer(x[None], lengths=np.array([[5, 5]]))
        np.testing.assert_allclose(many[0], outs, rtol=1e-12)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_what_is_beyond_a_length_changes_nothing(reverse: bool) -> None:
    layer, x = layer_of("lstm", reverse=reverse), normal(3, 4, 3)
    lengths = np.array([4, 1, 0])
    beyond = np.arange(4)[None, :, None] >= lengths[:, None, None]
    start = (normal(3, 4), normal(3, 4))

    def loss(layer: Any, x: Any, lengths: Any) -> Any:
        outs, state = layer(x, lengths=lengths, initial_state=start)
        return (outs**2).sum() + (state[0] * state[1]).sum(), (outs, state)

    with x64():
        runs = []
        for fill in (0.0, np.nan, np.inf):
            value = tg.jit(tg.value_and_grad(loss, (0, 1), has_aux=True))
            runs.append(value(layer, np.where(beyond, fill, x), lengths))
        for other in runs[1:]:
            for a, e in zip(jax.tree.leaves(other), jax.tree.leaves(runs[0]), strict=True):
                np.testing.assert_array_equal(a, e)
        (_, (outs, state)), (_, dx) = runs[0]
        assert (np.asarray(outs)[np.broadcast_to(beyond, outs.shape)] == 0).all()
        assert (np.asarray(dx)[np.broadcast_to(beyond, dx.shape)] == 0).all()
        for i, n in enumerate(lengths):
            own = tuple(s[i] for s in start)
            alone, last = layer(x[i, :n], initial_state=own)
            np.testing.assert_allclose(outs[i, :n], alone, rtol=1e-12)
            for a, e in zip(state, last, strict=True):
                np.testing.assert_allclose(a[i], e, rtol=1e-12)


def test_bidirectional_is_flax_s() -> None:
    model = nn.Bidirectional(layer_of("gru"), layer_of("gru"))
    lengths, x = np.array([2, 4]), normal(2, 4, 3)

    def flax_side(model: Any, x: Any) -> Any:
        zeros = jnp.zeros((2, 4))
        parts = [theirs("gru", r, lengths)(p, x, zeros) for r, p in ((False, model.forward), (True, model.backward))]
        return jnp.concatenate([outs for outs, _ in parts], -1), tuple(state for _, state in parts)

    check_value(lambda m, x: m(x, lengths=lengths), flax_side, model, x, rtol=1e-9, only=("eager", "jit"))
    check_grads(lambda m, x: m(x, lengths=lengths), model, x, jax_fn=flax_side)
    check_message(lambda: nn.Bidirectional(nn.relu, nn.relu), TypeError, r"^Bidirectional: forward is function")
    check_message(lambda: nn.Bidirectional(model.backward, model.forward), ValueError, r"forward has reverse=True")


@pytest.mark.parametrize("name", list(CELLS))
def test_empty_extreme_and_low_precision(name: str) -> None:
    layer = jax.tree.map(lambda p: p.astype(np.float32), layer_of(name))
    for shape in ((0, 5, 3), (2, 0, 3)):
        x = np.zeros(shape, np.float32)
        outs, state = layer(x)
        grads = tg.grad(lambda m, x: (m(x)[0] ** 2).sum())(layer, x)
        assert outs.shape == (*shape[:2], 4) and all(s.shape == (shape[0], 4) for s in jax.tree.leaves(state))
        assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(grads))
    narrow = jax.tree.map(lambda p: p.astype(jnp.bfloat16), layer)
    outs, state = tg.jit(lambda m, x: m(x))(narrow, jnp.ones((2, 3, 3), jnp.bfloat16))
    assert {a.dtype for a in jax.tree.leaves((outs, state))} == {jnp.dtype(jnp.bfloat16)}
    mixed, _ = tg.jit(lambda m, x: m(x))(narrow, np.ones((2, 3, 3), np.float32))
    assert mixed.dtype == np.float32

    def second(layer: Any, x: Any) -> Any:
        def first(layer: Any, x: Any) -> Any:
            return (layer(x, lengths=np.array([3, 1]))[0] ** 2).sum()

        value, grads = tg.value_and_grad(first, (0, 1))(layer, x)
        return value + sum([(g * g).sum() for g in jax.tree.leaves(grads)][1:], (grads[1] ** 2).sum())

    with x64():
        wide = jax.tree.map(lambda p: np.asarray(p, F64), layer)
        f = tg.jit(tg.grad(second, (0, 1)))
        for scale in (0.0, 1e4, -1e4, 1e-30):
            x = scale * np.where(np.arange(18).reshape(2, 3, 3) % 3 == 0, 1, -0.5)
            for leaf in jax.tree.leaves(f(wide, x)):
                assert np.isfinite(leaf).all(), scale


def test_wrong_inputs_say_what_and_where() -> None:
    @nn.layer
    class Net:
        lstm: nn.LSTM

        def __call__(self, x: Any, run: Any = None, **options: Any) -> Any:
            return self.lstm(x, run, **options)

    net = Net(nn.LSTM.init(KEY, 3, 4))
    x, run = np.ones((2, 5, 3), np.float32), lambda: nn.Run(net)
    check_message(
        lambda: net(x[..., :2], run()),
        ValueError,
        r"^LSTMCell at model\.lstm\.cell: the input f32\[5,2,2\] has 2 features .* takes 3",
    )
    check_message(
        lambda: net(x[0, 0], run()), ValueError, r"^LSTM at model\.lstm: the input is f32\[3\], which has no axis"
    )
    at = r"^LSTM at model\.lstm: "
    for lengths in ([5, 2, 1], 3, np.array([1.0, 2.0]), "two"):
        check_message(lambda n=lengths: net(x, run(), lengths=n), ValueError, at + r"lengths is .* of shape \(2,\)")
    check_message(lambda: net(x, run(), lengths=[5, 6]), ValueError, at + r"a length is 6, and the sequences have 5")
    check_message(lambda: net(x, lengths=np.array([-1, 2])), ValueError, r"^LSTM: a length is -1")
    h = np.zeros((2, 4), np.float32)
    check_message(
        lambda: net(x, run(), initial_state=h), ValueError, at + r"the state is f32\[2,4\], and it takes \(c, h\)"
    )
    check_message(lambda: net(x, run(), initial_state=(h, h[:1])), ValueError, at + r"the state is .*f32\[1,4\]")
    check_message(lambda: net.lstm.cell(h, x[:, 0]), ValueError, r"^LSTMCell: the state is")
    check_message(lambda: nn.GRU.init(KEY, 3, 0), ValueError, r"^GRU\.init: hidden_features=0")
    check_message(lambda: nn.LSTMCell.init(3, 3, 4), TypeError, r"^LSTMCell\.init: key is 3, ")
    for dtype in (np.int32, np.uint8):
        outs, _ = tg.jit(lambda n: net(x, lengths=n))(np.array([6, 5], dtype))
        assert np.isnan(outs[0]).all() and np.isfinite(outs[1]).all()
    many = tg.vmap(lambda key: nn.LSTM.init(key, 3, 4))(tg.random.split(KEY, 3))
    check_message(lambda: many(x), ValueError, r"^LSTMCell: its kernel is f32\[3,3,16\], with 3 axes in place of 2")
    assert tg.vmap(lambda m: m(x)[0])(many).shape == (3, 2, 5, 4)


def test_cells_are_drawn_gate_by_gate() -> None:
    cell = nn.LSTMCell.init(KEY, 64, 32)
    for gate in np.split(np.asarray(cell.recurrent_kernel), 4, -1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(32), atol=1e-5)
    assert abs(float(cell.kernel.std()) - 1 / 8) < 5e-3 and (np.asarray(cell.bias) == 0).all()
    assert nn.GRUCell.init(KEY, 2, 3, use_bias=False).recurrent_bias is None


# -- trees


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def child_sum(m: Any, x: Any, children: list[Any]) -> Any:
    """Equations 2 to 8 of Tai et al. (2015), in NumPy."""
    n = m.forget_kernel.shape[-1]
    w, b = np.split(m.kernel, 4, -1), np.split(m.bias, 4)
    u = np.split(m.recurrent_kernel, 3, -1)
    total = sum((h for _, h in children), np.zeros(n))
    i, o = (sigmoid(x @ w[k] + total @ u[k] + b[k]) for k in (0, 2))
    c = i * np.tanh(x @ w[1] + total @ u[1] + b[1])
    for ck, hk in children:
        c = c + sigmoid(x @ w[3] + hk @ m.forget_kernel + b[3]) * ck
    return c, o * np.tanh(c)


def binary(m: Any, x: Any, children: list[Any]) -> Any:
    """Equations 9 to 14 for N = 2, in NumPy."""
    n = m.kernel.shape[-1] // 4
    children = children + [(np.zeros(n), np.zeros(n))] * (2 - len(children))
    w, b = np.split(m.kernel, 4, -1), np.split(m.bias, 4)
    gate = [
        x @ w[k] + b[k] + sum(children[p][1] @ np.split(m.recurrent_kernel[p], 3, -1)[k] for p in (0, 1))
        for k in range(3)
    ]
    c = sigmoid(gate[0]) * np.tanh(gate[1])
    for k in (0, 1):
        f = x @ w[3] + b[3] + sum(children[p][1] @ np.split(m.forget_kernel[p], 2, -1)[k] for p in (0, 1))
        c = c + sigmoid(f) * children[k][0]
    return c, sigmoid(gate[2]) * np.tanh(c)


TREE = np.array([[-1, -1], [-1, -1], [0, 1], [-1, -1], [2, 3], [4, -1]])


def recursive(node: Any, x: Any, i: int) -> Any:
    return node(x[i], [recursive(node, x, k) for k in TREE[i] if k >= 0])


@pytest.mark.parametrize("arity", [None, 2])
def test_trees(arity: Any) -> None:
    model = drawn(nn.TreeLSTM.init(KEY, 3, 4, arity))
    x = normal(6, 3)
    formula = child_sum if arity is None else binary
    written = lambda m, x: recursive(lambda x, c: formula(jax.tree.map(np.asarray, m), x, c), np.asarray(x), 5)  # noqa: E731
    check_value(lambda m, x: m(x, TREE)[1], written, model, x, rtol=1e-10, only=("eager", "jit"))
    check_value(lambda m, x: recursive(m.node, x, 5), written, model, x, rtol=1e-10, only=("eager", "jit"))
    check_grads(lambda m, x: m(x, TREE), model, x)

    def grads(f: Any) -> Any:
        def along(m: Any) -> Any:
            return sum((g * g).sum() for g in jax.tree.leaves(tg.grad(lambda m: f(m)[1].sum())(m)))

        return tg.jit(tg.grad(along))(model)

    with x64():
        scanned, plain = grads(lambda m: m(x, TREE)[1]), grads(lambda m: recursive(m.node, x, 5))
        for a, e in zip(jax.tree.leaves(scanned), jax.tree.leaves(plain), strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-9, atol=1e-12)
        swapped, _ = model(x, TREE[:, ::-1])
        outs, _ = model(x, TREE)
        assert np.allclose(swapped, outs) == (arity is None)
        both, _ = tg.vmap(model)(np.stack([x, 2 * x]), np.stack([TREE, TREE]))
        np.testing.assert_allclose(both[0], outs, rtol=1e-10)


def test_what_trees_refuse() -> None:
    tree = nn.TreeLSTM.init(KEY, 3, 4, 2)
    x = np.ones((6, 3), np.float32)
    check_message(lambda: tree(x[:, :2], TREE), ValueError, r"^TreeLSTM: the input f32\[6,2\] has 2 features")
    check_message(lambda: tree(x[:5], TREE), ValueError, r"^TreeLSTM: the inputs are f32\[5,3\] and the children i")
    check_message(lambda: tree(x, TREE[:, :1]), ValueError, r"integers \(nodes, 2\)")
    check_message(lambda: tree(x, TREE.astype(float)), ValueError, r"^TreeLSTM: the inputs are")
    wrong = TREE.copy()
    wrong[2, 1] = 4
    check_message(lambda: tree(x, wrong), ValueError, r"^TreeLSTM: node 2 has the child 4")
    outs, _ = tg.jit(lambda c: tree(x, c))(wrong)
    assert np.isnan(outs[2]).all() and np.isnan(outs[5]).all() and np.isfinite(outs[:2]).all()
    leaf = tree.node(x[0], [])
    check_message(lambda: tree.node(x[0], [leaf] * 3), ValueError, r"^TreeLSTM: 3 children, and the layer is for 2")
    check_message(lambda: nn.TreeLSTM.init(KEY, 3, 4, 0), ValueError, r"^TreeLSTM\.init: arity=0")
    with x64():
        model = jax.tree.map(lambda p: np.asarray(p, F64), tree)
        loss = lambda m, x: (m(x, TREE)[0] ** 2).sum()  # noqa: E731
        along = lambda m, x: sum((g * g).sum() for g in jax.tree.leaves(tg.grad(loss)(m, x)))  # noqa: E731
        for scale in (0.0, 1e4, -1e4):
            assert all(
                np.isfinite(g).all() for g in jax.tree.leaves(tg.jit(tg.grad(along))(model, scale * np.ones((6, 3))))
            )
    assert tnp.asarray(outs).dtype == np.float32
