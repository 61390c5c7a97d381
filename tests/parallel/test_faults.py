"""Processes of a training are killed and stopped at random, and its result is that of one without a fault.

`python -m tests.parallel.test_faults --faults 25` does it more often, and says how long each took to be noticed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from . import training
from .running import Running, alive

pytestmark = pytest.mark.xdist_group("processes")
SCRIPT = Path(training.__file__)
LIMIT, HEARTBEAT = 400, 4
"""So many seconds are waited, for what takes a tenth of that on a machine with nothing else to do."""


class Fault(NamedTuple):
    """What was done, in seconds: until the launcher named it, and from there to the next step."""

    kind: str
    process_id: int
    noticed: float
    resumed: float


def inject(run: Running, rng: random.Random, attempt: int, count: int, kind: str | None = None) -> Fault:
    """Kills or stops a process of an attempt after some steps; what became of it."""
    while len(run.pids.get(attempt, ())) < count:
        run.line(rf"pid (\d+) attempt {attempt}$", LIMIT)
    pids = run.pids[attempt]
    name = kind or rng.choice(["SIGKILL", "SIGKILL", "SIGSTOP"])
    victim = rng.randrange(count)
    # Also while it starts, when it is killed: one that stops before it has met the others is waited for.
    after = rng.randrange(0 if name == "SIGKILL" else 1, 8)
    for _ in range(after):
        run.line(rf"step \d+ attempt {attempt} ", LIMIT)
    time.sleep(rng.random() * 0.05)
    done = time.monotonic()
    os.kill(pids[victim], getattr(signal, name))
    noticed, found = run.line(r"launch .*: (process \d+ .* after the start.*)", LIMIT)
    text = found[1]
    named = rf"process {victim} \(pid {pids[victim]}\) was killed by SIGKILL"
    assert re.search(named if name == "SIGKILL" else rf"process {victim} had been stopped", text), text
    resumed, _ = run.line(rf"step \d+ attempt {attempt + 1} ", LIMIT)
    assert noticed - done < (10 if name == "SIGKILL" else 5 * HEARTBEAT), text
    assert not any(alive(pid) for pid in pids.values())
    return Fault(name, victim, noticed - done, resumed - noticed)


def steps_of(number: int) -> int:
    """Of a training with so many faults, before each of which it makes some."""
    return 12 * number + 24


def faults(
    number: int, folder: Path, expected: dict[str, Any], seed: int, processes: int, kinds: Sequence[str] = ()
) -> list[Fault]:
    """A training with so many faults, checked at its end."""
    rng, found = random.Random(seed), []
    # What fails so often waits longer and longer by itself.
    options = ["--processes", processes, "--threads", training.THREADS, "--max-restarts", number, "--backoff", 0]
    with Running(options, [SCRIPT, folder, steps_of(number), "--pause", 0.05, "--heartbeat", HEARTBEAT]) as run:
        for attempt in range(number):
            found.append(inject(run, rng, attempt, processes, kinds[attempt] if kinds else None))
            if not kinds:
                print(f"{attempt + 1:3}. {found[-1]}", flush=True)
        assert result(run) == expected
        assert not any(alive(pid) for pids in run.pids.values() for pid in pids.values())
    return found


def result(run: Running) -> dict[str, Any]:
    """What a training ends with; it has checked which examples it used."""
    _, found = run.line("result (.*)", LIMIT)
    assert run.end(20) == 0, run.text()
    return json.loads(found[1])  # type: ignore[no-any-return]


def without_a_fault(folder: Path, steps: int) -> dict[str, Any]:
    training.prepare(folder)
    with Running(["--threads", training.THREADS], [SCRIPT, folder, steps, "--no-checkpoints"]) as run:
        return result(run)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return without_a_fault(tmp_path_factory.mktemp("digits"), steps_of(3))


def test_three_random_faults(tmp_path: Path, expected: dict[str, Any]) -> None:
    kinds = ["SIGKILL", "SIGSTOP", "SIGKILL"]
    assert len(faults(3, training.prepare(tmp_path), expected, seed=0, processes=2, kinds=kinds)) == 3


def test_sigterm_saves_first_and_others_go_on(tmp_path: Path, expected: dict[str, Any]) -> None:
    program = [SCRIPT, training.prepare(tmp_path), steps_of(3), "--pause", 0.05]
    with Running(["--processes", 2, "--threads", training.THREADS], program) as run:
        run.line("step 7 attempt 0", LIMIT)
        run.process.send_signal(signal.SIGTERM)
        ends = [run.line(r"saved after terminated by SIGTERM at (\d+)", 20)[1][1] for _ in range(2)]
        assert run.end(20) == 143 and "restart" not in run.text()
    at = int(ends[0])
    assert ends[0] == ends[1] and 7 <= at < steps_of(3)
    assert max(int(path.name) for path in (tmp_path / "run").iterdir() if path.name.isdecimal()) == at
    with Running(["--processes", 1, "--devices-per-process", 3, "--threads", training.THREADS], program) as run:
        _, found = run.line(r"step (\d+) attempt 0 of 1", LIMIT)
        assert int(found[1]) == at + 1
        assert result(run) == expected


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--faults", type=int, default=25)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        expected = without_a_fault(Path(folder), steps_of(o.faults))
        begun = time.monotonic()
        found = faults(o.faults, Path(folder), expected, o.seed, o.processes)
    print(f"{len(found)} faults, none lost, in {time.monotonic() - begun:.0f} s; the same bits as without a fault.")
    for kind in sorted({f.kind for f in found}):
        of = [f for f in found if f.kind == kind]
        for what, values in (("noticed", [f.noticed for f in of]), ("next step", [f.resumed for f in of])):
            print(f"{kind}, {len(of)}: {what} after {statistics.median(values):.2f} s, at most {max(values):.2f} s")


if __name__ == "__main__":
    main()
