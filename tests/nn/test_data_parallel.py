"""Layers over time, and attention, on several devices: value and gradient of the full batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import x64
from tracegrad import nn

KEY = tg.random.key(0)
LENGTHS = np.array([5, 2, 1, 0, 4, 5, 3, 2])

LAYERS: dict[str, tuple[Callable[[], Any], Callable[[Any, Any, Any], Any]]] = {
    "LSTM": (lambda: nn.LSTM.init(KEY, 4, 4), lambda m, x, n: m(x, lengths=n)[0]),
    "GRU": (lambda: nn.GRU.init(KEY, 4, 4), lambda m, x, n: m(x)[0]),
    "attention": (lambda: nn.MultiHeadAttention.init(KEY, 2, 4, is_causal=True), lambda m, x, n: m(x)),
    "attention by blocks": (lambda: nn.MultiHeadAttention.init(KEY, 2, 4, block_size=2), lambda m, x, n: m(x)),
    "transformer": (lambda: nn.TransformerBlock.init(KEY, 4, 2, rotary_base=1e4), lambda m, x, n: m(x)),
}


@pytest.mark.parametrize("devices", [2, 8])
@pytest.mark.parametrize("name", LAYERS)
def test_the_full_batch(name: str, devices: int) -> None:
    make, call = LAYERS[name]
    model = jax.tree.map(lambda p: np.asarray(p, np.float64), make())
    x = np.random.default_rng(0).normal(size=(8, 5, 4))

    def loss(model: Any, x: Any, lengths: Any) -> Any:
        return tnp.mean(call(model, x, lengths) ** 2)

    def mean_loss(model: Any, x: Any, lengths: Any) -> Any:
        return tg.pmean(loss(model, x, lengths), "i")

    parts = [a.reshape(devices, 8 // devices, *a.shape[1:]) for a in (x, LENGTHS)]
    with x64():
        found = tg.pmap(tg.value_and_grad(mean_loss), "i", in_axes=(None, 0, 0))(model, *parts)
        wanted = tg.value_and_grad(loss)(model, x, LENGTHS)
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert np.abs(np.asarray(want)).max() > 0
        np.testing.assert_allclose(got, np.broadcast_to(want, got.shape), rtol=1e-9, atol=1e-12)
