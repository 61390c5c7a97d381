"""What devices tell each other: values, derivatives of two orders and errors, in each kind of mapping."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import tracegrad as tg
from tests.reference import check_message, x64
from tracegrad import parallel

N = 4
DEVICES = jax.devices()[:N]
X = np.random.default_rng(0).normal(size=(N, N, 2 * N, 3))  # a share: (N, 2 N, 3)

Collective = Callable[[Any, Any], Any]
CASES: dict[str, Collective] = {
    "all_gather": lambda lib, x: lib.all_gather(x, "i"),
    "all_gather, last axis": lambda lib, x: lib.all_gather(x, "i", axis=-1),
    "all_gather, tiled": lambda lib, x: lib.all_gather(x, "i", axis=1, tiled=True),
    "all_gather, one for all": lambda lib, x: lib.all_gather(x, "i", axis=1, tiled=True, to="invarying"),
    "psum_scatter": lambda lib, x: lib.psum_scatter(x, "i"),
    "psum_scatter, tiled": lambda lib, x: lib.psum_scatter(x, "i", scatter_dimension=1, tiled=True),
    "all_to_all": lambda lib, x: lib.all_to_all(x, "i", 0, 2),
    "all_to_all, in place": lambda lib, x: lib.all_to_all(x, "i", 0, 0),
    "all_to_all, tiled": lambda lib, x: lib.all_to_all(x, "i", 1, 2, tiled=True),
    "ppermute, a ring": lambda lib, x: lib.ppermute(x, "i", [(i, (i + 1) % N) for i in range(N)]),
    "ppermute, some": lambda lib, x: lib.ppermute(x, "i", [(0, 2), (3, 1)]),
    "pshuffle": lambda lib, x: lib.pshuffle(x, "i", [2, 0, 3, 1]),
}


def device(lib: Any, collective: Collective, x: Any, w: Any) -> Any:
    """What a device computes: nonlinear in its share and in what it is given, each device with weights of its own."""
    out = collective(lib, x * x)
    return (out * out * (1 + jnp.arange(out.size, dtype=x.dtype).reshape(out.shape) / out.size) * w).sum()


def in_numpy(name: str) -> Any:
    """The value, from the shares of all devices, without a collective: `jax.grad` of it is the reference."""

    def ring(pairs: list[tuple[int, int]]) -> Any:
        def sent(x: Any) -> Any:
            given = {to: x[source] for source, to in pairs}
            return jnp.stack([given.get(i, jnp.zeros_like(x[0])) for i in range(N)])

        return sent

    return {
        "all_gather": lambda x: jnp.stack([jnp.asarray(x)] * N),
        "all_gather, last axis": lambda x: jnp.stack([jnp.moveaxis(x, 0, -1)] * N),
        "all_gather, tiled": lambda x: jnp.stack([jnp.concatenate(list(x), 1)] * N),
        "all_gather, one for all": lambda x: jnp.stack([jnp.concatenate(list(x), 1)] * N),
        "psum_scatter": lambda x: x.sum(0),
        "psum_scatter, tiled": lambda x: jnp.stack(jnp.split(x.sum(0), N, 1)),
        "all_to_all": lambda x: jnp.stack([jnp.stack([x[j][i] for j in range(N)], 2) for i in range(N)]),
        "all_to_all, in place": lambda x: jnp.stack([jnp.stack([x[j][i] for j in range(N)], 0) for i in range(N)]),
        "all_to_all, tiled": lambda x: jnp.stack(
            [jnp.concatenate([jnp.split(x[j], N, 1)[i] for j in range(N)], 2) for i in range(N)]
        ),
        "ppermute, a ring": ring([(i, (i + 1) % N) for i in range(N)]),
        "ppermute, some": ring([(0, 2), (3, 1)]),
        "pshuffle": lambda x: x[jnp.array([2, 0, 3, 1])],
    }[name]


W = np.linspace(0.5, 2, N)


def total(name: str, x: Any) -> Any:
    out = in_numpy(name)(x * x)
    factors = 1 + jnp.arange(out[0].size, dtype=x.dtype).reshape(out[0].shape) / out[0].size
    return (out * out * factors * W.reshape(-1, *[1] * (out.ndim - 1))).sum()


def wave(fun: Any, x: Any) -> Any:
    """The derivative of a sum of first derivatives: of the second order."""
    return (fun(x) * np.cos(np.arange(x.size)).reshape(x.shape)).sum()


UNDER_VMAP = [name for name in CASES if name != "ppermute, some"]
EACH = [(name, mapped) for mapped in ("pmap", "vmap") for name in (UNDER_VMAP if mapped == "vmap" else CASES)]

MAPS: dict[str, Callable[..., Any]] = {
    "pmap": lambda f: tg.pmap(f, "i"),
    "vmap": lambda f: tg.vmap(f, axis_name="i"),
    "jit": lambda f: tg.jit(tg.pmap(f, "i")),
}


@pytest.mark.parametrize(("name", "mapped"), EACH + [(name, "jit") for name in CASES])
def test_value_and_derivatives_from_outside(name: str, mapped: str) -> None:
    with x64():
        f = MAPS[mapped](functools.partial(device, parallel, CASES[name]))

        def loss(x: Any) -> Any:
            return f(x, W).sum()

        np.testing.assert_allclose(loss(X), total(name, X), rtol=1e-12)
        first = jax.grad(functools.partial(total, name))
        np.testing.assert_allclose(tg.grad(loss)(X), first(X), rtol=1e-11, atol=1e-12)
        second = tg.grad(functools.partial(wave, tg.grad(loss)))(X)
        np.testing.assert_allclose(second, jax.grad(functools.partial(wave, first))(X), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "mapped"), EACH)
def test_the_gradient_taken_inside_is_that_of_all_devices_together(name: str, mapped: str) -> None:
    with x64():
        gradient = MAPS[mapped](tg.grad(functools.partial(device, parallel, CASES[name])))(X, W)
        np.testing.assert_allclose(gradient, jax.grad(functools.partial(total, name))(X), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("check", [True, False], ids=["checked", "unchecked"])
@pytest.mark.parametrize("name", CASES)
def test_in_a_shard_map_of_jax(name: str, check: bool) -> None:
    with x64():
        mesh = Mesh(np.array(DEVICES), ("i",))
        spec = PartitionSpec("i")

        def own(x: Any, w: Any) -> Any:
            return tg.grad(functools.partial(device, parallel, CASES[name]))(x[0], w[0])[None]

        run = jax.jit(jax.shard_map(own, mesh=mesh, in_specs=(spec, spec), out_specs=spec, check_vma=check))
        np.testing.assert_allclose(run(X, W), jax.grad(functools.partial(total, name))(X), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("mapped", ["pmap", "vmap"])
@pytest.mark.parametrize("collective", ["psum", "all_gather"])
def test_a_result_that_is_returned_once(collective: str, mapped: str) -> None:
    ours, alone = {
        "psum": (lambda x: parallel.psum(x * x, "i"), lambda x: (x * x).sum(0)),
        "all_gather": (lambda x: parallel.all_gather(x * x, "i", to="invarying"), lambda x: x * x),
    }[collective]
    mapping = {"pmap": tg.pmap, "vmap": tg.vmap}[mapped]
    with x64():
        f = mapping(ours, axis_name="i", out_axes=None)
        total = lambda f, x: (f(x) ** 2 * np.arange(1.0, 4)).sum()  # noqa: E731
        first = jax.grad(functools.partial(total, alone))
        np.testing.assert_allclose(f(X), alone(X), rtol=1e-12)
        np.testing.assert_allclose(tg.grad(functools.partial(total, f))(X), first(X), rtol=1e-11)
        second = tg.grad(functools.partial(wave, tg.grad(functools.partial(total, f))))(X)
        np.testing.assert_allclose(second, jax.grad(functools.partial(wave, first))(X), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mapped", ["pmap", "vmap"])
def test_what_is_made_each_devices_own_has_a_gradient_on_each(mapped: str) -> None:
    mapping = {"pmap": tg.pmap, "vmap": tg.vmap}[mapped]

    def own(w: Any, x: Any) -> Any:
        return tg.grad(lambda w: (w * x).sum())(parallel.pcast(w, "i", to="varying"))

    f = mapping(own, axis_name="i", in_axes=(None, 0))
    np.testing.assert_allclose(f(np.ones(X.shape[1:]), X), X.astype(np.float32))
    # Outside, where there is one of it, its gradient is that of all.
    outside = mapping(lambda w, x: (parallel.pcast(w, "i", to="varying") * x).sum(), axis_name="i", in_axes=(None, 0))
    with x64():
        gradient = tg.grad(lambda w: outside(w, X).sum())(np.ones(X.shape[1:]))
        np.testing.assert_allclose(gradient, X.sum(0), rtol=1e-12)


def test_a_wrong_to() -> None:
    for call in (lambda x: parallel.pcast(x, "i", to="same"), lambda x: parallel.all_gather(x, "i", to="reduced")):
        check_message(lambda call=call: tg.pmap(call, "i")(X), ValueError, r"^(pcast|all_gather): to='(same|reduced)'")


@pytest.mark.parametrize("mapped", ["pmap", "vmap"])
@pytest.mark.parametrize("collective", ["all_gather", "psum_scatter", "ppermute", "pmax"])
def test_of_what_all_devices_have_alike(collective: str, mapped: str) -> None:
    """An argument with in_axes=None: its gradient is that of all devices' results together."""
    shared = X[0]
    ring = [(i, (i + 1) % N) for i in range(N)]
    given: dict[str, Any] = {
        "all_gather": (lambda x: parallel.all_gather(x, "i"), lambda x, i: jnp.stack([x] * N)),
        "psum_scatter": (lambda x: parallel.psum_scatter(x, "i"), lambda x, i: N * x[i]),
        "ppermute": (lambda x: parallel.ppermute(x, "i", ring), lambda x, i: x),
        "pmax": (lambda x: parallel.pmax(x, "i"), lambda x, i: x),
    }
    ours, alone = given[collective]
    with x64():
        mapping = {"pmap": tg.pmap, "vmap": tg.vmap}[mapped]
        f = mapping(lambda x, w: (ours(x * x) ** 2).sum() * w, axis_name="i", in_axes=(None, 0))
        reference = jax.grad(lambda x: sum((alone(x * x, i) ** 2).sum() * W[i] for i in range(N)))(shared)
        np.testing.assert_allclose(tg.grad(lambda x: f(x, W).sum())(shared), reference, rtol=1e-11)


@pytest.mark.parametrize("mapped", ["pmap", "vmap"])
@pytest.mark.parametrize("name", ["pmax", "pmin"])
def test_the_extreme_goes_to_those_that_have_it(name: str, mapped: str) -> None:
    values = np.array([[1.0, 5.0], [3.0, 2.0], [3.0, -1.0], [0.5, -1.0]])
    best = {"pmax": np.max, "pmin": np.min}[name](values, 0)
    own = values == best
    share = own / own.sum(0)
    with x64():
        f = MAPS[mapped](lambda x, w: (getattr(parallel, name)(x, "i") ** 3).sum() * w)

        def loss(x: Any) -> Any:
            return f(x, W).sum()

        np.testing.assert_allclose(loss(values), (best**3).sum() * W.sum())
        np.testing.assert_allclose(tg.grad(loss)(values), 3 * best**2 * share * W.sum(), rtol=1e-12)
        second = tg.grad(functools.partial(wave, tg.grad(loss)))(values)
        waves = np.cos(np.arange(8)).reshape(4, 2)
        wanted = 6 * best * share * (share * waves).sum(0) * W.sum()
        np.testing.assert_allclose(second, wanted, rtol=1e-11, atol=1e-12)


def test_of_a_pytree_and_of_numbers() -> None:
    found = tg.pmap(lambda x: parallel.all_gather({"x": x, "one": 1.0}, "i"), "i")(np.arange(N))
    assert found["x"].tolist() == [list(range(N))] * N
    assert found["one"].tolist() == [[1.0] * N] * N


def test_over_two_axes() -> None:
    x = np.arange(6.0).reshape(2, 3)
    f = tg.vmap(tg.vmap(lambda v: parallel.all_gather(v, ("a", "b")), axis_name="b"), axis_name="a")
    np.testing.assert_array_equal(f(x), np.broadcast_to(x.ravel(), (2, 3, 6)))
    np.testing.assert_allclose(tg.grad(lambda x: (f(x) ** 2).sum())(x), 12 * x)
    shares = np.arange(36.0).reshape(2, 3, 6)
    g = tg.vmap(tg.vmap(lambda v: parallel.psum_scatter(v, ("a", "b")), axis_name="b"), axis_name="a")
    np.testing.assert_array_equal(g(shares).ravel(), shares.sum((0, 1)))
    with pytest.raises(TypeError, match=r"all_to_all: axis_name is tuple .*along one axis"):
        tg.pmap(lambda x: parallel.all_to_all(x, ("i",), 0, 0), "i")(X)


ERRORS: list[tuple[Any, list[str]]] = [
    (lambda x: parallel.all_gather(x, "j"), ["no mapped axis is named 'j'"]),
    (lambda x: parallel.all_gather(x, "i", axis=5), ["all_gather: axis=5", "Use -4 to 3"]),
    (lambda x: parallel.psum_scatter(x, "i", scatter_dimension=2), ["scatter_dimension=2", "size 3", "4 devices"]),
    (lambda x: parallel.psum_scatter(x, "i", scatter_dimension=2, tiled=True), ["does not divide over 4 devices"]),
    (lambda x: parallel.all_to_all(x, "i", 1, 0), ["all_to_all: split_axis=1", "tiled=True"]),
    (lambda x: parallel.ppermute(x, "i", [(0, 4)]), ["ppermute: 4 as a destination", "from 0 to 3"]),
    (lambda x: parallel.ppermute(x, "i", [(0, 1), (0, 2)]), ["ppermute: 0 as a source", "once at most"]),
    (lambda x: parallel.pshuffle(x, "i", [0, 0, 1, 2]), ["pshuffle: perm=[0, 0, 1, 2] is no order of the 4 devices"]),
    (lambda x: parallel.all_gather(x, "i", axis_index_groups=[[0]]), ["axis_index_groups", "over all of an axis"]),
]  # fmt: skip


@pytest.mark.parametrize(("call", "parts"), ERRORS)
def test_errors(call: Any, parts: list[str]) -> None:
    with pytest.raises((ValueError, NameError, NotImplementedError)) as e:
        tg.pmap(call, "i")(X)
    assert all(part in str(e.value) for part in [*parts, "test_collectives.py"]), e.value


def test_outside_of_any_axis() -> None:
    with pytest.raises(NameError, match="collectives work inside a function given to pmap"):
        parallel.all_gather(np.ones(3), "i")


def test_in_a_vmap_every_position_sends() -> None:
    with pytest.raises(NotImplementedError, match=r"leaves positions out, and inside vmap every one has to send"):
        tg.vmap(lambda x: parallel.ppermute(x, "i", [(0, 2)]), axis_name="i")(X)


@pytest.mark.parametrize("mapped", MAPS)
@pytest.mark.parametrize("name", ["psum", "pmean", "pmax", "pmin", "all_gather"])
def test_a_result_that_all_have_alike_has_a_cotangent_on_each(name: str, mapped: str) -> None:
    """Returned as it is: each device's copy counts."""
    x = np.array([0.3, -1.2, 2.0, 0.9])
    alone: Any = {
        "psum": lambda x: x.sum(),
        "pmean": lambda x: x.mean(),
        "pmax": lambda x: x.max(),
        "pmin": lambda x: x.min(),
        "all_gather": lambda x: x[1],
    }[name]
    with x64():
        pick: Any = (lambda y: y[1]) if name == "all_gather" else (lambda y: y)
        f = MAPS[mapped](lambda x: pick(getattr(parallel, name)(x * x, "i")))

        def loss(x: Any) -> Any:
            return (f(x) ** 2 * W).sum()

        def reference(x: Any) -> Any:
            return (alone(x * x) ** 2 * W).sum()

        first = jax.grad(reference)
        np.testing.assert_allclose(tg.grad(loss)(x), first(x), rtol=1e-12)
        second = tg.grad(functools.partial(wave, tg.grad(loss)))(x)
        np.testing.assert_allclose(second, jax.grad(functools.partial(wave, first))(x), rtol=1e-11, atol=1e-12)
