"""Data, checkpoints and `fit` in several processes: real ones, on 127.0.0.1."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import Popen, TimeoutExpired

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
from tests.parallel.several import good, run
from tracegrad import train

pytestmark = pytest.mark.xdist_group("processes")

STATES = """
FOLDER = sys.argv[4]

def spread(array, *spec):
    return jax.make_array_from_callback(array.shape, NamedSharding(MESH, P(*spec)), lambda part: array[part])

def make(scale):
    key = jax.random.key_data(tg.random.key(7 * scale))
    return {
        "replicated": spread(np.arange(3.0, dtype=np.float32) * scale),
        "spread": spread(np.arange(24, dtype=np.int32).reshape(12, 2) * scale, "data"),
        "half": spread(jnp.arange(12, dtype=jnp.bfloat16) * scale, "data"),
        "key": jax.random.wrap_key_data(spread(np.asarray(key))),
        "own": np.full(2, 5.0 * scale, np.float32),
    }

def check(found, scale):
    for name, leaf in make(scale).items():
        a, b = (jax.random.key_data(x) if name == "key" else x for x in (found[name], leaf))
        if isinstance(b, jax.Array):
            assert a.sharding.is_equivalent_to(b.sharding, b.ndim), (name, a.sharding, b.sharding)
            for x, y in zip(a.addressable_shards, b.addressable_shards, strict=True):
                np.testing.assert_array_equal(np.asarray(x.data), np.asarray(y.data))
        else:
            np.testing.assert_array_equal(a, b)
"""

SAVING = (
    STATES
    + """
with train.Checkpoints(FOLDER, keep=2) as checkpoints:
    for step in (1, 2, 3):
        checkpoints.save(step, make(step), {"loss": 1 / step}, {"weights": make(step)["spread"]})
    checkpoints.wait()
    check(checkpoints.restore(make(0)).state, 3)
    check(checkpoints.restore(make(0), step=2).state, 2)
    try:
        checkpoints.restore(make(0), step=1)
    except FileNotFoundError as error:
        say(str(error))
    wrong = make(0) | {"spread": make(0)["half"]}
    try:
        checkpoints.restore(wrong)
    except train.CheckpointError as error:
        say(str(error))
    train.save_weights(FOLDER + ".safetensors", {name: make(1)[name] for name in ("replicated", "spread", "half")})
    # Process 0 cannot write: all learn of it, and what was there stays.
    if INDEX == 0:
        write = checkpoints._write
        checkpoints._write = lambda *arguments: setattr(checkpoints, "_error", OSError("No space left on device"))
    checkpoints.save(4, make(4))
    try:
        checkpoints.save(5, make(5))
    except train.CheckpointError as error:
        say(str(error))
    if INDEX == 0:
        checkpoints._write = write
    checkpoints.save(6, make(6))
    # Another process sees it late.
    read, tries = checkpoints._read, []

    def late(step):
        tries.append(step)
        if len(tries) < 4:
            raise train.CheckpointError("it is not there yet")
        return read(step)

    if INDEX == COUNT - 1:
        checkpoints._read = late
    check(checkpoints.restore(make(0)).state, 6)
    assert len(tries) in (0, 4)
    checkpoints._read = read
    # What another process sees is damaged: all learn of it.
    if INDEX == COUNT - 1:
        checkpoints._arrays = lambda *arguments: (_ for _ in ()).throw(OSError("stale file handle"))
    try:
        checkpoints.restore(make(0), step=3)
    except Exception as error:
        say(type(error).__name__, str(error))
try:
    train.Checkpoints("/proc/nothing").lock()
except train.CheckpointError as error:
    say(str(error))
"""
)


def test_checkpoints(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    # Now and then the transport of a process writes an empty line.
    outs = [[line for line in out.splitlines() if line] for out in good(run(2, SAVING, folder, devices=2))]
    for out in outs:
        assert re.search(r"no checkpoint of step 1 in .*of steps 2, 3", out[0])
        assert re.search(r"spread is int32\[12,2\] in the checkpoint, and bfloat16\[12\] here", out[1])
        assert re.search("could not be written .*No space left on device.*the last good one, of step 3", out[2])
        assert re.search("cannot be written", out[4])
    assert "process 1 of 2: OSError: stale file handle" in outs[0][3] and "OSError stale" in outs[1][3]
    weights = train.load_weights(f"{folder}.safetensors")
    assert weights["spread"].tolist() == np.arange(24).reshape(12, 2).tolist() and weights["half"].shape == (12,)
    saved = train.Checkpoints(folder)
    assert saved.steps() == [3, 6]
    # Another number of processes and of devices reads it.
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    like = {
        "replicated": np.zeros(3, np.float32),
        "spread": jax.device_put(np.zeros((12, 2), np.int32), sharding),
        "half": jax.device_put(jnp.zeros(12, jnp.bfloat16), sharding),
        "key": tg.random.key(0),
        "own": np.zeros(2, np.float32),
    }
    found = saved.restore(like)
    np.testing.assert_array_equal(found.state["spread"], np.arange(24).reshape(12, 2) * 6)
    np.testing.assert_array_equal(found.state["half"].astype(np.float32), np.arange(12) * 6)
    np.testing.assert_array_equal(jax.random.key_data(found.state["key"]), jax.random.key_data(tg.random.key(42)))
    assert found.state["spread"].sharding == sharding and saved.restore(step=3).extra["weights"].shape == (12, 2)


TRAINING = """
import threading
FOLDER, STEPS, PAUSE = sys.argv[4], int(sys.argv[5]), float(sys.argv[6])
X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)

class Batches:
    # The parts of the processes as arrays of all of them.
    def __init__(self, loader):
        self.loader, self.seen = loader, []
        self.state_dict, self.load_state_dict = loader.state_dict, loader.load_state_dict
    epoch = property(lambda self: self.loader.epoch)
    def __len__(self):
        return len(self.loader)
    def __iter__(self):
        for (x, index), weights in self.loader:
            time.sleep(PAUSE)
            self.seen.append([int(i) for i, w in zip(index, weights) if w])
            yield tuple(jax.make_array_from_process_local_data(NamedSharding(MESH, P("data")), a) for a in (x, weights))

def loss(w, x, weights):
    return (((x @ w - x.sum(1)) ** 2) * weights).sum() / weights.sum()

batches = Batches(train.data.DataLoader((X, np.arange(50)), 12, seed=3, last="pad"))
optimizer = optimizers.adam(0.05)
step = train.make_step(loss, optimizer, donate=False)
state = train.TrainState.create(np.zeros(3, np.float32), optimizer)
state = jax.tree.map(
    lambda x: jax.make_array_from_callback(x.shape, NamedSharding(MESH, P()), lambda part: np.asarray(x)[part]), state)

def fit(source=batches, **options):
    options = {"steps": STEPS, "checkpoints": train.Checkpoints(FOLDER, every=4), "resume": True} | options
    result = train.fit(step, options.pop("state", state), source, **options)
    say("stopped", repr(result.stopped), int(result.state.step), *result.state.params.tolist())
    say("losses", *result.history["loss"])
    say("seen", batches.seen)
    return result
"""

FIT = (
    TRAINING
    + """
fit(validate=lambda state: float(jnp.abs(state.params).sum()), callbacks=[train.EarlyStopping(patience=9)])
"""
)


def numbers(out: str, word: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    line = next(line for line in out.splitlines() if line.startswith(word))
    return np.array([float(w) for w in line.split()[1 if word == "losses" else -3 :]])


def seen(outs: Sequence[str]) -> list[list[int]]:
    """The examples of each step, of all processes."""
    each = [eval(next(line for line in out.splitlines() if line.startswith("seen"))[5:]) for out in outs]
    return [[i for part in parts for i in part] for parts in zip(*each, strict=True)]


def begun(folder: Path, step: int) -> None:
    """Waits until a checkpoint of this step or a later one is there."""
    deadline = time.monotonic() + 60
    while (train.Checkpoints(folder).latest() or 0) < step:
        assert time.monotonic() < deadline, "it has not begun"
        time.sleep(0.02)


def test_sigterm_stops_all_after_the_same_step(tmp_path: Path) -> None:
    def terminate(processes: Sequence[Popen[str]]) -> None:
        begun(tmp_path, 4)
        processes[1].send_signal(signal.SIGTERM)

    ended = run(2, FIT, tmp_path, 10_000, 0.02, meanwhile=terminate)
    outs = good(ended)
    assert outs[0].split("seen")[0] == outs[1].split("seen")[0] and outs[0].startswith(
        "stopped 'terminated by SIGTERM'"
    )
    step = int(outs[0].split("' ")[1].split()[0])
    assert step == train.Checkpoints(tmp_path).latest() and 4 <= step < 10_000
    assert f"process 1 of 2: terminated by SIGTERM: step {step} is the last" in ended[0].err
    assert "SIGTERM" not in ended[1].err.replace("SIGTERM caught", "")


BROKEN = """
def broken():
    for i, batch in enumerate(batches):
        if INDEX == int(sys.argv[7]) and i == 3:
            say("broken at", time.time())
            raise OSError("the disk is gone")
        yield batch
"""


def ended_by_itself(processes: Sequence[Popen[str]]) -> None:
    """Waits until one has ended: with JAX, one that leaves waits for those that have not, up to their heartbeat."""
    deadline = time.monotonic() + 60
    while all(process.poll() is None for process in processes):
        assert time.monotonic() < deadline, "all of them hang"
        time.sleep(0.02)
    for process in processes:
        try:
            process.wait(3)
        except TimeoutExpired:
            process.kill()


@pytest.mark.parametrize("which", [0, 1])
def test_data_that_raise_in_one_process(tmp_path: Path, which: int) -> None:
    ended = run(2, TRAINING + BROKEN + "fit(broken)", tmp_path, 100, 0.02, which, meanwhile=ended_by_itself)
    assert 0 not in [e.code for e in ended]
    assert f"in process {which} of 2, at step 4, batches raised OSError: the disk is gone" in ended[which].err
    assert f"process {which} of 2 has failed: FitError: " in ended[1 - which].err


def test_one_has_more_batches(tmp_path: Path) -> None:
    program = TRAINING + "fit(lambda: list(batches)[: 3 + INDEX], steps=None, epochs=1)"
    ended = run(2, program, tmp_path, 0, 0, meanwhile=ended_by_itself)
    assert 0 not in [e.code for e in ended]
    assert "ended after 3 steps in process 0 of 2, and not in process 1" in ended[1].err


def test_killed_and_gone_on_with_by_others(tmp_path: Path) -> None:
    def kill(processes: Sequence[Popen[str]]) -> None:
        begun(tmp_path / "run", 8)
        for process in processes:
            process.kill()

    assert [e.code for e in run(2, FIT, tmp_path / "run", 10_000, 0.05, meanwhile=kill)] == [-9, -9]
    step = train.Checkpoints(tmp_path / "run").latest() or 0
    assert step >= 8
    whole = run(1, FIT, tmp_path / "whole", step + 6, 0)
    expected = seen(good(whole))
    assert sorted(i for part in expected[:5] for i in part) == list(range(50))
    three = run(3, FIT, tmp_path / "run", step + 6, 0)
    outs = good(three)
    assert len({out.split("seen")[0] for out in outs}) == 1
    assert f"step {step + 6}/{step + 6}" in three[0].err and "step" not in three[1].err
    assert seen(outs) == expected[step:]
    for word in ("losses", "stopped"):
        np.testing.assert_allclose(numbers(outs[0], word), numbers(whole[0].out, word), rtol=1e-4)


ALIKE = (
    TRAINING
    + """
import grain
from tracegrad.train import data

def fails(**options):
    try:
        train.fit(step, options.pop("state", state), options.pop("source", batches), progress=False, **options)
    except train.FitError as error:
        say(type(error).__name__, error.step, str(error))
        return error

# Without processes=, a loader gives the part of this process: 50 examples are two batches of 24 and a last one of 2.
loader = data.DataLoader((np.arange(50.0),), 24, seed=1)
say("mean", train.evaluate(lambda x: {"x": x.mean(), "square": (x ** 2).mean()}, loader), loader.processes)

# In all at the same step, as in one: the state is the last good one, and training can be gone on with.
sharding = NamedSharding(MESH, P("data"))
x = X[:48].copy()
x[40, 0] = np.inf
parts = data.DataLoader((x, np.ones(48, np.float32)), 12, shuffle=False, prefetch=2)
error = fails(source=lambda: data.prefetch(parts, device=sharding), epochs=3)
say("good", int(error.result.state.step), *error.result.state.params.tolist())

fails(steps=3, validate_every=2, validate=lambda state: {"own": float(INDEX)})
own = train.TrainState.create(np.zeros(3, np.float32), optimizer)
fails(state=own, source=data.DataLoader((X[:48], np.ones(48, np.float32)), 6, seed=1), steps=9)

# The parts of grain, and their position.
examples = []

def by_grain():
    for index in PART:
        examples.append(index.tolist())
        yield tuple(jax.make_array_from_process_local_data(sharding, a) for a in (X[index], np.ones(6, np.float32)))

PART = grain.MapDataset.source(np.arange(48)).shuffle(seed=1)[INDEX::COUNT].batch(12 // COUNT, drop_remainder=True)
for steps in (3, 7):
    result = train.fit(step, state, by_grain, steps=steps, checkpoints=FOLDER, resume=True, progress=False)
say("grain", examples)
"""
)


def test_what_all_see_is_an_ordinary_error(tmp_path: Path) -> None:
    outs = [out.splitlines() for out in good(run(2, ALIKE, tmp_path, 0, 0))]
    for i, (mean, nonfinite, kept, measured, alone, examples) in enumerate(outs):
        assert mean == f"mean {{'square': {(np.arange(50) ** 2).mean()}, 'x': 24.5}} ({i}, 2)"
        assert nonfinite.startswith("NonFiniteError 4 ") and kept.startswith("good 3 ")
        assert "validate gave own = 0 in process 0, and 1 in process 1 of 2" in measured
        assert (
            f"in process {i} of 2" in alone
            and "after step 1, the step gave loss = " in alone
            and "give parallel=" in alone
        )
        seen = eval(examples.removeprefix("grain "))
        # The 4 batches of an epoch, of which a function is gone through anew for those that were had.
        assert len(seen) == 3 + 3 + 4 and seen[:3] == seen[3:6]
    assert outs[0][2] == outs[1][2] and outs[0][4].split("in process")[0] == outs[1][4].split("in process")[0]
