"""The benchmark runs, and writes what it measured."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_smallest_chain(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--quick",
        "--only",
        "chain-10",
        "--repeat",
        "1",
        "--json",
        str(path),
    ]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    content = json.loads(path.read_text())
    assert content["errors"] == {}
    assert content["environment"]["jax"]
    figures = {result["figure"]: result for result in content["results"]}
    assert set(figures) == {"record_forward", "record", "lower", "compile", "step", "memory", "undecorated"}
    for name, result in figures.items():
        measured = result.get("ratio", result.get("value"))
        assert 0 < measured["min"] <= measured["median"] <= measured["max"], name
        assert measured["median"] > result["budget"] or not result["over"]
    assert "| chain-10 " in done.stdout


def test_lookup() -> None:
    command = [sys.executable, "-m", "benchmarks.lookup", "--rows", "9000", "--ids", "32", "--repeat", "2"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [line.split("|")[1].strip() for line in done.stdout.splitlines()[2:]] == ["sgd", "adagrad", "adam, lazy"]


def test_seeds() -> None:
    arguments = ["--seeds", "2", "--width", "8", "--epochs", "1", "--repeat", "1"]
    command = [sys.executable, "-m", "benchmarks.seeds", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [line.split("|")[1].strip() for line in done.stdout.splitlines()[3:]] == ["loop", "program"]


def test_fit() -> None:
    command = [sys.executable, "-m", "benchmarks.fit", "--repeat", "2", "--steps", "8"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(r"by hand \d+ µs a step, fit \d+: ratio, median of 2 pairs, [\d.]+ ", done.stdout)
