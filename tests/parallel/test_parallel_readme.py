"""The README of the folder is true: its snippets run, and print what it says."""

from __future__ import annotations

import pytest

from tests.test_readme import ROOT, prints_what_it_says


def test_snippets_print_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    prints_what_it_says("tracegrad/parallel/README.md")
