"""The README of the layers is true: each snippet runs, and prints what it says."""

from __future__ import annotations

from typing import Any

from tests.test_readme import ROOT, prints_what_it_says


def test_snippets_print_what_they_say(monkeypatch: Any) -> None:
    monkeypatch.chdir(ROOT)
    prints_what_it_says("tracegrad/nn/README.md")
