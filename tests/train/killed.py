"""Trainings that are killed at random moments and go on: each must end with the bits of one that was not.

A process that has imported everything, and has not yet asked JAX for a device, forks for each training: what a training
costs is its own steps. Run by hand, `python tests/train/killed.py 30` kills thirty.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint  # noqa: F401

import tracegrad as tg
from tracegrad import nn, optimizers, train

STEPS = 60


def loss(model: Any, state: Any, x: Any, y: Any, key: Any) -> Any:
    run = nn.Run(model, state, key=key, training=True)
    return ((model(x, run).sum(-1) - y) ** 2).mean(), run.state


def training(folder: str, resume: bool) -> str:
    """The digest of all that a training ends with: dropout, batch statistics, averages, and what was measured."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 4)).astype(np.float32)
    model = nn.Sequential([nn.Linear.init(tg.random.key(0), 4, 16), nn.BatchNorm.init(16), nn.relu, nn.Dropout(0.2)])
    result = train.fit(
        loss,
        model,
        train.data.DataLoader((x, x.sum(1)), 8, seed=3),
        optimizers.adam(1e-2),
        steps=STEPS,
        model_state=nn.init_state(model),
        key=tg.random.key(7),
        average=optimizers.ema(0.9),
        validate=lambda state: float(np.abs(state.params.layers[0].kernel).sum()),
        callbacks=[train.EarlyStopping(patience=1000)],
        checkpoints=train.Checkpoints(folder, every=8, keep=2, monitor="val_loss"),
        resume=resume,
        progress=False,
    )
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(result.state):
        digest.update(np.asarray(jax.random.key_data(leaf) if leaf.dtype == tg.random.key(0).dtype else leaf).tobytes())
    for name in ("loss", "val_loss"):
        digest.update(result.history.steps(name).tobytes() + result.history[name].tobytes())
    return digest.hexdigest()


def started(folder: str, resume: bool, out: Path) -> int:
    """The id of a process that trains, and writes its digest to a file when it is done."""
    with warnings.catch_warnings():
        # JAX warns of forks because of the threads of its devices; there are none yet.
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        try:
            out.write_text(training(folder, resume))
        except BaseException as error:
            out.write_text(f"{type(error).__name__}: {error}")
        os._exit(0)
    return child


def saving(folder: Path, after: int) -> bool:
    """Whether a checkpoint is being written beside one of this step or a later one."""
    names = [path.name for path in folder.glob("*")]
    steps = [int(name) for name in names if name.isdigit()]
    return any(name.startswith(".tmp-") for name in names) and max(steps, default=0) >= after


def main(kills: int, seed: int) -> None:
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        begin = time.perf_counter()
        os.waitpid(started(f"{root}/whole", False, root / "whole.txt"), 0)
        whole = time.perf_counter() - begin
        expected, equal, done, steps = (root / "whole.txt").read_text(), 0, 0, []
        for i in range(kills):
            out, path = root / f"{i}.txt", f"{root}/{i}"
            child = started(path, False, out)
            if i % 2:
                # While it saves, after some checkpoints, or a moment after: it is written under another name.
                after = 8 * moments.randrange(STEPS // 8)
                while not saving(Path(path), after) and os.waitpid(child, os.WNOHANG) == (0, 0):
                    time.sleep(0.0005)
                time.sleep(moments.random() * 0.15)
            else:
                time.sleep(moments.uniform(0.2, 1.0) * whole)
            try:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
            done += out.exists()
            out.unlink(missing_ok=True)
            steps.append(train.Checkpoints(path).latest() or 0)
            os.waitpid(started(path, True, out), 0)
            result = out.read_text()
            equal += result == expected
            if result != expected:
                print(f"kill {i}: {result}, not {expected}")
        print(f"{equal} of {kills} with equal bits; went on from steps {sorted(steps)}; {done} had ended before")
        sys.exit(equal != kills)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
