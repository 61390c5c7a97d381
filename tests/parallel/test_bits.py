"""One training on 1 to 8 devices, of 1 to 4 processes: the same bits, and in double precision the same losses."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from . import training
from .running import Running

pytestmark = pytest.mark.xdist_group("processes")
SCRIPT = Path(training.__file__)
LIMIT = 400
"""So many seconds are waited, for what takes a tenth of that on a machine with nothing else to do."""


SETTINGS = ["--threads", training.THREADS, "--max-restarts", 0]
QUICK, USUAL = "--xla_backend_optimization_level=0", ""
"""XLA's flags: for programs that are compiled soon, and as users have them."""


def trained(folder: Path, processes: int, devices: int, *options: Any, flags: str = QUICK) -> list[dict[str, Any]]:
    """What trainings on so many processes with so many devices each end with."""
    layout = ["--processes", processes, "--devices-per-process", devices]
    with Running([*layout, *SETTINGS], [SCRIPT, folder, *options], flags) as run:
        assert run.end(LIMIT) == 0, run.text()
    return [json.loads(found[1]) for _, line in run.lines if (found := re.search(r"result (.*)", line))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training.prepare(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def alone(folder: Path) -> Callable[[str, int], list[dict[str, Any]]]:
    """What one process ends with, on 1, 2 and so many devices."""
    return functools.cache(
        lambda flags, most: trained(
            folder, 1, most, 100, "--no-checkpoints", "--devices", *sorted({1, 2, most}), flags=flags
        )
    )


Alone = Callable[[str, int], list[dict[str, Any]]]


@pytest.mark.parametrize(("flags", "most"), [(QUICK, 8), (USUAL, 2)], ids=["quick", "usual"])
def test_the_same_bits_on_any_number_of_devices(flags: str, most: int, alone: Alone) -> None:
    """After 100 steps: parameters, the state of BatchNorm, and losses."""
    one, *more = alone(flags, most)
    assert len(one["losses"]) == 100 and np.mean(one["losses"][-10:]) < one["losses"][0] / 2
    assert more and all(other == one for other in more)


LAYOUTS = [(QUICK, 8, 2, 4), (QUICK, 8, 4, 2), (USUAL, 2, 2, 1)]


@pytest.mark.parametrize(
    ("flags", "most", "processes", "devices"),
    LAYOUTS,
    ids=[f"{p}x{d}{'' if f else ' usual'}" for f, _, p, d in LAYOUTS],
)
def test_the_same_bits_in_any_number_of_processes(
    flags: str, most: int, processes: int, devices: int, folder: Path, alone: Alone
) -> None:
    assert trained(folder, processes, devices, 100, "--no-checkpoints", flags=flags) == alone(flags, most)[:1]


def test_the_same_bits_in_a_training_that_others_go_on_with(tmp_path: Path, alone: Alone) -> None:
    program = [SCRIPT, training.prepare(tmp_path), 100]
    with Running(["--processes", 4, *SETTINGS], program) as run:
        run.line("step 45 attempt 0 of 4", LIMIT)
        os.kill(run.pids[0][1], signal.SIGKILL)
        assert run.end(20) == 137
    found = trained(tmp_path, 2, 2, 100)
    assert found == alone(QUICK, 8)[:1]


MODULES = [f"{name}:plain" for name in ("all_reduce", "bucketed", "sharded", "ordered")]


def test_the_same_losses_in_double_precision(folder: Path) -> None:
    options = [14, "--no-checkpoints", "--float64", "--gradients", *MODULES]
    found = [*trained(folder, 1, 8, *options, "--devices", 1, 8), *trained(folder, 2, 2, *options)]
    assert [r["gradients"] for r in found] == [m for m in MODULES for _ in range(2)] + MODULES
    for result in found:
        np.testing.assert_allclose(result["losses"], found[0]["losses"], rtol=0, atol=1e-10, err_msg=str(result))
