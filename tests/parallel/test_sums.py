"""Modules that sum gradients, against NumPy: values, bits, what low precision costs, and what they refuse."""

from __future__ import annotations

import functools
import math
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_message, x64
from tracegrad import nn, ops, parallel
from tracegrad.parallel import AllReduce, Bucketed, Compressed, GradientSum, Ordered, Sharded, gradient_sum, pcast
from tracegrad.tape import Tape

MODULES: dict[str, GradientSum] = {
    "all_reduce": AllReduce(),
    "bucketed": Bucketed(),
    "small buckets": Bucketed(megabytes=0.0005),
    "bfloat16": Compressed("bfloat16", block=32),
    "int8": Compressed("int8", block=32),
    "sharded": Sharded(),
    "ordered": Ordered(8),
    "ordered, seven": Ordered(7),
}


def stacked(terms: Any, module: GradientSum, devices: int) -> Any:
    """Terms on axis 0, as the devices have them: for `shards`, those that each holds, and NaN past the last."""
    if module.shards is None:
        return terms
    held = -(-module.shards // devices)

    def one(x: Any) -> Any:
        rest = np.full((held * devices - len(x), *x.shape[1:]), np.nan if x.dtype.kind in "fc" else 77).astype(x.dtype)
        return np.concatenate([x, rest]).reshape(devices, held, *x.shape[1:])

    return jax.tree.map(one, terms)


def start(module: GradientSum, terms: Any, devices: int) -> Any:
    state = module.init(jax.tree.map(lambda x: x[0], terms), devices)
    return jax.tree.map(lambda x: np.zeros((devices, *x.shape), x.dtype), state)


def mapped_over(module: GradientSum, terms: Any, devices: int, how: str = "pmap") -> Callable[..., Any]:
    """A function of what the devices have and of their states: one sum, put together, and their new states."""
    like = jax.tree.map(lambda x: x[0], terms)
    split = module.split_axes(like, devices)
    each = jax.tree.map(lambda x, axis: None if axis is None else 0, like, split)
    mapping = {"pmap": tg.pmap, "jit": lambda *a, **k: tg.jit(tg.pmap(*a, **k)), "vmap": tg.vmap}[how]
    run = mapping(lambda g, s: module(g, s, "i"), axis_name="i", out_axes=(each, 0))

    def whole(x: Any, axis: int | None) -> Any:
        return np.asarray(x) if axis is None else np.concatenate(list(np.asarray(x)), axis)

    def call(grads: Any, state: Any) -> Any:
        out, state = run(grads, state)
        return jax.tree.map(whole, out, split), state

    return call


RNG = np.random.default_rng(0)


def terms_of(count: int) -> dict[str, Any]:
    """Terms of each kind, the leading axis being whose they are."""
    normal = lambda *shape: RNG.normal(size=(count, *shape)).astype(np.float32)  # noqa: E731
    return {
        "weight": normal(24, 40) * np.logspace(-8, 8, 40, dtype=np.float32),
        "one axis divides": normal(5, 16),
        "none divides": normal(5, 7, 3),
        "bias": normal(10),
        "scalar": normal(),
        "half": [normal(8, 8).astype(np.float16), normal(9, 9).astype(jnp.bfloat16)],
        "complex": (normal(6, 11) + 1j * normal(6, 11)).astype(np.complex64),
        "count": RNG.integers(0, 100, (count,)).astype(np.int32),
        "integers": RNG.integers(-100, 100, (count, 64)).astype(np.int8),
        "empty": np.zeros((count, 0, 3), np.float32),
        "nothing": None,
        "wide scalar": RNG.integers(0, 2**31, (count, 1)).astype(np.uint32),
    }


def exact(x: Any) -> Any:
    if x.dtype.kind in "iu":
        return x.sum(0, dtype=x.dtype)
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64).sum(0)


def tolerance(module: GradientSum, x: Any) -> Any:
    """How far from the exact sum each element may be: rounding of the terms and of the sum."""
    width = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(str(x.dtype), 2.0**-24)
    bound = 4 * len(x) * width * np.abs(x.astype(np.complex128)).sum(0)
    if isinstance(module, Compressed) and x.dtype.kind not in "iu" and x[0].size >= module.block:
        largest = np.abs(x.astype(np.complex128)).max()
        if module.dtype == "int8":
            # Half a step for each term and for the sum, of a block's largest.
            bound = bound + np.full(x.shape[1:], (largest * len(x) * 2) / 252 * 1.5)
        else:
            bound = bound + 2.0**-8 * np.abs(x.astype(np.complex128)).sum(0) * 2
    return bound


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("name", MODULES)
def test_the_sum_of_every_kind_of_array(name: str, devices: int) -> None:
    module = MODULES[name]
    terms = terms_of(module.shards or devices)
    how = {1: "jit", 2: "pmap", 3: "vmap", 4: "pmap", 8: "jit"}[devices]
    run = mapped_over(module, terms, devices, how)
    out, state = run(stacked(terms, module, devices), start(module, terms, devices))
    before = start(module, terms, devices)
    assert jax.tree.map(np.shape, state) == jax.tree.map(np.shape, before)
    assert jax.tree.structure(out) == jax.tree.structure(terms)

    def check(path: Any, x: Any, total: Any) -> None:
        assert total.dtype == x.dtype and total.shape == x.shape[1:], path
        if x.dtype.kind in "iu":
            np.testing.assert_array_equal(total, exact(x), err_msg=str(path))
        elif x.size:
            off = np.abs(total.astype(np.complex128) - exact(x))
            assert (off <= tolerance(module, x)).all(), (path, off.max())

    jax.tree_util.tree_map_with_path(check, terms, out)


@pytest.mark.parametrize("name", ["all_reduce", "bucketed", "bfloat16", "int8", "sharded", "ordered"])
def test_in_double_precision(name: str) -> None:
    with x64():
        module = MODULES[name]
        x = RNG.normal(size=(module.shards or 4, 16, 8))
        terms = {"w": x, "z": x + 1j * x[::-1], "n": np.ones(len(x))}
        run = mapped_over(module, terms, 4)
        out, _ = run(stacked(terms, module, 4), start(module, terms, 4))
        assert {k: str(v.dtype) for k, v in out.items()} == {"w": "float64", "z": "complex128", "n": "float64"}
        rounds = isinstance(module, Compressed)
        for key, total in out.items():
            np.testing.assert_allclose(total, exact(terms[key]), rtol=1e-14, atol=0.3 if rounds else 1e-14)
        assert out["n"] == len(x)


@pytest.mark.parametrize("tree", [{}, (), None, {"a": None}, [np.zeros((4, 0), np.float32)]], ids=str)
@pytest.mark.parametrize("name", ["all_reduce", "bucketed", "int8", "sharded", "ordered"])
def test_where_there_is_nothing_to_sum(name: str, tree: Any) -> None:
    module = MODULES[name]

    def device(x: Any) -> Any:
        grads = jax.tree.map(lambda leaf: leaf[: 1 if module.shards is None else 2], tree)
        out, state = module(grads, module.init(grads, 4), "i")
        assert jax.tree.structure(out) == jax.tree.structure(tree)
        assert jax.tree.leaves(state) == []
        return x

    tg.vmap(device, axis_name="i")(np.zeros(4))


@pytest.mark.parametrize("name", ["all_reduce", "bucketed", "int8", "bfloat16", "sharded", "ordered"])
def test_the_gradient_of_an_integer_stays_what_it_is(name: str) -> None:
    module = MODULES[name]
    shape = (2, 40) if module.shards else (40,)

    def device(x: Any) -> Any:
        of_integer = np.zeros(shape, jax.dtypes.float0)
        grads = {"f": jnp.zeros(shape) + x, "i": of_integer}
        out, _ = module(grads, module.init({"f": np.zeros(40), "i": np.zeros(40, jax.dtypes.float0)}, 4), "i")
        assert out["i"].dtype == jax.dtypes.float0 and out["i"].shape == (40,)
        return tnp.sum(out["f"])

    out = tg.vmap(device, axis_name="i")(np.ones(4))
    assert out[0] == pytest.approx(40 * (module.shards or 4) / (4 if isinstance(module, Sharded) else 1), rel=0.01)


# -- what is not finite


@pytest.mark.parametrize("name", ["all_reduce", "bucketed", "bfloat16", "int8", "sharded", "ordered"])
def test_infinities_and_nan_arrive_where_they_are_and_leave_nothing_behind(name: str) -> None:
    module = MODULES[name]
    count = module.shards or 4
    x = RNG.normal(size=(count, 4, 40)).astype(np.float32)
    bad = x.copy()
    bad[1, 0, 3], bad[2, 0, 4], bad[0, 1, 0] = np.inf, -np.inf, np.nan
    bad[0, 2, 7], bad[3, 2, 7] = np.inf, -np.inf
    bad[:, 3, 5] = np.inf
    with np.errstate(invalid="ignore"):
        wanted = exact(bad)
    run = mapped_over(module, x, 4)
    out, state = run(stacked(bad, module, 4), start(module, x, 4))
    assert (np.isnan(out) == np.isnan(wanted)).all() and (np.isposinf(out) == np.isposinf(wanted)).all()
    assert (np.isneginf(out) == np.isneginf(wanted)).all()
    finite = np.isfinite(wanted)
    np.testing.assert_allclose(out[finite], wanted[finite], atol=0.2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    out, _ = run(stacked(x, module, 4), state)
    np.testing.assert_allclose(out, exact(x), atol=0.3)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_the_largest_numbers_and_the_smallest(dtype: str) -> None:
    """A number that is finite stays it: the scale of a block, and the rounding to bfloat16, do not overflow."""
    module = Compressed(dtype, block=32)
    largest = np.finfo(np.float32).max
    x = np.zeros((2, 64), np.float32)
    x[0, :32] = largest * np.linspace(-1, 1, 32)
    x[0, 32:] = np.float32(1e-44)
    x[1, 40] = np.float32(3e-39)
    out, state = mapped_over(module, x, 2)(x, start(module, x, 2))
    assert np.isfinite(out).all() and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    np.testing.assert_allclose(out[:32] / largest, np.linspace(-1, 1, 32), atol=0.01)
    np.testing.assert_allclose(out[32:], 0, atol=1e-37)


# -- the same bits


def tree_sum(terms: Any) -> Any:
    """((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)), in the precision of the terms."""
    terms = list(terms)
    while len(terms) > 1:
        terms = [terms[i] + terms[i + 1] if i + 1 < len(terms) else terms[i] for i in range(0, len(terms), 2)]
    return terms[0]


def awkward(shards: int, *shape: int) -> Any:
    """Terms whose sum is another in nearly every other order, and zeros of either sign."""
    x = RNG.normal(size=(shards, *shape)) * 10.0 ** RNG.integers(-4, 5, (shards, *shape))
    x = np.where(RNG.random(x.shape) < 0.05, -0.0, x)
    x.reshape(shards, -1)[:, 0] = -0.0
    return x.astype(np.float32)


def test_the_reference_is_no_sum_in_another_order() -> None:
    x = awkward(8, 1000)
    in_turn = functools.reduce(np.add, x)
    assert (tree_sum(x) != in_turn).mean() > 0.3 and (tree_sum(x) != tree_sum(x[::-1])).mean() == 0
    assert np.signbit(tree_sum(x)[0])


@pytest.mark.parametrize("shards", [8, 7, 6, 3, 1, 12])
def test_ordered_gives_the_same_bits_on_any_number_of_devices(shards: int) -> None:
    module = Ordered(shards)
    x = awkward(shards, 13, 9)
    terms = {"w": x, "z": (x + 1j * x[:, ::-1])[:, :5].astype(np.complex64), "n": x[:, 0, 0].copy()}
    wanted = {key: tree_sum(value).tobytes() for key, value in terms.items()}
    for devices in range(1, 9):
        run = mapped_over(module, terms, devices, "jit" if devices % 2 else "pmap")
        out, _ = run(stacked(terms, module, devices), ())
        assert {key: value.tobytes() for key, value in out.items()} == wanted, devices


@pytest.mark.parametrize("how", ["vmap", "checked", "unchecked"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_same_bits_in_half_precision_and_in_other_mappings(dtype: str, how: str) -> None:
    module = Ordered(8)
    x = (awkward(8, 21) / 100).astype(jnp.dtype(dtype))
    wanted = tree_sum(x).tobytes()
    for devices in (2, 3):
        grads = stacked(x, module, devices)
        if how == "vmap":
            out, _ = mapped_over(module, x, devices, "vmap")(grads, ())
        else:
            out = in_shard_map(module, grads, devices, check=how == "checked")
        assert np.asarray(out).tobytes() == wanted


def in_shard_map(module: GradientSum, grads: Any, devices: int, check: bool = True, other: int = 1) -> Any:
    """In a `jax.shard_map` over a mesh with another axis beside that of the sum."""
    mesh = Mesh(np.array(jax.devices()[: devices * other]).reshape(devices, other), ("i", "other"))
    spec = PartitionSpec("i")
    run = lambda g: module(jax.tree.map(lambda x: x[0], g), (), "i")[0]  # noqa: E731
    return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=spec, out_specs=PartitionSpec(), check_vma=check))(grads)


IN_ONE_PROGRAM = """
import jax, numpy as np, tracegrad as tg
from tracegrad.parallel import Ordered

x, y = np.random.default_rng(0).normal(size=(2, 8, 1000)).astype(np.float32)
for devices in (1, 2, 4, 8):
    own = x.reshape(devices, -1, 1000), y.reshape(devices, -1, 1000)
    f = tg.jit(tg.pmap(lambda x, y: Ordered(8)(x * y, (), "i")[0], "i", out_axes=None))
    print(np.asarray(f(*own)).tobytes().hex())
"""


def test_the_same_bits_in_one_program_with_what_makes_the_terms() -> None:
    """With XLA's own settings, where a product and its addition become one operation if they can."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    root = Path(tg.__file__).parent.parent
    run = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROGRAM], env={**os.environ, **flags, "PYTHONPATH": str(root)},
        capture_output=True, text=True, check=True, timeout=110,
    )  # fmt: skip
    x, y = np.random.default_rng(0).normal(size=(2, 8, 1000)).astype(np.float32)
    assert run.stdout.split() == [tree_sum(x * y).tobytes().hex()] * 4


@pytest.mark.parametrize("layout", [(2, 4), (4, 2), (3, 2), (8, 1)], ids=str)
def test_the_same_bits_along_one_axis_of_a_mesh(layout: tuple[int, int]) -> None:
    devices, other = layout
    x = awkward(8, 9, 5)
    out = in_shard_map(Ordered(8), stacked(x, Ordered(8), devices), devices, other=other)
    assert np.asarray(out).tobytes() == tree_sum(x).tobytes()


def test_arrays_too_large_to_travel_together() -> None:
    x = awkward(8, 300_000)
    terms = [x, x[:, :70_001], x[:, 5:35].copy(), x[:, :270_000]]
    for devices in (3, 8):
        out, _ = mapped_over(Ordered(8), terms, devices, "jit")(stacked(terms, Ordered(8), devices), ())
        assert [o.tobytes() for o in out] == [tree_sum(t).tobytes() for t in terms]


def test_the_derivative_of_the_ordered_sum_is_that_of_a_sum() -> None:
    module = Ordered(8)
    with x64():
        x = RNG.normal(size=(8, 5))
        f = tg.pmap(lambda g: module(g * g, (), "i")[0], "i", out_axes=None)
        loss = lambda x: (f(x.reshape(4, 2, 5)) ** 2).sum()  # noqa: E731
        reference = jax.grad(lambda x: ((x * x).sum(0) ** 2).sum())
        np.testing.assert_allclose(tg.grad(loss)(x), reference(x), rtol=1e-12)
        again = tg.grad(lambda x: (tg.grad(loss)(x) * x**2).sum())(x)
        np.testing.assert_allclose(again, jax.grad(lambda x: (reference(x) * x**2).sum())(x), rtol=1e-11)


# -- low precision


class Forgetful(Compressed):
    """Without error feedback: what rounding leaves out is lost."""

    def __call__(self, grads: Any, state: Any, axis_name: str) -> tuple[Any, Any]:
        return super().__call__(grads, state, axis_name)[0], state


@pytest.mark.parametrize("devices", [3, 8])
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_error_feedback_keeps_the_sum_over_many_steps(dtype: str, devices: int) -> None:
    """Steps of the same gradients, the worst case: each rounds alike."""
    x = RNG.normal(size=(devices, 33, 40)).astype(np.float32)
    each = exact(x)

    def errors(module: Compressed) -> Any:
        run, state, total = mapped_over(module, x, devices, "jit"), start(module, x, devices), np.zeros(each.shape)
        found = []
        for step in range(1, 41):
            out, state = run(x, state)
            total += out
            found.append(np.abs(total - step * each).max())
        return np.array(found)

    with_feedback, without = errors(Compressed(dtype, block=40)), errors(Forgetful(dtype, block=40))
    # What is missing is what was left out last: half a step of each device's block, and of the sum's.
    half = {"int8": lambda a: a / 252, "bfloat16": lambda a: a * 2.0**-8}[dtype]
    bound = 1.1 * (devices * half(np.abs(x).max()) + half(np.abs(each).max()))
    assert (with_feedback <= bound).all()
    assert without[-1] > 20 * without[0] and without[-1] > 5 * bound
    # And the mean over the steps becomes as exact as many steps make it.
    assert with_feedback[-1] / 40 < 0.1 * without[-1] / 40


def test_what_is_small_or_whole_is_not_rounded() -> None:
    module = Compressed("int8")
    x = RNG.normal(size=(4, 255)).astype(np.float32)
    terms = {
        "bias": x,
        "count": np.full(4, 1000, np.int32),
        "weight": x[:, 0].copy(),
        "ids": np.arange(4096).reshape(4, -1),
    }
    assert module.init(jax.tree.map(lambda x: x[0], terms), 4) == parallel.ErrorFeedback((), ())
    out, _ = mapped_over(module, terms, 4)(terms, start(module, terms, 4))
    np.testing.assert_allclose(out["bias"], exact(x), rtol=1e-5, atol=1e-6)
    assert out["count"] == 4000 and (out["ids"] == np.arange(4096).reshape(4, -1).sum(0)).all()


@functools.cache
def digits() -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y.astype(np.int32)


def train(which: str, devices: int = 8, steps: int = 60) -> tuple[float, float]:
    """Loss over, and accuracy on, the examples that were not trained on, after some steps on several devices."""
    x, y = digits()
    module = gradient_sum(which)
    he = tg.initializers.he_normal()
    keys = tg.random.split(tg.random.key(0), 2)
    params = {"w": he(keys[0], (64, 64)), "b": tnp.zeros(64), "v": he(keys[1], (64, 10)), "c": tnp.zeros(10)}
    per_device = -(-module.shards // devices) if module.shards else 1

    def total_loss(p: Any, x: Any, y: Any) -> Any:
        logits = tnp.maximum(x @ p["w"] + p["b"], 0) @ p["v"] + p["c"]
        return nn.losses.sparse_categorical_cross_entropy(logits, y, from_logits=True, reduction="sum")

    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        own = pcast(params, "i", to="varying")
        if module.shards:
            grads = jax.tree.map(
                lambda *g: tnp.stack(g), *[tg.grad(total_loss)(own, *b) for b in zip(x, y, strict=True)]
            )
            count = tnp.full(per_device, x.shape[1])
        else:
            grads, count = tg.grad(total_loss)(own, x[0], y[0]), tnp.array(x.shape[1])
        (grads, count), state = module((grads, count), state, "i")
        axes = module.split_axes(params, devices)
        for key, axis in axes.items():
            if axis is not None:
                grads[key] = parallel.all_gather(grads[key], "i", axis=axis, tiled=True, to="invarying")
        return {key: p - grads[key] / count for key, p in params.items()}, state

    run = tg.jit(tg.pmap(step, "i", in_axes=(None, 0, 0, 0), out_axes=(None, 0)))
    state = jax.tree.map(lambda s: np.zeros((devices, *s.shape), s.dtype), module.init((params, np.int32(0)), devices))
    order = np.random.default_rng(0)
    for _ in range(steps):
        chosen = order.permutation(1280)[:128].reshape(devices, per_device, -1)
        # One step at a time: on a CPU, steps that are started ahead of their turn wait for each other for ever.
        params, state = jax.block_until_ready(run(params, state, x[chosen], y[chosen]))
    logits = np.maximum(x[1280:] @ np.asarray(params["w"]) + np.asarray(params["b"]), 0)
    logits = logits @ np.asarray(params["v"]) + np.asarray(params["c"])
    logs = (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )
    return -logs[np.arange(len(logs)), y[1280:]].mean(), (logits.argmax(1) == y[1280:]).mean()


def test_digits_are_learned_as_well() -> None:
    reference, accuracy = train("all_reduce")
    assert accuracy > 0.87
    for which, close in (("bucketed", 1e-4), ("sharded", 1e-4), ("ordered", 1e-4), ("bfloat16", 1e-2), ("int8", 3e-2)):
        loss, found = train(which)
        assert abs(loss - reference) < close * reference, which
        assert abs(found - accuracy) < 0.01, which  # the standard error is 0.013


# -- what travels


def nodes_of(tape: Tape) -> Any:
    for node in tape.nodes:
        yield node
        for value in node.params.values():
            if isinstance(value, Tape):
                yield from nodes_of(value)


def sent(module: GradientSum, terms: Any, devices: int) -> dict[str, list[int]]:
    """The collectives of a step, with the bytes that a device sends in each on a ring."""
    own = jax.tree.map(lambda x: x, (stacked(terms, module, devices), start(module, terms, devices)))
    tape = tg.trace(tg.vmap(lambda g, s: module(g, s, "i"), axis_name="i"))(*own)
    found: dict[str, list[int]] = {}
    ways = {ops.psum_op: 2 / devices, ops.psum_scatter_op: 1 / devices, ops.all_to_all_op: 1 / devices}
    for node in nodes_of(tape):
        share = {**ways, ops.all_gather_alike_op: 1}.get(node.op)
        if share is not None:
            aval = node.inputs[0].aval
            size = math.prod(aval.shape) * aval.dtype.itemsize * (devices - 1) * share
            found.setdefault(node.op.name, []).append(round(size))
    return found


def test_what_a_device_sends() -> None:
    """For n float32 on 8 devices: 2 n (1 - 1/8) numbers, or half, or a quarter of the bytes; a reduce-scatter half."""
    n = 64 * 256
    terms = [RNG.normal(size=(8, n)).astype(np.float32)]
    once = n * 4 * 7 // 8
    assert sent(AllReduce(), terms, 8) == {"psum": [2 * once]}
    assert sent(Bucketed(), terms, 8) == {"psum": [2 * once]}
    assert sent(Sharded(), terms, 8) == {"psum_scatter": [once]}
    assert sent(Ordered(8), terms, 8) == {"all_to_all": [once], "all_gather_alike": [once]}
    assert sent(Compressed("bfloat16"), terms, 8) == {"all_to_all": [once // 2], "all_gather_alike": [once // 2]}
    scales = once // 256
    assert sent(Compressed("int8"), terms, 8) == {
        "all_to_all": [once // 4, scales], "all_gather_alike": [once // 4, scales]
    }  # fmt: skip
    # With four shards a device, they are one subtree, and no more is sent.
    assert sent(Ordered(8), [np.zeros((8, n), np.float32)], 2) == {"all_to_all": [n * 2], "all_gather_alike": [n * 2]}


@pytest.mark.parametrize(("dtype", "wire"), [("bfloat16", {"u16"}), ("int8", {"s8", "f32"})])
def test_low_precision_is_what_the_compiled_program_sends(dtype: str, wire: set[str]) -> None:
    """XLA widens bfloat16 on a CPU, and may move a conversion to the other side of a collective."""
    module = Compressed(dtype)
    x = np.zeros((8, 64, 256), np.float32)
    program = tg.jit(tg.pmap(lambda g, s: module(g, s, "i"), "i")).lower(x, start(module, x, 8)).compile().as_text()
    lines = [line for line in program.splitlines() if re.search(r" (all-to-all|all-gather|all-reduce)\(", line)]
    assert len(lines) == 2 * len(wire)
    arrays = [found for line in lines for found in re.findall(r"\b([a-z]+\d+)\[([\d,]*)\]", line)]
    assert {kind for kind, _ in arrays} == wire
    assert all(math.prod(map(int, sizes.split(","))) <= 64 for kind, sizes in arrays if kind == "f32")


def test_buckets_are_filled_from_the_back_with_arrays_of_one_dtype() -> None:
    kb = lambda n, dtype=np.float32: np.zeros((2, 256 * n), dtype)  # noqa: E731
    terms = [kb(1), kb(1), kb(2, np.float16), kb(9), kb(1), kb(3), kb(2, np.float16)]
    assert sent(Bucketed(megabytes=4 / 1024), terms, 2) == {"psum": [4096, 9 * 1024, 2048, 2048]}
    assert len(sent(Bucketed(), terms, 2)["psum"]) == 2
    assert len(sent(AllReduce(), terms, 2)["psum"]) == 7


def test_which_axis_is_split() -> None:
    cases = [
        ((24, 40), 8, 1), ((40, 24), 8, 0), ((8, 8), 8, 0), ((5, 16), 8, 1), ((5, 7), 8, None), ((), 8, None),
        ((0, 8), 8, None), ((3, 4), 1, 1), ((), 1, None), ((4,), 8, None),
    ]  # fmt: skip
    for shape, size, axis in cases:
        assert parallel.shard_axis(shape, size) == axis, shape
    like = {"w": jax.ShapeDtypeStruct((24, 40), np.float32), "b": np.zeros(7), "n": 3.0, "none": None}
    assert Sharded().split_axes(like, 8) == {"w": 1, "b": None, "n": None, "none": None}
    assert AllReduce().split_axes(like, 8) == {"w": None, "b": None, "n": None, "none": None}
    assert [x.shape for x in jax.tree.leaves(Compressed("int8").init(like, 8))] == [(2048,), (256,)]


# -- what is summed already, and what all devices have alike


def summed_and_own(module: GradientSum, x: Any, how: str = "pmap") -> Any:
    def device(w: Any, x: Any) -> Any:
        def loss(w: Any) -> Any:
            return (w * x).sum()

        shared = tg.grad(loss)(w)
        inside = tg.jit(tg.grad(loss))(w)
        own = tg.grad(loss)(pcast(w, "i", to="varying"))
        grads = {
            "shared": shared,
            "twice": 2 * shared,
            "inside": inside,
            "own": own,
            "count": 3,
            "alike": tnp.full((), 2.0),
        }
        return module(grads, module.init(grads, 4), "i")[0]

    mapping = {"pmap": tg.pmap, "vmap": tg.vmap}[how]
    return mapping(device, axis_name="i", in_axes=(None, 0))(np.ones(x.shape[1], np.float32), x)


@pytest.mark.parametrize("how", ["pmap", "vmap"])
@pytest.mark.parametrize("name", ["all_reduce", "bucketed", "sharded"])
def test_a_gradient_that_is_summed_already_is_not_summed_again(name: str, how: str) -> None:
    x = RNG.normal(size=(4, 8)).astype(np.float32)
    out = summed_and_own(MODULES[name], x, how)
    total = exact(x)
    for key in ("shared", "twice", "inside", "own"):
        wanted = total * (2 if key == "twice" else 1)
        wanted = wanted.reshape(4, 2) if name == "sharded" else np.broadcast_to(wanted, (4, 8))
        np.testing.assert_allclose(out[key], wanted, rtol=1e-5, atol=1e-6, err_msg=key)
    assert out["count"].tolist() == [12] * 4 and out["alike"].tolist() == [8.0] * 4


def test_what_cannot_use_one_says_how_to_have_terms() -> None:
    x = np.ones((4, 64), np.float32)
    for module, why in ((Compressed("int8", block=32), "low precision"), (Ordered(4), "in which order")):

        def device(w: Any, x: Any, module: GradientSum = module) -> Any:
            grads = tg.grad(lambda w: (w * x).sum())(w)
            return module(grads, module.init(grads, 4), "i")[0]

        shape = (1, 64) if module.shards else (64,)
        run = tg.pmap(device, "i", in_axes=(None, 0))
        pattern = rf"{type(module).__name__}\(.*\): grads \(f32.* summed over 'i' already.*{why}.*pcast\(params, 'i'"
        check_message(lambda run=run, shape=shape: run(np.ones(shape, np.float32), x), ValueError, pattern)


@pytest.mark.parametrize("name", ["all_reduce", "bucketed", "sharded", "ordered", "bfloat16"])
def test_in_a_shard_map_of_jax(name: str) -> None:
    module = MODULES[name]
    x = RNG.normal(size=(module.shards or 4, 7, 2)).astype(np.float32)
    terms = {"w": x, "n": np.arange(len(x))}
    grads = stacked(terms, module, 4)
    if name == "sharded":  # with nothing that divides it is an all-reduce
        terms, grads = {"w": x[:, :, :1]}, {"w": grads["w"][:, :, :1]}
    mesh = Mesh(np.array(jax.devices()[:4]), ("i",))
    state = module.init(jax.tree.map(lambda x: x[0], terms), 4)

    def run(g: Any) -> Any:
        return module(jax.tree.map(lambda x: x[0], g), state, "i")[0]

    for check in (True, False):
        f = jax.shard_map(run, mesh=mesh, in_specs=PartitionSpec("i"), out_specs=PartitionSpec(), check_vma=check)
        out = jax.jit(f)(grads)
        np.testing.assert_allclose(out["w"], exact(terms["w"]), rtol=1e-5, atol=1e-5)


def test_where_a_gradient_and_a_constant_cannot_be_told_apart() -> None:
    mesh = Mesh(np.array(jax.devices()[:4]), ("i",))
    run = lambda w, x: AllReduce()(w, (), "i")[0]  # noqa: E731
    specs = PartitionSpec(), PartitionSpec("i")
    f = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())
    pattern = r"AllReduce\(\): grads\['w'\] \(f32\[3\]\) is the same on all devices along 'i'.*pcast\(x, 'i'"
    check_message(lambda: f({"w": jnp.ones(3)}, jnp.ones(4)), ValueError, pattern)


# -- bad input


def over(call: Callable[[Any], Any]) -> Callable[[], Any]:
    return lambda: tg.vmap(call, axis_name="i")(np.ones((4, 2, 3), np.float32))


def feedback(*sizes: int) -> Any:
    return parallel.ErrorFeedback((np.zeros(sizes[0]),), (np.zeros(sizes[1]),))


ERRORS: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    ("a name", lambda: gradient_sum("sum"), ValueError, r"^gradient_sum: str 'sum' .*'all_reduce', 'bucketed'"),
    ("a class", lambda: gradient_sum(Ordered), TypeError, r"^gradient_sum: Ordered is a class .*Ordered\(\)"),  # type: ignore[arg-type]
    ("none", lambda: gradient_sum(None), TypeError, r"^gradient_sum: NoneType None .*one of 'all_reduce'"),  # type: ignore[arg-type]
    ("a number", lambda: gradient_sum(8), TypeError, r"^gradient_sum: .*one of 'all_reduce'"),  # type: ignore[arg-type]
    ("no shards", lambda: Ordered(0), ValueError, r"^Ordered: shards is .*such as 8"),
    ("half a shard", lambda: Ordered(1.5), ValueError, r"^Ordered: shards is .*such as 8"),  # type: ignore[arg-type]
    ("a mode", lambda: Ordered(8, "loose"), ValueError, r"^Ordered: mode is str 'loose' .*'strict' or 'fused'"),
    ("a dtype", lambda: Compressed("int4"), ValueError, r"^Compressed: dtype is str 'int4' .*'bfloat16' or 'int8'"),
    ("a block", lambda: Compressed("int8", 0), ValueError, r"^Compressed: block is "),
    ("megabytes", lambda: Bucketed(-1), ValueError, r"^Bucketed: megabytes is "),
    ("an axis", over(lambda x: AllReduce()(x, (), "j")), NameError, r"no mapped axis is named 'j'"),
    ("no axis at all", lambda: AllReduce()(np.ones(3), (), "i"), NameError, r"no mapped axis is named 'i'"),
    ("two axes", over(lambda x: AllReduce()(x, (), ("i",))), TypeError, r"axis_name is tuple .*name of one mapped"),  # type: ignore[arg-type]
    ("a key", over(lambda x: AllReduce()({"k": jax.random.key(0)}, (), "i")), TypeError, r"grads\['k'\] is .*no sum"),
    ("a boolean", over(lambda x: Sharded()({"b": x > 0}, (), "i")), TypeError, r"grads\['b'\] is bool.*astype\(int\)"),
    ("a string", over(lambda x: AllReduce()(["a"], (), "i")), TypeError, r"grads\[0\] is str 'a'.*no sum"),
    (
        "not stacked", over(lambda x: Ordered(4)({"w": x}, (), "i")), ValueError,
        r"grads\['w'\] has shape \(2, 3\).*each of 4 devices has 1, stacked on axis 0",
    ),
    ("a scalar", over(lambda x: Ordered(8)([x, 1.0], (), "i")), ValueError, r"grads\[1\] has shape \(\).*has 2"),
    (
        "no state", over(lambda x: Compressed("int8", 4)(x, (), "i")), ValueError,
        r"^Compressed\(dtype='int8', block=4\): state is .*init\(like, 4\)",
    ),
    (
        "another's state", over(lambda x: Compressed("int8", 2)(x, feedback(8, 8), "i")), ValueError,
        r"\[\(8,\)\] and \[\(8,\)\], where \[\(8,\)\] and \[\(2,\)\]",
    ),
    ("the base", over(lambda x: GradientSum()(x, (), "i")), NotImplementedError, r"^GradientSum does not say how"),
]  # fmt: skip


@pytest.mark.parametrize("case", ERRORS, ids=[name for name, *_ in ERRORS])
def test_what_is_wrong_is_said(case: Any) -> None:
    _, call, kind, pattern = case
    check_message(call, kind, pattern)


def test_modules_are_values() -> None:
    names = ("all_reduce", "bucketed", "bfloat16", "int8", "sharded", "ordered")
    modules = [gradient_sum(name) for name in names]
    assert len(set(modules)) == len(names) and Ordered(8) == gradient_sum("ordered") != Ordered(8, "fused")
    assert [pickle.loads(pickle.dumps(m)) for m in modules] == modules
    assert [m.shards for m in modules] == [None] * 5 + [8]
    own = Ordered(16, "fused")
    assert gradient_sum(own) is own and repr(own) == "Ordered(shards=16, mode='fused')"
    with pytest.raises(AttributeError):
        own.shards = 4  # type: ignore[misc]
