"""Each notebook runs from top to bottom, unattended and without a warning, and what it stores is what it prints.

A cell with the tag `nbval-ignore-output` (as nbval, a plugin that compares notebooks, has it) measures time or memory:
only whether it prints is compared. Nor are pictures compared, since they differ with versions of Matplotlib, nor what
goes to stderr: progress bars. What else is printed must be equal, but for the digits of numbers with a fraction.

`python -m tests.test_notebooks` runs all notebooks and stores their outputs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d*(?:e[-+]?\d+)?%?")


def run(path: Path, folder: Path) -> Any:
    """The notebook with the outputs of a run in this folder."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": folder}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources, coalesce_streams=True).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
    return notebook


def texts(cell: Any, stream: str) -> str:
    """What a cell has printed to this stream; with stdout, the kinds of its other outputs too."""
    if stream == "stderr":
        return "".join(out.text for out in cell.outputs if out.get("name") == "stderr")
    shown = [out.text if out.output_type == "stream" else str(sorted(out.data)) for out in cell.outputs]
    return "".join(text for out, text in zip(cell.outputs, shown, strict=True) if out.get("name") != "stderr")


def same(actual: str, expected: str) -> None:
    """Raises unless two texts are equal, but for rounding in the numbers with a fraction."""
    assert NUMBER.sub("#", actual) == NUMBER.sub("#", expected)
    for a, b in zip(NUMBER.findall(actual), NUMBER.findall(expected), strict=True):
        np.testing.assert_allclose(float(a.rstrip("%")), float(b.rstrip("%")), rtol=0.02, atol=1e-4)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs_and_stores_what_it_prints(path: Path, tmp_path: Path) -> None:
    import nbformat

    stored, now = code(nbformat.read(path, as_version=4)), code(run(path, tmp_path))
    assert any("image/png" in out.get("data", {}) for cell in now for out in cell.outputs), "no picture was drawn"
    for old, new in zip(stored, now, strict=True):
        assert not re.search("Warning", texts(new, "stderr")), texts(new, "stderr")
        assert new.execution_count == old.execution_count
        if "nbval-ignore-output" in new.metadata.get("tags", ()):
            assert bool(texts(new, "stdout")) == bool(texts(old, "stdout"))
        else:
            same(texts(new, "stdout"), texts(old, "stdout"))
    assert sum("assert " in cell.source for cell in now) >= len(now) - 3, "cells assert their point"


def test_texts_that_differ_are_told_apart() -> None:
    same("loss 0.1101, 3 steps\n", "loss 0.1102, 3 steps\n")
    for actual, expected in [
        ("loss 0.11", "loss 0.12"), ("3 steps", "4 steps"), ("a 0.11", "b 0.11"), ("nan", "0.5"), ("0.5 0.5", "0.5"),
    ]:  # fmt: skip
        with pytest.raises(AssertionError):
            same(actual, expected)


if __name__ == "__main__":
    import tempfile

    import nbformat

    for notebook in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as name:
            nbformat.write(run(notebook, Path(name)), notebook)
