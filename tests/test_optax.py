"""What optax has too gives what optax gives: trajectories and rates that are stored in `data/optax.npz`.

`data/optax_reference.py` made them, from the same expressions and problems as here; optax itself is not needed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import tracegrad as tg
from tests.reference import x64
from tracegrad import optimizers, schedules

with np.load(Path(__file__).parent / "data" / "optax.npz") as file:
    FOUND = dict(file)
VERSION = str(FOUND.pop("version"))
CALLS = [tuple(key.split("|", 1)) for key in FOUND]
NAMES = {name: getattr(module, name) for module in (optimizers, schedules) for name in dir(module)}
NAMES["MultiSteps"] = optimizers.multi_steps
STEPS = 50

rng = np.random.default_rng(0)


def draw() -> dict[str, Any]:
    return {"w": rng.standard_normal((3, 2)), "b": rng.standard_normal(2), "s": np.float64(rng.standard_normal())}


START, CENTRE, *NOISE = [draw() for _ in range(STEPS + 2)]
TURN = np.exp(1j * np.arange(6)).reshape(3, 2)


def value(params: Any) -> Any:
    distance = {k: params[k] - CENTRE[k] for k in params}
    return (
        sum((abs(d) ** 2).sum() + 0.1 * (abs(d) ** 4).sum() for d in distance.values()) + distance["w"][0, 0].real ** 2
    )


def valley(params: Any) -> Any:
    x = params["w"].reshape(-1)[:5]
    return ((1 - x[:-1]) ** 2).sum() + 10 * ((x[1:] - x[:-1] ** 2) ** 2).sum() + (params["b"] ** 2).sum()


def turned(tree: Any) -> Any:
    return {"w": tree["w"] * TURN, "b": tree["b"] * 1j, "s": tree["s"] + 0j}


def row(params: Any) -> Any:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)])


@pytest.mark.parametrize(("kind", "call"), [c for c in CALLS if c[0] != "schedule"])
def test_trajectories(kind: str, call: str) -> None:
    with x64():
        optimizer = eval(call, dict(NAMES))
        start = turned(START) if kind == "complex" else START
        params = optimizers.LookaheadParams.init_synced(start) if kind == "pair" else start

        @tg.jit
        def step(params: Any, state: Any, noise: Any) -> Any:
            at = params.fast if kind == "pair" else params
            if kind == "search":
                now, grads = tg.value_and_grad(valley)(at)
                updates, state = optimizer.update(grads, state, params, value=now, grad=grads, value_fn=valley)
            else:
                now, grads = tg.value_and_grad(value)(at)
                grads = jax.tree.map(lambda g, n: g.conj() + n, grads, noise)
                extra: dict[str, Any] = {"value": now} if "plateau" in call else {}
                if "opaque" in call:
                    extra["grad_fn"] = lambda p, i: tg.grad(value)(p)
                updates, state = optimizer.update(grads, state, params, **extra)
            return optimizers.apply_updates(params, updates), state

        state, expected = optimizer.init(params), FOUND[f"{kind}|{call}"]
        assert np.isfinite(expected).all() and len(expected) >= STEPS
        for i in range(STEPS):
            noise = turned(NOISE[i]) if kind == "complex" else NOISE[i]
            if "finite" in call and i in (3, 8, 9, 20, 21, 22, 23, 24):
                noise = jax.tree.map(lambda n: np.nan * n, noise)
            params, state = step(params, state, noise)
            np.testing.assert_allclose(row(params), expected[i], rtol=1e-8, atol=1e-8, err_msg=f"step {i}")
        if "schedule_free" in call:
            mean = optimizers.schedule_free_eval_params(state, params)
            np.testing.assert_allclose(row(mean), expected[STEPS], rtol=1e-8)


@pytest.mark.parametrize("call", [c for kind, c in CALLS if kind == "schedule"])
def test_schedules(call: str) -> None:
    with x64():
        schedule, expected = eval(call, dict(NAMES)), FOUND[f"schedule|{call}"]
        assert len(expected) == 60
        steps = np.arange(60)
        np.testing.assert_allclose(schedule(steps.astype(np.int32)), expected, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(tg.jit(schedule)(steps.astype(np.int32)), expected, rtol=1e-12, atol=1e-15)
        for step in (0, 1, 10, 30, 59):
            np.testing.assert_allclose(schedule(step), expected[step], rtol=1e-12, atol=1e-15)


def test_what_is_compared() -> None:
    """Every optimizer that both have is among the cases; the version that they come from is known."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    words = set(re.findall(r"\w+", " ".join(call for _, call in CALLS)))
    ours = {"momentum", "nesterov", "sgdw", "sgd_l1", "swa", "by_path", "multi_steps", "partition", "add_l1_step"}
    assert {n for n in optimizers.recipes.__all__ if n not in ours} <= words
    assert {n for n in optimizers.wrappers.__all__ if n[0].islower() and n not in ours} <= words
