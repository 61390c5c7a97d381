"""What the examples have in common on the command line: devices, where a training is kept, and what it ends with."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from typing import Any

import jax
import numpy as np

from tracegrad import launch, parallel, train
from tracegrad.parallel.meeting import RESTARTS

SHARDS = parallel.Ordered().shards
GRADIENTS = ("all_reduce", "bucketed", "bfloat16", "int8", "sharded", "ordered")


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


def add_parallel_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--devices`, `--processes` and `--gradients`."""
    parser.add_argument(
        "--devices", type=int, default=1, metavar="L",
        help="devices of each process, to split each batch over; virtual ones on a CPU (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--processes", type=int, default=1, metavar="P",
        help="how many processes to start on this machine, which train together; each is started again from "
        "--checkpoint when one fails (default: 1, or as many as a launcher has started)",
    )  # fmt: skip
    parser.add_argument(
        "--gradients", choices=GRADIENTS, default="all_reduce",
        help=f"how the devices' gradients are summed: all_reduce and bucketed exactly but for rounding; bfloat16 and "
        f"int8 with less to send; sharded with a part of the optimizer's state on each device; ordered as {SHARDS} "
        "shards of each batch, with the same bits on any number of devices and processes, as long as these are equal: "
        "the kind of processor, the versions of jax and jaxlib, and the variable NPROC (default: all_reduce)",
    )  # fmt: skip


def check(parser: argparse.ArgumentParser, args: argparse.Namespace, *counts: str) -> None:
    """Ends the program with a message if an option makes no sense; `counts` are those that are 1 or more."""
    for name in counts:
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, not {getattr(args, name)}")
    if args.seed < 0:
        parser.error(f"--seed must be 0 or more, not {args.seed}")
    if args.resume and args.checkpoint is None:
        parser.error("--resume needs --checkpoint DIR: the folder to go on from")


def check_parallel(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program with a message if a batch cannot be split as the options say."""
    given = f"--devices {args.devices}" + (f" of --processes {args.processes}" if args.processes > 1 else "")
    parts = args.devices * args.processes
    if args.gradients == "ordered":
        if parts > SHARDS or (args.processes > 1 and SHARDS % parts):
            parser.error(
                f"--gradients ordered has {SHARDS} shards, which do not divide over {given}: choose 1, 2, 4 or 8 in all"
            )
        parts, given = SHARDS, f"the {SHARDS} shards of --gradients ordered"
    if args.batch_size % parts:
        parser.error(
            f"--batch-size {args.batch_size} does not divide over {given}: choose a multiple of {parts}, such as "
            f"{parts * max(1, args.batch_size // parts)}"
        )


def start(module: str, args: argparse.Namespace, arguments: list[str] | None) -> None:
    """Begins with the devices that the options ask for; comes before anything that uses one.

    `--processes` above 1 starts this module so many times, and ends the program when all of them have ended.
    """
    if args.gradients == "ordered":
        # One thread pool for all numbers of devices: XLA makes it at least as large as that number.
        os.environ.setdefault("NPROC", str(max(os.cpu_count() or 1, SHARDS)))
    _virtual(args.devices)
    # Virtual devices compile at the same time: a machine with few cores may not come to a heartbeat for long.
    own = parallel.initialize(heartbeat_seconds=60)
    if own.num_processes == 1 and args.processes > 1:
        options = ["--processes", str(args.processes), "--devices-per-process", str(args.devices), "-m", module]
        raise SystemExit(launch.main([*options, *(sys.argv[1:] if arguments is None else arguments)]))
    if args.processes not in (1, own.num_processes):
        raise SystemExit(f"--processes {args.processes}: this is one of {own.num_processes} that are running already")
    args.processes = own.num_processes
    _need(args.devices)
    if args.checkpoint is not None and os.environ.get(RESTARTS, "0") != "0":
        args.resume = True


def make_devices(count: int) -> None:
    """Makes so many virtual devices on a CPU, and ends the program if there are not as many."""
    _virtual(count)
    _need(count)


def _virtual(count: int) -> None:
    if count > 1:
        # Has an effect on the CPU alone, and only before JAX looks for devices.
        jax.config.update("jax_num_cpu_devices", count)


def _need(count: int) -> None:
    if jax.local_device_count() < count:
        raise SystemExit(
            f"--devices {count}: there are only {jax.local_device_count()} {jax.default_backend()} devices"
        )


def say(text: str) -> None:
    """Prints, once for all processes."""
    if jax.process_index() == 0:
        print(text, flush=True)


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
    """Draws the curves, and says where the results are; once for all processes."""
    if jax.process_index() != 0:
        return
    result.history.plot(args.plot)
    if args.digest:
        print(f"digest: {digest(result.params)}")
    if args.checkpoint is not None:
        print(f"checkpoints: {args.checkpoint}" + (f" ({result.stopped}: --resume goes on)" if result.stopped else ""))
    print(f"curves: {args.plot}")
