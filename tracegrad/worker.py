"""One process of several: runs a program so that its failure ends the process at once. Uses nothing of the package.

`python -m tracegrad.launch` starts its workers by this file. Under SLURM or Kubernetes it stands before the program:
`python -m tracegrad.worker train.py --epochs 5`, or `python -m tracegrad.worker -m package.train`.

A process that ends by an exception would first wait in JAX's shutdown for the others, which wait for it in a
collective.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import runpy
import signal
import sys
from types import TracebackType
from typing import NoReturn

LAUNCHER = "TRACEGRAD_LAUNCHER"
"""The variable with the process id of the launcher, which this process is not to outlive."""

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Runs `script.py ...` or `-m module ...` as `__main__`; ends the process where that fails."""
    if not arguments or arguments == ["-m"]:
        sys.exit("worker: no program. Usage: python -m tracegrad.worker script.py ..., or -m module ...")
    _die_with_launcher()
    faulthandler.enable()  # Where Python was when JAX gives up, for it does so by SIGABRT.
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            sys.path.insert(0, os.getcwd())
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            sys.path.insert(0, os.path.dirname(os.path.abspath(arguments[0])))
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            if not isinstance(end.code, int):
                print(end.code, file=sys.stderr)
            _end((end.code & 0xFF or 1) if isinstance(end.code, int) else 1)
    except BaseException as error:
        error = error.with_traceback(_of_program(error.__traceback__))
        sys.excepthook(type(error), error, error.__traceback__)
        _end(128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1)


def _end(code: int) -> NoReturn:
    jax = sys.modules.get("jax")
    if jax is None or not jax.distributed.is_initialized():
        sys.exit(code)  # Nobody waits for this process, nor it for another.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue  # Nobody reads any more: the process ends all the same.
    os._exit(code)


def _of_program(trace: TracebackType | None) -> TracebackType | None:
    """Without the frames of this file, and of what runs the program."""
    skipped = (__file__, runpy.__file__, "<frozen runpy>")
    while trace is not None and trace.tb_frame.f_code.co_filename in skipped:
        trace = trace.tb_next
    return trace


def _die_with_launcher() -> None:
    """The kernel kills this process when its launcher is gone, however that ended. On Linux alone."""
    launcher = os.environ.pop(LAUNCHER, None)  # What this process starts has another parent.
    if launcher is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(launcher):  # It was gone before.
        os._exit(128 + signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
