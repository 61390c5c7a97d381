"""Checkpoints: whole or not there, checked when read, and a training that goes on from one to the last bit."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import tracegrad as tg
from tracegrad import nn, optimizers, train
from tracegrad.train import CheckpointError, Checkpoints

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
START = {"w": np.zeros(3, np.float32), "b": np.float32(0)}
STATE = {
    "w": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3),
    "small": jnp.ones(3, jnp.float8_e4m3fn),
    "empty": jnp.zeros((0, 2)),
    "key": tg.random.key(3),
    "count": jnp.array(7),
    "a/b.c": np.array([1 + 2j], np.complex64),
}


def loss(params: Any, x: Any) -> Any:
    return ((x @ params["w"] + params["b"] - x.sum(1)) ** 2).mean()


def batches(size: int = 8) -> train.data.DataLoader:
    return train.data.DataLoader((X,), size, seed=2)


def fit(source: Any, folder: Any, **options: Any) -> train.FitResult:
    options = {"progress": False, "checkpoints": folder} | options
    optimizer = options.pop("optimizer", optimizers.adam(0.01))
    return train.fit(loss, options.pop("params", START), source, optimizer, **options)


def same(a: Any, b: Any) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


# -- alone


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    extra = {"order": [np.arange(3), b"\0x", None, 1.5], "name": "a", "nan": float("inf")}
    with Checkpoints(tmp_path / "new" / "run") as checkpoints:
        checkpoints.save(4, STATE, {"val_loss": 0.25}, extra)
        checkpoints.wait()
        checkpoints.save(5, STATE)
        assert checkpoints.restore().step == 5, "restored before it was written"
        found = checkpoints.restore(STATE, step=4)
        assert found.step == 4 and found.metrics == {"val_loss": 0.25}
        for name, leaf in STATE.items():
            assert found.state[name].dtype == leaf.dtype and isinstance(found.state[name], jax.Array)
        np.testing.assert_array_equal(jax.random.key_data(found.state.pop("key")), jax.random.key_data(STATE["key"]))
        same(found.state, {k: v for k, v in STATE.items() if k != "key"})
        order = found.extra.pop("order")
        assert order[0].tolist() == [0, 1, 2] and order[1:] == [b"\0x", None, 1.5]
        assert found.extra == {"name": "a", "nan": float("inf")}
        assert checkpoints.restore().state["w"].dtype == ml_dtypes.bfloat16
    files = [p for p in (tmp_path / "new").rglob("*") if p.is_file()]
    assert not [p for p in files if p.read_bytes()[:1] == b"\x80"], "something is pickled"


def test_the_last_and_the_best_stay(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=2, monitor="accuracy", mode="max") as checkpoints:
        for step, value in enumerate([0.1, 0.9, 0.5, float("nan"), 0.2]):
            checkpoints.save(step, {"x": np.full(2, step)}, {"accuracy": value})
        checkpoints.wait()
        assert checkpoints.steps() == [1, 3, 4] and checkpoints.best() == 1 and checkpoints.latest() == 4
        assert checkpoints.restore(best=True).state["x"].tolist() == [1, 1]
        assert checkpoints.restore(step=3).step == 3
        # One of the same step takes the place of the old.
        checkpoints.save(4, {"x": np.full(2, 40)})
        checkpoints.wait()
        assert checkpoints.restore().state["x"].tolist() == [40, 40]
        with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 2 in .*of steps 1, 3, 4"):
            checkpoints.restore(step=2)


def test_what_was_being_replaced_when_the_process_ended_is_put_back(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"x": np.ones(2)})
    (tmp_path / "1").rename(tmp_path / ".replaced-1")
    (tmp_path / ".tmp-1").mkdir()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == []
        checkpoints.lock()
        assert checkpoints.steps() == [1] and not (tmp_path / ".tmp-1").exists()


def test_arrays_go_back_to_their_devices(tmp_path: Path) -> None:
    """Also to others than those that they were saved from."""
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    square = jax.make_mesh((2, 4), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    both = jax.sharding.NamedSharding(square, jax.sharding.PartitionSpec("b", "a"))
    whole = jax.sharding.NamedSharding(square, jax.sharding.PartitionSpec())
    keys = jax.random.split(tg.random.key(1), 4)
    state = {
        "x": jax.device_put(np.arange(8.0, dtype=np.float32), sharding),
        "half": jax.device_put(jnp.arange(16, dtype=jnp.bfloat16).reshape(8, 2), both),
        "keys": jax.device_put(keys, sharding),
        "key": jax.device_put(tg.random.key(2), whole),
    }
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        checkpoints.wait()
        others = {
            "x": whole,
            "half": sharding,
            "keys": whole,
            "key": jax.sharding.SingleDeviceSharding(jax.devices()[3]),
        }
        for shardings in ({name: leaf.sharding for name, leaf in state.items()}, others):
            found = checkpoints.restore(jax.device_put(state, shardings)).state
            for name, leaf in found.items():
                assert leaf.sharding.is_equivalent_to(shardings[name], leaf.ndim), name
                assert leaf.dtype == state[name].dtype
                same(*(jax.random.key_data(x) if "key" in name else x for x in (leaf, state[name])))


# -- going on


@pytest.mark.parametrize("stop", [3, 7, 9, 14])
def test_a_training_goes_on_to_the_last_bit(tmp_path: Path, stop: int) -> None:
    """In the middle of an epoch, at its end, and after two; with early stopping, an average and a history."""

    def run(folder: Any, **options: Any) -> train.FitResult:
        stopping = train.EarlyStopping(patience=50, restore_best_weights=True)
        return fit(
            batches(),
            folder,
            **({"epochs": 3} | options),
            validate=lambda state: float(loss(state.params, X)),
            average=optimizers.ema(0.9),
            callbacks=[stopping],
        )

    whole = run(None)
    run(tmp_path, steps=stop, epochs=None)
    result = run(tmp_path, resume=True)
    same(result.state, whole.state)
    assert int(result.state.step) == 21
    np.testing.assert_array_equal(result.history["loss"], whole.history["loss"])
    # And once it is at its end there is nothing more to do.
    again = run(tmp_path, resume=tmp_path)
    same(again.state, whole.state)


def test_positions_in_other_sources(tmp_path: Path) -> None:
    grain = pytest.importorskip("grain")
    dataset = grain.MapDataset.source(X).shuffle(seed=1).batch(8).map(lambda x: (x,))
    pairs = [(X[i : i + 8],) for i in range(0, 50, 8)]
    # Compiled once for all.
    step = train.make_step(loss, optimizers.adam(0.01))

    def run(source: Any, folder: Any, **options: Any) -> Any:
        state = train.TrainState.create(START, optimizers.adam(0.01))
        return train.fit(step, state, source, checkpoints=folder, progress=False, **options).state

    sources = (pairs, lambda: iter(pairs), dataset, dataset.to_iter_dataset())
    for i, (source, stop) in enumerate(zip(sources, (5, 7, 7, 5), strict=True)):
        whole = run(source, None, epochs=2)
        run(source, tmp_path / str(i), steps=stop)
        same(run(source, tmp_path / str(i), epochs=2, resume=True), whole)


def test_a_key_and_the_state_of_a_model(tmp_path: Path) -> None:
    model = nn.Sequential([nn.BatchNorm.init(3), nn.Dropout(0.5), nn.Linear.init(tg.random.key(0), 3, 1)])

    def loss(model: Any, state: Any, x: Any, key: Any) -> Any:
        run = nn.Run(model, state, key=key, training=True)
        return (model(x, run) ** 2).mean(), run.state

    def run(folder: Any, **options: Any) -> train.FitResult:
        state, key = nn.init_state(model), tg.random.key(1)
        optimizer = optimizers.sgd(0.1)
        return train.fit(
            loss, model, batches(), optimizer, model_state=state, key=key, checkpoints=folder, progress=False, **options
        )

    whole = run(None, steps=10)
    run(tmp_path, steps=4)
    result = run(tmp_path, steps=10, resume=True)
    same(result.state._replace(key=None), whole.state._replace(key=None))


def test_the_end_by_an_interrupt_or_by_data_that_raise_is_saved(tmp_path: Path) -> None:
    def broken() -> Iterator[Any]:
        yield from list(batches())[:4]
        raise OSError("gone")

    with pytest.raises(train.FitError, match=r"batches raised OSError: gone.*in the checkpoint of step 4\."):
        fit(broken, tmp_path)
    result = fit(lambda: iter(list(batches())), tmp_path, resume=True)
    same(result.state, fit(lambda: iter(list(batches())), None).state)


def test_killed_at_random_moments() -> None:
    """Also while a checkpoint is written; `python tests/train/killed.py 30` does it thirty times."""
    program = Path(__file__).with_name("killed.py")
    result = subprocess.run(
        [sys.executable, str(program), "4", str(os.getpid())], capture_output=True, text=True, timeout=500
    )
    assert result.returncode == 0 and "4 of 4 with equal bits" in result.stdout, result.stdout + result.stderr


# -- what does not fit


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "run"
    fit(batches(), Checkpoints(folder, keep=None, every=2), steps=5)
    return folder


@contextlib.contextmanager
def copy_of(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        yield Path(shutil.copytree(folder, f"{place}/run"))


OTHERS: list[tuple[str, dict[str, Any]]] = [
    (
        r"params\.w is float32\[3\] in the checkpoint, and float32\[4\] here",
        {"params": {"w": np.zeros(4, np.float32), "b": np.float32(0)}},
    ),
    (r"params\.b is float32\[\] in .*, and float16\[\] here", {"params": START | {"b": np.float16(0)}}),
    (r"params\.c, float32\[\], is not in the checkpoint", {"params": START | {"c": np.float32(0)}}),
    (r"opt_state\.0\.mu\.b, float32\[\], is in the checkpoint alone", {"optimizer": optimizers.sgd(0.01)}),
    (r"key, key<fry>\[\], is not in the checkpoint", {"key": tg.random.key(0)}),
    (r"average\.value\.b, float32\[\], is not in", {"average": optimizers.ema(0.9)}),
]


@pytest.mark.parametrize("case", OTHERS, ids=[str(i) for i in range(len(OTHERS))])
def test_another_model_or_optimizer(saved: Path, case: tuple[str, dict[str, Any]]) -> None:
    message, options = case
    with pytest.raises(CheckpointError, match=rf"(?s)^fit: the checkpoint of step 5 in .* at .*{message}"):
        fit(batches(), None, resume=saved, **options)


def test_other_batches(saved: Path) -> None:
    for source in (batches(16), batches(4)):
        with pytest.raises(train.FitError, match=r"batches of \(float32\[8,3\]\), and these are of"):
            fit(source, None, resume=saved, epochs=3)
    with pytest.raises(ValueError, match=r"has a position in a loader, and batches is another source, list"):
        fit([(X[:8],)], None, resume=saved)
    with pytest.raises(ValueError, match=r"data with 50 examples, and these have 40"):
        fit(train.data.DataLoader((X[:40],), 8), None, resume=saved)


def test_fit_gives_the_folder_back_that_it_has_taken(tmp_path: Path) -> None:
    first, second = Checkpoints(tmp_path), Checkpoints(tmp_path)
    for checkpoints, steps in ((first, 2), (second, 4), (first, 6)):
        assert int(fit(batches(), checkpoints, steps=steps, resume=True).state.step) == steps
        assert not checkpoints.locked
    with first:
        first.lock()
        fit(batches(), first, steps=8, resume=True)
        assert first.locked
        with pytest.raises(CheckpointError, match="writes checkpoints into"):
            fit(batches(), second, steps=10, resume=True)


def test_folders_of_other_trainings(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has checkpoints of another training, the last of step 5 .*resume=True"):
        fit(batches(), saved)
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint in .*none"):
        fit(batches(), None, resume=tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, train.TrainState.create(START, optimizers.adam(0.01)))
        checkpoints.wait()
        with pytest.raises(CheckpointError, match=r"of step 1 in .* was not saved by fit"):
            fit(batches(), None, resume=tmp_path)


# Where a read fails, tasks of Orbax's are left on a loop that it has closed: Python says so when they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_checkpoints(saved: Path) -> None:
    like = train.TrainState.create(START, optimizers.adam(0.01))
    expected = Checkpoints(saved).restore(like).state
    files = [p.relative_to(saved) for p in (saved / "5").rglob("*") if p.is_file() and p.stat().st_size]
    refused = 0
    for i, file in enumerate(files):
        with copy_of(saved) as folder:
            path, content = folder / file, (saved / file).read_bytes()
            middle = len(content) // 2
            flipped = content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]
            path.write_bytes(flipped if i % 3 else content[:middle])
            if i % 3 == 2:
                path.unlink()
            try:
                found = Checkpoints(folder).restore(like).state
            except CheckpointError as error:
                refused += 1
                assert "the checkpoint of step 5 in" in str(error) and "is damaged at" in str(error)
                assert "There are those of steps 2, 4" in str(error)
            else:
                # Orbax writes some things twice.
                same(found, expected)
    assert refused >= 3
    with copy_of(saved) as folder:
        shutil.copytree(folder / "4" / "arrays", folder / "5" / "arrays", dirs_exist_ok=True)
        with pytest.raises(CheckpointError, match=r"state\.[\w.]+, \w+\[[\d,]*\], is not what was saved"):
            Checkpoints(folder).restore(like)
    gc.collect()


# -- where it cannot be written


def test_two_trainings_in_one_folder(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, START)
        program = (
            "import sys, numpy as np\nfrom tracegrad import train\n"
            "try: train.Checkpoints(sys.argv[1]).lock()\n"
            "except train.CheckpointError as error: print(error)\n"
        )
        result = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=100)
        assert f"process {os.getpid()} on " in result.stdout and "a folder of its own" in result.stdout
        with pytest.raises(CheckpointError, match=f"process {os.getpid()}"):
            fit(batches(), tmp_path)
    # Its end frees it.
    fit(batches(), tmp_path, resume=False, checkpoints=tmp_path / "other")


FULL = """
import resource, sys
import numpy as np
from tracegrad import optimizers, train
big = np.zeros((256, 256), np.float32)

def loss(w, x):
    return ((w - x) ** 2).mean()

class Full(train.Callback):
    def on_step(self, loop):
        if loop.step == 3:
            # Whatever is written from here on ends after a few bytes, as on a disk that is full.
            loop._checkpoints.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))

rng = np.random.default_rng(0)
xs = [rng.normal(size=(256, 256)).astype(np.float32) for _ in range(6)]
checkpoints = train.Checkpoints(sys.argv[1], every=2)
try:
    train.fit(loss, big, xs, optimizers.adam(0.1), checkpoints=checkpoints, callbacks=[Full()], progress=False)
except train.FitError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(error)
    print("kept", int(error.result.state.step), checkpoints.steps(), checkpoints.restore().step)
"""


def test_a_full_disk(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, timeout=200)
    assert "the checkpoint could not be written to" in result.stdout, result.stdout + result.stderr
    assert "the last good one, of step 2, is still there" in result.stdout
    kept = result.stdout.splitlines()[-1]
    assert kept in ("kept 4 [2] 2", "kept 5 [2] 2", "kept 6 [2] 2")
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"^fit: .*file/run cannot be written at .*NotADirectoryError"):
        fit(batches(), tmp_path / "file" / "run")
    with pytest.raises(CheckpointError, match=r"cannot be written"):
        Checkpoints("/proc/nothing").save(1, START)
    checkpoints = Checkpoints(tmp_path / "run", every=2)

    class Gone(train.Callback):
        def on_step(self, loop: Any) -> None:
            if loop.step == 3:
                checkpoints.wait()
                (tmp_path / "run").rename(tmp_path / "moved")

    with pytest.raises(train.FitError, match=r"CheckpointError: .*could not be written to .*FileNotFoundError") as e:
        fit(batches(), checkpoints, callbacks=[Gone()])
    assert int(e.value.result.state.step) in (4, 5, 6, 7)
    assert Checkpoints(tmp_path / "moved").steps() == [2]
    checkpoints.close()


ARGUMENTS: list[tuple[str, Any]] = [
    ("keep is 0", lambda: Checkpoints("x", keep=0)),
    ("every is 'a'", lambda: Checkpoints("x", every="a")),  # type: ignore[arg-type]
    ("mode='best'", lambda: Checkpoints("x", mode="best")),  # type: ignore[arg-type]
    ("there is no best without a metric", lambda: Checkpoints("x").best()),
    ("step is ", lambda: Checkpoints("x").save(-1, START)),
    (r"extra\.f is function", lambda: Checkpoints(tempfile.mkdtemp()).save(1, START, extra={"f": loss})),
]


@pytest.mark.parametrize("case", ARGUMENTS, ids=[name for name, _ in ARGUMENTS])
def test_arguments_that_do_not_fit(case: tuple[str, Any]) -> None:
    message, call = case
    with pytest.raises((TypeError, ValueError), match=message) as e:
        call()
    assert "test_checkpoints.py" in str(e.value)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("orbax.checkpoint", "safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, module, None)
    for call in (lambda: Checkpoints(tmp_path).save(1, START), lambda: train.save_weights(tmp_path / "a", START)):
        with pytest.raises(ImportError, match=r"which is not installed at .*pip install 'tracegrad\[train\]'"):
            call()
    with pytest.raises(ImportError, match=r"^fit needs orbax-checkpoint"):  # before the first step
        fit(batches(), tmp_path)


# -- weights


def test_weights_by_safetensors(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    path = tmp_path / "w.safetensors"
    weights = {k: v for k, v in STATE.items() if k != "key"}
    train.save_weights(path, weights, {"note": "é"})
    found = train.load_weights(path, like=weights)
    for name, leaf in weights.items():
        assert found[name].dtype == leaf.dtype
    same(found, weights)
    model = nn.Sequential([nn.Linear.init(tg.random.key(0), 3, 4), nn.relu, nn.Linear.init(tg.random.key(1), 4, 1)])
    train.save_weights(path, model)
    # As the format's own library reads it.
    theirs = load_file(path)
    assert list(train.load_weights(path)) == [f"layers.{i}.{n}" for i in (0, 2) for n in ("kernel", "bias")]
    np.testing.assert_array_equal(theirs["layers.2.kernel"], model.layers[2].kernel)
    same(train.load_weights(path, like=model), model)


WEIGHTS: list[tuple[str, Any]] = [
    (r"a is float32\[2\] in the file, and bfloat16\[2\] here", {"a": jnp.ones(2, jnp.bfloat16)}),
    (r"a is float32\[2\] in the file, and float32\[3\] here", {"a": jnp.ones(3)}),
    (r"b, float32\[1\], is not in the file; a, float32\[2\], is in the file alone", {"b": jnp.ones(1)}),
]


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    train.save_weights(path, {"a": jnp.ones(2)})
    for message, like in WEIGHTS:
        with pytest.raises(ValueError, match=rf"^load_weights: .*w.safetensors does not fit at .*{message}"):
            train.load_weights(path, like=like)
    with pytest.raises(TypeError, match=r"k is key<fry>\[\], and safetensors has no dtype"):
        train.save_weights(path, {"k": tg.random.key(0)})
    with pytest.raises(ValueError, match=r"two arrays have the name 'a.b'"):
        train.save_weights(path, {"a": {"b": 1.0}, "a.b": 2.0})
    # What was there is still there.
    assert list(train.load_weights(path)) == ["a"] and [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"is damaged, or no file of safetensors"):
        train.load_weights(path)


def test_what_is_no_array_is_told(tmp_path: Any) -> None:
    with pytest.raises(TypeError, match=r"^Checkpoints.save: function <function .* is no array. Leave it out"):
        train.Checkpoints(tmp_path).save(1, {"w": np.ones(2), "activation": loss})
