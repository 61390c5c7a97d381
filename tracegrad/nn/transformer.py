"""Attention as a layer, with a cache of keys and values for decoding, and the transformer's block."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .. import initializers, ops, random
from .. import numpy as tnp
from ..activations import gelu
from ..errors import called, describe, here
from ..names import listed
from ..numpy.arguments import is_known
from ..tape import aval_of
from .attention import dot_product_attention, rotary_embedding
from .containers import MLP, Stack
from .layers import Run, check_init, check_sizes, is_layer, layer, name_in, static, sublayers
from .linear import Linear
from .normalization import LayerNorm
from .regularization import Dropout


@layer
class MultiHeadAttention:
    """Attention of several heads, each of its own projections. Vaswani et al., "Attention is all you need" (2017).

    Attributes:
      query, key, value, out: `Linear` layers, as in flax, the heads side by side in their features.
      num_heads: of the queries.
      num_kv_heads: of keys and values, each for `num_heads / num_kv_heads` heads of queries (Ainslie et al., 2023).
      is_causal: whether an element sees only those up to itself.
      rotary_base: of `rotary_embedding` for queries and keys, such as 10000; `None` for none.
      block_size: how many keys are taken at a time, as in `dot_product_attention`; `None` for all.
      dropout_rate: the probability that a weight is zeroed in training.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> attention = nn.MultiHeadAttention.init(random.key(0), 4, 16, num_kv_heads=2, is_causal=True)
      >>> attention(np.ones((2, 5, 16), np.float32)).shape
      (2, 5, 16)
    """

    query: Linear
    key: Linear
    value: Linear
    out: Linear
    num_heads: int = static()
    num_kv_heads: int = static()
    is_causal: bool = static(default=False)
    rotary_base: float | None = static(default=None)
    block_size: int | None = static(default=None)
    dropout_rate: float = static(default=0.0)

    @classmethod
    def init(
        cls,
        key: Any,
        num_heads: int,
        in_features: int,
        qkv_features: int | None = None,
        out_features: int | None = None,
        in_kv_features: int | None = None,
        *,
        num_kv_heads: int | None = None,
        is_causal: bool = False,
        rotary_base: float | None = None,
        block_size: int | None = None,
        dropout_rate: float = 0.0,
        use_bias: bool = True,
        kernel_init: Any = None,
        bias_init: Any = initializers.zeros,
        dtype: Any = None,
    ) -> MultiHeadAttention:
        """A layer with drawn projections.

        Args:
          key: a random key.
          num_heads: of the queries.
          in_features: the features of the input.
          qkv_features: those of all heads of queries together; by default `in_features`.
          out_features: of the result; by default `in_features`.
          in_kv_features: of what keys and values are made of; by default `in_features`.
          num_kv_heads: of keys and values; by default `num_heads`.
          is_causal, rotary_base, block_size, dropout_rate: see the attributes.
          use_bias, kernel_init, bias_init, dtype: as in `Linear.init`.

        Raises:
          TypeError, ValueError: if the key is none, a size is not a positive number, or the heads do not divide.
        """
        qkv_features = in_features if qkv_features is None else qkv_features
        out_features = in_features if out_features is None else out_features
        in_kv_features = in_features if in_kv_features is None else in_kv_features
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        check_init(key, num_heads=num_heads, in_features=in_features, qkv_features=qkv_features)
        check_sizes(out_features=out_features, in_kv_features=in_kv_features, num_kv_heads=num_kv_heads)
        if block_size is not None:
            check_sizes(block_size=block_size)
        if qkv_features % num_heads:
            raise ValueError(
                f"{called()}: num_heads={num_heads} does not divide the {qkv_features} features {here()}. Give a "
                "divisor, or qkv_features that are a multiple."
            )
        if num_heads % num_kv_heads:
            raise ValueError(
                f"{called()}: num_kv_heads={num_kv_heads} does not divide num_heads={num_heads} {here()}. "
                "Give a divisor."
            )
        size = qkv_features // num_heads
        if rotary_base is not None and size % 2:
            raise ValueError(
                f"{called()}: rotary_base={rotary_base} pairs the features of a head, and there are {size} {here()}. "
                "Give an even number for each head."
            )
        keys = random.split(key, 4)
        options = {"use_bias": use_bias, "kernel_init": kernel_init, "bias_init": bias_init, "dtype": dtype}
        return cls(
            Linear.init(keys[0], in_features, qkv_features, **options),
            Linear.init(keys[1], in_kv_features, num_kv_heads * size, **options),
            Linear.init(keys[2], in_kv_features, num_kv_heads * size, **options),
            Linear.init(keys[3], qkv_features, out_features, **options),
            num_heads,
            num_kv_heads,
            is_causal,
            rotary_base,
            block_size,
            dropout_rate,
        )

    def init_state(self) -> dict[str, Any]:
        """Nothing: a cache is made by `init_cache`."""
        return {}

    def __call__(
        self, x: Any, run: Run | None = None, *, inputs_kv: Any = None, mask: Any = None, key_mask: Any = None
    ) -> Any:
        """Shape `(batch, length, in_features)`, or without batch, to `(batch, length, out_features)`.

        Where the run's state has a cache, made by `init_cache`, keys and values are added to it, and what is seen are
        all that it has so far: see there.

        Args:
          x: what queries are made of.
          run: what the layer is called in.
          inputs_kv: what keys and values are made of, `(batch, keys, in_kv_features)`; by default `x`.
          mask: booleans, True where a query sees a key; broadcast to `(batch, num_heads, length, keys)`.
          key_mask: booleans, True for keys that are seen at all, not padding: shape `(batch, keys)`.

        Raises:
          TypeError, ValueError: if a shape is wrong, a mask is not of booleans, dropout has no random key, or the
            cache is known to be full. One that is full under `@jit` gives NaN.
        """
        ndim = np.ndim(x)
        if ndim not in (2, 3) or (inputs_kv is not None and np.ndim(inputs_kv) != ndim):
            of = "" if inputs_kv is None else f" and {describe(inputs_kv)}"
            raise ValueError(
                f"{name_in(self, run)}: the input is {describe(x)}{of} {here()}. Give (batch, length, features), or "
                "(length, features)."
            )
        q = self._heads(self.query(x, run), self.num_heads)
        source = x if inputs_kv is None else inputs_kv
        k, v = (self._heads(part(source, run), self.num_kv_heads) for part in (self.key, self.value))
        cache = {} if run is None or inputs_kv is not None else run.get(self)
        start = cache.get("index", 0)
        if self.rotary_base is not None:
            q, k = (rotary_embedding(a, start + tnp.arange(a.shape[1]), base=self.rotary_base) for a in (q, k))
        is_causal, full = self.is_causal, None
        if cache:
            k, v, seen, full = self._extended(cache, k, v, run)
            mask, is_causal = _both(mask, seen), False
        b, t, s = q.shape[0], q.shape[1], k.shape[1]
        mask = self._checked(mask, key_mask, (b, self.num_heads, t, s), run)
        drop = self.dropout_rate if run is not None and run.training else 0.0
        out = dot_product_attention(
            q,
            k,
            v,
            mask=mask,
            is_causal=is_causal,
            block_size=self.block_size,
            dropout_rate=drop,
            dropout_key=run.key(self) if drop and run is not None else None,
        )
        out = self.out(tnp.reshape(out, (b, t, self.out.kernel.shape[-2])), run)
        out = out if full is None else ops.where(full, math.nan, out)
        return out if ndim == 3 else out[0]

    def _heads(self, x: Any, count: int) -> Any:
        batch, length, features = (1, *x.shape)[-3:]
        return tnp.reshape(x, (batch, length, count, features // count))

    def _checked(self, mask: Any, key_mask: Any, scores: tuple[int, ...], run: Run | None) -> Any:
        b, _, _, s = scores
        if key_mask is not None:
            shape = np.shape(key_mask)
            if shape not in ((b, s), (1, s), (s,)):
                raise ValueError(
                    f"{name_in(self, run)}: key_mask is {describe(key_mask)} {here()}. Give booleans of shape "
                    f"(batch, keys), {(b, s)}, True for what is seen."
                )
            key_mask = tnp.reshape(tnp.asarray(key_mask), (*((1,) * (2 - len(shape))), *shape))[:, None, None, :]
        for name, one in (("mask", mask), ("key_mask", key_mask)):
            if one is None:
                continue
            shape = (1,) * (4 - np.ndim(one)) + np.shape(one)
            if len(shape) != 4 or any(a not in (1, n) for a, n in zip(shape, scores, strict=True)):
                raise ValueError(
                    f"{name_in(self, run)}: the {name} {describe(one)} does not broadcast to the scores, (batch, "
                    f"heads, queries, keys) = {scores} {here()}. What hides padding is key_mask, (batch, keys)."
                )
            if aval_of(one).dtype != bool:
                raise TypeError(
                    f"{name_in(self, run)}: the {name} is {describe(one)} {here()}. Give booleans, True where a query "
                    "sees a key."
                )
        return _both(mask, key_mask)

    def _extended(self, cache: dict[str, Any], k: Any, v: Any, run: Run | None) -> tuple[Any, Any, Any, Any]:
        """The keys and values so far, which of them the queries see, and whether there was no place for all."""
        start, (b, size, *_), (rows, t, *_) = cache["index"], cache["keys"].shape, k.shape
        if b != rows:
            raise ValueError(
                f"{name_in(self, run)}: the input has a batch of {rows}, and the cache is for {b} {here()}. Make it by "
                f"nn.init_cache(model, {rows}, max_length)."
            )
        if t > size or (is_known(start) and int(start) + t > size):
            has = f"{int(start)} of {size}" if is_known(start) else f"at most {size}"
            raise ValueError(
                f"{name_in(self, run)}: the cache is full: it has {has}, and {t} more came {here()}. Make one for more "
                "by nn.init_cache(model, batch_size, max_length)."
            )
        new = {
            name: ops.dynamic_update_slice(cache[name], ops.astype(x, dtype=cache[name].dtype), (0, start, 0, 0))
            for name, x in (("keys", k), ("values", v))
        }
        full = None if is_known(start) else ops.greater(start + t, size)
        last = tnp.arange(t)[:, None] if self.is_causal else t - 1
        seen = ops.less_equal(tnp.arange(size)[None, :], start + last)
        if run is not None:
            run.set(self, {**new, "index": start + np.int32(t)})
        k, v = (ops.astype(new[name], dtype=x.dtype) for name, x in (("keys", k), ("values", v)))
        return k, v, seen, full


def _both(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else tnp.logical_and(a, b)


def init_cache(model: Any, batch_size: int, max_length: int, dtype: Any = None) -> dict[str, Any]:
    """The state of a model, with an empty cache of keys and values for each of its `MultiHeadAttention` layers.

    With it, a run takes the next elements of the sequences alone, one or several, and the layers see what came before
    in the cache. `run.state` has it with the new ones. A cache is of self-attention: what is given `inputs_kv` has no
    use for it. Positions that a model adds to its input itself are to be counted by the caller.

    Args:
      model: a layer.
      batch_size: how many sequences.
      max_length: how many elements of each there is place for.
      dtype: of keys and values; by default that of the parameters.

    Raises:
      TypeError, ValueError: if `model` is not a layer, or a size is not a positive number.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> from tracegrad import nn, random
      >>> model = nn.MultiHeadAttention.init(random.key(0), 2, 8, is_causal=True, rotary_base=10000.0)
      >>> x = random.normal(random.key(1), (1, 3, 8))
      >>> @tg.jit
      ... def step(model, state, x):
      ...     run = nn.Run(model, state)
      ...     return model(x, run), run.state
      >>> state, outs = nn.init_cache(model, 1, 3), []
      >>> for t in range(3):
      ...     out, state = step(model, state, x[:, t : t + 1])
      ...     outs.append(out)
      >>> bool(np.allclose(np.concatenate(outs, 1), model(x), atol=1e-6))
      True
    """
    check_sizes(batch_size=batch_size, max_length=max_length)
    if not is_layer(model):
        raise TypeError(f"{called()}: the model is {describe(model)}, which is not a layer {here()}.")
    return _cached(model, batch_size, max_length, dtype)


def _cached(model: Any, batch_size: int, max_length: int, dtype: Any) -> dict[str, Any]:
    if isinstance(model, MultiHeadAttention):
        kernel = model.key.kernel
        shape = (batch_size, max_length, model.num_kv_heads, kernel.shape[-1] // model.num_kv_heads)
        zeros = tnp.zeros(shape, kernel.dtype if dtype is None else dtype)
        return {"keys": zeros, "values": zeros, "index": tnp.zeros((), np.int32)}
    if isinstance(model, Stack):
        state = _cached(model.layer, batch_size, max_length, dtype)
        stacked = jax.tree.map(lambda x: ops.broadcast_to(x, (model.length, *aval_of(x).shape)), state)
        return {"layer": stacked} if state else {}
    own: dict[str, Any] = model.init_state() if hasattr(type(model), "init_state") else {}
    parts = {name: _cached(part, batch_size, max_length, dtype) for name, part in sublayers(model) if name not in own}
    return {name: part for name, part in parts.items() if part} | own


@layer
class TransformerBlock:
    """y = x + attention(norm(x)), then y + mlp(norm(y)). Vaswani et al. (2017); normalized first: Xiong et al. (2020).

    Equal blocks make a loop: `nn.Stack.init(key, depth, lambda key: nn.TransformerBlock.init(key, 128, 4))`.

    Attributes:
      norm1, norm2: such as `LayerNorm`.
      attention: a `MultiHeadAttention`.
      mlp: an `MLP`.
      drop: a `Dropout` of what is added, or `None`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> block = nn.TransformerBlock.init(random.key(0), 16, 4, is_causal=True)
      >>> block(np.ones((2, 5, 16), np.float32)).shape
      (2, 5, 16)
    """

    norm1: Any
    attention: MultiHeadAttention
    norm2: Any
    mlp: Any
    drop: Dropout | None = None

    @classmethod
    def init(
        cls,
        key: Any,
        features: int,
        num_heads: int,
        *,
        mlp_features: int | None = None,
        activation: Callable[..., Any] = gelu,
        dropout_rate: float = 0.0,
        norm: Callable[..., Any] = LayerNorm.init,
        num_kv_heads: int | None = None,
        is_causal: bool = False,
        rotary_base: float | None = None,
        block_size: int | None = None,
        use_bias: bool = True,
        kernel_init: Any = None,
        bias_init: Any = initializers.zeros,
        dtype: Any = None,
    ) -> TransformerBlock:
        """A block with drawn parameters.

        Args:
          key: a random key.
          features: of input and output.
          num_heads: of the attention.
          mlp_features: between the two layers of the MLP; by default four times `features`.
          activation: of the MLP.
          dropout_rate: of the attention's weights, and of what is added.
          norm: makes a layer of `features` and `dtype`: `nn.LayerNorm.init` or `nn.RMSNorm.init`.
          num_kv_heads, is_causal, rotary_base, block_size: as in `MultiHeadAttention.init`.
          use_bias, kernel_init, bias_init, dtype: as in `Linear.init`.

        Raises:
          TypeError, ValueError: if the key is none, a size is not a positive number, or the heads do not divide.
        """
        check_init(key, features=features, num_heads=num_heads)
        k1, k2 = random.split(key)
        options = {"use_bias": use_bias, "kernel_init": kernel_init, "bias_init": bias_init, "dtype": dtype}
        return cls(
            norm(features, dtype=dtype),
            MultiHeadAttention.init(
                k1,
                num_heads,
                features,
                num_kv_heads=num_kv_heads,
                is_causal=is_causal,
                rotary_base=rotary_base,
                block_size=block_size,
                dropout_rate=dropout_rate,
                **options,
            ),
            norm(features, dtype=dtype),
            MLP.init(k2, (features, mlp_features or 4 * features, features), activation=activation, **options),
            Dropout(dropout_rate) if dropout_rate else None,
        )

    def __call__(self, x: Any, run: Run | None = None, *, mask: Any = None, key_mask: Any = None) -> Any:
        """Shape `(batch, length, features)` to the same; the masks are those of `MultiHeadAttention`."""
        attended = self.attention(self.norm1(x, run), run, mask=mask, key_mask=key_mask)
        x = x + (attended if self.drop is None else self.drop(attended, run))
        made = self.mlp(self.norm2(x, run), run)
        return x + (made if self.drop is None else self.drop(made, run))


__all__ = ["MultiHeadAttention", "TransformerBlock", "init_cache"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
