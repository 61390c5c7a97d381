"""BLEU: how many n-grams of a translation are in its references."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from .. import numpy as tnp
from ..errors import describe, here
from ..numpy.arguments import is_known
from ..tracer import Tracer
from .base import Metric
from .sums import Sum, dtype, plus, zero

_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_STEPS = (
    (re.compile(r"([ !-&(-+/:-@\[-`{-~])"), r" \1 "),  # punctuation of ASCII but the apostrophe, comma, dash and dot
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),  # which are parts of numbers
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def tokenize_13a(text: str) -> list[str]:
    """The words and marks of a line, as NIST's mteval-v13a divides it for the WMT evaluations."""
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    text = f" {text} "
    for pattern, replacement in _STEPS:
        text = pattern.sub(replacement, text)
    return text.split()


_TOKENIZERS: tuple[tuple[str, Callable[[str], list[str]]], ...] = (
    ("13a", tokenize_13a),
    ("none", str.split),
    ("char", lambda text: list("".join(text.split()))),
)


class BleuState(NamedTuple):
    """hit, possible: n-grams found in a reference, and n-grams, by n; length, reference: tokens, and tokens wanted."""

    hit: Sum
    possible: Sum
    length: Sum
    reference: Sum


@dataclass(frozen=True)
class BLEU(Metric):
    """The BLEU of a corpus, from 0 to 100: the geometric mean of n-gram precisions times a brevity penalty.

    100 min(1, exp(1 - r / c)) (prod_n p_n)^(1/N), with p_n the n-grams of all translations that are in a reference of
    theirs, at most as often as there, over all; c their length, and r that of the nearest references (Papineni et al.,
    2002). Settings and numbers are those of sacrebleu (Post, 2018).

    Counting n-grams needs known tokens: `update` runs outside `jit`, and a traced value is a `TypeError`. States are
    arrays like any other's: they merge, and are reduced over devices and saved.

    Attributes:
      max_ngram_order: N.
      smooth_method: where no n-gram of order n is found, p_n is 1 / (2^k possible_n), for the k-th such n, with "exp";
        `smooth_value` / possible_n with "floor"; 0 with "none". With "add-k" `smooth_value` is added to both counts of
        every n > 1. Chen and Cherry (2014).
      smooth_value: by default 0.1 for "floor", 1 for "add-k".
      effective_order: whether orders of which there are no n-grams are left out, as for single sentences.
      tokenize: how strings are divided: "13a", "none" (at spaces) or "char".
      lowercase: whether strings are made lower case.

    Example:
      >>> import tracegrad as tg
      >>> bleu = tg.metrics.BLEU()
      >>> state, value = bleu(bleu.reset(), ["The dog bit the man."], [["The dog bit the man.", "It bit him."]])
      >>> round(float(value), 3)
      100.0
    """

    max_ngram_order: int = 4
    smooth_method: Literal["exp", "floor", "add-k", "none"] = "exp"
    smooth_value: float | None = None
    effective_order: bool = False
    tokenize: Literal["13a", "none", "char"] = "13a"
    lowercase: bool = False

    def __post_init__(self) -> None:
        if self.smooth_method not in ("exp", "floor", "add-k", "none"):
            raise ValueError(
                f"BLEU: smooth_method={self.smooth_method!r} {here()}. Choose 'exp', 'floor', 'add-k' or 'none'."
            )
        if self.tokenize not in dict(_TOKENIZERS):
            raise ValueError(
                f"BLEU: tokenize={self.tokenize!r} {here()}. Choose one of {[name for name, _ in _TOKENIZERS]}, or "
                "give lists of tokens in place of strings."
            )
        if not isinstance(self.max_ngram_order, int) or self.max_ngram_order < 1:
            raise ValueError(f"BLEU: max_ngram_order={self.max_ngram_order!r} {here()}. Give an integer, 1 at least.")

    def reset(self) -> BleuState:
        return BleuState(zero(self.max_ngram_order), zero(self.max_ngram_order), zero(), zero())

    def update(self, state: BleuState, predictions: Any, references: Any, weights: Any = None) -> BleuState:
        """The state that has seen these translations too.

        Args:
          state: from `reset`, `update`, `merge` or `all_reduce`.
          predictions: a sequence of strings, or of sequences of tokens (integers or strings).
          references: for each of them one reference, of the same kind, or a list of several.
          weights: what each sentence counts.

        Raises:
          TypeError: if tokens are traced values, or sentences of different kinds.
          ValueError: if there are not as many references, or weights, as predictions, or none for a sentence.
        """
        self._check_state("update", state)
        sentences, wanted = _sequence(predictions, "predictions"), _sequence(references, "references")
        if len(sentences) != len(wanted):
            raise ValueError(
                f"BLEU.update: {len(sentences)} predictions and {len(wanted)} references {here()}. Give for each "
                "prediction one reference or a list of several."
            )
        counted = np.ones(len(sentences)) if weights is None else np.asarray(_known(weights, "weights"), float)
        if counted.shape != (len(sentences),):
            raise ValueError(
                f"BLEU.update: weights of shape {counted.shape} for {len(sentences)} sentences {here()}. Give one each."
            )
        found = np.zeros((2, self.max_ngram_order))
        lengths = np.zeros(2)
        for weight, sentence, references in zip(counted, sentences, wanted, strict=True):
            if weight:
                tokens = self._tokens(sentence)
                several = [self._tokens(r) for r in _several(sentence, references)]
                found += weight * self._matches(tokens, several)
                near = min((abs(len(r) - len(tokens)), len(r)) for r in several)[1]
                lengths += weight * np.array([len(tokens), near])
        new = [Sum(tnp.asarray(x, dtype()), tnp.zeros(np.shape(x), dtype())) for x in (*found, *lengths)]
        return BleuState(*map(plus, state, new))

    def _tokens(self, sentence: Any) -> list[Any]:
        if not isinstance(sentence, str):
            return list(_sequence(sentence, "a sentence"))
        return dict(_TOKENIZERS)[self.tokenize](sentence.lower() if self.lowercase else sentence)

    def _matches(self, tokens: list[Any], references: list[list[Any]]) -> Any:
        """How many n-grams there are in a reference, and how many there are, by n."""
        found = np.zeros((2, self.max_ngram_order))
        for n in range(1, self.max_ngram_order + 1):
            grams = _ngrams(tokens, n)
            most: Counter[Any] = Counter()
            for reference in references:
                most |= _ngrams(reference, n)
            found[:, n - 1] = (grams & most).total(), grams.total()
        return found

    def _seen(self, state: BleuState) -> Any:
        return state.reference.value()

    def _result(self, state: BleuState) -> Any:
        hit, possible, length, reference = (part.value() for part in state)
        nothing = tnp.all(hit == 0)
        if self.smooth_method == "add-k":
            added = np.where(
                np.arange(self.max_ngram_order) > 0, 1.0 if self.smooth_value is None else self.smooth_value, 0
            )
            hit, possible = hit + added, possible + added
        there, missing = possible > 0, (possible > 0) & (hit == 0)
        if self.smooth_method == "exp":
            hit = tnp.where(missing, 0.5 ** tnp.cumsum(missing), hit)
        if self.smooth_method == "floor":
            hit = tnp.where(missing, 0.1 if self.smooth_value is None else self.smooth_value, hit)
        precision = tnp.where(there, hit / tnp.where(there, possible, 1), 0)
        order = tnp.sum(there) if self.effective_order else self.max_ngram_order
        counted = there if self.effective_order else True
        mean = tnp.sum(tnp.where(counted, tnp.log(precision), 0)) / tnp.maximum(order, 1)
        brevity = tnp.exp(tnp.minimum(0, 1 - reference / tnp.where(length == 0, 1, length)))
        score = tnp.where(nothing | (length == 0), 0, 100 * brevity * tnp.exp(mean))
        return tnp.where(reference == 0, np.nan, score)


def _ngrams(tokens: Sequence[Any], n: int) -> Counter[Any]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def _known(x: Any, what: str) -> Any:
    if not is_known(x) or (isinstance(x, (list, tuple)) and any(not is_known(y) for y in x)):
        raise TypeError(
            f"BLEU.update: {what} {describe(x if not is_known(x) else x[0])} {here()} are traced values, and n-grams "
            "are counted of known tokens. Return the tokens from the function under @jit, and update outside."
        )
    return x


def _sequence(x: Any, what: str) -> Sequence[Any]:
    if isinstance(_known(x, what), (np.ndarray, jax.Array)) and np.ndim(x):
        return np.asarray(x).tolist()  # type: ignore[no-any-return]
    if isinstance(x, str) or not isinstance(x, Sequence):
        raise TypeError(
            f"BLEU.update: {what} is {describe(x)} {here()}. Give a list: of strings, or of lists of tokens."
        )
    return x


def _several(sentence: Any, references: Any) -> Sequence[Any]:
    """The references of a sentence: one, or a list of them."""
    if isinstance(sentence, str):
        found: Sequence[Any] = [references] if isinstance(references, str) else _sequence(references, "the references")
        good = all(isinstance(r, str) for r in found)
    else:
        found = _sequence(references, "the references of tokens")
        one = not any(isinstance(r, (list, tuple, np.ndarray, jax.Array, Tracer)) for r in found)
        found = [found] if one else found
        good = not any(isinstance(r, str) for r in found)
    if not good:
        raise TypeError(
            f"BLEU.update: a prediction is {describe(sentence)} and its references are {describe(references)} "
            f"{here()}. Give strings for a string, and lists of tokens for a list of tokens."
        )
    if not found:
        raise ValueError(f"BLEU.update: there is no reference for {describe(sentence)} {here()}. Give one or more.")
    return found


__all__ = ["BLEU", "BleuState"]
