"""The README of training is true: each snippet runs, and prints what it says."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from tests.test_readme import blocks

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "tracegrad/train/README.md").read_text()


def test_snippets_print_what_they_say(monkeypatch: Any) -> None:
    monkeypatch.chdir(ROOT)
    namespace: dict[str, object] = {"__name__": "training"}
    printed = []
    for line, code in blocks("python", TEXT):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            # Kept at its line of the README, so that messages can quote it.
            exec(compile("\n" * (line - 1) + code, "tracegrad/train/README.md", "exec", dont_inherit=True), namespace)
        printed.append(out.getvalue())
    assert [text for text in printed if text] == [text for _, text in blocks("text", TEXT)]
