"""The examples charlm and treelstm: what they draw and count, and that a training goes on to the last bit."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from tracegrad.examples import charlm, treelstm

SMALL = {
    "charlm": ["--steps", "6", "--batch-size", "4", "--context", "16", "--width", "32", "--layers", "1"],
    "treelstm": ["--epochs", "2", "--trees", "96", "--batch-size", "32", "--width", "4"],
}


def run(name: str, *arguments: str, cwd=None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"tracegrad.examples.{name}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=600)


@pytest.mark.parametrize("name", SMALL)
def test_a_training_goes_on_to_the_same_digest(name, tmp_path) -> None:
    pytest.importorskip("orbax.checkpoint")
    arguments = [*SMALL[name], "--checkpoint", "kept", "--digest", "--plot", "curves.png"]
    first = run(name, *arguments, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert first.stdout.endswith("checkpoints: kept\ncurves: curves.png\n")
    steps = sorted(int(path.name) for path in (tmp_path / "kept").iterdir() if path.name.isdecimal())
    assert len(steps) > 1, "it is saved as it goes"
    shutil.rmtree(tmp_path / "kept" / str(steps[-1]))
    again = run(name, *arguments, "--resume", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    found = [re.search(r"^digest: ([0-9a-f]{64})$", result.stdout, re.MULTILINE) for result in (first, again)]
    assert found[0] and found[1] and found[0].group(1) == found[1].group(1)


@pytest.mark.parametrize("name", SMALL)
def test_the_command_line(name, capsys) -> None:
    module = {"charlm": charlm, "treelstm": treelstm}[name]
    with pytest.raises(SystemExit) as caught:
        module.parse(["--help"])
    shown = capsys.readouterr().out
    assert caught.value.code == 0
    for option in ("--seed", "--checkpoint", "--resume", "--plot", "--digest", "--batch-size"):
        assert option in shown
    for arguments, message in (
        (["--resume"], "--resume needs --checkpoint DIR"),
        (["--batch-size", "0"], "--batch-size must be at least 1, not 0"),
        (["--seed", "-1"], "--seed must be 0 or more"),
    ):
        with pytest.raises(SystemExit) as caught:
            module.parse(arguments)
        assert caught.value.code == 2 and message in capsys.readouterr().err


def test_options_of_one_alone(capsys) -> None:
    for module, arguments, message in (
        (charlm, ["--width", "33"], "--width must be a multiple of 32"),
        (charlm, ["--prompt", "é"], "--prompt must have 1 to 95 characters"),
        (treelstm, ["--trees", "3"], "--trees 3 and --batch-size 64"),
    ):
        with pytest.raises(SystemExit):
            module.parse(arguments)
        assert message in capsys.readouterr().err


# -- treelstm


def test_expressions_have_the_values_that_python_gives_them() -> None:
    rng = np.random.default_rng(0)
    drawn = treelstm.drawn(rng, 300, (1, 5), 24)
    assert len(set(drawn)) == 300
    values = []
    for expression in drawn:
        # Python has no `xor`, and compares before it negates: all words become operators of one kind.
        code = treelstm.text(expression).replace("xor", "^").replace("and", "&").replace("or", "|")
        code = re.sub(r"not (\(|\w)", r"True ^ \1", code)
        code = code.replace("true", "True").replace("false", "False")
        values.append(eval(code))
        assert treelstm.value(expression) == values[-1], treelstm.text(expression)
        assert treelstm.size(expression) == len(re.findall(r"\w+", treelstm.text(expression))) <= 24
    assert sum(values) == 150

    arrays = treelstm.trees(drawn, 24)
    assert arrays.words.shape == (300, 24) and arrays.values.tolist() == values

    def read(words, children, node):
        return (treelstm.WORDS[words[node]], *(read(words, children, c) for c in children[node] if c >= 0))

    for words, children, expression in zip(arrays.words, arrays.children, drawn, strict=True):
        assert read(words, children, 23) == expression
        assert (children < np.arange(24)[:, None]).all()
        assert (words > 0).sum() == treelstm.size(expression)


def test_the_bag_of_words_is_the_same_however_much_is_padded() -> None:
    drawn = treelstm.drawn(np.random.default_rng(0), 20, (1, 5), 24)
    for nodes in (24, 40):
        for row, expression in zip(treelstm.bag(treelstm.trees(drawn, nodes).words), drawn, strict=True):
            count = Counter(re.findall(r"\w+", treelstm.text(expression)))
            assert row.tolist() == [count[word] for word in treelstm.WORDS[1:]]


# -- charlm


def test_the_text_is_what_the_modules_say() -> None:
    text = charlm.documentation(("textwrap", "no_such_module", "textwrap"))
    assert text.startswith("Text wrapping and filling.") and set(text) <= set(charlm.ALPHABET)
    assert text.count("Fill a single paragraph of text, returning a new string.") == 1
    assert len(charlm.ALPHABET) == len(set(charlm.ALPHABET)) == 96


def test_windows_predict_each_character_once() -> None:
    train_x, test_x = charlm.load(50)
    assert train_x.shape[1] == test_x.shape[1] == 51 and len(train_x) > 4 * len(test_x) > 400
    np.testing.assert_array_equal(train_x[1:, 0], train_x[:-1, -1])
    text = "".join(charlm.ALPHABET[i] for i in test_x[:, 1:].ravel())
    assert len(re.findall(r"\b(the|of|a)\b", text)) > len(text) / 200


def test_the_baselines_by_counting() -> None:
    train_x = np.random.default_rng(0).integers(0, 5, (3, 9))
    test_x = np.random.default_rng(1).integers(0, 5, (2, 9))
    pairs = Counter((int(a), int(b)) for row in train_x for a, b in itertools.pairwise(row))
    total = sum(pairs.values()) + 96 * 96
    single, double, count = 0.0, 0.0, 0
    for row in test_x:
        for a, b in itertools.pairwise(row):
            single -= np.log2((sum(n for (_, y), n in pairs.items() if y == b) + 96) / total)
            double -= np.log2((pairs[int(a), int(b)] + 1) / (sum(n for (x, _), n in pairs.items() if x == a) + 96))
            count += 1
    np.testing.assert_allclose(charlm.counted(train_x, test_x), (single / count, double / count), rtol=1e-12)
