"""`python -m benchmarks`: takes the figures, prints them as a table of ratios, writes them as JSON."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy

from . import pytorch
from .measure import FIGURES, Bench, Effort, Result
from .workloads import RECORD, Workload, workloads

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    jax.config.update("jax_enable_compilation_cache", False)  # type: ignore[no-untyped-call]
    repeat, seconds = (4, 5.0) if options.quick else (10, 40.0)
    effort = Effort(options.repeat or repeat, seconds, CLOCKS[options.clock])
    results: list[Result] = []
    errors: dict[str, str] = {}
    start = time.time()
    selected = chosen(options.only, options.quick)
    # Recording comes first: what it costs to collect garbage grows with all that the process holds by then.
    for workload, first in [(w, True) for w in selected] + [(w, False) for w in selected]:
        names = [f for f in FIGURES if f in workload.figures and f in options.figures and (f in RECORD) is first]
        if not pytorch.available():
            names = [f for f in names if f != "pytorch"]
        if not names or workload.name in errors:
            continue
        try:
            bench = Bench(workload, effort)
            if not first:
                bench.check()
            for result in bench.run(names):
                results.append(result)
                print(f"{workload.name:>15} {result.figure:<15} {cell(result)}", file=sys.stderr, flush=True)
        except Exception as error:
            # The other workloads still have figures to give; the exit status tells.
            errors[workload.name] = f"{type(error).__name__}: {error}"
            print(f"{workload.name:>15} failed: {errors[workload.name]}", file=sys.stderr, flush=True)
    text = report(results, options.clock)
    print(text)
    if options.json is not None:
        content = {
            "environment": environment(),
            "clock": options.clock,
            "seconds": time.time() - start,
            "errors": errors,
            "table": text,
        }
        options.json.write_text(json.dumps(content | {"results": [r.as_json() for r in results]}, indent=1) + "\n")
    return 1 if errors else 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m benchmarks", description="tracegrad against JAX, side by side")
    p.add_argument("--quick", action="store_true", help="small workloads, few samples: a minute or two")
    p.add_argument("--only", nargs="+", metavar="WORKLOAD", help="these workloads; `chain` means every chain")
    p.add_argument("--figures", nargs="+", choices=list(FIGURES), default=list(FIGURES), metavar="FIGURE",
                   help=f"these figures: {', '.join(FIGURES)}")  # fmt: skip
    p.add_argument(
        "--repeat", type=int, metavar="N", help="pairs of samples a figure (default 10, or 4 with --quick; best even)"
    )
    p.add_argument("--clock", choices=list(CLOCKS), default="wall",
                   help="cpu: time of this process on all processors, which other processes disturb less")  # fmt: skip
    p.add_argument("--json", type=Path, metavar="PATH", help="write every sample there")
    return p


def chosen(only: list[str] | None, quick: bool) -> list[Workload]:
    """The workloads of these names or families.

    Raises:
      SystemExit: if a name is none of them.
    """
    known = list(workloads())
    for name in only or ():
        if not any(selects(name, w) for w in known):
            raise SystemExit(f"no workload {name!r}; there are {', '.join(w.name for w in known)}")
    return [
        w for w in known
        if (not quick or w.quick or w.name in (only or ())) and (only is None or any(selects(name, w) for name in only))
    ]  # fmt: skip


def selects(name: str, workload: Workload) -> bool:
    return workload.name == name or workload.name.rsplit("-", 1)[0] == name


# -- the report


def cell(result: Result) -> str:
    """The median and, in brackets, the smallest and largest; bold where it is over its budget."""
    values = result.values
    text = number(result.value)
    if result.over:
        text = f"**{text}**"
    return text if len(values) == 1 else f"{text} ({number(min(values))}–{number(max(values))})"


def number(x: float) -> str:
    return f"{x:.2f}" if x >= 0.1 else f"{x:.3f}" if x >= 0.01 else f"{x:.2g}"


def report(results: list[Result], clock: str) -> str:
    """A table of the ratios tracegrad/JAX of the compiled figures, one of the others, and where it was measured."""
    lines = [
        describe(environment()),
        f"Ratios tracegrad/JAX by {clock} clock: median (least–greatest); bold is over budget.",
        "",
    ]
    groups = [
        RECORD,
        ("lower", "compile", "step", "memory", "undecorated"),
        ("first", "new_structure", "call"),
        ("rival",),
        ("pytorch",),
    ]
    for group in groups:
        figures = [name for name in group if any(r.figure == name for r in results)]
        if figures:
            lines += [*table(results, figures), ""]
    return "\n".join(lines).rstrip()


def table(results: list[Result], figures: list[str]) -> list[str]:
    found = {(r.workload, r.figure): r for r in results}
    names = list(dict.fromkeys(r.workload for r in results if r.figure in figures))
    rows = [["workload", *(FIGURES[f].title for f in figures)], ["---", *("---:" for _ in figures)]]
    for name in names:
        rows.append([name, *(cell(found[name, f]) if (name, f) in found else "" for f in figures)])
    if len(names) > 1:
        rows.append(["geometric mean", *(geometric_mean(results, f) for f in figures)])
    rows.append(["budget", *(budget(f, names) for f in figures)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["| " + " | ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)) + " |" for row in rows]


def geometric_mean(results: list[Result], figure: str) -> str:
    values = [r.value for r in results if r.figure == figure]
    if not values or min(values) <= 0 or not all(map(math.isfinite, values)):
        return ""
    mean = statistics.geometric_mean(values)
    limit = FIGURES[figure].mean_budget
    return f"**{number(mean)}**" if limit is not None and mean > limit else number(mean)


def budget(figure: str, names: list[str]) -> str:
    f = FIGURES[figure]
    text = f"≤ {f.budget}" if f.budget >= 0.1 else f"≤ {number(f.budget)}"
    if f.mean_budget is not None:
        text += f", mean ≤ {f.mean_budget}"
    return text + "".join(f", {name} ≤ {limit}" for name, limit in f.budgets.items() if name in names)


def environment() -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "platform": platform.system(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "backend": device.platform,
        "device": device.device_kind,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "tracegrad")},
    }


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def describe(env: dict[str, Any]) -> str:
    where = f"{env['cpus']} × {env['processor']}" if env["backend"] == "cpu" else env["device"]
    versions = ", ".join(f"{name} {env[name]}" for name in ("jax", "jaxlib", "tracegrad"))
    return f"{where}; Python {env['python']}, {versions}; {env['date'][:10]}."


if __name__ == "__main__":
    raise SystemExit(main())
