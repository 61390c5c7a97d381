"""Trains a small network on real handwritten digits, on one device or data-parallel on several.

The data are the 1,797 images of 8 x 8 pixels that ship with scikit-learn (UCI ML Repository,
"Optical Recognition of Handwritten Digits", Alpaydin and Kaynak 1998).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import initializers, nn, optimizers
from tracegrad.parallel import pmap, split_batch, sum_gradients

Params = list[dict[str, Any]]


def load(seed: int) -> tuple[Any, Any, Any, Any]:
    """The digits as `(train_x, train_y, test_x, test_y)`: pixels from 0 to 1, a fifth kept for the test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images.astype(np.float32) / 16, labels.astype(np.int32), test_size=0.2, stratify=labels, random_state=seed
    )
    return train_x, train_y, test_x, test_y


def init(key: Any) -> Params:
    """The weights and biases of two convolutions and a dense layer."""
    he = initializers.he_normal()
    shapes = (3, 3, 1, 16), (3, 3, 16, 32), (4 * 4 * 32, 10)
    keys = tg.random.split(key, len(shapes))
    return [{"w": he(k, shape), "b": tnp.zeros(shape[-1])} for k, shape in zip(keys, shapes, strict=True)]


def logits(params: Params, x: Any) -> Any:
    """Class scores of shape (batch, 10) for images of shape (batch, 64)."""
    first, second, dense = params
    x = x.reshape(-1, 8, 8, 1)
    x = nn.relu(nn.conv(x, first["w"]) + first["b"])
    x = nn.relu(nn.conv(x, second["w"]) + second["b"])
    x = nn.max_pool(x, (2, 2))
    return x.reshape(x.shape[0], -1) @ dense["w"] + dense["b"]


def loss(params: Params, x: Any, y: Any) -> Any:
    """Mean cross-entropy over the batch."""
    return nn.losses.sparse_categorical_cross_entropy(logits(params, x), y, from_logits=True)


@tg.jit
def accuracy(params: Params, x: Any, y: Any) -> Any:
    """The fraction of images whose class has the highest score."""
    return (logits(params, x).argmax(-1) == y).mean()


def batches(x: Any, y: Any, size: int, seed: int) -> Iterator[tuple[Any, Any]]:
    """One epoch of shuffled batches; the last, incomplete one is left out."""
    order = np.random.default_rng(seed).permutation(len(x))
    for start in range(0, len(x) - size + 1, size):
        pick = order[start : start + size]
        yield x[pick], y[pick]


def make_step(optimizer: Any, devices: int) -> Callable[..., Any]:
    """One step of training: `(params, state, x, y) -> (params, state, loss)`."""

    def step(params: Params, state: Any, x: Any, y: Any) -> Any:
        value, grads = tg.value_and_grad(loss)(params, x, y)
        if devices > 1:
            # Each device has the mean over its share of the batch.
            grads = sum_gradients(grads, "data", mean=True)
            value = tg.pmean(value, "data")
        updates, state = optimizer.update(grads, state, params)
        return optimizers.apply_updates(params, updates), state, value

    if devices == 1:
        return tg.jit(step)
    parallel = pmap(step, "data", in_axes=(None, None, 0, 0), out_axes=None)
    return lambda params, state, x, y: parallel(params, state, *split_batch((x, y), devices))


def train(
    epochs: int = 25, batch_size: int = 64, learning_rate: float = 2e-3, devices: int = 1, seed: int = 0
) -> tuple[Params, dict[str, list[float]]]:
    """Trains, showing progress, and returns the parameters and the history of each epoch."""
    from tqdm.auto import tqdm

    train_x, train_y, test_x, test_y = load(seed)
    optimizer = optimizers.chain(
        optimizers.clip_by_global_norm(1.0), optimizers.adamw(learning_rate, weight_decay=1e-2)
    )
    params = init(tg.random.key(seed))
    state = optimizer.init(params)
    step = make_step(optimizer, devices)
    history: dict[str, list[float]] = {"loss": [], "train accuracy": [], "test accuracy": []}
    with tqdm(range(epochs), unit="epoch") as progress:
        for epoch in progress:
            losses = []
            for x, y in batches(train_x, train_y, batch_size, seed=seed * 100_003 + epoch):
                params, state, value = step(params, state, x, y)
                losses.append(value)
            history["loss"].append(float(np.mean(jax.device_get(losses))))
            history["train accuracy"].append(float(accuracy(params, train_x, train_y)))
            history["test accuracy"].append(float(accuracy(params, test_x, test_y)))
            progress.set_postfix(loss=f"{history['loss'][-1]:.4f}", test=f"{history['test accuracy'][-1]:.1%}")
    return params, history


def plot(history: dict[str, list[float]], path: str) -> None:
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
    parser.add_argument("--epochs", type=int, default=25, help="passes over the training set (default: 25)")
    parser.add_argument("--batch-size", type=int, default=64, help="images a step, over all devices (default: 64)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="of AdamW (default: 0.002)")
    parser.add_argument(
        "--devices", type=int, default=1,
        help="devices to split each batch over; on a CPU, that many virtual ones are made (default: 1)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the split, the weights and the shuffling (default: 0)")
    parser.add_argument(
        "--plot", default="digits.png", metavar="PATH", help="where the curves go (default: digits.png)"
    )
    args = parser.parse_args(arguments)
    for name in ("epochs", "batch_size", "devices"):
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
    _, history = train(args.epochs, args.batch_size, args.learning_rate, args.devices, args.seed)
    print(f"test accuracy: {history['test accuracy'][-1]:.2%}")
    plot(history, args.plot)
    print(f"curves: {args.plot}")


if __name__ == "__main__":
    main()
