"""Attention as a function: all scores at once, or block by block, and what says where in a sequence something is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .. import numpy as tnp
from .. import ops, random
from ..activations import softmax
from ..control import scan
from ..custom import custom_vjp
from ..errors import called, describe, here
from ..names import listed
from ..numpy.arguments import is_known
from ..tape import aval_of
from ..tools import stop_gradient
from .layers import check_sizes


class _Settings(NamedTuple):
    """What of an attention is part of the program."""

    is_causal: bool
    window: tuple[int, int] | None
    block: int | None
    rate: float


class _Terms(NamedTuple):
    """What says which keys a query sees, beside its settings."""

    mask: Any
    queries: Any
    keys: Any


def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    *,
    scale: Any = None,
    is_causal: bool = False,
    query_seq_lengths: Any = None,
    key_value_seq_lengths: Any = None,
    local_window_size: int | tuple[int, int] | None = None,
    block_size: int | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Any = None,
) -> Any:
    """softmax(scale query key^T + bias) value. Vaswani et al., "Attention is all you need" (2017).

    The arguments are those of `jax.nn.dot_product_attention`, and some more. A query that sees no key has value 0,
    and so are its derivatives of any order.

    Args:
      query: shape `(B, T, N, H)`, or `(T, N, H)`.
      key: shape `(B, S, K, H)`, or `(S, K, H)`: K heads, each for the N / K next query heads (Ainslie et al., "GQA",
        2023).
      value: the shape of `key`.
      bias: numbers that are added to the scores; broadcast to `(B, N, T, S)`.
      mask: booleans, True where a query sees a key; broadcast to `(B, N, T, S)`.
      scale: what the products are multiplied by; by default 1 / sqrt(H).
      is_causal: whether the query at t sees only the keys up to t.
      query_seq_lengths, key_value_seq_lengths: integers of shape `(B,)`; elements beyond see and are seen by none.
      local_window_size: how far before and after t the query at t sees; one number for both.
      block_size: how many keys are taken at a time. The scores of all are then never held, neither here nor in the
        backward pass, which computes them again: the memory grows with T, not with T S (Rabe and Staats, 2021; Dao et
        al., "FlashAttention", 2022). Second derivatives hold them.
      dropout_rate: the probability that a weight is zeroed; the others are scaled by `1 / (1 - dropout_rate)`.
      dropout_key: a random key for these.

    Returns:
      The shape of `query`, in its dtype; the scores are taken in float32 at least.

    Raises:
      TypeError, ValueError: if the shapes do not fit, the mask is not of booleans, or there is no key for dropout.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> x = np.eye(3, dtype=np.float32)[:, None, :]
      >>> nn.dot_product_attention(x, x, x, is_causal=True)[0, 0].tolist()
      [1.0, 0.0, 0.0]
    """
    q, k, v = (_heads(x, name) for x, name in ((query, "query"), (key, "key"), (value, "value")))
    (b, t, n, h), (_, s, heads, _) = q.shape, k.shape
    if k.shape != v.shape or (k.shape[0], k.shape[3]) != (b, h) or np.ndim(query) != np.ndim(key):
        raise ValueError(
            f"{called()}: query {describe(query)}, key {describe(key)} and value {describe(value)} do not fit "
            f"{here()}. Give (B, T, N, H), and twice (B, S, K, H)."
        )
    if n % heads:
        raise ValueError(
            f"{called()}: {heads} heads of keys do not divide the {n} of queries {here()}. Give a divisor of {n}."
        )
    scores = (b, n, t, s)
    mask, bias = (_broadcast(x, name, scores) for x, name in ((mask, "mask"), (bias, "bias")))
    if mask is not None and aval_of(mask).dtype != bool:
        raise TypeError(
            f"{called()}: the mask is {describe(mask)} {here()}. Give booleans, True where a query sees a key; what is "
            "added to the scores is bias."
        )
    terms = _Terms(mask, _lengths(query_seq_lengths, "query", b, t), _lengths(key_value_seq_lengths, "key_value", b, s))
    if isinstance(local_window_size, int):
        local_window_size = (local_window_size, local_window_size)
    if block_size is not None:
        check_sizes(block_size=block_size)
    if not 0 <= dropout_rate <= 1:
        raise ValueError(
            f"{called()}: dropout_rate={dropout_rate} {here()} is the probability of a zero: give a number from 0 to 1."
        )
    if dropout_rate and dropout_key is None:
        raise ValueError(f"{called()}: dropout_rate={dropout_rate} needs a random key {here()}. Give dropout_key.")
    block = None if block_size is None else min(block_size, max(s, 1))
    settings = _Settings(bool(is_causal), local_window_size, block, float(dropout_rate))
    q = q * (1 / math.sqrt(h) if scale is None else scale)
    if block is None or s == 0:
        out = _plain(settings, q, k, v, bias, terms, dropout_key)
    else:
        out = _blockwise(settings, q, k, v, bias, terms, dropout_key)
    out = ops.astype(out, dtype=q.dtype)
    return out if np.ndim(query) == 4 else out[0]


def _heads(x: Any, name: str) -> Any:
    try:
        aval = aval_of(x)
    except TypeError:
        aval = None
    if aval is None or aval.ndim not in (3, 4) or not jnp.issubdtype(aval.dtype, np.floating):
        raise ValueError(
            f"{called()}: {name} is {describe(x)} {here()}. Give floats of shape (batch, length, heads, features of a "
            "head), or without batch."
        )
    return tnp.asarray(x) if aval.ndim == 4 else tnp.asarray(x)[None]


def _broadcast(x: Any, name: str, scores: tuple[int, ...]) -> Any:
    """A mask or a bias with all of the axes of the scores, of size 1 where it is the same along one."""
    if x is None:
        return None
    shape = np.shape(x)
    full = (1,) * (4 - len(shape)) + tuple(shape)
    if len(full) > 4 or any(a not in (1, n) for a, n in zip(full, scores, strict=True)):
        raise ValueError(
            f"{called()}: the {name} {describe(x)} does not broadcast to the scores, (batch, heads, queries, keys) = "
            f"{scores} {here()}. A mask of keys, (batch, keys), is mask[:, None, None, :]."
        )
    return tnp.reshape(tnp.asarray(x), full)


def _lengths(x: Any, name: str, batch: int, most: int) -> Any:
    if x is None:
        return None
    aval = aval_of(np.asarray(x) if isinstance(x, (list, tuple)) else x)
    if aval.shape != (batch,) or not jnp.issubdtype(aval.dtype, np.integer):
        raise ValueError(
            f"{called()}: {name}_seq_lengths is {describe(x)} {here()}. Give an integer for each sequence, of shape "
            f"({batch},)."
        )
    if is_known(x) and batch and int(np.max(x)) > most:
        raise ValueError(
            f"{called()}: {name}_seq_lengths has {int(np.max(x))}, and the sequences are {most} long {here()}. Give "
            f"lengths up to {most}."
        )
    return tnp.reshape(tnp.asarray(x), (batch, 1, 1, 1))


# -- the parts: scores and weights have shape (B, N, T, S), all else (B, T or S, heads, H)


def _grouped(x: Any, heads: int) -> Any:
    b, t, n, h = x.shape
    return tnp.reshape(x, (b, t, heads, n // heads, h))


def _split_heads(p: Any, heads: int) -> Any:
    b, n, t, s = p.shape
    return tnp.reshape(p, (b, heads, n // heads, t, s))


def _scores(q: Any, k: Any) -> Any:
    """Each query's product with each key."""
    heads, wide = k.shape[2], np.promote_types(q.dtype, np.float32)
    out = tnp.einsum("btkgh,bskh->bkgts", _grouped(q, heads), k, preferred_element_type=wide)
    return tnp.reshape(out, (q.shape[0], q.shape[2], q.shape[1], k.shape[1]))


def _mixed(p: Any, v: Any) -> Any:
    """The sums of values, each with a query's weight for it."""
    (b, n, t, _), h = p.shape, v.shape[3]
    return tnp.reshape(tnp.einsum("bkgts,bskh->btkgh", _split_heads(p, v.shape[2]), v), (b, t, n, h))


def _collected(p: Any, x: Any, heads: int) -> Any:
    """The sums of what the queries have, each with its weight for a key."""
    return tnp.einsum("bkgts,btkgh->bskh", _split_heads(p, heads), _grouped(x, heads))


def _seen(settings: _Settings, terms: _Terms, t: int, first: Any, size: int) -> Any:
    """Which keys, `size` of them from `first` on, the queries see; `None` for all of them."""
    query = tnp.arange(t)[:, None]
    key = first + tnp.arange(size)[None, :]
    found = [] if terms.mask is None else [terms.mask]
    if settings.is_causal:
        found.append(ops.less_equal(key, query))
    if settings.window is not None:
        before, after = settings.window
        found += [ops.less_equal(query - before, key), ops.less_equal(key, query + after)]
    if terms.queries is not None:
        found.append(ops.less(query, terms.queries))
    if terms.keys is not None:
        found.append(ops.less(key, terms.keys))
    out = None
    for one in found:
        out = one if out is None else tnp.logical_and(out, one)
    return out


def _kept(settings: _Settings, key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """What dropout multiplies weights by: 0, or a number above 1."""
    kept = random.bernoulli(key, 1 - settings.rate, shape)
    # All zeroed, there is no number to scale the rest by.
    return ops.where(kept, np.asarray(1 / max(1 - settings.rate, 1e-30), dtype), np.zeros((), dtype))


def _plain(settings: _Settings, q: Any, k: Any, v: Any, bias: Any, terms: _Terms, key: Any) -> Any:
    scores = _scores(q, k)
    scores = scores if bias is None else scores + bias
    seen = _seen(settings, terms, q.shape[1], 0, k.shape[1])
    if seen is not None:
        scores = ops.where(seen, scores, _lowest(scores))
    p = softmax(scores)
    if settings.rate:
        p = p * _kept(settings, key, p.shape, p.dtype)
    out = _mixed(ops.astype(p, dtype=v.dtype) if p.dtype != v.dtype else p, v)
    if seen is None or (settings.window is None and all(term is None for term in terms)):
        # Each sees the first key at least.
        return out
    # What sees nothing has equal weights by now.
    some = tnp.any(seen, axis=-1, keepdims=True)
    some = tnp.reshape(some, (1,) * (4 - some.ndim) + some.shape)
    return ops.where(tnp.swapaxes(some, 1, 2), out, 0)


# -- block by block


def _blocks(settings: _Settings, k: Any, v: Any, bias: Any, terms: _Terms) -> tuple[Any, ...]:
    """Keys, values, biases and masks in blocks, the axis of the blocks first, and the first key of each."""
    size = settings.block or 0
    count = -(-k.shape[1] // size)

    def cut(x: Any, axis: int) -> Any:
        if x is None or x.shape[axis] == 1 != k.shape[1]:
            return None
        short = count * size - x.shape[axis]
        x = tnp.pad(x, [(0, short if i == axis else 0) for i in range(x.ndim)]) if short else x
        x = tnp.reshape(x, (*x.shape[:axis], count, size, *x.shape[axis + 1 :]))
        return tnp.moveaxis(x, axis, 0)

    return cut(k, 1), cut(v, 1), cut(bias, 3), cut(terms.mask, 3), size * tnp.arange(count)


def _block(settings: _Settings, q: Any, bias: Any, terms: _Terms, key: Any, last: int, each: Any) -> tuple[Any, ...]:
    """The scores of a block, lowest where they are not seen, where they are, and what dropout multiplies weights by."""
    k, _, bias_block, mask_block, first = each
    s = _scores(q, k)
    bias = bias if bias_block is None else bias_block
    s = s if bias is None else s + bias
    terms = terms if mask_block is None else terms._replace(mask=mask_block)
    # The last block may be filled up.
    inside = ops.less(first + tnp.arange(k.shape[1]), last)
    seen = _seen(settings, terms, q.shape[1], first, k.shape[1])
    seen = ops.broadcast_to(inside if seen is None else tnp.logical_and(inside, seen), s.shape)
    drop = _kept(settings, random.fold_in(key, first), s.shape, s.dtype) if settings.rate else None
    return ops.where(seen, s, _lowest(s)), seen, drop


def _lowest(s: Any) -> Any:
    return np.asarray(jnp.finfo(s.dtype).min, s.dtype)  # type: ignore[no-untyped-call]


def _online(settings: _Settings, q: Any, k: Any, v: Any, bias: Any, terms: _Terms, key: Any) -> tuple[Any, Any]:
    """The result, and the logarithm of each query's sum of exponentials: Milakov and Gimelshein (2018)."""
    b, t, n, h = q.shape
    wide = np.promote_types(q.dtype, np.float32)

    def step(carry: Any, each: Any) -> Any:
        top, total, out = carry
        s, seen, drop = _block(settings, q, bias, terms, key, k.shape[1], each)
        # It cancels, whatever it is.
        new = stop_gradient(ops.maximum(top, tnp.max(s, axis=-1, keepdims=True)))
        p = ops.where(seen, ops.exp(s - new), 0)
        less = ops.exp(top - new)
        total = total * less + tnp.sum(p, axis=-1, keepdims=True)
        p = p if drop is None else p * drop
        mixed = _mixed(p, ops.astype(each[1], dtype=wide))
        return (new, total, out * tnp.swapaxes(less, 1, 2) + mixed), None

    column = (b, n, t, 1)
    first = (tnp.full(column, _lowest(q.astype(wide)), wide), tnp.zeros(column, wide), tnp.zeros((b, t, n, h), wide))
    (top, total, out), _ = scan(step, first, _blocks(settings, k, v, bias, terms))
    total = ops.where(ops.equal(total, 0), 1, total)
    return out / tnp.swapaxes(total, 1, 2), top + ops.log(total)


def _blockwise_forward(
    settings: _Settings, q: Any, k: Any, v: Any, bias: Any, terms: _Terms, key: Any
) -> tuple[Any, tuple[Any, ...]]:
    out, norm = _online(settings, q, k, v, bias, terms, key)
    return out, (q, k, v, bias, terms, key, out, norm)


def _blockwise_backward(settings: _Settings, saved: tuple[Any, ...], ct: Any) -> tuple[Any, ...]:
    q, k, v, bias, terms, key, out, norm = saved
    heads, wide = k.shape[2], ct.dtype
    along = tnp.swapaxes(tnp.sum(ct * out, axis=-1, keepdims=True), 1, 2)
    once = bias is not None and bias.shape[3] == 1 != k.shape[1]

    def step(carry: Any, each: Any) -> Any:
        dq, dbias = carry
        kb, vb = (ops.astype(x, dtype=wide) for x in each[:2])
        s, seen, drop = _block(settings, q, bias, terms, key, k.shape[1], each)
        p = ops.where(seen, ops.exp(s - norm), 0)
        dp = _scores(ct, vb)
        dv = _collected(p if drop is None else p * drop, ct, heads)
        ds = p * ((dp if drop is None else dp * drop) - along)
        own = None
        if bias is not None:
            axes = tuple(i for i in range(3 + once) if bias.shape[i] == 1)
            own = tnp.sum(ds, axis=axes, keepdims=True)
        dbias, own = (dbias + own, None) if once else (dbias, own)
        return (dq + _mixed(ds, kb), dbias), (_collected(ds, ops.astype(q, dtype=wide), heads), dv, own)

    first = (tnp.zeros(q.shape, wide), tnp.zeros(bias.shape, wide) if once else None)
    (dq, dbias), (dk, dv, each) = scan(step, first, _blocks(settings, k, v, bias, terms))

    def joined(x: Any, axis: int) -> Any:
        x = tnp.moveaxis(x, 0, axis)
        x = tnp.reshape(x, (*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :]))
        return x[(slice(None),) * axis + (slice(0, k.shape[1]),)]

    grads = [(dq, q), (joined(dk, 1), k), (joined(dv, 1), v)]
    if bias is not None:
        grads.append((dbias if once else joined(each, 3), bias))
    cts = [ops.astype(g, dtype=x.dtype) for g, x in grads]
    return (*cts, *[None] * (6 - len(cts)))


def _block_by_block(settings: _Settings, q: Any, k: Any, v: Any, bias: Any, terms: _Terms, key: Any) -> Any:
    return _online(settings, q, k, v, bias, terms, key)[0]


_blockwise = custom_vjp(_block_by_block, nondiff_argnums=(0,))
_blockwise.defvjp(_blockwise_forward, _blockwise_backward)


# -- where in a sequence


def rotary_embedding(x: Any, positions: Any = None, *, base: float = 10000.0) -> Any:
    """Rotates pairs of features by angles that grow with the position. Su et al., "RoFormer" (2021).

    The products of queries and keys that are rotated depend on how far they are apart, not on where they are. Feature
    i is paired with feature i + H / 2, and turned by `position * base ** (-2 i / H)`.

    Args:
      x: shape `(..., T, N, H)`, with H even.
      positions: integers or floats of shape `(T,)` or `(..., T)`; by default 0, 1, ...
      base: the largest wavelength is about `2 pi base`.

    Raises:
      ValueError: if H is odd.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> x = np.array([1.0, 0.0], np.float32)[None, None]
      >>> print(nn.rotary_embedding(x, np.array([np.pi / 2], np.float32)).round(3)[0, 0])
      [-0.  1.]
    """
    aval = aval_of(x)
    if aval.ndim < 3 or aval.shape[-1] % 2:
        raise ValueError(
            f"{called()}: the input is {describe(x)} {here()}. Give (..., length, heads, features of a head), with an "
            "even number of features."
        )
    half, wide = aval.shape[-1] // 2, np.promote_types(aval.dtype, np.float32)
    angles = _angles(tnp.arange(aval.shape[-3]) if positions is None else positions, half, base, wide)[..., None, :]
    cos, sin = ops.cos(angles), ops.sin(angles)
    a, b = tnp.split(ops.astype(x, dtype=wide), 2, axis=-1)
    return ops.astype(tnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1), dtype=aval.dtype)


def _angles(positions: Any, half: int, base: float, dtype: Any) -> Any:
    rates = np.asarray(base ** (-np.arange(half) / half), dtype)
    return ops.astype(tnp.asarray(positions), dtype=dtype)[..., None] * rates


def sinusoidal_embedding(positions: Any, features: int, *, base: float = 10000.0, dtype: Any = np.float32) -> Any:
    """Sines and cosines of positions, of wavelengths from 2 pi to 2 pi base. Vaswani et al. (2017), section 3.5.

    Feature 2 i is `sin(position * base ** (-2 i / features))` and feature 2 i + 1 its cosine.

    Args:
      positions: integers or floats of any shape, such as `np.arange(length)`.
      features: how many, an even number.
      base: see above.
      dtype: of the result.

    Returns:
      Shape `(*positions.shape, features)`: what is added to the embeddings of tokens.

    Raises:
      ValueError: if `features` is odd.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> print(np.asarray(nn.sinusoidal_embedding(np.arange(2), 4)).round(2))
      [[0.   1.   0.   1.  ]
       [0.84 0.54 0.01 1.  ]]
    """
    check_sizes(features=features)
    if features % 2:
        raise ValueError(f"{called()}: features={features} {here()}. Give an even number: each sine has its cosine.")
    angles = _angles(positions, features // 2, base, dtype)
    out = tnp.stack([ops.sin(angles), ops.cos(angles)], -1)
    return tnp.reshape(out, (*out.shape[:-2], features))


__all__ = ["dot_product_attention", "rotary_embedding", "sinusoidal_embedding"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
