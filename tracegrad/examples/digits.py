"""Trains a small network on real handwritten digits, on one device or data-parallel on several.

The data are the 1,797 images of 8 x 8 pixels that ship with scikit-learn (UCI ML Repository,
"Optical Recognition of Handwritten Digits", Alpaydin and Kaynak 1998). A fifth is kept for the test.

The recipe: three convolutions, each with batch normalization; images moved by up to a pixel, anew in each epoch; AdamW
for 30 epochs, with a rate that rises for a tenth of the steps and falls to 0 along a cosine. `--seeds 5` does it for
five splits of the data, each with a start of its own, and prints each accuracy and the mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import tracegrad as tg
from tracegrad import initializers, metrics, nn, optimizers, schedules
from tracegrad.parallel import pmap, split_batch, sum_gradients
from tracegrad.train import data

History = dict[str, list[float]]


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


@tg.jit
def augment(key: Any, x: Any) -> Any:
    """The images, each moved by up to a pixel."""
    return data.translate(key, x, 1)


def make_step(optimizer: Any, devices: int) -> Callable[..., Any]:
    """One step of training: `(model, state, opt, x, y) -> (model, state, opt, loss)`."""

    def step(model: Any, state: Any, opt: Any, x: Any, y: Any) -> Any:
        (value, state), grads = tg.value_and_grad(loss, has_aux=True)(model, state, x, y)
        if devices > 1:
            # Each device has the mean over its share of the batch.
            grads = sum_gradients(grads, "data", mean=True)
            value = tg.pmean(value, "data")
        updates, opt = optimizer.update(grads, opt, model)
        return optimizers.apply_updates(model, updates), state, opt, value

    if devices == 1:
        return tg.jit(step)
    parallel = pmap(step, "data", in_axes=(None, None, None, 0, 0), out_axes=None)
    return lambda model, state, opt, x, y: parallel(model, state, opt, *split_batch((x, y), devices))


def train(
    epochs: int = 30, batch_size: int = 64, learning_rate: float = 3e-3, devices: int = 1, seed: int = 0
) -> tuple[Any, Any, History]:
    """Trains, showing progress, and returns the model, its state, and the history of each epoch."""
    from tqdm.auto import tqdm

    train_x, train_y, test_x, test_y = load(seed)
    loader = data.DataLoader((train_x, train_y), batch_size, seed=seed, last="drop")
    steps = epochs * len(loader)
    rate = schedules.warmup_cosine(learning_rate, steps // 10, steps)
    optimizer = optimizers.chain(optimizers.clip_by_global_norm(1.0), optimizers.adamw(rate, weight_decay=1e-2))
    start, moves = tg.random.split(tg.random.key(seed))
    model = network(start, "data" if devices > 1 else None)
    state, opt = nn.init_state(model), optimizer.init(model)
    step = make_step(optimizer, devices)
    history: History = {"loss": [], "train accuracy": [], "test accuracy": []}
    with tqdm(range(epochs), unit="epoch", desc=f"seed {seed}") as progress:
        for epoch in progress:
            losses = []
            for i, (x, y) in enumerate(loader):
                x = augment(tg.random.fold_in(moves, epoch * len(loader) + i), x)
                model, state, opt, value = step(model, state, opt, x, y)
                losses.append(value)
            history["loss"].append(float(np.mean(jax.device_get(losses))))
            history["train accuracy"].append(float(accuracy(model, state, train_x, train_y)))
            history["test accuracy"].append(float(accuracy(model, state, test_x, test_y)))
            progress.set_postfix(loss=f"{history['loss'][-1]:.4f}", test=f"{history['test accuracy'][-1]:.1%}")
    return model, state, history


def plot(history: History, path: str) -> None:
    """Draws the curves of loss and accuracy to an image file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    epochs = np.arange(1, len(history["loss"]) + 1)
    left.semilogy(epochs, history["loss"])
    left.set(xlabel="epoch", ylabel="cross-entropy (training)", title="Loss")
    for name in ("train accuracy", "test accuracy"):
        right.plot(epochs, [100 * a for a in history[name]], label=name.split()[0])
    right.set(
        xlabel="epoch",
        ylabel="accuracy (%)",
        title="Accuracy",
        ylim=(min(90, 100 * min(history["test accuracy"])), 100.5),
    )
    right.legend()
    figure.savefig(path, dpi=120)


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
    parser.add_argument("--seed", type=int, default=0, help="of the split, the weights and the batches (default: 0)")
    parser.add_argument("--seeds", type=int, default=1, help="trainings, each with the next seed (default: 1)")
    parser.add_argument(
        "--plot", default="digits.png", metavar="PATH", help="where the curves go (default: digits.png)"
    )
    args = parser.parse_args(arguments)
    for name in ("epochs", "batch_size", "devices", "seeds"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, not {getattr(args, name)}")
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
    histories = []
    for seed in range(args.seed, args.seed + args.seeds):
        *_, history = train(args.epochs, args.batch_size, args.learning_rate, args.devices, seed)
        histories.append(history)
        if args.seeds > 1:
            print(f"seed {seed}: {history['test accuracy'][-1]:.2%}", flush=True)
    mean = {name: np.mean([history[name] for history in histories], axis=0).tolist() for name in histories[0]}
    of = f", the mean over {args.seeds} seeds" if args.seeds > 1 else ""
    print(f"test accuracy: {mean['test accuracy'][-1]:.2%}{of}")
    plot(mean, args.plot)
    print(f"curves: {args.plot}")


if __name__ == "__main__":
    main()
