"""The digits example, as a user runs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tracegrad.examples import digits, running

MODULE = [sys.executable, "-m", "tracegrad.examples.digits"]


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}


def run(*arguments: str, cwd=None) -> subprocess.CompletedProcess[str]:
    command = [*MODULE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment(), timeout=300)


def accuracy(output: str) -> float:
    found = re.search(r"test accuracy: ([\d.]+)%", output)
    assert found, output
    return float(found.group(1))


def test_two_seeds_reach_96_percent_in_few_epochs_and_draw_the_curves(tmp_path):
    result = run("--epochs", "4", "--seeds", "2", "--seed", "3", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert accuracy(result.stdout) >= 96
    each = [float(a) for a in re.findall(r"^seed [34]: ([\d.]+)%$", result.stdout, re.MULTILINE)]
    assert len(each) == 2 and "the mean over 2 seeds" in result.stdout
    assert abs(np.mean(each) - accuracy(result.stdout)) < 0.011
    path = tmp_path / re.search(r"curves: (.*)", result.stdout).group(1)
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000


SAME = """
import jax
import numpy as np

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", True)
from tracegrad.examples import digits, running

digits.SHIFT = 0  # how images are moved depends on how many devices there are
one = digits.fit(epochs=2, devices=1, progress=False)
four = digits.fit(epochs=2, devices=4, progress=False, gradients="sharded")
np.testing.assert_allclose(one.history["loss"], four.history["loss"], rtol=1e-10)
assert one.history["test accuracy"].tolist() == four.history["test accuracy"].tolist()
# The model, and the running averages.
single, parallel = ((result.state.params, result.state.model_state) for result in (one, four))
leaves = jax.tree.leaves(single)
assert len(leaves) == 3 * 3 + 2 + 3 * 2
for a, b in zip(leaves, jax.tree.leaves(parallel), strict=True):
    assert a.dtype == np.float64
    np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-11)
"""


def test_several_devices_give_the_same_result():
    """In float64: Adam makes of float32's rounding, which differs from processor to processor, what it likes.

    As a user runs it, with the compiler's own settings: with its optimizations off, as other tests have them, a step
    whose loss is the same to the last bit has other gradients.
    """
    result = subprocess.run(
        [sys.executable, "-c", SAME], capture_output=True, text=True, env=environment(), timeout=300
    )
    assert result.returncode == 0, result.stderr


def test_several_devices_on_the_command_line(tmp_path):
    options = ("--epochs", "1", "--devices", "4", "--gradients", "int8", "--plot", "four.png")
    result = run(*options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert accuracy(result.stdout) >= 80
    assert (tmp_path / "four.png").exists()


def digest(output: str) -> str:
    found = re.search(r"^(?:\[0\] )?digest: ([0-9a-f]{64})$", output, re.MULTILINE)
    assert found, output
    return found.group(1)


def test_a_training_that_goes_on_ends_with_the_same_digest(tmp_path):
    options = ("--batch-size", "256", "--digest")
    # The rate falls to 0 in the last of all steps: what was begun for two epochs is another training.
    whole, other = (run(*options, "--epochs", "2", "--seed", seed, cwd=tmp_path).stdout for seed in "34")
    assert digest(whole) != digest(other)
    saved = run(*options, "--epochs", "2", "--seed", "3", "--checkpoint", "kept", cwd=tmp_path).stdout
    assert digest(saved) == digest(whole) and "checkpoints: kept" in saved
    last = max(int(p.name) for p in (tmp_path / "kept").iterdir() if p.name.isdigit())
    shutil.rmtree(tmp_path / "kept" / str(last))
    resumed = run(*options, "--epochs", "2", "--seed", "3", "--checkpoint", "kept", "--resume", cwd=tmp_path)
    assert digest(resumed.stdout) == digest(whole), resumed.stderr
    assert accuracy(resumed.stdout) == accuracy(whole)


@pytest.mark.xdist_group("processes")
def test_ordered_gradients_have_the_same_bits_on_any_number_of_devices_and_processes(tmp_path):
    options = ("--epochs", "1", "--batch-size", "256", "--gradients", "ordered", "--digest")
    one = run(*options, "--checkpoint", "kept", cwd=tmp_path)
    assert one.returncode == 0, one.stderr
    other = run(*options, "--processes", "2", cwd=tmp_path)
    assert other.returncode == 0, other.stderr
    assert digest(other.stdout) == digest(one.stdout)
    assert accuracy(other.stdout) == accuracy(one.stdout)
    assert other.stdout.count("digest:") == other.stdout.count("curves:") == 1
    # What has ended goes on from its checkpoint, on other devices, and is at its end.
    last = run(*options, "--checkpoint", "kept", "--resume", "--devices", "2", cwd=tmp_path)
    assert digest(last.stdout) == digest(one.stdout), last.stderr


@pytest.mark.parametrize(
    ("restarts", "kept", "resumes"), [("0", "kept", False), ("2", "kept", True), ("2", None, False)]
)
def test_what_a_launcher_starts_again_goes_on(restarts, kept, resumes, monkeypatch):
    monkeypatch.setenv("TRACEGRAD_RESTARTS", restarts)
    args = digits.parse([] if kept is None else ["--checkpoint", kept])
    running.start("tracegrad.examples.digits", args, [])
    assert (args.processes, args.resume) == (1, resumes)


def test_help_lists_every_option():
    result = run("--help")
    assert result.returncode == 0
    for option in (
        "--epochs",
        "--batch-size",
        "--learning-rate",
        "--devices",
        "--processes",
        "--gradients",
        "--seed",
        "--seeds",
        "--checkpoint",
        "--resume",
        "--plot",
        "--digest",
    ):
        assert option in result.stdout


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--devices", "3"], ["--batch-size 64", "--devices 3", "multiple of 3"]),
        (["--epochs", "0"], ["--epochs must be at least 1"]),
        (["--seeds", "0"], ["--seeds must be at least 1"]),
        (["--resume"], ["--resume needs --checkpoint DIR"]),
        (["--processes", "0"], ["--processes must be at least 1"]),
        (["--processes", "3"], ["--batch-size 64", "--devices 1 of --processes 3", "multiple of 3"]),
        (["--gradients", "mean"], ["invalid choice: 'mean'", "ordered"]),
        (["--gradients", "ordered", "--batch-size", "60"], ["--batch-size 60", "8 shards", "multiple of 8"]),
        (["--gradients", "ordered", "--processes", "3"], ["8 shards", "--processes 3", "choose 1, 2, 4 or 8"]),
        (["--gradients", "ordered", "--devices", "9"], ["8 shards", "--devices 9"]),
        (["--batch-size", "2000"], ["--batch-size 2000 is more than the 1,437 images"]),
    ],
)
def test_bad_arguments(arguments, parts, capsys):
    with pytest.raises(SystemExit) as end:
        digits.parse(arguments)
    assert end.value.code == 2
    error = " ".join(capsys.readouterr().err.split())
    for part in parts:
        assert part in error
