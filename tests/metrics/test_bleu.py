"""BLEU agrees with sacrebleu, whose numbers stand here: sacrebleu 2.6.0, BLEU(**settings).corpus_score."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

import tracegrad as tg
from tracegrad.metrics import BLEU
from tracegrad.metrics.translation import tokenize_13a

# The first corpus is the one of sacrebleu's documentation, which gives 48.53 for it.
SENTENCES = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
REFERENCES = [
    ["The dog bit the man.", "The dog had bit the man."],
    ["It was not unexpected.", "No one was surprised."],
    ["The man bit him first.", "The man had bitten the dog."],
]
NUMBERS = [
    "Prices rose 3.5% to $1,200.50 -- the state-of-the-art &quot;model&quot; (v2.0) didn't.",
    "AT&amp;T's profit: 1990-95, up 10%!",
    "cat",
]
NUMBERS_REFERENCES = [
    ['Prices rose by 3.5% to $1,200.50; the state-of-the-art "model" (v2.0) did not.'],
    ["AT&T's profit (1990-95) was up 10%!", "Profits of AT&T, 1990-1995, rose 10%."],
    "the cat sat",
]
CORPORA: list[tuple[Any, Any]] = [
    (SENTENCES, REFERENCES),
    (NUMBERS, NUMBERS_REFERENCES),
    (SENTENCES[1:2], REFERENCES[1:2]),
    (["cat"], ["cat"]),
]
SCORES: list[tuple[int, dict[str, Any], float]] = [
    (0, {}, 48.530827009930),
    (0, {"smooth_method": "floor"}, 48.530827009930),
    (0, {"smooth_method": "floor", "smooth_value": 0.5}, 48.530827009930),
    (0, {"smooth_method": "add-k"}, 52.701090024825),
    (0, {"smooth_method": "none"}, 48.530827009930),
    (0, {"max_ngram_order": 2}, 60.503127570202),
    (0, {"effective_order": True}, 48.530827009930),
    (0, {"lowercase": True}, 48.530827009930),
    (0, {"tokenize": "none"}, 49.191956600473),
    (0, {"tokenize": "char"}, 72.610641534406),
    (0, {"smooth_method": "add-k", "smooth_value": 2, "effective_order": True}, 56.031835456402),
    (1, {}, 49.989429980823),
    (1, {"smooth_method": "floor"}, 49.989429980823),
    (1, {"smooth_method": "floor", "smooth_value": 0.5}, 49.989429980823),
    (1, {"smooth_method": "add-k"}, 51.430171441582),
    (1, {"smooth_method": "none"}, 49.989429980823),
    (1, {"max_ngram_order": 2}, 67.620985506842),
    (1, {"effective_order": True}, 49.989429980823),
    (1, {"lowercase": True}, 49.989429980823),
    (1, {"tokenize": "none"}, 9.091091175882),
    (1, {"tokenize": "char"}, 69.495451691280),
    (1, {"smooth_method": "add-k", "smooth_value": 2, "effective_order": True}, 52.741984318638),
    (2, {}, 14.794015674776),
    (2, {"smooth_method": "floor"}, 7.440995947487),
    (2, {"smooth_method": "floor", "smooth_value": 0.5}, 24.880469496254),
    (2, {"smooth_method": "add-k"}, 29.588031349553),
    (2, {"smooth_method": "none"}, 0.000000000000),
    (2, {"max_ngram_order": 2}, 22.482042087568),
    (2, {"effective_order": True}, 14.794015674776),
    (2, {"lowercase": True}, 14.794015674776),
    (2, {"tokenize": "none"}, 0.000000000000),
    (2, {"tokenize": "char"}, 58.757668108675),
    (2, {"smooth_method": "add-k", "smooth_value": 2, "effective_order": True}, 39.573418216704),
    (3, {}, 0.000000000000),
    (3, {"smooth_method": "floor"}, 0.000000000000),
    (3, {"smooth_method": "floor", "smooth_value": 0.5}, 0.000000000000),
    (3, {"smooth_method": "add-k"}, 100.000000000000),
    (3, {"smooth_method": "none"}, 0.000000000000),
    (3, {"max_ngram_order": 2}, 0.000000000000),
    (3, {"effective_order": True}, 100.000000000000),
    (3, {"lowercase": True}, 0.000000000000),
    (3, {"tokenize": "none"}, 0.000000000000),
    (3, {"tokenize": "char"}, 0.000000000000),
    (3, {"smooth_method": "add-k", "smooth_value": 2, "effective_order": True}, 100.000000000000),
]
TOKENS = {
    NUMBERS[0]: 'Prices rose 3.5 % to $ 1,200.50 -- the state-of-the-art " model " ( v2.0 ) didn\'t .',
    NUMBERS[1]: "AT & T's profit : 1990 - 95 , up 10 % !",
    "a<b> [c] {d}|~ 'e'- f. 3.4,5 .5 5. x-y 9-x": "a < b > [ c ] { d } | ~ 'e'- f . 3.4,5 . 5 5 . x-y 9 - x",
    "end-\nline\nnew<skipped> &lt;z&gt;": "endline new < z >",
}


@pytest.mark.parametrize("case", SCORES, ids=str)
def test_agrees_with_sacrebleu(case: Any) -> None:
    corpus, settings, expected = case
    sentences, references = CORPORA[corpus]
    bleu = BLEU(**settings)
    score = bleu(bleu.reset(), sentences, references)[1]
    np.testing.assert_allclose(score, expected, rtol=3e-6, atol=1e-6)


def test_tokens_of_13a() -> None:
    """As sacrebleu 2.6.0 divides them."""
    for text, tokens in TOKENS.items():
        assert " ".join(tokenize_13a(text)) == tokens


def test_merged_and_weighted() -> None:
    bleu = BLEU()
    whole, score = bleu(bleu.reset(), SENTENCES, REFERENCES)
    parts = [bleu.update(bleu.reset(), [s], [r]) for s, r in zip(SENTENCES, REFERENCES, strict=True)]
    merged = bleu.merge(parts[0], bleu.merge(*parts[1:]))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(merged), strict=True):
        np.testing.assert_array_equal(a, b)
    stacked = jax.tree.map(lambda *xs: np.stack(xs), *parts)
    reduced = tg.pmap(lambda s: bleu.all_reduce(s, "i"), "i", out_axes=None)(stacked)
    np.testing.assert_array_equal(bleu.result(reduced), score)
    weighted = bleu(bleu.reset(), SENTENCES, REFERENCES, [1, 0, 2])[1]
    repeated = bleu(bleu.reset(), [SENTENCES[i] for i in (0, 2, 2)], [REFERENCES[i] for i in (0, 2, 2)])[1]
    np.testing.assert_array_equal(weighted, repeated)
    assert np.isnan(tg.jit(bleu.result)(bleu.reset()))
    np.testing.assert_allclose(tg.jit(bleu.result)(whole), score, rtol=1e-6)


def test_tokens_in_place_of_strings() -> None:
    bleu = BLEU()
    number: dict[str, int] = {}
    ids = [[number.setdefault(t, len(number)) for t in tokenize_13a(s)] for s in SENTENCES]
    references = [[[number.setdefault(t, len(number)) for t in tokenize_13a(r)] for r in rs] for rs in REFERENCES]
    expected = SCORES[0][2]
    for sentences in (ids, [np.array(x) for x in ids], [tg.numpy.array(x) for x in ids]):
        np.testing.assert_allclose(bleu(bleu.reset(), sentences, references)[1], expected, rtol=3e-6)
    single = bleu(bleu.reset(), ids, [r[0] for r in references])[1]
    np.testing.assert_array_equal(single, bleu(bleu.reset(), SENTENCES, [r[0] for r in REFERENCES])[1])


def update(*args: Any, **settings: Any) -> Any:
    bleu = BLEU(**settings)
    return bleu.update(bleu.reset(), *args)


BAD: list[tuple[type[Exception], str, Any]] = [
    (ValueError, "no example", lambda: BLEU().result(BLEU().reset())),
    (ValueError, "3 predictions and 2 references", lambda: update(SENTENCES, REFERENCES[:2])),
    (TypeError, "Give a list", lambda: update("the cat", ["the cat"])),
    (TypeError, "strings for a string", lambda: update(["the cat"], [["the", 3]])),
    (ValueError, "no reference", lambda: update(["the cat"], [[]])),
    (ValueError, r"weights of shape \(2,\)", lambda: update(["the cat"], ["the cat"], [1, 2])),
    (TypeError, "update outside", lambda: tg.jit(lambda x: update([x], [[1, 2]]))(np.arange(3))),
    (ValueError, "'add-k'", lambda: BLEU(smooth_method="add")),  # type: ignore[arg-type]
    (ValueError, "'13a'", lambda: BLEU(tokenize="intl")),  # type: ignore[arg-type]
    (ValueError, "1 at least", lambda: BLEU(max_ngram_order=0)),
]


@pytest.mark.parametrize("case", BAD, ids=lambda case: case[1])
def test_errors(case: Any) -> None:
    kind, words, call = case
    with pytest.raises(kind, match=words) as caught:
        call()
    assert "test_bleu.py" in str(caught.value)
