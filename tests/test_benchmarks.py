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


def test_parallel() -> None:
    command = [sys.executable, "-m", "benchmarks.parallel", "--quick"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:1] == "|"]
    tables = {row[0]: row for row in rows}
    assert re.fullmatch(r"([\d.]+ / [\d.]+ ?){5}", " ".join(tables["mlp"][2:]))
    # Whoever places the arrays calls little.
    assert all(int(count) < 30 for count in tables["on the devices"][1:])
    # The state of Adam on 1, 2, 4 and 8 devices: a count, and two moments of 64 * 16 + 16 + 16 * 10 + 10 numbers, of
    # which neither 4 nor 8 divide the last 10.
    assert [tables[k][2] for k in "1248"] == [f"{(8 * n + 4) / 1e6:.3f}" for n in (1210, 605, 300 + 10, 150 + 10)]
    assert {"all_reduce", "bucketed", "bfloat16", "int8", "sharded", "ordered, fused"} <= set(tables)
    assert "reduce-scatter" in tables["sharded"][1] and "all-to-all" in tables["ordered, fused"][1]
    assert all(float(tables[name][2]) > 0 for name in ("all_reduce", "bfloat16", "ordered, fused"))


def test_memory() -> None:
    command = [sys.executable, "-m", "benchmarks.memory", "--layers", "2", "--width", "16", "--repeat", "1"]
    done = subprocess.run(
        [*command, "--only", "scan"], cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    sizes = {row[1]: float(row[3]) for row in rows if row[3]}
    for policy in ("dots_saveable", "nothing_saveable"):
        assert sizes[f"tracegrad, budget of {policy}"] <= sizes[f"JAX, {policy}"] < sizes["JAX"]
