"""Each notebook runs from top to bottom, unattended and without a warning, and what it stores is what it prints.

A cell with the tag `nbval-ignore-output` (as nbval, a plugin that compares notebooks, has it) measures time or memory:
only whether it prints is compared. Nor are pictures compared, since they differ with versions of Matplotlib, nor what
goes to stderr: progress bars. What else is printed must be equal, but for the digits of numbers with a fraction.

One cell of each has the tag `cover`: its picture is in `notebooks/pictures` too, and stands in the index of notebooks.

`python -m tests.test_notebooks` runs all notebooks and stores their outputs and covers; `... 01 04_digits` some alone;
`--covers` stores the covers of what is stored, and runs nothing.
"""

from __future__ import annotations

import argparse
import base64
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
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


def cover(notebook: Any) -> bytes:
    """The PNG of the one cell with the tag `cover`."""
    cells = [cell for cell in code(notebook) if "cover" in cell.metadata.get("tags", ())]
    assert len(cells) == 1, f"{len(cells)} cells have the tag `cover`"
    pictures = [out.data["image/png"] for out in cells[0].outputs if "image/png" in out.get("data", {})]
    assert len(pictures) == 1, f"the cell with the tag `cover` has {len(pictures)} pictures"
    return base64.b64decode(pictures[0])


def picture(path: Path) -> Path:
    """Where the cover of a notebook is."""
    return path.parent / "pictures" / f"{path.stem}.png"


def named(name: str) -> Path:
    """The notebook with this name, or a name that begins so."""
    found = [path for path in NOTEBOOKS if path.stem.startswith(Path(name).stem)]
    if len(found) != 1:
        raise SystemExit(f"{name} is the begin of {len(found)} of the notebooks {[path.stem for path in NOTEBOOKS]}.")
    return found[0]


def main(args: list[str]) -> None:
    """Runs notebooks, and stores them with their covers."""
    import tempfile

    import nbformat

    parser = argparse.ArgumentParser(prog="python -m tests.test_notebooks", description=main.__doc__)
    parser.add_argument("name", nargs="*", help="some of them, by the begin of their names; all by default")
    parser.add_argument("--covers", action="store_true", help="store the covers alone, and run nothing")
    given = parser.parse_args(args)
    for path in [named(name) for name in given.name] or NOTEBOOKS:
        if not given.covers:
            with tempfile.TemporaryDirectory() as folder:
                nbformat.write(run(path, Path(folder)), path)
        picture(path).parent.mkdir(exist_ok=True)
        picture(path).write_bytes(cover(nbformat.read(path, as_version=4)))


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_cover_is_in_the_index(path: Path) -> None:
    import nbformat

    assert picture(path).read_bytes() == cover(nbformat.read(path, as_version=4))
    (row,) = [line for line in (FOLDER / "README.md").read_text().splitlines() if f"]({path.name})" in line]
    assert f'[<img src="pictures/{path.stem}.png" ' in row and row.count(f"]({path.name})") == 2


def test_every_cover_is_that_of_a_notebook() -> None:
    names = {path.stem for path in NOTEBOOKS}
    assert {path.stem for path in (FOLDER / "pictures").iterdir()} == names
    assert set(re.findall(r"\]\((\w+)\.ipynb\)", (FOLDER / "README.md").read_text())) == names


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda cells: [cells[0].metadata.tags.clear()], "0 cells have"),
        (lambda cells: [cells[1].metadata.update(tags=["cover"])], "2 cells have"),
        (lambda cells: [cells[0].outputs.clear()], "has 0 pictures"),
    ],
)
def test_a_notebook_has_one_cover(make: Any, message: str) -> None:
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    shown = new_output("display_data", {"image/png": base64.b64encode(b"a picture").decode()})
    cells = [new_code_cell(metadata={"tags": ["cover"]}, outputs=[shown]), new_code_cell()]
    assert cover(new_notebook(cells=cells)) == b"a picture"
    make(cells)
    with pytest.raises(AssertionError, match=message):
        cover(new_notebook(cells=cells))


def test_a_notebook_by_the_begin_of_its_name() -> None:
    assert named("01").stem == named("01_quickstart.ipynb").stem == "01_quickstart"
    for name in ("0", "12"):
        with pytest.raises(SystemExit, match="of the notebooks"):
            named(name)


if __name__ == "__main__":
    main(sys.argv[1:])
