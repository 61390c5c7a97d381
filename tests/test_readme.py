"""The README is true: each snippet runs, and what it says is printed is printed."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[tuple[int, str]]:
    """The code blocks of a language, each with the number of its first line."""
    found = re.finditer(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    return [(README.count("\n", 0, m.start(1)) + 1, m.group(1)) for m in found]


def test_snippets_run_and_print_what_they_say(monkeypatch):
    monkeypatch.chdir(ROOT)
    namespace: dict[str, object] = {"__name__": "readme"}
    outputs = []
    for line, code in blocks("python"):
        # Kept at its line of the README, so that the tape can quote it.
        program = compile("\n" * (line - 1) + code, "README.md", "exec")
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(program, namespace)
        outputs.append(out.getvalue())
        expected = [m.group(1) for m in re.finditer(r"^print\(.*\)  +# (.*)$", code, re.MULTILINE)]
        printed = out.getvalue().splitlines()
        for text, actual in zip(expected, printed, strict=False):
            assert actual == text.split(": derivatives")[0]
        assert len(printed) >= len(expected)
    (_, tape), *_ = blocks("text")
    assert outputs[0] == tape


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
    assert table.strip() in README
