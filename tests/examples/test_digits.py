"""The digits example, as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.reference import x64

MODULE = [sys.executable, "-m", "tracegrad.examples.digits"]


def run(*arguments: str, cwd=None) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.run([*MODULE, *arguments], capture_output=True, text=True, cwd=cwd, env=env, timeout=300)


def accuracy(output: str) -> float:
    found = re.search(r"test accuracy: ([\d.]+)%", output)
    assert found, output
    return float(found.group(1))


def test_reaches_97_percent_and_draws_the_curves(tmp_path):
    result = run(cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert accuracy(result.stdout) >= 97
    path = tmp_path / re.search(r"curves: (.*)", result.stdout).group(1)
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000


def test_several_devices_give_the_same_result():
    """In float64: Adam makes of float32's rounding, which differs from processor to processor, what it likes."""
    from tracegrad.examples import digits

    with x64():
        single, one = digits.train(epochs=2, devices=1)
        parallel, four = digits.train(epochs=2, devices=4)
    np.testing.assert_allclose(one["loss"], four["loss"], rtol=1e-10)
    assert one["test accuracy"] == four["test accuracy"]
    for a, b in zip(single, parallel, strict=True):
        for name in ("w", "b"):
            assert a[name].dtype == np.float64
            np.testing.assert_allclose(a[name], b[name], rtol=1e-8, atol=1e-12)


def test_several_devices_on_the_command_line(tmp_path):
    result = run("--epochs", "2", "--devices", "4", "--plot", "four.png", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert accuracy(result.stdout) >= 85
    assert (tmp_path / "four.png").exists()


def test_the_seed_decides():
    from tracegrad.examples import digits

    first, again, other = (digits.train(epochs=1, seed=seed)[1]["loss"] for seed in (3, 3, 4))
    assert first == again != other


def test_help_lists_every_option():
    result = run("--help")
    assert result.returncode == 0
    for option in ("--epochs", "--batch-size", "--learning-rate", "--devices", "--seed", "--plot"):
        assert option in result.stdout


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--devices", "3"], ["--batch-size 64", "--devices 3", "multiple of 3"]),
        (["--epochs", "0"], ["--epochs must be at least 1"]),
    ],
)
def test_bad_arguments(arguments, parts):
    result = run(*arguments)
    assert result.returncode == 2
    for part in parts:
        assert part in result.stderr
