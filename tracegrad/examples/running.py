"""What the examples have in common on the command line: where a training is kept, and what it ends with."""

from __future__ import annotations

import argparse
import hashlib
from typing import Any

import jax
import numpy as np

from .. import train


def add_options(parser: argparse.ArgumentParser, picture: str) -> None:
    """Adds `--seed`, `--checkpoint`, `--resume`, `--plot` and `--digest`."""
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the data and the batches (default: 0)")
    parser.add_argument("--checkpoint", metavar="DIR", help="where the training is saved as it goes")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --checkpoint DIR")
    parser.add_argument(
        "--plot", default=picture, metavar="PATH", help=f"where the curves go (default: {picture.replace('%', '%%')})"
    )
    parser.add_argument(
        "--digest", action="store_true", help="print the SHA-256 of the final parameters, to compare two runs by"
    )


def check(parser: argparse.ArgumentParser, args: argparse.Namespace, *counts: str) -> None:
    """Ends the program with a message if an option makes no sense; `counts` are those that are 1 or more."""
    for name in counts:
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, not {getattr(args, name)}")
    if args.seed < 0:
        parser.error(f"--seed must be 0 or more, not {args.seed}")
    if args.resume and args.checkpoint is None:
        parser.error("--resume needs --checkpoint DIR: the folder to go on from")


def checkpoints(args: argparse.Namespace, every: int) -> train.Checkpoints | None:
    """The checkpoints that `--checkpoint` asks for, one every so many steps."""
    return None if args.checkpoint is None else train.Checkpoints(args.checkpoint, every=every)


def count(params: Any) -> int:
    """How many numbers the parameters are."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))


def digest(params: Any) -> str:
    """The SHA-256 of all parameters: their names, dtypes, shapes and bytes."""
    total = hashlib.sha256()
    for name, leaf in sorted(train.named_leaves(params).items()):
        array = np.asarray(leaf)
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def finish(args: argparse.Namespace, result: train.FitResult) -> None:
    """Draws the curves, and says where the results are."""
    result.history.plot(args.plot)
    if args.digest:
        print(f"digest: {digest(result.params)}")
    if args.checkpoint is not None:
        print(f"checkpoints: {args.checkpoint}" + (f" ({result.stopped}: --resume goes on)" if result.stopped else ""))
    print(f"curves: {args.plot}")
