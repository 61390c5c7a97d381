"""`benchmarks.scale`: its model beside figures worked out elsewhere, and beside what compiled programs send."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from benchmarks import scale
from benchmarks.scale import MACHINES, Machine, Pass, collectives, modules, sent, step, wire
from tracegrad import parallel

ROOT = Path(__file__).resolve().parent.parent.parent
DEVICES = (8, 64, 512, 4096)
WAYS = ("all_reduce", "bucketed", "sharded", "bfloat16, ring")

# Worked out apart from this program, from the same formulas: efficiency in %, on so many devices, in the order of WAYS.
TABLE = {
    ("h100", 100e6, 4096): ("76/98/98/90", "60/84/96/89", "58/76/95/88", "58/71/95/88"),
    ("h100", 10e9, 4096): ("76/98/99/90", "60/96/97/90", "59/92/97/89", "58/92/97/89"),
    ("h100", 10e9, 1024): ("44/61/94/70", "27/33/48/48", "26/31/45/46", "26/31/45/45"),
    ("v5p", 10e9, 4096): ("88/99/99/93", "87/99/99/93", "87/99/99/93", "87/99/99/93"),
}


@pytest.mark.parametrize("case", TABLE)
def test_efficiencies(case: tuple[str, float, int]) -> None:
    machine, parameters, tokens = case
    for devices, wanted in zip(DEVICES, TABLE[case], strict=True):
        found = [step(modules()[way], MACHINES[machine], parameters, tokens, devices) for way in WAYS]
        assert "/".join(f"{100 * s.efficiency:.0f}" for s in found) == wanted, devices


def test_the_parts_of_a_step_by_hand() -> None:
    # 8 devices in nodes of 4: a ring sends 3/4 of 80 bytes in the node and half of a quarter of them between two nodes.
    assert wire(Pass(4), 20, 8, 4) == (60.0, 10.0)
    # An all-to-all sends an eighth to each: to 3 in the node, and to 4 outside.
    assert wire(Pass(4, "exchange"), 20, 8, 4) == (30.0, 40.0)
    machine = Machine(1e12, 0.5, 100.0, 10.0, 4, 50.0, 1e3, 2.0, link_efficiency=0.5)
    found = step(modules()["all_reduce"], machine, 20, 1e10, 8)
    assert found == (2.4, 2 * 60 / 50, 2 * 10 / 5, 2 * 2.0 * 3, 0.0, 320.0)
    assert found.limit == "latency" and found.efficiency == pytest.approx(2.4 / 20.8)
    rounded = step(modules(block=64)["int8"], machine, 20, 1e10, 8)
    code = 1 + 4 / 64
    assert rounded.outer == pytest.approx((20 * code * 0.5 + 20 * code / 4 * 0.5) / 5)
    assert rounded.hbm == 14 * 20 / 25 and rounded.memory == 20 * (20 + 4 / 8)


def test_memory_and_what_limits() -> None:
    """Adam in float32 with 10B parameters takes 160 GB, which a device has not; a part of it does."""
    plain = step(modules()["all_reduce"], MACHINES["h100"], 10e9, 4096, 8)
    parts = [step(modules()["sharded"], MACHINES["h100"], 10e9, 4096, d) for d in DEVICES]
    assert plain.memory == 160e9 > MACHINES["h100"].memory > parts[0].memory > parts[1].memory
    assert [s.limit for s in parts] == ["compute"] * 4
    assert parts[0].memory == 10e9 * (2 + 4 + 12 / 8)
    assert step(modules(gathered=4)["sharded"], MACHINES["h100"], 10e9, 4096, 8).memory == 10e9 * (8 + 8 / 8)
    assert step(modules(held=4)["ordered"], MACHINES["h100"], 1e9, 4096, 8).memory == 1e9 * (12 + 16)
    short = step(modules()["bucketed"], MACHINES["h100"], 100e6, 256, 4096)
    assert short.limit == "outer" and short.efficiency < 0.1


N = 16384

KINDS = {
    "all_reduce": ["all-reduce"], "bucketed": ["all-reduce"], "sharded": ["all-gather", "reduce-scatter"],
    "bfloat16": ["all-gather", "all-to-all"], "int8": ["all-gather", "all-to-all"],
    "ordered": ["all-gather", "all-to-all"],
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_bytes_are_those_of_compiled_programs(name: str) -> None:
    summing = parallel.gradient_sum(name)
    w = np.ones(N, np.float32)
    state = summing.init(w, 8)

    def update(g: Any, w: Any) -> Any:
        g = g[None] if name == "ordered" else g
        total, _ = summing(g, state, "i")
        if name != "sharded":
            return w - total
        part = tg.lax.dynamic_slice(w, (parallel.axis_index("i") * (N // 8),), (N // 8,))
        return parallel.all_gather(part - total, "i", tiled=True)

    mapped = tg.pmap(update, "i", in_axes=(0, None))
    text = tg.jit(lambda g, w: mapped(g, w)).lower(np.ones((8, N), np.float32), w).compile().as_text()
    assert sorted({kind for kind, _ in collectives(text)}) == KINDS[name]
    module = modules(gathered=4)[name]
    said = sum(sum(wire(one, N, 8, 8)) for passes, _ in module.groups for one in passes)
    # On one node a ring and an all-to-all send the same.
    assert sent(text, 8) == pytest.approx(said)


def test_reading_a_program() -> None:
    text = """
      %a = (f32[4,2]{1,0}, bf16[3]{0}) all-reduce(%x, %y), replica_groups={}
      %b = s8[16]{0} all-gather(%c), dimensions={0}
      %d = f32[] add(%e, %f)
      %g = f32[2]{0} reduce-scatter(%h), dimensions={0}
    """
    assert collectives(text) == [("all-reduce", 32), ("all-reduce", 6), ("all-gather", 16), ("reduce-scatter", 8)]
    assert sent(text, 4) == 38 * 1.5 + 12 + 24


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.scale", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command() -> None:
    out = run(
        "--machine", "v5p", "--parameters", "1e8", "--tokens", "512", "--devices", "2", "16", "--flops", "1e14",
        "--latency", "1e-4", "--node", "2", "--outer", "1e9", "--buckets", "4", "--held", "2",
    )  # fmt: skip
    lines = out.splitlines()
    assert lines[0] == "**v5p, 100M parameters, 512 tokens a device**"
    assert [cell.strip() for cell in lines[2].strip("|").split("|")][1:] == ["2", "16", "GB a device"]
    assert [line.split("|")[1].strip() for line in lines[4:] if line] == list(modules())
    assert all(re.fullmatch(r"\d+ (compute|inner|outer|latency|hbm)", c.strip()) for c in lines[4].split("|")[2:4])


def test_the_tables_of_the_readme_are_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "tracegrad" / "parallel" / "README.md").read_text()
    section = text[text.index("## How it scales") :]
    commands = re.findall(r"^python -m benchmarks\.scale (--machine .*)$", section, re.M)
    assert len(commands) == 3
    for command in commands:
        scale.main(command.split())
        assert capsys.readouterr().out.strip() in section, command


@pytest.mark.xdist_group("processes")
def test_gloo_between_processes() -> None:
    lines = run("--gloo", "--width", "128", "--repeat", "2").splitlines()
    rate, latency = re.findall(r"([\d.]+) GB/s, ([\d.]+) ms", next(line for line in lines if "GB/s" in line))[0]
    assert 0 < float(rate) < 100 and 0 < float(latency) < 1000
    (row,) = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]
    *times, ratio = [float(cell.split()[0].replace(",", "")) for cell in row]
    parameters, arrays, computes, measured, said = times
    assert parameters == 64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10 and arrays == 6
    share = 2 * 4 * parameters * 0.5 / (float(rate) * 1e9) + 6 * 2 * float(latency) / 1e3
    assert said == pytest.approx(computes + 1e3 * share, rel=0.1, abs=1.0)
    assert ratio == pytest.approx(said / measured, rel=0.1)


def test_processes_that_fail_are_reported() -> None:
    with pytest.raises(RuntimeError, match="process 0:"):
        scale.gloo(2, 0, 1)
