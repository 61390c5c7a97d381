"""A training over several processes, for the tests of bits and of faults: `training.py FOLDER STEPS [options]`.

A small network with convolutions, BatchNorm and Dropout learns the digits, by `train.fit`. How often each example was
used is part of the state, and checked at the end. With `--gradients sharded:plain` there is nothing in the network that
depends on how a batch is divided.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

EXAMPLES, BATCH, SHARDS, THREADS, EVERY = 244, 16, 8, 8, 4
"""The last batch of an epoch has 4 examples, fewer than shards and devices."""


def prepare(folder: Path) -> Path:
    """Writes the data that the processes read."""
    from sklearn.datasets import load_digits  # Its import takes as long as that of JAX.

    pixels, labels = load_digits(return_X_y=True)
    folder.mkdir(parents=True, exist_ok=True)
    x = pixels[:EXAMPLES].reshape(-1, 8, 8, 1) / 16
    np.savez(folder / "data.npz", x=x, y=labels[:EXAMPLES].astype(np.int32), i=np.arange(EXAMPLES, dtype=np.int32))
    return folder


def used(steps: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What so many steps add up to for each example: once an epoch, in the order that NumPy's bits give."""
    seen, epoch = np.zeros(EXAMPLES), 0
    while steps:
        bits = np.random.PCG64(np.random.SeedSequence([0, epoch])).random_raw(EXAMPLES)
        for i in np.split(np.argsort(bits, kind="stable"), range(BATCH, EXAMPLES, BATCH))[:steps]:
            seen[i] += BATCH / len(i)
            steps -= 1
        epoch += 1
    return seen


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("--pause", type=float, default=0.0)
    # On a machine with much to do a process that is well may not be heard of for seconds.
    parser.add_argument("--heartbeat", type=int, default=60)
    parser.add_argument("--gradients", nargs="+", default=["ordered"])
    parser.add_argument("--devices", type=int, nargs="+", default=[0], help="how many of them; 0 for all")
    parser.add_argument("--shards", type=int, default=SHARDS)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--adam", action="store_true", help="with clipping; it takes longer to compile")
    parser.add_argument("--float64", action="store_true")
    parser.add_argument("--no-checkpoints", action="store_true")
    o = parser.parse_args()
    attempt = os.environ["TRACEGRAD_RESTARTS"]
    print(f"pid {os.getpid()} attempt {attempt}", flush=True)

    import jax

    import tracegrad as tg
    import tracegrad.numpy as tnp
    from tracegrad import nn, optimizers, parallel, train
    from tracegrad.examples.running import digest

    jax.config.update("jax_enable_x64", o.float64)
    own = parallel.initialize(heartbeat_seconds=o.heartbeat, timeout_seconds=300)
    dtype = np.float64 if o.float64 else np.float32
    arrays = np.load(o.folder / "data.npz")
    data = (arrays["x"].astype(dtype), arrays["y"], arrays["i"])
    key, rng = tg.random.key(0), np.random.default_rng(o.seed)

    def init(key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        # NumPy's: XLA takes longer to compile the initializers than all the rest.
        return rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape).astype(dtype)

    kind: dict[str, Any] = {"kernel_init": init, "dtype": dtype}
    first = nn.Conv.init(key, 1, o.width, (3, 3), use_bias=False, **kind)
    second = nn.Conv.init(key, o.width, 8, (3, 3), stride=2, **kind)
    last = nn.Linear.init(key, 4 * 4 * 8, 10, **kind)
    norm = nn.BatchNorm.init(o.width, dtype=dtype)

    def flat(x: Any) -> Any:
        return x.reshape(x.shape[0], -1)

    models = {
        "plain": nn.Sequential([first, nn.relu, second, nn.relu, flat, last]),
        "": nn.Sequential([first, norm, nn.relu, second, nn.relu, flat, nn.Dropout(0.25), last]),
    }

    def loss(model: Any, state: Any, x: Any, y: Any, i: Any, *, key: Any) -> Any:
        run = nn.Run(model, state["model"], key=key, training=True)
        value = nn.losses.sparse_categorical_cross_entropy(model(x, run), y, from_logits=True)
        # The new states of the shards are averaged, by their examples: what is added is 1 in a batch that is full, and
        # exact in the last one, too.
        times = tnp.zeros(EXAMPLES, dtype).at[i].add(BATCH / i.shape[0])
        return value, {"model": run.state, "used": state["used"] + times}

    class Steps(train.Callback):
        every = 1

        def on_step(self, loop: train.Loop) -> None:
            print(f"step {loop.step} attempt {attempt} of {own.num_processes}", flush=True)
            time.sleep(o.pause)

    optimizer = optimizers.sgd(0.05, momentum=0.9)
    if o.adam:
        optimizer = optimizers.chain(optimizers.clip_by_global_norm(1.0), optimizers.adam(3e-3))
    for which, devices in itertools.product(o.gradients, o.devices):
        gradients, _, named = which.partition(":")
        model = models[named]
        result = train.fit(
            loss,
            model,
            train.data.DataLoader(data, BATCH, seed=0),
            optimizer,
            steps=o.steps,
            model_state={"model": nn.init_state(model), "used": np.zeros(EXAMPLES, dtype)},
            key=key,
            callbacks=[Steps()],
            checkpoints=None if o.no_checkpoints else train.Checkpoints(o.folder / "run", every=EVERY),
            resume=not o.no_checkpoints,
            progress=False,
            parallel={
                "devices": devices or None,
                "gradients": parallel.Ordered(o.shards) if gradients == "ordered" else gradients,
            },
        )
        if own.process_id == 0:
            at = result.state
            local = jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), (at.params, at.model_state))
            np.testing.assert_array_equal(local[1]["used"], used(int(at.step)), "examples were repeated or skipped")
            found = {
                "gradients": which,
                "step": int(at.step),
                "digest": digest(local),
                "losses": result.history["loss"].tolist(),
            }
            print(f"result {json.dumps(found)}", flush=True)
        if result.stopped:
            print(f"saved after {result.stopped} at {int(result.state.step)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
