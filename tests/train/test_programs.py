"""The compiled step on many devices: what runs beside its collectives, what it keeps, how it is called."""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import tracegrad as tg
import tracegrad.numpy as tnp
from benchmarks.parallel import python_calls
from tracegrad import optimizers, random, train
from tracegrad.parallel import Bucketed, Ordered

RNG = np.random.default_rng(0)
WIDTH = 16
LAYERS = [(RNG.normal(size=(WIDTH, WIDTH)) / 4).astype(np.float32) for _ in range(6)]
X = RNG.normal(size=(64, WIDTH)).astype(np.float32)


def loss(layers, x, y):
    for w in layers:
        x = tnp.tanh(x @ w)
    return ((x - y) ** 2).mean()


def lowered(optimizer=None, **options):
    optimizer = optimizer if optimizer is not None else optimizers.sgd(0.1)
    step = train.data_parallel(loss, optimizer, **options)
    state = step.place(train.TrainState.create(LAYERS, optimizer))
    return state, step.lower(state, X, X)


# -- collectives and the backward pass


def scheduled(text: str) -> dict[str, tuple[str, str, list[str]]]:
    """The instructions of a compiled program in the order in which they run: their types, ops and operands."""
    assert "is_scheduled=true" in text
    entry = text[text.index("\nENTRY") :]
    found = re.findall(r"^  (?:ROOT )?%(\S+) = (\S+|\(.*?\)) ([a-z-]+)\((.*)$", entry, re.M)
    names = {name for name, *_ in found}
    return {
        name: (types, op, [x for x in re.findall(r"%([\w.-]+)", rest) if x in names]) for name, types, op, rest in found
    }


def needed(program: dict[str, Any], name: str) -> set[str]:
    """What an instruction depends on."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        for operand in program[waiting.pop()][2]:
            if operand not in seen:
                seen.add(operand)
                waiting.append(operand)
    return seen


def test_the_gradients_of_the_last_layers_travel_while_those_of_the_first_are_computed() -> None:
    _, step = lowered(devices=8, gradients=Bucketed(2 * LAYERS[0].nbytes / 2**20))
    # On a CPU, where collectives run like all else, XLA puts them together into one.
    together = scheduled(step.compile().as_text())
    assert sum(op == "all-reduce" for _, op, _ in together.values()) == 1
    program = scheduled(step.compile({"xla_disable_hlo_passes": "cpu-all-reduce-combiner"}).as_text())
    order = {name: i for i, name in enumerate(program)}
    gradients = [
        n for n, (types, op, _) in program.items() if op == "dot" and types.startswith(f"f32[{WIDTH},{WIDTH}]")
    ]
    sums = [
        n for n, (types, op, _) in program.items() if op == "all-reduce" and types.startswith(f"f32[{2 * WIDTH**2}]")
    ]
    assert len(gradients) == len(LAYERS) and len(sums) == len(LAYERS) // 2
    for i, name in enumerate(sums):
        own = needed(program, name)
        # It waits for the gradients of its own two layers alone,
        assert own.isdisjoint(set(gradients) - set(gradients[2 * i : 2 * i + 2]))
        assert set(gradients[2 * i : 2 * i + 2]) <= own
        # and for no other sum.
        assert own.isdisjoint(sums)
        # No gradient waits for it, and those of the layers before come after it in the schedule, but for one at most.
        assert all(name not in needed(program, g) for g in gradients)
        assert sum(order[g] > order[name] for g in gradients) >= len(LAYERS) - 2 * i - 3


# -- memory


def test_the_state_of_the_optimizer_falls_as_the_number_of_devices_grows() -> None:
    size = sum(w.nbytes for w in LAYERS)
    taken = {}
    for devices in (1, 2, 4, 8):
        state, step = lowered(optimizers.adam(1e-3), devices=devices, gradients="sharded")
        moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
        assert len(moments) == 2 * len(LAYERS)
        for shard in range(devices):
            assert sum(x.addressable_shards[shard].data.nbytes for x in moments) == 2 * size // devices
        compiled = step.compile()
        # What the step returns is split in the same way.
        new, _ = compiled.output_shardings
        pairs = zip(jax.tree.leaves(new.opt_state), jax.tree.leaves(state.opt_state), strict=True)
        assert all(there.is_equivalent_to(x.sharding, x.ndim) for there, x in pairs)
        taken[devices] = compiled.memory_analysis().argument_size_in_bytes + 2 * X.nbytes // 8 - 2 * X.nbytes // devices
    assert [taken[1] - taken[d] for d in (2, 4, 8)] == [2 * size - 2 * size // d for d in (2, 4, 8)]


# -- calls


@pytest.mark.parametrize("gradients", ["all_reduce", "bfloat16", "sharded", Ordered(mode="fused")], ids=str)
def test_a_step_calls_little_python(gradients) -> None:
    optimizer = optimizers.adam(1e-3)
    step = train.data_parallel(loss, optimizer, gradients=gradients)
    state = step.place(train.TrainState.create(LAYERS, optimizer))
    x = jax.device_put(X, step.rows)

    def run() -> None:
        nonlocal state
        state, _ = step(state, x, x)

    assert python_calls(run) <= 25


def test_a_call_of_pmap_calls_little_python() -> None:
    mesh = Mesh(np.array(jax.devices()), ("i",))
    x = jax.device_put(X.reshape(8, 8, WIDTH), NamedSharding(mesh, P("i")))
    layers = jax.device_put(LAYERS, NamedSharding(mesh, P()))
    step = tg.pmap(lambda w, x: tg.grad(loss)(w, x, x), "i", in_axes=(None, 0), out_axes=None)
    assert python_calls(lambda: step(layers, x)) <= 25


def test_types_that_were_seen_are_told_from_others() -> None:
    """Calls of one batch's types go straight to their program: others, and other states, do not."""

    def noisy(w, x, key, scale):
        return ((w - x) ** 2).mean() * scale + 0 * random.normal(key).sum()

    optimizer = optimizers.sgd(0.5)
    step = train.data_parallel(noisy, optimizer, devices=2, donate=False)
    state = step.place(train.TrainState.create(np.zeros((), np.float32), optimizer))
    key = random.key(0)
    for n, scale in ((4, 1.0), (4, 3.0), (5, 1.0), (4, np.float32(2)), (8, 2), (4, 1.0)):
        x = np.arange(n, dtype=np.float32)
        for _ in range(2):
            new, value = step(state, x, key, scale)
            np.testing.assert_allclose([value, new.params], [(x**2).mean() * scale, x.mean() * scale], rtol=1e-6)
    state = train.TrainState.create({"w": np.ones((), np.float32)}, optimizer)
    new, _ = train.data_parallel(lambda w, x: ((w["w"] - x) ** 2).mean(), optimizer, devices=2)(state, x)
    np.testing.assert_allclose(new.params["w"], x.mean(), rtol=1e-6)


@pytest.mark.parametrize("gradients", ["all_reduce", "sharded", "ordered", Ordered(mode="fused")], ids=str)
def test_parameters_that_are_none_and_batches_that_lie_on_the_devices(gradients) -> None:
    def affine(params, x):
        return (((x @ params["w"]) if params["b"] is None else 0) ** 2).mean()

    optimizer, w = optimizers.sgd(0.5), np.eye(WIDTH, 3, dtype=np.float32)
    step = train.data_parallel(affine, optimizer, gradients=gradients)
    state = step.place(train.TrainState.create({"w": w, "b": None}, optimizer))
    new, value = step(state, jax.device_put(X, step.rows))
    np.testing.assert_allclose(value, ((X @ w) ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(new.params["w"], w - X.T @ (X @ w) / (3 * len(X)), rtol=1e-4, atol=1e-6)


def test_strict_steps_are_no_one_program() -> None:
    with pytest.raises(ValueError, match=r"several programs"):
        lowered(gradients="ordered")
    own = train.data_parallel(lambda w, x: (w, x.sum()))
    assert "all-reduce" in own.lower(own.place(np.ones(2)), X).compile().as_text()
