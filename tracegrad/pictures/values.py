"""What a value looks like: its range in words, and a small picture of its elements."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..inspection import Values
from ..tape import Tape
from .model import Drawing

WIDE = 38
"""How wide a small picture is in the drawing."""

MOST = 32
"""The most elements that it shows along an axis."""

INK = ((8, 81, 156), (245, 245, 245), (200, 80, 10), (255, 0, 200))
"""The colours of the smallest value, of zero, of the largest, and of what is not finite."""


def add_values(made: Drawing, tape: Tape) -> None:
    """Gives each box of a drawing the values that were kept with the tape, if any were."""
    kept = Values.of(tape)
    if kept is None:
        return
    for box in made.boxes:
        for v in box.node.outputs[:1]:
            if v in kept.values:
                array = as_array(kept.values[v])
                box.values.append(described(array))
                box.thumbnail = thumbnail(array)
                if v in kept.gradients:
                    box.values.append(f"\N{NABLA} {described(as_array(kept.gradients[v]))}")


def as_array(value: Any) -> np.ndarray[Any, Any]:
    """A value as a NumPy array that prints and compares: of a random key, its data."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def described(array: np.ndarray[Any, Any]) -> str:
    """The range of an array, its mean, and how many elements are not finite or, being many, zero."""
    if not array.size:
        return "empty"
    real = np.abs(array) if array.dtype.kind == "c" else array
    real = real.astype(np.float64)
    finite = real[np.isfinite(real)]
    size = "|z| " if array.dtype.kind == "c" else ""
    bad = {"NaN": int(np.isnan(real).sum()), "inf": int(np.isinf(real).sum())}
    notes = [f"{count} {name}" for name, count in bad.items() if count]
    if array.size == 1:
        return f"{size}{_short(real.ravel()[0])}"
    if not finite.size:
        return ", ".join(notes)
    low, high = float(finite.min()), float(finite.max())
    zeros = float((finite == 0).mean())
    notes += [f"{zeros:.0%} zero"] if 0.25 <= zeros < 1 else []
    notes += [f"mean {_short(float(finite.mean()))}"] if low != high else []
    text = f"{_short(low)} to {_short(high)}" if low != high else f"all {_short(low)}"
    return size + ", ".join([text, *notes])


def _short(x: float) -> str:
    return f"{x:.3g}"


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
