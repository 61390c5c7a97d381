"""What values look like: in words, and as a small picture of their elements."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np

from ..inspection import Values
from ..show import as_array, in_words
from ..tape import Tape
from .model import Drawing

WIDE = 38
"""How wide a small picture is in the drawing."""

MOST = 32
"""The most elements that it shows along an axis."""

INK = ((8, 81, 156), (245, 245, 245), (200, 80, 10), (255, 0, 200))
"""The colours of the smallest value, of zero, of the largest, and of what is not finite."""


def add_values(made: Drawing, tape: Tape) -> None:
    """Gives each box and each input of a drawing the values that were kept with the tape, if any were."""
    kept = Values.of(tape)
    if kept is not None:
        _add(made, [kept])


def _add(made: Drawing, kept: list[Values]) -> None:
    """Of a drawing with its gradient, each has values of its own."""
    for own in kept:
        made.values.update((v, in_words(own, v)) for v in made.given if v in own.values)
    for box in made.boxes:
        for v in box.node.outputs[:1]:
            for own in [own for own in kept if v in own.values][:1]:
                box.values += in_words(own, v)
                box.thumbnail = thumbnail(as_array(own.values[v]))
        for body in box.bodies:
            inside = [own.bodies[node][i] for node, i in body.runs_in for own in kept if node in own.bodies]
            body.note = next((x.note for x in inside if x.note), "")
            _add(body, [x.values for x in inside])


def thumbnail(array: np.ndarray[Any, Any]) -> str:
    """A small picture of an array's elements as SVG with places for `x`, `y` and `height`."""
    if array.size < 2:
        return ""
    real = (np.abs(array) if array.dtype.kind == "c" else array).astype(np.float64)
    sheet = _smaller(real.reshape(-1, real.shape[-1]) if real.ndim > 1 else real[None])
    finite = np.isfinite(sheet)
    largest = np.abs(sheet[finite]).max(initial=0.0) or 1.0
    part = np.where(finite, sheet, 0.0) / largest
    low, middle, high, bad = (np.array(ink, np.float64) for ink in INK)
    side = np.where((part < 0)[..., None], low, high)
    pixels = middle + (side - middle) * np.abs(part)[..., None]
    pixels[~finite] = bad
    data = base64.b64encode(png(pixels.astype(np.uint8))).decode()
    return (
        f'<image x="{{x}}" y="{{y}}" width="{WIDE}" height="{{height}}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{data}"/>'
    )


def _smaller(sheet: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """At most so many rows and columns of it, at equal distances, so that no value is one that is not there."""
    rows, columns = (np.linspace(0, n - 1, min(n, MOST)).round().astype(int) for n in sheet.shape)
    return np.asarray(sheet[np.ix_(rows, columns)])


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    """Pixels, (height, width, 3) of bytes, as a PNG file. W3C, "Portable Network Graphics" (2003)."""
    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
