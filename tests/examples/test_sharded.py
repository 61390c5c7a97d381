"""The example of arrays that lie in parts on the devices: what is held, and the same training as on one device."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
from tests.reference import x64
from tracegrad import optimizers
from tracegrad.examples import sharded

WIDTH, LAYERS, BATCH, STEPS = 16, 2, 16, 3


def mesh_of(data, model):
    return jax.sharding.Mesh(np.array(jax.devices()[: data * model]).reshape(data, model), ("data", "model"))


def setting():
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), sharded.network(tg.random.key(0), WIDTH, LAYERS))
    return params, [(rng.uniform(size=(BATCH, 64)), rng.integers(0, 10, BATCH)) for _ in range(STEPS)]


def loss_of_jax(params, x, y):
    x = x @ params["first"]
    for p in params["blocks"]:
        x = x + jax.nn.silu(x @ p["up"] + p["up_bias"]) @ p["down"] + p["down_bias"]
    return -jax.nn.log_softmax(x @ params["last"])[jnp.arange(len(y)), y].mean()


def trained_by_jax(params, batches, rate=1e-3):
    """Adam, Kingma and Ba (2015), algorithm 1."""
    m = v = jax.tree.map(np.zeros_like, params)
    losses = []
    for t, (x, y) in enumerate(batches, 1):
        value, g = jax.value_and_grad(loss_of_jax)(params, x, y)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, v, g)
        at = 1 - 0.9**t, 1 - 0.999**t
        params = jax.tree.map(lambda p, m, v, at=at: p - rate * (m / at[0]) / (np.sqrt(v / at[1]) + 1e-8), params, m, v)
        losses.append(float(value))
    return params, losses


@pytest.mark.parametrize(("layout", "data", "model"), [("replicated", 8, 1), ("fsdp", 4, 2), ("2d", 4, 2)])
def test_a_layout_trains_as_one_device_and_holds_its_part(layout, data, model):
    with x64():
        params, batches = setting()
        expected, losses = trained_by_jax(params, batches)
        found = sharded.measure(layout, params, optimizers.adam(1e-3), batches, mesh_of(data, model))
        np.testing.assert_allclose(found["losses"], losses, rtol=1e-10)
        for a, b in zip(jax.tree.leaves(found["params"]), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
    whole = sum(x.nbytes for x in jax.tree.leaves(params))
    # In the grid "first" and "last" are split along "data" alone, and a bias along one axis.
    blocks = sum(p["up"].nbytes + p["down"].nbytes for p in params["blocks"])
    up = sum(p["up_bias"].nbytes for p in params["blocks"])
    parts = {"replicated": whole, "fsdp": whole / 8, "2d": blocks / 8 + up / 2 + (whole - blocks - up) / 4}
    assert found["parameters"] == found["gradients"] == parts[layout]
    assert found["optimizer state"] == 2 * parts[layout] + 4
    inputs = sum(x.nbytes + y.nbytes for x, y in batches[:1]) / (data if layout == "2d" else 8)
    assert found["arguments of a step"] == 3 * parts[layout] + 4 + inputs


@pytest.mark.parametrize(("data", "model"), [(4, 2), (1, 8), (3, 1)])
def test_a_block_over_devices_has_the_gradients_of_one(data, model):
    with x64():
        params, _ = setting()
        p, x = params["blocks"][0], np.random.default_rng(1).normal(size=(12, WIDTH))
        weights = np.cos(np.arange(x.size, dtype=x.dtype)).reshape(x.shape)
        expected = jax.grad(
            lambda p, x: ((jax.nn.silu(x @ p["up"] + p["up_bias"]) @ p["down"] + p["down_bias"]) * weights).sum(),
            argnums=(0, 1),
        )(p, x)
        mesh = mesh_of(data, model)
        for made in (sharded.block_by_hand(mesh), sharded.block_by_annotation(mesh)):
            grads = tg.jit(tg.grad(lambda p, x, f=made: (f(p, x) * weights).sum(), argnums=(0, 1)))(p, x)
            for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        if model > 1:
            for found in sharded.compare(p, x, mesh).values():
                assert found["gradients differ by"] < 1e-12
                assert {name: len(sizes) for name, sizes in found["forward"].items()} == {"all-reduce": 1}
                assert found["forward"]["all-reduce"] == [x.nbytes // data]
                split = (p["up"].nbytes + p["up_bias"].nbytes + p["down"].nbytes) // model
                assert found["weights"] == split + p["down_bias"].nbytes


def run(*arguments):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    command = [sys.executable, "-m", "tracegrad.examples.sharded", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=110)


def test_the_table():
    result = run("--width", "64", "--layers", "1", "--steps", "2", "--batch-size", "16")
    assert result.returncode == 0, result.stderr
    assert "37,824 parameters, Adam, 4 x 2 devices" in result.stdout
    rows = dict(re.findall(r"^(\w[\w' ]+?)  +(\S.*)$", result.stdout, re.MULTILINE))
    assert rows["parameters"].split() == ["0.14", "MB", "0.02", "MB", "0.02", "MB"]
    assert rows["collectives of its forward pass"].split() == ["1", "all-reduce"] * 2


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--devices", "8", "--model-axis", "3"], ["--model-axis 3 does not divide --devices 8"]),
        (["--width", "100"], ["--width 100 does not divide over --devices 8", "a multiple of 8"]),
        (["--batch-size", "4"], ["--batch-size 4 does not divide over --devices 8"]),
        (["--layers", "0"], ["--layers must be at least 1, not 0"]),
    ],
)
def test_bad_arguments(arguments, parts, capsys):
    with pytest.raises(SystemExit) as end:
        sharded.parse(arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    for part in parts:
        assert part in error
