"""Trains a small network on real handwritten digits, on one device or data-parallel on several.

The data are the 1,797 images of 8 x 8 pixels that ship with scikit-learn (UCI ML Repository,
"Optical Recognition of Handwritten Digits", Alpaydin and Kaynak 1998). A fifth is kept for the test.

The recipe: three convolutions, each with batch normalization; images moved by up to a pixel, anew in each epoch; AdamW
for 30 epochs, with a rate that rises for a tenth of the steps and falls to 0 along a cosine. `--seeds 5` does it for
five splits of the data, each with a start of its own, and prints each accuracy and the mean.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import tracegrad as tg
from tracegrad import initializers, metrics, nn, optimizers, schedules, train
from tracegrad.parallel import pmap, split_batch, sum_gradients

from . import running


def load(seed: int) -> tuple[Any, Any, Any, Any]:
    """The digits as `(train_x, train_y, test_x, test_y)`: pixels from 0 to 1, of shape `(N, 8, 8, 1)`."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 8, 8, 1).astype(np.float32) / 16
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels.astype(np.int32), test_size=0.2, stratify=labels, random_state=seed
    )
    return train_x, train_y, test_x, test_y


def network(key: Any, axis_name: str | None = None) -> nn.Sequential:
    """The network: images of shape `(N, 8, 8, 1)` to scores of shape `(N, 10)`.

    Args:
      key: a random key.
      axis_name: the mapped axis along which the batch is split, if it is.
    """
    keys = tg.random.split(key, 4)

    def block(key: Any, inputs: int, outputs: int) -> nn.Sequential:
        he = initializers.he_normal()
        conv = nn.Conv.init(key, inputs, outputs, (3, 3), use_bias=False, kernel_init=he)
        return nn.Sequential([conv, nn.BatchNorm.init(outputs, momentum=0.9, axis_name=axis_name), nn.relu])

    return nn.Sequential(
        [
            block(keys[0], 1, 32),
            block(keys[1], 32, 32),
            nn.MaxPool(2),
            block(keys[2], 32, 64),
            lambda x: x.reshape(x.shape[0], -1),
            nn.Linear.init(keys[3], 4 * 4 * 64, 10),
        ]
    )


def loss(model: Any, state: Any, x: Any, y: Any) -> Any:
    """Mean cross-entropy over the batch in training, and the new state of the model."""
    run = nn.Run(model, state, training=True)
    return nn.losses.sparse_categorical_cross_entropy(model(x, run), y, from_logits=True), run.state


@tg.jit
def accuracy(model: Any, state: Any, x: Any, y: Any) -> Any:
    """The fraction of images whose class has the highest score."""
    metric = metrics.SparseCategoricalAccuracy()
    return metric.result(metric.update(metric.reset(), model(x, nn.Run(model, state)), y))


def make_step(optimizer: Any, devices: int) -> Callable[..., tuple[train.TrainState, Any]]:
    """One step of training, `(state, x, y) -> (state, loss)`, on images that are each moved by up to a pixel."""

    def update(state: train.TrainState, x: Any, y: Any) -> tuple[train.TrainState, Any]:
        model = state.params
        (value, model_state), grads = tg.value_and_grad(loss, has_aux=True)(model, state.model_state, x, y)
        if devices > 1:
            # Each device has the mean over its share of the batch.
            grads = sum_gradients(grads, "data", mean=True)
            value = tg.pmean(value, "data")
        updates, opt_state = optimizer.update(grads, state.opt_state, model)
        model = optimizers.apply_updates(model, updates)
        new = state._replace(step=state.step + 1, params=model, opt_state=opt_state, model_state=model_state)
        return new, value

    shared = update if devices == 1 else pmap(update, "data", in_axes=(None, 0, 0), out_axes=None)

    @tg.jit
    def step(state: train.TrainState, x: Any, y: Any) -> tuple[train.TrainState, Any]:
        x = train.data.translate(tg.random.fold_in(state.key, state.step), x, 1)
        return shared(state, *((x, y) if devices == 1 else split_batch((x, y), devices)))

    return step


def fit(
    epochs: int = 30,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    devices: int = 1,
    seed: int = 0,
    checkpoint: str | None = None,
    resume: bool = False,
    progress: bool = True,
) -> train.FitResult:
    """Trains, and saves in the folder `checkpoint`, if there is one, after each epoch.

    The history has "loss", and after each epoch "train accuracy" and "test accuracy".
    """
    train_x, train_y, test_x, test_y = load(seed)
    loader = train.data.DataLoader((train_x, train_y), batch_size, seed=seed, last="drop")
    steps = epochs * len(loader)
    rate = schedules.warmup_cosine(learning_rate, steps // 10, steps)
    optimizer = optimizers.chain(optimizers.clip_by_global_norm(1.0), optimizers.adamw(rate, weight_decay=1e-2))
    start, moves = tg.random.split(tg.random.key(seed))
    model = network(start, "data" if devices > 1 else None)

    def validate(state: train.TrainState) -> dict[str, float]:
        measured = {"train accuracy": (train_x, train_y), "test accuracy": (test_x, test_y)}
        return {name: float(accuracy(state.params, state.model_state, *xy)) for name, xy in measured.items()}

    return train.fit(
        make_step(optimizer, devices),
        train.TrainState.create(model, optimizer, model_state=nn.init_state(model), key=moves),
        loader,
        epochs=epochs,
        validate=validate,
        checkpoints=None if checkpoint is None else train.Checkpoints(checkpoint, every=len(loader)),
        resume=resume,
        progress=progress,
    )


def mean(results: Sequence[train.FitResult]) -> train.FitResult:
    """The models of several trainings, and the mean of what was measured."""
    if len(results) == 1:
        return results[0]
    history = train.History()
    for name in results[0].history:
        columns = [result.history[name] for result in results]
        history.extend(results[0].history.steps(name).tolist(), {name: np.mean(columns, axis=0).tolist()})
    return train.FitResult([result.params for result in results], history)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tracegrad.examples.digits", description="Train a small network on real handwritten digits."
    )
    parser.add_argument("--epochs", type=int, default=30, help="passes over the training set (default: 30)")
    parser.add_argument("--batch-size", type=int, default=64, help="images a step, over all devices (default: 64)")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="of AdamW at its peak (default: 0.003)")
    parser.add_argument(
        "--devices", type=int, default=1,
        help="devices to split each batch over; on a CPU, that many virtual ones are made (default: 1)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=1, help="trainings, each with the next seed (default: 1)")
    running.add_options(parser, "digits.png")
    args = parser.parse_args(arguments)
    running.check(parser, args, "epochs", "batch_size", "devices", "seeds")
    if args.batch_size % args.devices:
        parser.error(
            f"--batch-size {args.batch_size} does not divide over --devices {args.devices}: "
            f"choose a multiple of {args.devices}, such as {args.devices * max(1, args.batch_size // args.devices)}"
        )
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    if args.devices > 1:
        # Has an effect on the CPU alone, and only before JAX looks for devices.
        jax.config.update("jax_num_cpu_devices", args.devices)
        if jax.device_count() < args.devices:
            raise SystemExit(
                f"--devices {args.devices}: there are only {jax.device_count()} {jax.default_backend()} devices"
            )
    results: list[train.FitResult] = []
    for seed in range(args.seed, args.seed + args.seeds):
        several = args.checkpoint is not None and args.seeds > 1
        folder = os.path.join(args.checkpoint, f"seed-{seed}") if several else args.checkpoint
        result = fit(args.epochs, args.batch_size, args.learning_rate, args.devices, seed, folder, args.resume)
        if result.stopped and results:
            break
        results.append(result)
        if args.seeds > 1 and "test accuracy" in result.history:
            print(f"seed {seed}: {result.history['test accuracy'][-1]:.2%}", flush=True)
        if result.stopped:
            break
    whole = mean(results)
    of = f", the mean over {len(results)} seeds" if len(results) > 1 else ""
    if "test accuracy" in whole.history:
        print(f"test accuracy: {whole.history['test accuracy'][-1]:.2%}{of}")
    running.finish(args, whole)


if __name__ == "__main__":
    main()
