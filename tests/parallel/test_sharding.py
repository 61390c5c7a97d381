"""`shard_map` over meshes of several axes, and arrays put on devices: values and derivatives against one device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import x64
from tracegrad.parallel import (
    all_gather,
    axis_index,
    axis_size,
    pmap,
    pmean,
    ppermute,
    psum,
    psum_scatter,
    shard_map,
    with_sharding_constraint,
)

DEVICES = np.array(jax.devices())
LINE = Mesh(DEVICES, ("x",))
GRID = Mesh(DEVICES.reshape(4, 2), ("x", "y"))
CUBE = Mesh(DEVICES.reshape(2, 2, 2), ("x", "y", "z"))

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 4))
W = RNG.normal(size=(4, 6))


@pytest.fixture(autouse=True)
def float64():
    with x64():
        yield


def tensor_parallel(x, w):
    """A matrix product over both axes: rows over one, what is summed over along the other."""
    return tnp.tanh(psum(x @ w, "y"))


def two_layers(x, w):
    """Columns of one matrix and rows of the next, as in a tensor-parallel block."""
    return psum(tnp.tanh(x @ w) @ w.T, "y") / 10


def gathered(x, w):
    return pmean(tnp.sin(all_gather(x, "x", tiled=True) @ w).sum(0), "x")


def scattered(x, w):
    return psum_scatter(tnp.tanh(x @ w), "x", tiled=True)


def turned(x, w):
    return tnp.sin(ppermute(x, "x", [(i, (i + 1) % 4) for i in range(4)])) @ w


CASES = {
    # name: the function, its specs, that of the result, and what it is on one device
    "matmul": (tensor_parallel, (P("x", "y"), P("y")), P("x"), lambda x, w: jnp.tanh(x @ w)),
    "two-layers": (two_layers, (P("x"), P(None, "y")), P("x"), lambda x, w: jnp.tanh(x @ w) @ w.T / 10),
    "gather": (gathered, (P("x"), P()), P(), lambda x, w: jnp.sin(x @ w).sum(0)),
    "both-axes-of-one": (
        lambda x, w: psum((x @ w).sum(), ("x", "y")) * x,
        (P(("x", "y")), P()),
        P(("x", "y")),
        lambda x, w: (x @ w).sum() * x,
    ),
    "other-order": (
        lambda x, w: psum((x @ w).sum(), ("y", "x")) * x,
        (P(("y", "x")), P()),
        P(("y", "x")),
        lambda x, w: (x @ w).sum() * x,
    ),
    "turned": (turned, (P("x"), P()), P("x"), lambda x, w: jnp.roll(jnp.sin(x), 2, 0) @ w),
    "scan": (
        lambda x, w: tg.scan(lambda c, row: (c + psum(row @ w, "x"), psum(row.sum(), "x") * row), tnp.zeros(6), x)[1],
        (P("x"), P()),
        P("x"),
        lambda x, w: (x.reshape(4, 2, 4) * x.reshape(4, 2, 4).sum((0, 2))[None, :, None]).reshape(8, 4),
    ),
}
each = pytest.mark.parametrize("name", CASES)


def case(name):
    fun, in_specs, out_specs, full = CASES[name]
    return shard_map(fun, mesh=GRID, in_specs=in_specs, out_specs=out_specs), full


@each
@pytest.mark.parametrize("wrap", [lambda f: f, tg.jit], ids=["undecorated", "jit"])
def test_value_and_two_derivatives(name, wrap):
    ours, full = case(name)
    np.testing.assert_allclose(wrap(ours)(X, W), full(X, W), rtol=1e-12)
    loss = lambda x, w: (tnp.sin(ours(x, w)) * ours(x, w)).sum()  # noqa: E731
    one = lambda x, w: (jnp.sin(full(x, w)) * full(x, w)).sum()  # noqa: E731
    for got, expected in zip(wrap(tg.grad(loss, (0, 1)))(X, W), jax.grad(one, (0, 1))(X, W), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)
    second = wrap(tg.grad(lambda x, w: (tg.grad(loss, 1)(x, w) ** 2).sum() + tg.grad(loss)(x, w).sum(), (0, 1)))
    expected = jax.grad(lambda x, w: (jax.grad(one, 1)(x, w) ** 2).sum() + jax.grad(one)(x, w).sum(), (0, 1))(X, W)
    for a, b in zip(second(X, W), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def test_of_the_parts_inside():
    """`grad` inside is of each device's own; what all have alike is summed over them."""
    inside = shard_map(tg.grad(lambda w, x: tnp.tanh(x @ w).sum()), mesh=GRID, in_specs=(P(), P("x")), out_specs=P())
    np.testing.assert_allclose(inside(W, X), jax.grad(lambda w: jnp.tanh(X @ w).sum())(W), rtol=1e-12)


def test_positions_and_sizes():
    def where(x):
        return (x + 10 * axis_index("x") + axis_index("y"))[None], tnp.array([axis_size("x"), axis_size("y")])

    places, sizes = shard_map(where, mesh=GRID, in_specs=P(), out_specs=(P(("x", "y")), P()))(0)
    assert places.tolist() == [0, 1, 10, 11, 20, 21, 30, 31] and sizes.tolist() == [4, 2]


def test_three_axes_a_closed_over_array_and_a_tree():
    scale = np.arange(8.0)

    def f(tree):
        return {"sum": psum(tree["a"].sum() * scale, ("x", "y", "z")), "b": tree["b"] * 2}

    specs = {"a": P("x", ("y", "z")), "b": P(None, "z")}
    mapped = shard_map(f, mesh=CUBE, in_specs=(specs,), out_specs={"sum": P(), "b": P(None, "z")})
    a, b = RNG.normal(size=(2, 4)), RNG.normal(size=(3, 2))
    out = mapped({"a": a, "b": b})
    np.testing.assert_allclose(out["sum"], a.sum() * scale)
    np.testing.assert_array_equal(out["b"], 2 * b)
    scale = np.ones(8)
    np.testing.assert_allclose(mapped({"a": a, "b": b})["sum"], a.sum() * scale)


def test_under_vmap():
    ours, full = case("matmul")
    xs = RNG.normal(size=(3, 8, 4))
    np.testing.assert_allclose(tg.vmap(ours, (0, None))(xs, W), jax.vmap(full, (0, None))(xs, W), rtol=1e-12)
    grads = tg.vmap(tg.grad(lambda x: ours(x, W).sum()))(xs)
    np.testing.assert_allclose(grads, jax.vmap(jax.grad(lambda x: full(x, W).sum()))(xs), rtol=1e-10)


@pytest.mark.parametrize("explicit", [False, True])
def test_meshes_of_jax_and_the_one_that_is_set(explicit):
    kind = jax.sharding.AxisType.Explicit if explicit else jax.sharding.AxisType.Auto
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    x = np.arange(8.0)
    total = lambda x: psum((x**2).sum(), "x")  # noqa: E731
    given = shard_map(total, mesh=mesh, in_specs=P("x"), out_specs=P())
    placed = jax.device_put(x, NamedSharding(mesh, P("x")))
    for array in (x, placed):
        for wrap in (lambda f: f, tg.jit):
            assert float(wrap(given)(array)) == 140
            np.testing.assert_array_equal(wrap(tg.grad(given))(array), 2 * x)
    around = shard_map(total, in_specs=P("x"), out_specs=P())
    with jax.set_mesh(mesh):
        assert float(around(x)) == 140
        assert float(tg.jit(around)(x)) == 140
    with pytest.raises(ValueError, match=r"shard_map: there is no mesh.*test_sharding.*jax.set_mesh"):
        around(x)


def test_what_is_not_finite_is_found_on_its_device():
    def f(x, w):
        return psum(tnp.log(x @ w), "y")

    mapped = shard_map(f, mesh=GRID, in_specs=(P("x"), P(None, "y")), out_specs=P("x"))
    x, w = np.abs(X), np.abs(W)
    x[5] = 0
    with pytest.raises(FloatingPointError, match=r"log[\s\S]*device along x 2 of 4"), tg.debug_nans():
        mapped(x, w)


def test_wrong_arguments_of_shard_map():
    cases = [
        ({"mesh": "cpu", "in_specs": P(), "out_specs": P()}, (X,), TypeError, "mesh is str"),
        ({"mesh": LINE, "in_specs": P("z"), "out_specs": P()}, (X,), ValueError, r"names 'z'.*\['x'\]"),
        ({"mesh": LINE, "in_specs": "x", "out_specs": P()}, (X,), TypeError, "PartitionSpec for each array"),
        ({"mesh": LINE, "in_specs": P("x"), "out_specs": P()}, (X,), ValueError, r"result 0 .* differs along \['x'\]"),
        (
            {"mesh": LINE, "in_specs": P("x"), "out_specs": P("x")},
            (X[:7],),
            ValueError,
            "argument x, f64.7,4., does not",
        ),
        ({"mesh": LINE, "in_specs": P(None, None, "x"), "out_specs": P()}, (X,), ValueError, "has 3 entries"),
        (
            {"mesh": LINE, "in_specs": P("x"), "out_specs": P(None, None, "x")},
            (X,),
            ValueError,
            "result 0 .* 3 entries",
        ),
        ({"mesh": LINE, "in_specs": (P(), P()), "out_specs": P()}, (X,), ValueError, "in_specs do not fit"),
        ({"mesh": LINE, "in_specs": P("x"), "out_specs": P("x")}, ("text",), TypeError, "argument x of .* is str"),
    ]
    for options, args, error, message in cases:
        with pytest.raises(error, match=message) as found:
            shard_map(lambda x: x, **options)(*args)
        assert "test_sharding.py" in str(found.value), found.value
    with pytest.raises(TypeError, match="shard_map"):
        shard_map(3, mesh=LINE, in_specs=P(), out_specs=P())


@pytest.mark.parametrize("wrap", [lambda f: f, tg.jit], ids=["undecorated", "jit"])
def test_mappings_over_devices_do_not_nest(wrap):
    ours = shard_map(lambda x: x * 2, mesh=LINE, in_specs=P("x"), out_specs=P("x"))
    for f in (pmap(pmap(lambda x: x)), pmap(ours), pmap(lambda x: tg.jit(ours)(x))):
        with pytest.raises(NotImplementedError, match=r"inside a mapping over devices.*test_sharding.*one shard_map"):
            wrap(f)(np.ones((8, 8, 1)))
    # What is no mapping over devices may be.
    np.testing.assert_array_equal(wrap(tg.vmap(pmap(lambda x: x * 2)))(np.ones((3, 8))), 2 * np.ones((3, 8)))
    np.testing.assert_array_equal(wrap(pmap(tg.vmap(lambda x: x * 2, axis_name="i"), "j"))(X), 2 * X)


# -- with_sharding_constraint, and jit with shardings

ROWS = NamedSharding(LINE, P("x"))


@pytest.mark.parametrize("wrap", [lambda f: f, tg.jit], ids=["undecorated", "jit"])
def test_a_constraint_puts_the_value_and_its_cotangent(wrap):
    f = lambda x: tnp.sin(with_sharding_constraint(x * x, ROWS))  # noqa: E731
    value = wrap(f)(X)
    np.testing.assert_allclose(value, np.sin(X * X))
    assert value.sharding.is_equivalent_to(ROWS, 2)
    first = wrap(tg.grad(lambda x: f(x).sum()))(X)
    np.testing.assert_allclose(first, jax.grad(lambda x: jnp.sin(x * x).sum())(X))
    second = wrap(tg.grad(lambda x: (tg.grad(lambda x: f(x).sum())(x) ** 2).sum()))(X)
    expected = jax.grad(lambda x: (jax.grad(lambda x: jnp.sin(x * x).sum())(x) ** 2).sum())(X)
    np.testing.assert_allclose(second, expected)
    nodes = tg.trace(tg.grad(lambda x: f(x).sum()))(X).nodes
    assert [node.grad for node in nodes if node.op.name == "with_sharding_constraint"] == [False, True]


def test_a_constraint_of_a_tree_by_specs_and_under_vmap():
    with jax.set_mesh(LINE):
        out = tg.jit(lambda t: with_sharding_constraint(t, {"a": P("x"), "b": None}))({"a": X, "b": W})
    assert out["a"].sharding.is_equivalent_to(ROWS, 2)
    np.testing.assert_array_equal(out["b"], W)
    batched = tg.jit(tg.vmap(lambda x: with_sharding_constraint(2 * x, ROWS)))(np.ones((3, 8)))
    np.testing.assert_array_equal(batched, 2 * np.ones((3, 8)))
    with pytest.raises(TypeError, match=r"str .x. is no sharding.*test_sharding.*NamedSharding"):
        with_sharding_constraint(X, "x")
    with pytest.raises(ValueError, match=r"with_sharding_constraint: there is no mesh"):
        with_sharding_constraint(X, P("x"))


def test_jit_with_shardings_of_a_function_that_closes_over_arrays():
    rate = np.full(8, 3.0)
    cases = [
        (tg.jit(lambda w: w * rate, in_shardings=ROWS), (np.ones(8),)),
        (tg.jit(lambda w: w * rate, in_shardings=(ROWS,)), (np.ones(8),)),
        (tg.jit(lambda w, v: w * rate * v, in_shardings=ROWS), (np.ones(8), np.ones(8))),
        (tg.jit(lambda w, v: w * rate * v, in_shardings=(ROWS, None)), (np.ones(8), 1.0)),
        (tg.jit(lambda w, n: w * rate, in_shardings=ROWS, static_argnums=1), (np.ones(8), "static")),
        (tg.jit(lambda n, w: w * rate, in_shardings=ROWS, static_argnums=0, donate_argnums=1), ("s", jnp.ones(8))),
    ]
    for f, args in cases:
        args = tuple(jnp.copy(a) if isinstance(a, jax.Array) else a for a in args)
        out = f(*args)
        np.testing.assert_array_equal(out, np.full(8, 3.0))
        assert out.sharding.is_equivalent_to(ROWS, 1)
    rate = np.full(8, 5.0)
    np.testing.assert_array_equal(cases[0][0](np.ones(8)), rate)
    np.testing.assert_array_equal(cases[2][0](np.ones(8), np.ones(8)), rate)
    whole = tg.jit(lambda w: w * rate, in_shardings=ROWS, out_shardings=NamedSharding(LINE, P()))
    assert whole(np.ones(8)).sharding.is_fully_replicated
    placed = jax.device_put(rate, ROWS)
    np.testing.assert_array_equal(tg.jit(lambda w: w * placed, in_shardings=ROWS)(np.ones(8)), rate)


def test_the_optimizer_of_a_sharded_model_stays_sharded():
    """Fully sharded by annotation alone: parameters, gradients and the optimizer's state are each device's share."""
    rows = {"w": NamedSharding(LINE, P("x")), "v": NamedSharding(LINE, P(None, "x"))}
    params = {"w": RNG.normal(size=(8, 16)), "v": RNG.normal(size=(16, 8))}
    adam = tg.optimizers.adam(1e-2)

    def loss(params, x):
        return ((tnp.tanh(x @ params["w"]) @ params["v"]) ** 2).mean()

    def step(params, state, x):
        params = with_sharding_constraint(params, rows)
        value, grads = tg.value_and_grad(loss)(params, x)
        updates, state = adam.update(with_sharding_constraint(grads, rows), state, params)
        return with_sharding_constraint(tg.optimizers.apply_updates(params, updates), rows), state, value

    x = RNG.normal(size=(8, 8))
    placed = jax.device_put(params, rows)
    sharded = tg.jit(step, donate_argnums=(0, 1))(placed, adam.init(placed), jax.device_put(x, ROWS))
    alone = tg.jit(step)(params, adam.init(params), x)
    for a, b in zip(jax.tree.leaves(sharded), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    for name, sharding in rows.items():
        assert sharded[0][name].sharding.is_equivalent_to(sharding, 2)
