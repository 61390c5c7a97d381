"""The README is true: each snippet runs, and what it says is printed is printed."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CORE = (ROOT / "tracegrad/README.md").read_text()
SPEED = (ROOT / "benchmarks/README.md").read_text()


def blocks(language: str, text: str = README) -> list[tuple[int, str]]:
    """The code blocks of a language, each with the number of its first line."""
    found = re.finditer(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, m.start(1)) + 1, m.group(1)) for m in found]


def test_snippets_run_and_print_what_they_say(monkeypatch):
    monkeypatch.chdir(ROOT)
    namespace: dict[str, object] = {"__name__": "readme"}
    outputs: dict[int, str] = {}
    for line, code in blocks("python"):
        # Kept at its line of the README, so that the tape can quote it.
        program = compile("\n" * (line - 1) + code, "README.md", "exec")
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(program, namespace)
        outputs[line] = out.getvalue()
        expected = [m.group(1) for m in re.finditer(r"^ *print\(.*\)  +# (.*)$", code, re.MULTILINE)]
        printed = out.getvalue().splitlines()
        for text, actual in zip(expected, printed, strict=False):
            assert actual == text.split(": derivatives")[0]
        assert len(printed) >= len(expected)
    (shown, tape), *_ = blocks("text")
    assert outputs[max(line for line in outputs if line < shown)] == tape


def test_the_picture_is_that_of_the_tape(monkeypatch):
    monkeypatch.chdir(ROOT)
    (line, code), *_ = blocks("python")
    names: dict[str, Any] = {"__name__": "readme"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile("\n" * (line - 1) + code, "README.md", "exec"), names)
    assert names["tape"].to_svg() == (ROOT / "notebooks/tape.svg").read_text()


def prints_what_it_says(path: str) -> None:
    """Runs the snippets of a README, one after the other, and compares what they print with its blocks of text."""
    text = (ROOT / path).read_text()
    namespace: dict[str, object] = {"__name__": "readme"}
    printed = []
    for line, code in blocks("python", text):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            # Kept at its line of the README, so that messages can quote it.
            exec(compile("\n" * (line - 1) + code, path, "exec", dont_inherit=True), namespace)
        printed.append(out.getvalue())
    assert [text for text in printed if text] == [text for _, text in blocks("text", text)]


def test_the_core_in_one_sitting_prints_what_it_says(monkeypatch):
    monkeypatch.chdir(ROOT)
    prints_what_it_says("tracegrad/README.md")


def test_the_core_in_one_sitting_quotes_what_is_there():
    quotes = [code for _, code in blocks("py", CORE)]
    assert len(quotes) >= 6
    for quote in quotes:
        first, lines = quote.split("\n", 1)
        assert lines in (ROOT / first.removeprefix("# ")).read_text(), first
        assert lines.count("\n") <= 30
    package = {path.stem for path in (ROOT / "tracegrad").rglob("*.py")} | {
        f"{path.parent.name}/" for path in (ROOT / "tracegrad").glob("*/__init__.py")
    }
    floors = CORE.partition("## 8.")[2]
    columns = re.findall(r"^\|[^|]*\|([^|]*)\|", floors, re.MULTILINE)
    named = re.findall(r"`([a-z_]+/?)`", "".join(columns))
    assert len(named) > 30 and set(named) <= package


def test_commands_are_those_that_are_run():
    commands = "\n".join(code for _, code in blocks("bash"))
    assert "python -m pip install -e '.[examples]' && python -m tracegrad.examples.digits" in commands
    assert "python -m pip install -e '.[test]' && python -m pytest" in commands
    assert "python -m pip install -e '\\.\\[test\\]' && python -m pytest" in (ROOT / ".ci/run").read_text()


def test_files_and_extras_that_it_names_exist():
    for path in re.findall(r"\]\(([\w/.]+)\)", README):
        assert (ROOT / path).exists(), path
    extras = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    assert set(re.findall(r"'\.\[(\w+)\]'", README)) <= extras


def test_benchmark_table_is_the_recorded_one():
    recorded = ROOT / "benchmarks/results.json"
    if not recorded.exists():
        pytest.skip("no recorded benchmark")
    table = json.loads(recorded.read_text())["table"]
    assert table.strip() in SPEED
    means: dict[str, str] = {}
    for part in table.split("\n\n"):
        rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in part.splitlines() if line[:1] == "|"]
        means |= {k: v for row in rows if row[0] == "geometric mean" for k, v in zip(rows[0], row, strict=True)}
    text = " ".join(README.split())
    for figure, words in {
        "trace + lower": "tracing and lowering",
        "compile": "compiling",
        "step": "a compiled step",
        "temporary memory": "its temporary memory",
        "undecorated": "an undecorated call",
    }.items():
        assert f"{words} {means[figure]}" in text, figure
