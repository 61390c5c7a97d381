"""The pictures of a tape: that they are whole, stand by themselves, say what the tape says, and stay small."""

from __future__ import annotations

import base64
import re
import time
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.test_errors import line_of
from tracegrad.pictures import style
from tracegrad.pictures.model import Box, Drawing, Row, Section, drawing
from tracegrad.pictures.repeats import repetitions
from tracegrad.pictures.svg import FOLDED, Strips
from tracegrad.pictures.values import thumbnail
from tracegrad.show import described, shown

X = np.arange(12, dtype=np.float32).reshape(4, 3)
W = np.eye(3, dtype=np.float32)


def mlp(params: Any, x: Any, y: Any) -> Any:
    for w, b in params:
        x = tnp.tanh(x @ w + b)
    return ((x - y) ** 2).mean()


def scanned(w: Any, xs: Any) -> Any:
    def turn(h: Any, row: Any) -> Any:
        return tnp.tanh(h @ w + row), None

    return tg.scan(turn, xs[0], xs)[0].sum()


def branching(x: Any) -> Any:
    y = tg.cond(x.sum() > 0, tnp.sin, tnp.cos, x)
    return tg.while_loop(lambda v: v.sum() < 9.0, lambda v: v * 2.0 + 1.0, y).sum()


def remembered(x: Any, w: Any) -> Any:
    return tg.checkpoint(lambda v: tnp.tanh(tnp.sin(v @ w)))(x).sum()


def twice(x: Any) -> Any:
    return tg.grad(lambda v: tnp.sum(v**3))(x).sum()


def outside(x: Any) -> Any:
    return (x @ W).sum()


def idle(x: Any) -> Any:
    tnp.sin(x)
    return x, {"a<b>&\"'": x * 2}


STORED = '<script type="text/html">'
PARAMS = [(W, W[0]), (W, W[1]), (W, W[2])]
TAPES: dict[str, Callable[[], Any]] = {
    "nothing": lambda: tg.trace(lambda x: x)(1.0),
    "forward": lambda: tg.trace(mlp)(PARAMS, X, X),
    "gradient": lambda: tg.trace(tg.grad(mlp))(PARAMS, X, X),
    "value and gradient": lambda: tg.trace(tg.value_and_grad(mlp, argnums=(0, 1)))(PARAMS, X, X),
    "jit": lambda: tg.trace(tg.grad(tg.jit(mlp)))(PARAMS, X, X),
    "gradient in jit": lambda: tg.trace(tg.jit(tg.grad(mlp)))(PARAMS, X, X),
    "named": lambda: tg.trace(tg.grad(tg.named_call(mlp, name="a<b> & 'c'")))(PARAMS, X, X),
    "scan": lambda: tg.trace(tg.grad(scanned))(W, X),
    "branches": lambda: tg.trace(branching)(X),
    "checkpoint": lambda: tg.trace(tg.grad(remembered))(X, W),
    "second order": lambda: tg.trace(tg.grad(twice))(X),
    "vmap": lambda: tg.trace(tg.vmap(tg.grad(lambda x: tnp.sin(x).sum())))(X),
    "outside": lambda: tg.trace(tg.grad(outside))(X),
    "idle": lambda: tg.trace(idle)(X),
    "integers": lambda: tg.trace(lambda x, i: x[i] * 2)(X, np.array([0, 1])),
    "values": lambda: tg.trace(tg.value_and_grad(mlp), values=True)(PARAMS, X, X),
}


class Parts(HTMLParser):
    """The tags of a page, the scripts and the style among its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""


def folding(tape: Any) -> str:
    """What the script of a page puts in the place of the still picture."""
    return f"<page>{tape.to_html().partition(STORED)[2].partition('</script>')[0]}</page>"


def everything(tape: Any) -> list[Box]:
    return list(drawing(tape).everything())


def steps(tape: Any) -> int:
    """The steps that the text shows, those of bodies too."""
    return sum(" = " in line for line in str(tape).splitlines())


@pytest.fixture(params=TAPES)
def tape(request: pytest.FixtureRequest) -> Any:
    return TAPES[request.param]()


# -- what every picture is


def test_every_step_of_the_text_is_a_box_and_is_unfolded_from_the_page(tape: Any) -> None:
    boxes = everything(tape)
    assert len(boxes) == steps(tape)
    drawn = [g.get("data-n") for g in ET.fromstring(folding(tape)).iter("g") if g.get("data-n")]
    assert sorted(map(int, drawn)) == sorted(box.number for box in boxes) == list(range(len(boxes)))


def test_each_box_has_the_line_of_the_text_and_the_users_line(tape: Any) -> None:
    text = {re.sub(r"\s+# .*", "", line).strip(" |") for line in str(tape).splitlines()}
    top = drawing(tape).boxes
    assert {box.text for box in top} <= text
    titles = [t.text or "" for t in ET.fromstring(folding(tape)).iter("title")]
    for box in top:
        assert any(t.startswith(f"{box.text}\n{box.where}  {box.code}") for t in titles), box.text


def test_the_still_picture_is_xml_that_needs_nothing_else(tape: Any) -> None:
    picture = tape.to_svg()
    root = ET.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not {"script", "foreignObject", "use", "a"} & {e.tag.rpartition("}")[2] for e in root.iter()}
    assert not [name for e in root.iter() for name in e.attrib if name.startswith("on")]
    assert re.findall(r"https?://[^\"]*", picture) == ["http://www.w3.org/2000/svg"]
    assert all(e.get("href", "data:image/png;").startswith("data:image/png;") for e in root.iter())
    assert "url(" not in picture and "@import" not in picture


def test_the_page_asks_no_network_and_falls_back_to_the_still_picture(tape: Any) -> None:
    page = tape.to_html()
    assert not re.findall(r"https?://", page) and "url(" not in page and "fetch(" not in page
    parts = Parts(page)
    (image,) = [attributes for tag, attributes in parts.tags if tag == "img"]
    kind, _, data = (image["src"] or "").partition(",")
    assert kind == "data:image/svg+xml;base64" and base64.b64decode(data).decode() == tape.to_svg()
    assert [tag for tag, _ in parts.tags].count("script") == 2 == page.count("</script>")
    assert parts.scripts[-1] == style.SCRIPT


def test_a_notebook_gets_the_page_and_the_picture_and_the_text(tape: Any) -> None:
    bundle = tape._repr_mimebundle_()
    assert bundle == {"text/html": tape.to_html(), "image/svg+xml": tape.to_svg(), "text/plain": str(tape)}
    assert tape._repr_html_() == bundle["text/html"]


def test_dot_has_every_step_and_is_balanced(tape: Any) -> None:
    text = tape.to_dot()
    assert [int(n) for n in re.findall(r"^ *n(\d+) \[", text, re.M)] == [
        int(n) for n in dict.fromkeys(re.findall(r"^ *n(\d+) \[", text, re.M))
    ]
    assert len(re.findall(r"^ *n\d+ \[", text, re.M)) == steps(tape)
    bare = re.sub(r'"(\\.|[^"\\])*"', '""', text)
    assert bare.count("{") == bare.count("}") and '"' not in bare.replace('""', "")
    ends = {n for pair in re.findall(r"n(\d+) -> n(\d+)", bare) for n in pair}
    assert ends <= set(re.findall(r"n(\d+) \[", bare))


# -- where things stand


def places(made: Drawing) -> dict[Box, int]:
    return {box: row.number for row in made.rows for box in row.boxes}


def test_each_backward_step_stands_beside_the_step_it_is_the_gradient_of() -> None:
    made = drawing(tg.trace(tg.value_and_grad(mlp))(PARAMS, X, X))
    beside = [
        (group.forward.op, [box.op for box in group.backward])
        for row in made.rows
        for group in row.groups
        if group.forward is not None
    ]
    layer = [("dot_general", 2), ("add", 1), ("tanh", 3)]
    first = [("dot_general", 1), *layer[1:]]
    assert [(op, len(back)) for op, back in beside[:9]] == first + layer * 2
    assert beside[2][1] == ["mul", "sub", "mul"], "the last step is on top"
    assert all(box.backward == box.node.grad for box in made.boxes)
    reads = [(made.made[v], box) for box in made.boxes for v in box.node.inputs if v in made.made]
    tanh = [box for box in made.boxes if box.op == "tanh"]
    for activation in tanh:  # what is saved of an activation is read beside it, and beside the next step
        own = places(made)[activation]
        assert {places(made)[box] for source, box in reads if source is activation and box.backward} <= {own, own + 1}


def test_a_loops_body_stands_beside_that_of_its_gradient() -> None:
    made = drawing(tg.trace(tg.grad(scanned))(W, X))
    (scan,) = [box for box in made.boxes if box.op == "scan" and not box.backward]
    (body,) = scan.bodies
    assert body.title == "turn" and scan.runs == ", run 4 times"
    beside = {g.forward.op: [b.op for b in g.backward] for row in body.rows for g in row.groups if g.forward}
    assert beside["tanh"] == ["mul", "sub", "mul"] and beside["dot_general"] == ["dot_general", "dot_general"]
    saved = [
        b for b in body.boxes if b.backward and any(not body.made[v].backward for v in b.node.inputs if v in body.made)
    ]
    assert saved, "the gradient's body reads what the body saved"
    (back,) = [box for box in made.boxes if box.op == "scan" and box.backward]
    assert not back.bodies


def test_rows_are_the_users_lines() -> None:
    made = drawing(tg.trace(tg.grad(mlp))(PARAMS, X, X))
    first = line_of(mlp)
    assert [row.where for row in made.rows] == [f"test_pictures.py:{first + 2}"] * 3 + [f"test_pictures.py:{first + 3}"]
    assert {row.code for row in made.rows} == {"x = tnp.tanh(x @ w + b)", "return ((x - y) ** 2).mean()"}


def test_inputs_and_results_are_called_by_their_names() -> None:
    picture = tg.trace(tg.value_and_grad(mlp))(PARAMS, X, X).to_svg()
    for text in (">params_0_0<", ">params_2_1<", ">y<", ">out[0]<", ">out[1][2][1]<"):
        assert text in picture
    inside = tg.trace(tg.grad(tg.jit(mlp)))(PARAMS, X, X).to_svg()
    assert inside.count(">params_1_0<") >= 1, "a body without names of its own has those of what it is given"


def test_a_value_that_nothing_needs_is_named_without_a_box() -> None:
    tape = tg.trace(tg.grad(mlp))(PARAMS, X, X)
    assert ">sum: value not needed<" in tape.to_svg() and "that no result needs" in tape.to_svg()
    assert "value not needed" not in tg.trace(tg.value_and_grad(mlp))(PARAMS, X, X).to_svg()


# -- folding


def deep(x: Any, ws: Any) -> Any:
    for w in ws:
        h = x @ w
        x = x + tnp.tanh(h) / (1 + tnp.exp(-h))
    return (x * x).sum()


def deep_tape(layers: int) -> Any:
    return tg.trace(tg.value_and_grad(deep, argnums=1))(X, [W] * layers)


def visible(section: Section) -> int:
    return sum(1 if isinstance(p, Row) or not p.open else visible(p) for p in section.parts)


def sections(section: Section) -> list[Section]:
    own = [p for p in section.parts if isinstance(p, Section)]
    return own + [s for p in own for s in sections(p)]


def test_repeated_layers_are_one_section() -> None:
    made = drawing(deep_tape(12))
    (repeated,) = [part for part in made.root.parts if isinstance(part, Section)]
    assert (repeated.times, repeated.detail, len(repeated.parts)) == (12, "repeated", 12)
    assert [part.title for part in repeated.parts[:2] if isinstance(part, Section)] == ["1 of 12", "2 of 12"]
    assert "repeated 12 times" in deep_tape(12).to_svg() and "12 × 7 steps" in deep_tape(12).to_svg()


@pytest.mark.parametrize("layers", [1, 20, 200])
def test_little_shows_at_first_and_no_section_has_many_parts(layers: int) -> None:
    made = drawing(deep_tape(layers))
    assert visible(made.root) <= 40
    assert max(len(s.parts) for s in [made.root, *sections(made.root)]) <= 24
    rows = [row.number for row in made.root.rows()]
    assert rows == list(range(len(made.rows))), "folding changes no order"


def test_lines_stay_in_a_folded_layer_of_one_line() -> None:
    """Those of its steps, unfolded, are elsewhere."""

    def repeated(x: Any, ws: Any) -> Any:
        for w in ws:
            x = np.tanh(x @ w)
        return (x * x).sum()

    made = drawing(tg.trace(tg.grad(repeated))(X, [W] * 12))
    layers = [part for part in sections(made.root) if part.stop - part.start == 1]
    assert len(layers) == 12
    for layer in layers:
        paths = re.findall(r'<path[^>]* d="([^"]*)"', Strips(made).folded(layer)[0])
        ys = [float(y) for path in paths for y in re.findall(r"(?:[ML]-?[\d.]+ |V)(-?[\d.]+)", path)]
        assert ys and min(ys) >= 0 and max(ys) <= FOLDED, ys


def test_a_body_with_a_gradient_is_not_made_small() -> None:
    mapped = tg.trace(lambda x: tg.pmap(tg.grad(twice), in_axes=0)(x))(X[:, 0])
    (scale,) = [float(s) for s in re.findall(r"scale\(([\d.]+)\)", mapped.to_svg())]
    assert scale > 0.95


def test_a_long_program_without_layers_is_divided() -> None:
    source = "def f(x):\n" + "".join(
        f"    x = tnp.{['sin', 'cos', 'tanh', 'exp'][i * i % 7 % 4]}(x + {i})\n" for i in range(700)
    )
    scope: dict[str, Any] = {"tnp": tnp}
    exec(source + "    return x", scope)
    made = drawing(tg.trace(scope["f"])(1.0))
    assert len(made.boxes) == 1400 and visible(made.root) <= 40
    assert max(len(s.parts) for s in [made.root, *sections(made.root)]) <= 24


REPEATS: dict[str, list[tuple[int, int, int]]] = {
    "abcdef": [], "aaaaaa": [(0, 1, 6)], "abcabc": [(0, 3, 2)], "xabcabcabcy": [(1, 3, 3)], "aa": [], "abab": [],
    "abcabcxyzxyzxyz": [(0, 3, 2), (6, 3, 3)], "": [], "ababababx": [(0, 2, 4)],
}  # fmt: skip


@pytest.mark.parametrize("text", REPEATS)
def test_where_a_sequence_repeats_itself(text: str) -> None:
    assert repetitions(text) == REPEATS[text]


# -- escapes and themes


def test_names_of_the_user_cannot_break_out() -> None:
    evil = "</text></svg><script>alert('1')</script>&\x00\x1b\""
    tape = tg.trace(tg.named_call(lambda x: tnp.sin(x), name=evil))(1.0)
    for text in (tape.to_svg(), folding(tape)):
        root = ET.fromstring(text)
        assert "script" not in {e.tag.rpartition("}")[2] for e in root.iter()}
    assert tape.to_html().count("<script") == 2 and "alert('1')" not in tape.to_svg()
    assert "\x00" not in tape.to_dot() and '\\"' in tape.to_dot()


def luminance(colour: str) -> float:
    """Relative luminance. W3C, "Web Content Accessibility Guidelines" 2.1 (2018)."""
    full = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
    parts = [int(full[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [style.LIGHT, style.DARK])
def test_text_and_lines_stand_out_in_both_themes(theme: str) -> None:
    colours = dict(part.split(":") for part in theme.split(";"))
    ground = luminance(colours["--bg"])
    for name, least in {"--fg": 7.0, "--dim": 4.5, "--fwd": 3.0, "--bwd": 3.0, "--input": 3.0}.items():
        own = luminance(colours[name])
        assert (max(own, ground) + 0.05) / (min(own, ground) + 0.05) >= least, name


def test_themes_follow_the_reader() -> None:
    tape = TAPES["gradient"]()
    assert "prefers-color-scheme:dark" in tape.to_svg()
    for sign in (
        "prefers-color-scheme:dark",
        "--jp-content-font-color1",
        "--vscode-editor-foreground",
        "data-jp-theme-light",
    ):
        assert sign in tape.to_html()


def test_sides_differ_without_colour() -> None:
    picture = ET.fromstring(TAPES["gradient"]().to_svg())
    rules = dict(re.findall(r"(\.[fb] rect)\{([^}]*)\}", style.STATIC))
    assert "stroke-dasharray" in rules[".b rect"] and "stroke-dasharray" not in rules[".f rect"]
    space = "{http://www.w3.org/2000/svg}"
    boxes = [g for g in picture.iter(f"{space}g") if g.get("data-n")]
    texts = {g.get("class"): "".join(g.find(f"{space}text").itertext()) for g in boxes}  # type: ignore[union-attr]
    assert texts["b"].startswith("∇ ") and not texts["f"].startswith("∇")
    assert all(g.get("tabindex") == "0" for g in boxes), "reached by the keyboard"


# -- values


def test_values_and_gradients_are_those_of_jax() -> None:
    import jax

    def loss(w: Any, x: Any) -> Any:
        return (tnp.tanh(x @ w) ** 2).sum()

    x = X / 12
    for fun in (loss, tg.value_and_grad(loss), tg.grad(loss)):
        made = tg.trace(fun, values=True)(W, x)
        kept = tg.inspection.Values.of(made)
        assert kept is not None
        by_op = {node.op.name: node.outputs[0] for node in made.nodes if not node.grad}
        h = x @ W
        np.testing.assert_allclose(kept.values[by_op["tanh"]], np.tanh(h), rtol=1e-6)
        after = jax.grad(lambda h: (h**2).sum())(np.tanh(h))
        np.testing.assert_allclose(kept.gradients[by_op["tanh"]], after, rtol=1e-6)
        before = jax.grad(lambda h: (jax.numpy.tanh(h) ** 2).sum())(h)
        np.testing.assert_allclose(kept.gradients[by_op["dot_general"]], before, rtol=1e-5)
        assert "∇ " in made.to_svg() and "data:image/png" in made.to_svg()


def test_values_do_not_change_the_tape() -> None:
    plain, kept = tg.trace(mlp)(PARAMS, X, X), tg.trace(mlp, values=True)(PARAMS, X, X)
    assert str(plain) == str(kept) and plain == kept and len(plain) == len(kept)
    scan = tg.trace(scanned, values=True)(W, X)
    assert str(scan) == str(tg.trace(scanned)(W, X))


def test_values_by_name_and_as_text() -> None:
    def f(w: Any, x: Any) -> Any:
        return np.exp(w * x) * w

    w, x = np.float32(0.5), np.float32(-2.0)
    a, b = -1.0, np.exp(-1.0)
    values = {"w": 0.5, "x": -2.0, "a": a, "b": b, "c": 0.5 * b}
    gradients = {"w": b + 0.5 * b * -2.0, "x": 0.5 * b * 0.5, "a": 0.5 * b, "b": 0.5, "c": 1.0}  # by hand
    for fun in (f, tg.value_and_grad(f, argnums=(0, 1))):
        tape = tg.trace(fun, values=True)(w, x)
        found = tape.values()
        assert {k: float(found[k]) for k in values} == pytest.approx(values, rel=1e-6)
        assert {k: float(v) for k, v in tape.gradients().items()} == pytest.approx(gradients, rel=1e-6)
        assert [line.partition(" = ")[0].strip() for line in tape.text().splitlines()[1:-1]] == [
            f"{name}:f32[]" for name in list(found)[2:]
        ]
        lines = [" ".join(line.split()) for line in tape.text(values=True).splitlines()]
        assert lines[0] == "f(w:f32[], x:f32[])" and lines[1] == "w:f32[] # 0.5, ∇ 0"
        assert lines[3] == "a:f32[] = mul w x # -1, ∇ 0.184" and lines[4] == "b:f32[] = exp a # 0.368, ∇ 0.5"
        picture = tape.to_svg()
        assert ">w = 0.5</text>" in picture and "x: f32[]\n-2\n∇ 0.092</title>" in picture
        dot = tape.to_dot()
        assert '"x f32[]\\n-2\\n∇ 0.092"' in dot and '"exp\\nb:f32[]\\n0.368\\n∇ 0.5"' in dot
    arrays = tg.trace(mlp, values=True)(PARAMS, X, X)
    np.testing.assert_array_equal(arrays.values()["x"], X)
    only = tg.trace(lambda x: (x > 0, x), values=True)(1.0)
    assert only.gradients() == {} and float(only.values()["x"]) == 1.0


@pytest.mark.parametrize("what", ["values", "gradients", "text"])
def test_values_that_were_not_kept(what: str) -> None:
    tape = tg.trace(mlp)(PARAMS, X, X)
    with pytest.raises(
        ValueError, match=rf"Tape.{what}: this tape of mlp was recorded without values at .*values=True"
    ):
        tape.text(values=True) if what == "text" else getattr(tape, what)()


def test_values_need_values() -> None:
    import jax

    with pytest.raises(TypeError, match=r"trace: an argument of mlp is f32\[4,3\] without a value at .*values=True"):
        tg.trace(mlp, values=True)(PARAMS, X, jax.ShapeDtypeStruct((4, 3), "float32"))
    with pytest.raises(TypeError, match="without a value"):
        tg.jit(lambda x: tg.trace(lambda v: v * 2, values=True)(x) and x)(1.0)


WORDS: list[tuple[Any, str]] = [
    (np.float32(2.0), "2"), (np.zeros((0, 3)), "empty"), (np.zeros(3), "all 0"), ([1.0, 3.0], "1 to 3, mean 2"),
    ([1.0, np.nan, 3.0, np.inf], "1 to 3, 1 NaN, 1 inf, mean 2"), ([np.nan, np.nan], "2 NaN"), (np.nan, "nan"),
    ([0.0, 0.0, 0.0, 4.0], "0 to 4, 75% zero, mean 1"), ([True, False], "0 to 1, 50% zero, mean 0.5"),
    ([3 + 4j, 0j, 1j, 1j], "|z| 0 to 5, 25% zero, mean 1.75"), ([-(2**40), 2**40], "-1.1e+12 to 1.1e+12, mean 0"),
]  # fmt: skip


@pytest.mark.parametrize("case", WORDS, ids=[words for _, words in WORDS])
def test_values_in_words(case: tuple[Any, str]) -> None:
    assert described(np.asarray(case[0])) == case[1]


def pixels(picture: str) -> Any:
    """A decoder of its own: one chunk of data, filter 0 in each line."""
    data = base64.b64decode(re.findall(r"base64,([^\"]*)", picture)[0])
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    start = data.index(b"IDAT")
    body = zlib.decompress(data[start + 4 : start + 4 + int.from_bytes(data[start - 4 : start], "big")])
    lines = np.frombuffer(body, np.uint8).reshape(height, 1 + 3 * width)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, 3)


def test_small_pictures_show_sign_size_and_what_is_not_finite() -> None:
    array = np.array([[-2.0, 0.0], [2.0, np.nan]])
    image = pixels(thumbnail(array))
    blue, white, orange, magenta = image[0, 0], image[0, 1], image[1, 0], image[1, 1]
    assert blue[2] > blue[0] and orange[0] > orange[2] and white.min() > 240
    assert tuple(magenta) == (255, 0, 200)
    assert pixels(thumbnail(np.ones((500, 3, 40)))).shape == (32, 32, 3)
    assert thumbnail(np.ones(())) == "" and thumbnail(np.zeros((0, 3))) == ""


# -- what differs


def old(x: Any, w: Any) -> Any:
    h = tnp.sin(x) @ w
    return (h * h).sum()


def new(x: Any, w: Any) -> Any:
    h = tnp.cos(x) @ w
    h = h + 1
    return (h * h).sum()


def swapped(x: Any, w: Any) -> Any:
    h = tnp.sin(w) @ x
    return (h * h).sum()


def along(x: Any, w: Any) -> Any:
    h = tnp.sin(x) @ w
    return (h * h).sum(axis=0)


def test_what_differs_between_two_tapes() -> None:
    a, b = tg.trace(old)(W, W), tg.trace(new)(W, W)
    text = a.diff(b)
    assert text.splitlines()[0] == "old: 4 steps; new: 5 steps"
    first = line_of(old)
    assert re.search(rf"- a:f32\[3,3\] = sin x  # test_pictures.py:{first + 1}  h = tnp.sin", text)
    assert re.search(r"\+ a:f32\[3,3\] = cos x", text) and re.search(r"\+ \w:f32\[3,3\] = add \w 1 ", text)
    assert re.search(r"~ \w:f32\[3,3\] = mul (\w) \1 reads \1, not b  #", text)
    assert "dot_general" not in text and "= sum[" not in text, "what is the same is not listed"
    assert a.diff(tg.trace(old)(W, W)) == "old: 4 steps, and nothing differs"


DIFFERENCES: list[tuple[str, Callable[[], Any], list[str]]] = [
    ("types", lambda: tg.trace(old)(X, W), ["~ argument x:f32[3,3] became x:f32[4,3]", "~ a:f32[3,3] = sin x"]),
    ("operands", lambda: tg.trace(swapped)(W, W), ["= sin w reads w, not x"]),
    ("parameters", lambda: tg.trace(along)(W, W), ["sum[axes=(0, 1)]", "became d:f32[3] = sum[axes=(0,)]", "~ result"]),
    ("results", lambda: tg.trace(lambda x, w: (old(x, w), x))(W, W), ["+ result x:f32[3,3]"]),
    ("gradient", lambda: tg.trace(tg.value_and_grad(old))(W, W), ["# ∇ test_pictures.py", "+ result"]),
    ("fewer arguments", lambda: tg.trace(lambda x: old(x, x))(W), ["- argument w:f32[3,3]"]),
]


@pytest.mark.parametrize("case", DIFFERENCES, ids=lambda case: case[0])
def test_kinds_of_differences(case: tuple[str, Callable[[], Any], list[str]]) -> None:
    text = tg.trace(old)(W, W).diff(case[1]())
    for part in case[2]:
        assert part in text, text


def test_other_numbers_and_other_arrays_differ() -> None:
    times = lambda n: tg.trace(lambda x: x * n)(W)  # noqa: E731
    assert "became a:f32[3,3] = mul x 3" in times(2).diff(times(3))
    assert times(2).diff(times(2)).endswith("nothing differs")
    assert times(1).diff(times(1.0)) != times(1).diff(times(1))
    ours, others = W.copy(), W.copy()
    assert "reads another array from outside" in times(ours).diff(times(others))
    assert times(ours).diff(times(ours)).endswith("nothing differs")


def test_a_difference_needs_a_tape() -> None:
    with pytest.raises(TypeError, match=r"Tape.diff: other is str .*, which is not a tape at .*test_pictures.py"):
        tg.trace(old)(W, W).diff("old")


# -- speed and size, as ratios


def test_time_and_size_grow_with_the_tape_alone() -> None:
    def cost(layers: int) -> tuple[float, float, int]:
        tape = deep_tape(layers)
        best = float("inf")
        for _ in range(2):
            start = time.process_time()
            page = tape.to_html()
            best = min(best, time.process_time() - start)
        return best, len(page), len(shown(tape))

    small, large = cost(10), cost(60)
    steps = large[2] / small[2]
    assert large[0] / small[0] < 3 * steps and large[1] / small[1] < 1.5 * steps
    assert large[1] / large[2] < 1_000, "bytes a step"
    assert len(deep_tape(60).to_svg()) < 3 * len(deep_tape(10).to_svg()), "the still picture shows as much of each"
