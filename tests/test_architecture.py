"""The house: imports go down, nothing is imported in a circle, the core stays small, and what is global is named."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tracegrad"

FLOORS = [
    floor.split()
    for floor in (
        "printed names collecting caches worker", "tape", "errors recording varying",
        "remedies arguments pickling verify",
        "concrete checks inference", "tracer", "op", "lower closures explain", "ops", "passes", "buffers",
        "backward execute",
        "spectrum body inspection", "jaxpr remembered", "borrow", "transforms compile tools", "pullbacks",
        "batching custom capture", "derivatives checkpoint_policies show", "pictures", "remat", "numpy",
        "random control activations", "parallel initializers loops schedules", "lax optimizers rerun inside",
        "nn interop testing forensics", "scipy", "metrics train", "protocols", "array", "__init__", "examples launch",
    )
]  # fmt: skip
"""The files and folders of the package, from the ground up: each imports from lower floors alone."""

CORE = ["tape", "recording", "tracer", "op", "backward", "lower", "execute", "transforms"]
CORE_LINES, LONGEST = 1_500, 800
"""What the core and the longest file have at most: these only ever fall."""

GLOBALS = {
    "execute._compiled_alone", "execute._programs", "execute._wanted", "explain._histories", "inspection.RUNNERS",
    "jaxpr.PRIMITIVES", "jaxpr._bodies", "names._places", "ops.elementwise._where_avals",
    "remembered._gradients", "tape._AVALS", "tracer._literal_avals",
}  # fmt: skip
"""What changes while programs run and belongs to no object: caches, and tables that modules fill as they load."""

FILES = {path.relative_to(PACKAGE).with_suffix("").parts: path.read_text() for path in PACKAGE.rglob("*.py")}
TREES = {parts: ast.parse(text) for parts, text in FILES.items()}


def imports(parts: tuple[str, ...]) -> list[tuple[int, tuple[str, ...]]]:
    """What a file imports of the package: the line, and the file or the package. Not what only a type checker reads."""
    tree = TREES[parts]
    guards = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    unread = {id(n) for guard in guards for statement in guard.body for n in ast.walk(statement)}
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level or id(node) in unread:
            continue
        base = (*parts[: len(parts) - node.level], *(node.module.split(".") if node.module else ()))
        for alias in node.names:
            file = (*base, alias.name)
            target = file if file in FILES else (*file, "__init__") if (*file, "__init__") in FILES else base
            target = target if target in FILES else (*base, "__init__")
            if target != parts:
                found.append((node.lineno, target))
    return found


def test_every_file_has_a_floor() -> None:
    named = [name for floor in FLOORS for name in floor]
    assert sorted(named) == sorted({parts[0] for parts in FILES})


@pytest.mark.parametrize("parts", FILES, ids="/".join)
def test_imports_go_down_and_stand_at_the_top(parts: tuple[str, ...]) -> None:
    floor_of = {name: i for i, floor in enumerate(FLOORS) for name in floor}
    body = TREES[parts].body
    first = min((n.lineno for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef))), default=1_000_000)
    for line, target in imports(parts):
        assert line < first, f"line {line} imports {'.'.join(target)} late"
        if target[0] != parts[0]:
            assert floor_of[target[0]] < floor_of[parts[0]], f"line {line} imports {'.'.join(target)}, not from below"


def test_there_is_no_circle() -> None:
    waiting = {parts: {target for _, target in imports(parts)} for parts in FILES}
    # A folder's own files may import from it what stands in its other files.
    while free := [parts for parts, needs in waiting.items() if not needs & waiting.keys()]:
        for parts in free:
            del waiting[parts]
    assert not waiting, {".".join(p): [".".join(t) for t in needs & waiting.keys()] for p, needs in waiting.items()}


def test_the_core_is_for_one_sitting() -> None:
    assert sum(FILES[name,].count("\n") for name in CORE) <= CORE_LINES
    assert {".".join(p): n for p, text in FILES.items() if (n := text.count("\n")) > LONGEST} == {}


def test_every_file_says_what_it_is() -> None:
    assert [parts for parts, tree in TREES.items() if not ast.get_docstring(tree)] == []


def test_every_floor_says_what_it_uses() -> None:
    floors = [(name,) if (name,) in TREES else (name, "__init__") for floor in FLOORS[:-2] for name in floor]
    firsts = {parts: (ast.get_docstring(TREES[parts]) or "").partition("\n")[0] for parts in floors}
    assert {parts: first for parts, first in firsts.items() if not re.search(r"\. Uses? ", first)} == {}


def _empty(value: ast.expr) -> bool:
    if isinstance(value, ast.Dict | ast.List | ast.Set):
        return not ast.unparse(value).strip("{}[]")
    name = ast.unparse(value.func).rpartition(".")[2].partition("[")[0] if isinstance(value, ast.Call) else ""
    return name.lower().endswith(("dict", "dictionary", "counter", "cache", "list", "deque")) or name == "set"


def test_what_is_global_is_named() -> None:
    found = set()
    for parts, tree in TREES.items():
        for node in tree.body:
            target = node.target if isinstance(node, ast.AnnAssign) else None
            target = node.targets[0] if isinstance(node, ast.Assign) else target
            value = node.value if isinstance(node, ast.AnnAssign | ast.Assign) else None
            if isinstance(target, ast.Name) and value is not None and _empty(value):
                found.add(".".join((*parts, target.id)))
    assert found == GLOBALS


def test_no_op_is_told_by_its_name() -> None:
    for parts, tree in TREES.items():
        compared = [n for n in ast.walk(tree) if isinstance(n, ast.Compare)]
        assert not [n.lineno for n in compared if ast.unparse(n.left).endswith("op.name")], parts


def test_the_core_needs_no_array_namespace() -> None:
    program = f"import sys, types\npackage = types.ModuleType('tracegrad')\npackage.__path__ = [{str(PACKAGE)!r}]\n"
    program += "sys.modules['tracegrad'] = package\n"
    program += "".join(f"import tracegrad.{name}\n" for name in CORE)
    program += "assert 'tracegrad.numpy' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", program], check=True)
