"""Real processes on 127.0.0.1: one program in each, with a time limit, and none is left behind."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

HEAD = """
import os, sys, time
import jax
INDEX, COUNT, PORT = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if COUNT > 1:
    jax.distributed.initialize(f"127.0.0.1:{PORT}", COUNT, INDEX, heartbeat_timeout_seconds=20)
import numpy as np
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
import tracegrad as tg
from tracegrad import optimizers, train
MESH = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

def say(*words):
    print(*words, flush=True)
"""
"""What each program begins with."""


class Ended(NamedTuple):
    """What a process wrote, and how it ended; negative is the signal that killed it."""

    code: int
    out: str
    err: str


def run(
    count: int,
    program: str,
    *arguments: object,
    devices: int = 1,
    timeout: float = 90,
    meanwhile: Callable[[Sequence[subprocess.Popen[str]]], None] | None = None,
) -> list[Ended]:
    """Runs a program in so many processes, with so many devices each, and returns what became of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    processes: list[subprocess.Popen[str]] = []
    deadline = time.monotonic() + timeout
    with tempfile.TemporaryDirectory() as folder:
        files = [[Path(folder) / f"{i}.{kind}" for kind in ("out", "err")] for i in range(count)]
        try:
            for i, (out, err) in enumerate(files):
                command = [sys.executable, "-c", HEAD + program, str(i), str(count), str(port), *map(str, arguments)]
                with out.open("w") as o, err.open("w") as e:
                    processes.append(subprocess.Popen(command, stdout=o, stderr=e, text=True, env=environment))
            if meanwhile is not None:
                meanwhile(processes)
            late = False
            for process in processes:
                try:
                    process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    late = True
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                process.wait()
        ended = [
            Ended(p.returncode, re.sub(r"\[Gloo\].*\n", "", out.read_text()), err.read_text())
            for p, (out, err) in zip(processes, files, strict=True)
        ]
    assert not late, f"not ended after {timeout} s: {ended}"
    return ended


def good(ended: list[Ended]) -> list[str]:
    """What the processes wrote, if all of them ended well."""
    assert [e.code for e in ended] == [0] * len(ended), "\n".join(f"{e.code}\n{e.out}\n{e.err[-3000:]}" for e in ended)
    return [e.out for e in ended]
