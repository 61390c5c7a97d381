"""Trains a small network on real handwritten digits: on one device, or data-parallel on many and in many processes.

The data are the 1,797 images of 8 x 8 pixels that ship with scikit-learn (UCI ML Repository,
"Optical Recognition of Handwritten Digits", Alpaydin and Kaynak 1998). A fifth is kept for the test.

The recipe: three convolutions, each with batch normalization; images moved by up to a pixel, anew in each epoch; AdamW
for 30 epochs, with a rate that rises for a tenth of the steps and falls to 0 along a cosine. `--seeds 5` does it for
five splits of the data, each with a start of its own, and prints each accuracy and the mean.

`--devices 8` splits each batch over eight devices, `--processes 4` over the devices of four processes, and
`--gradients` says how their gradients become one. With `--gradients ordered` a batch is always computed as eight
shards, each with batch statistics and moves of its own, and the digest is the same on any number of devices and
processes. It still depends on the kind of processor, the versions of jax and jaxlib, and NPROC, the size of XLA's
thread pool on a CPU, which is here the number of cores and at least 8, unless it is set. With the others the
statistics are those of the whole batch, and the moves depend on the number of devices.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

import tracegrad as tg
from tracegrad import initializers, metrics, nn, optimizers, schedules, train
from tracegrad.examples import running

SHIFT = 1
"""By so many pixels, at most, an image is moved up or down and left or right."""


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


def loss(model: Any, state: Any, x: Any, y: Any, *, key: Any) -> Any:
    """Mean cross-entropy over the batch in training, of images that are each moved, and the new state of the model."""
    run = nn.Run(model, state, training=True)
    scores = model(train.data.translate(key, x, SHIFT), run)
    return nn.losses.sparse_categorical_cross_entropy(scores, y, from_logits=True), run.state


@tg.jit
def accuracy(model: Any, state: Any, x: Any, y: Any) -> Any:
    """The fraction of images whose class has the highest score."""
    metric = metrics.SparseCategoricalAccuracy()
    return metric.result(metric.update(metric.reset(), model(x, nn.Run(model, state)), y))


def fit(
    epochs: int = 30,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    devices: int = 1,
    seed: int = 0,
    checkpoint: str | None = None,
    resume: bool = False,
    progress: bool = True,
    gradients: str = "all_reduce",
) -> train.FitResult:
    """Trains, and saves in the folder `checkpoint`, if there is one, after each epoch.

    The history has "loss", and after each epoch "train accuracy" and "test accuracy". In many processes, `devices` is
    the number of all, and the batch is that of all together.
    """
    train_x, train_y, test_x, test_y = load(seed)
    loader = train.data.DataLoader((train_x, train_y), batch_size, seed=seed, last="drop")
    steps = epochs * len(loader)
    rate = schedules.warmup_cosine(learning_rate, steps // 10, steps)
    optimizer = optimizers.chain(optimizers.clip_by_global_norm(1.0), optimizers.adamw(rate, weight_decay=1e-2))
    start, moves = tg.random.split(tg.random.key(seed))
    # Ordered shards are computed each by itself, as if there were no others.
    model = network(start, None if gradients == "ordered" else "data")

    def validate(state: train.TrainState) -> dict[str, float]:
        measured = {"train accuracy": (train_x, train_y), "test accuracy": (test_x, test_y)}
        return {name: float(accuracy(state.params, state.model_state, *xy)) for name, xy in measured.items()}

    return train.fit(
        loss,
        model,
        loader,
        optimizer,
        epochs=epochs,
        model_state=nn.init_state(model),
        key=moves,
        validate=validate,
        checkpoints=None if checkpoint is None else train.Checkpoints(checkpoint, every=len(loader)),
        resume=resume,
        progress=progress,
        parallel={"devices": devices, "gradients": gradients},
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
    running.add_parallel_options(parser)
    parser.add_argument("--seeds", type=int, default=1, help="trainings, each with the next seed (default: 1)")
    running.add_options(parser, "digits.png")
    args = parser.parse_args(arguments)
    running.check(parser, args, "epochs", "batch_size", "devices", "processes", "seeds")
    running.check_parallel(parser, args)
    if args.batch_size > 1437:
        parser.error(f"--batch-size {args.batch_size} is more than the 1,437 images to train on")
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    running.start("tracegrad.examples.digits", args, arguments)
    results: list[train.FitResult] = []
    for seed in range(args.seed, args.seed + args.seeds):
        several = args.checkpoint is not None and args.seeds > 1
        folder = os.path.join(args.checkpoint, f"seed-{seed}") if several else args.checkpoint
        result = fit(
            args.epochs, args.batch_size, args.learning_rate, args.devices * args.processes, seed, folder, args.resume,
            gradients=args.gradients,
        )  # fmt: skip
        if result.stopped and results:
            break
        results.append(result)
        if args.seeds > 1 and "test accuracy" in result.history:
            running.say(f"seed {seed}: {result.history['test accuracy'][-1]:.2%}")
        if result.stopped:
            break
    whole = mean(results)
    of = f", the mean over {len(results)} seeds" if len(results) > 1 else ""
    if "test accuracy" in whole.history:
        running.say(f"test accuracy: {whole.history['test accuracy'][-1]:.2%}{of}")
    running.finish(args, whole)


if __name__ == "__main__":
    main()
