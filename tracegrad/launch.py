"""`python -m tracegrad.launch`: starts a program as several processes, and again when one of them dies or hangs.

`--help` lists the options; `tracegrad/parallel/README.md` has the recipes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import IO, Any

from . import worker
from .parallel.meeting import COORDINATOR, LOCAL_DEVICE_IDS, NUM_PROCESSES, PROCESS_ID, RESTARTS, parts_of

_TURN = 0.05
"""How often the processes are looked at, in seconds: a death is noticed within this."""

_STEADY = 60.0
"""After so many seconds of running a failure is not one more in a row."""

_LONGEST_WAIT, _LAST_WORDS = 60.0, 0.3

_DEVICES = "--xla_force_host_platform_device_count"

_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PASSED = (signal.SIGUSR1, signal.SIGUSR2)

_EPILOG = """\
The program calls tracegrad.parallel.initialize() first, and saves and resumes checkpoints itself.

  python -m tracegrad.launch --processes 4 train.py --epochs 5
  python -m tracegrad.launch --processes 2 --devices-per-process 4 -m package.train

on two machines, 8 processes each, one GPU each:

  python -m tracegrad.launch --processes 8 --nnodes 2 --node-rank 0 --coordinator 10.0.0.1:1234 train.py
  python -m tracegrad.launch --processes 8 --nnodes 2 --node-rank 1 --coordinator 10.0.0.1:1234 train.py

Exit code: 0 if all processes ended with 0; that of the one that failed, when there are no restarts left (128 + the
number of the signal, for one that was killed); 128 + the number of the signal that stopped the launcher.
"""


@dataclass(eq=False)
class _Worker:
    """A process, and what it has written of a line that is not whole yet."""

    process_id: int
    process: subprocess.Popen[bytes]
    stopped: float | None = None
    parts: dict[int, bytes] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"process {self.process_id} (pid {self.process.pid})"


def parser() -> argparse.ArgumentParser:
    """The options of the command line."""
    p = argparse.ArgumentParser(
        "python -m tracegrad.launch",
        description="Starts a program as several processes on this machine, puts [process] before each line of theirs, "
        "passes signals on, and starts them again from the program's last checkpoint when one dies or hangs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("--processes", type=int, default=1, metavar="P", help="how many on this machine (default: 1)")
    p.add_argument(
        "--devices-per-process", type=int, metavar="L",
        help="GPUs for each process, or virtual devices of the CPU (default: 1; all for a single process)",
    )  # fmt: skip
    p.add_argument("--max-restarts", type=int, default=3, metavar="N", help="how often to start again (default: 3)")
    p.add_argument(
        "--min-processes", type=int, metavar="M",
        help="after a second failure within a minute go on with half as many processes, but at least M "
        "(default: always as many)",
    )  # fmt: skip
    p.add_argument(
        "--backoff", type=float, default=1.0, metavar="S",
        help="seconds before a restart, doubled for each further failure within a minute, at most 60 (default: 1)",
    )  # fmt: skip
    p.add_argument(
        "--grace", type=float, default=30.0, metavar="S",
        help="seconds that the processes have to save and end after SIGTERM, SIGINT or SIGHUP (default: 30)",
    )  # fmt: skip
    p.add_argument(
        "--stall-timeout", type=float, metavar="S",
        help="restart if no process writes anything for so many seconds, or one is stopped for so long (default: "
        "never; a process that hangs altogether is found by the heartbeat of parallel.initialize)",
    )  # fmt: skip
    p.add_argument(
        "--threads", type=int, metavar="N",
        help="NPROC, the size of XLA's thread pool on a CPU; equal bits need it equal (default: what NPROC says, else "
        "the number of cores or of all devices here, if that is more)",
    )  # fmt: skip
    p.add_argument("--nnodes", type=int, default=1, metavar="N", help="how many machines (default: 1)")
    p.add_argument("--node-rank", type=int, default=0, metavar="R", help="which one this is, from 0 (default: 0)")
    p.add_argument(
        "--coordinator", metavar="HOST:PORT",
        help="where process 0 listens (default on one machine: 127.0.0.1 and a free port, a new one each time)",
    )  # fmt: skip
    p.add_argument("-m", "--module", action="store_true", help="the program is a module, as with python -m")
    p.add_argument("program", help="the script or module")
    p.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="its arguments")
    return p


def options(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line, and ends with a message where it makes no sense."""
    p = parser()
    o = p.parse_args(arguments)
    for name in ("processes", "devices_per_process", "min_processes", "nnodes", "threads"):
        if (value := getattr(o, name)) is not None and value < 1:
            p.error(f"--{name.replace('_', '-')} must be 1 or more, not {value}")
    for name in ("max_restarts", "backoff", "grace", "stall_timeout"):
        if (value := getattr(o, name)) is not None and value < 0:
            p.error(f"--{name.replace('_', '-')} must be 0 or more, not {value:g}")
    o.min_processes = o.processes if o.min_processes is None else o.min_processes
    if o.min_processes > o.processes:
        p.error(f"--min-processes {o.min_processes} is more than --processes {o.processes}")
    if not 0 <= o.node_rank < o.nnodes:
        p.error(f"--node-rank {o.node_rank} is not from 0 to --nnodes - 1 = {o.nnodes - 1}")
    if o.nnodes > 1 and o.coordinator is None:
        p.error("--nnodes needs --coordinator HOST:PORT, the same on all machines: an address of machine 0")
    if o.coordinator is not None:
        try:
            parts_of(o.coordinator)
        except ValueError as error:
            p.error(f"--coordinator: {error}")
    if o.nnodes > 1 and o.min_processes < o.processes:
        p.error("--min-processes is for one machine: each would choose for itself")
    if not o.module and not os.path.isfile(o.program):
        p.error(f"there is no file {o.program}")
    return o


def main(arguments: list[str] | None = None) -> int:
    """Runs the launcher; returns its exit code."""
    launcher = _Launcher(options(sys.argv[1:] if arguments is None else arguments))
    before = {number: signal.signal(number, launcher.receive) for number in (*_STOPS, *_PASSED)}
    try:
        return launcher.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Launcher:
    """The processes of one program, from the first start to the last."""

    def __init__(self, o: argparse.Namespace) -> None:
        self.options = o
        self.received: list[int] = []
        self.stop: int | None = None
        self.stop_by = 0.0
        self.workers: list[_Worker] = []
        self.selector = selectors.DefaultSelector()
        self.started = self.heard = 0.0

    def receive(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)

    def say(self, text: str) -> None:
        print(f"launch {time.strftime('%H:%M:%S')}: {text}", file=sys.stderr, flush=True)

    # -- attempts

    def run(self) -> int:
        o, count, restarts, in_a_row = self.options, self.options.processes, 0, 0
        while True:
            begun = time.monotonic()
            code = self.attempt(count, restarts)
            if self.stop is not None:
                return 128 + self.stop
            if code == 0:
                return 0
            if code == 2:
                self.say("exit code 2 says that the program was called wrongly: it is not started again")
                return 2
            if restarts == o.max_restarts:
                self.say(f"no restart of {o.max_restarts} is left")
                return code
            restarts += 1
            in_a_row = 1 if time.monotonic() - begun > _STEADY else in_a_row + 1
            if in_a_row > 1:
                count = max(count // 2, o.min_processes)
            wait = min(o.backoff * 2 ** (in_a_row - 1), _LONGEST_WAIT)
            self.say(
                f"restart {restarts} of {o.max_restarts} with {count} process"
                f"{'es' if count > 1 else ''}" + (f" in {wait:g} s" if wait else "")
            )
            until = time.monotonic() + wait
            while time.monotonic() < until and not self.received:
                time.sleep(min(_TURN, wait))
            self.pass_on()
            if self.stop is not None:
                return 128 + self.stop

    def attempt(self, count: int, restarts: int) -> int:
        """Runs the processes until all have ended, or one has failed; the exit code that this gives."""
        try:
            self.start(count, restarts)
            while True:
                for key, _ in self.selector.select(_TURN):
                    self.read(key)
                self.pass_on()
                if code := self.look():
                    return code
                if all(w.process.returncode is not None for w in self.workers):
                    return 0
        finally:
            self.end()

    def start(self, count: int, restarts: int) -> None:
        o, local = self.options, count
        total, first = count * o.nnodes, count * o.node_rank
        address = o.coordinator or f"127.0.0.1:{_free_port()}"
        command = [sys.executable, "-P", worker.__file__, *(["-m"] if o.module else []), o.program, *o.arguments]
        env = {**os.environ, "PYTHONUNBUFFERED": "1", **self.for_xla()}
        self.started = self.heard = time.monotonic()
        for i in range(local):
            own = {
                COORDINATOR: address,
                NUM_PROCESSES: str(total),
                PROCESS_ID: str(first + i),
                RESTARTS: str(restarts),
                worker.LAUNCHER: str(os.getpid()),
            }
            if o.devices_per_process or local > 1:
                each = o.devices_per_process or 1
                own[LOCAL_DEVICE_IDS] = ",".join(str(i * each + d) for d in range(each))
            # In a session of its own: what a terminal sends comes from here alone, and what it starts ends with it.
            process = subprocess.Popen(
                command, env={**env, **own}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
            w = _Worker(first + i, process)
            self.workers.append(w)
            for stream, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
                assert stream is not None
                os.set_blocking(stream.fileno(), False)
                self.selector.register(stream, selectors.EVENT_READ, (w, target))

    def for_xla(self) -> dict[str, str]:
        """The variables by which XLA has so many devices and threads on a CPU."""
        o, flags = self.options, os.environ.get("XLA_FLAGS", "").split()
        given = any(flag.partition("=")[0] == _DEVICES for flag in flags)
        each = o.devices_per_process or 1
        if o.devices_per_process or (o.processes > 1 and not given):
            flags = [flag for flag in flags if flag.partition("=")[0] != _DEVICES] + [f"{_DEVICES}={each}"]
        # After a restart with fewer processes the pool is to be as large as before.
        threads = max(os.cpu_count() or 1, o.processes * each)
        return {"XLA_FLAGS": " ".join(flags), "NPROC": str(o.threads or os.environ.get("NPROC") or threads)}

    # -- what the processes do

    def read(self, key: selectors.SelectorKey) -> None:
        """Writes the whole lines of a stream, each with the process before it."""
        w, target = key.data
        stream: Any = key.fileobj
        chunk = stream.read(1 << 16)
        if chunk is None:
            return
        self.heard = time.monotonic()
        if not chunk:
            self.selector.unregister(stream)
            stream.close()
        *lines, rest = (w.parts.pop(key.fd, b"") + chunk).split(b"\n")
        if rest and chunk:
            w.parts[key.fd] = rest
        elif rest:
            lines.append(rest)
        _write(target, b"".join(b"[%d] %s\n" % (w.process_id, line) for line in lines))

    def pass_on(self) -> None:
        """Gives the processes the signals that came; one that says stop begins the time that they have for it."""
        while self.received:
            number = self.received.pop(0)
            name = signal.Signals(number).name
            if number in _STOPS:
                if self.stop is not None and number == signal.SIGINT:
                    self.say("SIGINT again: the processes are killed")
                    self.stop_by = 0.0
                    continue
                if self.stop is None:
                    self.stop, self.stop_by = number, time.monotonic() + self.options.grace
                self.say(f"{name}: passed on; the processes have {self.options.grace:g} s")
            for w in self.workers:
                if w.process.poll() is None:
                    w.process.send_signal(number)

    def look(self) -> int:
        """Says what is wrong with the processes, if something is, and returns its exit code."""
        now = time.monotonic()
        for w in self.workers:
            if w.process.poll() is None:
                self.look_for_stop(w, now)
        if self.stop is not None:
            if now < self.stop_by:
                return 0
            late = [w for w in self.workers if w.process.returncode is None]
            if late:
                self.say(f"{_named(late)} did not end in time and {'is' if len(late) == 1 else 'are'} killed")
            return 128 + self.stop if late else 0
        failed = [w for w in self.workers if w.process.returncode]
        if failed:
            first = min(failed, key=lambda w: _consequence(w.process.returncode))
            self.say(self.how(first, now))
            self.drain(_LAST_WORDS)  # Those that end for the same reason say so too.
            return _code(first.process.returncode)
        limit = self.options.stall_timeout
        if limit is not None and (now - self.heard > limit or self.stopped_for(now) > limit):
            self.say(f"no process wrote anything for {now - self.heard:.1f} s{self.also(now)}; they are killed")
            for w in self.workers:
                if w.process.poll() is None:
                    w.process.send_signal(signal.SIGABRT)  # Each says where it was.
            self.drain(1.0)
            return 1
        return 0

    def look_for_stop(self, w: _Worker, now: float) -> None:
        if not hasattr(os, "waitid"):  # macOS: a process that was stopped is found when the others miss it.
            return
        with contextlib.suppress(ChildProcessError):
            found = os.waitid(os.P_PID, w.process.pid, os.WSTOPPED | os.WCONTINUED | os.WNOHANG)
            if found is not None and found.si_code == os.CLD_STOPPED:
                w.stopped = now
                name = signal.Signals(found.si_status).name
                self.say(f"{w} was stopped by {name}; unless it goes on, the others end when they miss its heartbeat")
            elif found is not None and found.si_code == os.CLD_CONTINUED:
                w.stopped = None
                self.say(f"process {w.process_id} goes on")

    def stopped_for(self, now: float) -> float:
        return max((now - w.stopped for w in self.workers if w.stopped is not None), default=0.0)

    def how(self, w: _Worker, now: float) -> str:
        code = w.process.returncode
        if code == -signal.SIGABRT:
            end = "ended itself by SIGABRT, as JAX does when it misses another process"
        elif code < 0:
            end = f"was killed by {signal.Signals(-code).name}"
        else:
            end = f"ended with exit code {code}"
        return f"{w} {end}, {now - self.started:.1f} s after the start{self.also(now)}"

    def also(self, now: float) -> str:
        stopped = [w for w in self.workers if w.stopped is not None and w.process.returncode is None]
        return f"; {_named(stopped)} had been stopped for {self.stopped_for(now):.1f} s" if stopped else ""

    def drain(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.selector.get_map() and (left := until - time.monotonic()) > 0:
            for key, _ in self.selector.select(min(left, _TURN)):
                self.read(key)

    def end(self) -> None:
        """Kills what is left of the processes and of what they started, and writes what they still had to say."""
        for w in self.workers:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(w.process.pid, signal.SIGKILL)
        for w in self.workers:
            w.process.wait()
        self.drain(0.2)
        for key in list(self.selector.get_map().values()):  # Something of theirs in another session holds them open.
            self.selector.unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr]
        for w in self.workers:
            for rest in w.parts.values():
                _write(sys.stderr, b"[%d] %s\n" % (w.process_id, rest))
        self.workers = []


def _named(workers: list[_Worker]) -> str:
    return f"process{'es' if len(workers) > 1 else ''} {', '.join(str(w.process_id) for w in workers)}"


def _consequence(returncode: int) -> int:
    """The greater, the likelier another process was first: JAX ends the others by SIGABRT, Gloo by an error."""
    return 2 if returncode == -signal.SIGABRT else 1 if returncode > 0 else 0


def _code(returncode: int) -> int:
    return 128 - returncode if returncode < 0 else returncode


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _write(target: IO[str], data: bytes) -> None:
    if data:
        target.write(data.decode(errors="replace"))
        target.flush()


if __name__ == "__main__":
    sys.exit(main())
