"""Layers made of layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax

from .. import initializers, ops, random
from .. import numpy as tnp
from ..activations import relu
from ..control import scan
from ..errors import called, describe, here
from ..names import listed
from ..remat import checkpoint as remat
from ..tape import aval_of
from .layers import Run, check_init, init_state, is_layer, layer, name_in, static
from .linear import Linear
from .regularization import Dropout


@layer
class Function:
    """A function of one array as a layer, such as an activation: `Function(nn.relu)`."""

    fun: Callable[..., Any] = static()

    def __call__(self, x: Any, run: Run | None = None) -> Any:
        """`fun(x)`."""
        return self.fun(x)


def as_layer(x: Any) -> Any:
    """A layer, of a layer or of a function."""
    if is_layer(x):
        return x
    if not callable(x) or isinstance(x, type):
        made = " It is a class: give an instance." if isinstance(x, type) else ""
        raise TypeError(f"{called()}: {describe(x)} is neither a layer nor a function {here()}.{made}")
    return Function(x)


@layer
class Sequential:
    """Layers one after the other; functions of one array may be among them.

    Attributes:
      layers: a sequence of layers and functions.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> k1, k2 = random.split(random.key(0))
      >>> model = nn.Sequential([nn.Linear.init(k1, 4, 16), nn.relu, nn.Linear.init(k2, 16, 3)])
      >>> model(np.ones((8, 4), np.float32)).shape
      (8, 3)
      >>> model[1]
      Function(fun=relu)
    """

    layers: Sequence[Any]

    def __post_init__(self) -> None:
        if not isinstance(self.layers, (list, tuple)):
            raise TypeError(
                f"{called()}: layers is {describe(self.layers)} {here()}. Give a list: nn.Sequential([first, second])."
            )
        object.__setattr__(self, "layers", tuple([as_layer(x) for x in self.layers]))

    def __call__(self, x: Any, run: Run | None = None) -> Any:
        """Each layer of the result of the one before."""
        for part in self.layers:
            x = part(x, run)
        return x

    def __getitem__(self, i: int) -> Any:
        """The layer at a position."""
        return self.layers[i]

    def __len__(self) -> int:
        """The number of layers."""
        return len(self.layers)


@layer
class Residual:
    """layer(x) + x. He et al., "Deep residual learning for image recognition" (2015).

    Attributes:
      layer: a layer or a function.
      shortcut: what `x` goes through where `layer` changes its shape, such as a `Linear`; otherwise `None`.

    Example:
      >>> from tracegrad import nn
      >>> float(nn.Residual(nn.relu)(3.0))
      6.0
    """

    layer: Any
    shortcut: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", as_layer(self.layer))
        if self.shortcut is not None:
            object.__setattr__(self, "shortcut", as_layer(self.shortcut))

    def __call__(self, x: Any, run: Run | None = None) -> Any:
        """What the layer takes and gives.

        Raises:
          ValueError: if the shapes of the two differ.
        """
        out = self.layer(x, run)
        kept = x if self.shortcut is None else self.shortcut(x, run)
        if aval_of(out).shape != aval_of(kept).shape:
            raise ValueError(
                f"{name_in(self, run)}: its layer makes {describe(out)} of the input {describe(x)}, and "
                f"{describe(kept)} is added {here()}. Give a shortcut that makes the same shape, such as a Linear, or "
                "a Conv of size 1."
            )
        return ops.add(out, kept)


@layer
class MLP:
    """Linear layers with an activation between them: a multilayer perceptron.

    Attributes:
      layers: the linear layers.
      drop: after each activation, or `None`.
      activation: a function.
      activate_final: whether it, and `drop`, follow the last layer too.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> mlp = nn.MLP.init(random.key(0), (4, 64, 64, 3))
      >>> mlp(np.ones((8, 4), np.float32)).shape
      (8, 3)
    """

    layers: tuple[Linear, ...]
    drop: Dropout | None = None
    activation: Callable[..., Any] = static(default=relu)
    activate_final: bool = static(default=False)

    @classmethod
    def init(
        cls,
        key: Any,
        sizes: Sequence[int],
        *,
        activation: Callable[..., Any] = relu,
        dropout: float = 0.0,
        activate_final: bool = False,
        use_bias: bool = True,
        kernel_init: Any = None,
        bias_init: Any = initializers.zeros,
        dtype: Any = None,
    ) -> MLP:
        """Layers from each of the sizes to the next.

        Args:
          key: a random key.
          sizes: the number of features of the input, of each layer between, and of the output.
          activation: a function.
          dropout: the rate of a `Dropout` after each activation.
          activate_final: whether the activation and the dropout follow the last layer too.
          use_bias, kernel_init, bias_init, dtype: as in `Linear.init`.

        Raises:
          TypeError, ValueError: if the key is none, or there are not two positive sizes at least.
        """
        if not isinstance(sizes, (list, tuple)) or len(sizes) < 2:
            raise ValueError(
                f"{called()}: sizes is {describe(sizes)} {here()}. Give the features of input, hidden layers and "
                "output, such as (784, 256, 10)."
            )
        check_init(key)
        options = {"use_bias": use_bias, "kernel_init": kernel_init, "bias_init": bias_init, "dtype": dtype}
        keys = random.split(key, len(sizes) - 1)
        layers = [Linear.init(k, a, b, **options) for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)]
        return cls(tuple(layers), Dropout(dropout) if dropout else None, activation, activate_final)

    def __call__(self, x: Any, run: Run | None = None) -> Any:
        """Shape `(..., sizes[0])` to `(..., sizes[-1])`."""
        for i, part in enumerate(self.layers):
            x = part(x, run)
            if self.activate_final or i < len(self.layers) - 1:
                x = self.activation(x)
                x = x if self.drop is None else self.drop(x, run)
        return x


def _types(tree: Any) -> Any:
    """The structure, with its settings, and the types of the leaves."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [aval_of(x) for x in leaves]


@layer
class Stack:
    """Equal layers one after the other, as one loop: it compiles in the time of one layer, however many there are.

    Attributes:
      layer: a layer whose parameters have a first axis, of the layers.
      length: how many there are.
      checkpoint: whether the backward pass computes again what is inside each layer, instead of keeping it.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> block = lambda key: nn.Residual(nn.Sequential([nn.LayerNorm.init(8), nn.Linear.init(key, 8, 8)]))
      >>> stack = nn.Stack.init(random.key(0), 12, block)
      >>> stack.layer.layer[1].kernel.shape, stack(np.ones((2, 8), np.float32)).shape
      ((12, 8, 8), (2, 8))
    """

    layer: Any
    length: int = static()
    checkpoint: bool = static(default=False)

    @classmethod
    def init(cls, key: Any, length: int, make: Callable[[Any], Any], *, checkpoint: bool = False) -> Stack:
        """Layers that `make(key)` makes, each of a key of its own.

        Raises:
          TypeError, ValueError: if the key is none, `length` is not a positive number, or the layers are not equal.
        """
        check_init(key, length=length)
        made = [make(k) for k in random.split(key, length)]
        for i, part in enumerate(made):
            if not is_layer(part):
                raise TypeError(f"{called()}: make(key) gave {describe(part)}, which is not a layer {here()}.")
            if _types(part) != _types(made[0]):
                raise ValueError(
                    f"{called()}: layers 0 and {i} differ in structure, settings or shapes {here()}. Only equal layers "
                    f"make a loop; put others into nn.Sequential.\n{made[0]}\n{part}"
                )
        return cls(jax.tree.map(lambda *xs: tnp.stack(xs), *made), length, checkpoint)

    def init_state(self) -> dict[str, Any]:
        """The states of the layers, with a first axis as the parameters have it."""
        state = init_state(self.layer)
        stacked = jax.tree.map(lambda x: ops.broadcast_to(x, (self.length, *aval_of(x).shape)), state)
        return {"layer": stacked} if state else {}

    def __call__(self, x: Any, run: Run | None = None, **kwargs: Any) -> Any:
        """What each layer takes and gives, of the same shape and dtype.

        Args:
          x: what the first layer takes.
          run: what the layers are called in.
          kwargs: further arguments, the same for each layer, such as `key_mask=`.
        """
        if run is None:
            body: Any = lambda layer, state, key, x, **kwargs: (layer(x, **kwargs), state)  # noqa: E731
            state, keys = {}, None
        else:
            body, state, keys = run.within(self.layer), run.get(self.layer), run.split(self.layer)
            keys = None if keys is None else random.split(keys, self.length)
        body = remat(body) if self.checkpoint else body

        def step(x: Any, each: Any) -> Any:
            layer, state, key = each
            return body(layer, state, key, x, **kwargs)

        out, new = scan(step, x, (self.layer, state, keys), length=self.length)
        if run is not None:
            run.set(self.layer, new)
        return out


__all__ = ["MLP", "Function", "Residual", "Sequential", "Stack"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
