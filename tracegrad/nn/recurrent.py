"""Recurrent layers: cells, which take a step, and layers that take them over time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import initializers, ops, random
from .. import numpy as tnp
from ..control import scan
from ..errors import called, describe, here
from ..names import listed
from ..numpy.arguments import is_known
from ..tape import aval_of
from .layers import Run, check_init, check_parameters, input_features, layer, name_in, static


@layer
class _Cell:
    """A step of a recurrent layer: what it makes of the input alone, which is done for all steps at once, and the rest.

    Attributes:
      kernel: shape `(in_features, gates * hidden_features)`.
      recurrent_kernel: shape `(hidden_features, gates * hidden_features)`.
      bias: shape `(gates * hidden_features,)`, or `None`.
    """

    kernel: Any
    recurrent_kernel: Any
    bias: Any = None

    def __call__(self, state: Any, x: Any, run: Run | None = None) -> tuple[Any, Any]:
        """One step: the state and `x`, shape `(..., in_features)`, to the next state and the output.

        The order is that of `scan`, of which a cell may be the body.

        Raises:
          TypeError, ValueError: if the last axis of `x` is not `in_features` long.
        """
        z = self.project(x, run)
        aval = aval_of(z)
        return self.step(like_state(self, state, self.initial_state(aval.shape[:-1], aval.dtype), run), z)

    def project(self, x: Any, run: Run | None = None) -> Any:
        """What the input contributes to the gates, `x @ kernel + bias`.

        Raises:
          TypeError, ValueError: if the last axis of `x` is not `in_features` long.
        """
        check_parameters(self, run, kernel=2, recurrent_kernel=2, bias=1)
        wanted = self.kernel.shape[0]
        input_features(self, x, wanted, run, f"Give {wanted} features, or make it for those that there are.")
        out = tnp.matmul(x, self.kernel)
        out = out if self.bias is None else out + self.bias
        # What comes out of a step has the type that goes in, whichever of the kernels is wider.
        dtype = tnp.result_type(out, self.recurrent_kernel)
        return out if out.dtype == dtype else ops.astype(out, dtype=dtype)

    def initial_state(self, batch: Sequence[int], dtype: Any = None) -> Any:
        """The state before the first step of a batch of this shape: zeros."""
        return tnp.zeros((*batch, self.recurrent_kernel.shape[-2]), dtype)

    def step(self, state: Any, z: Any) -> tuple[Any, Any]:
        """The next state and the output, of the state and what `project` makes of the input."""
        raise NotImplementedError


def _drawn(key: Any, gates: int, in_features: int, hidden_features: int, options: dict[str, Any]) -> tuple[Any, ...]:
    """The parameters of a cell; each gate is drawn on its own, as in flax."""
    check_init(key, in_features=in_features, hidden_features=hidden_features)
    dtype, draw, recur = options["dtype"], options["kernel_init"], options["recurrent_kernel_init"]
    draw = initializers.lecun_normal() if draw is None else draw
    recur = initializers.orthogonal() if recur is None else recur
    k1, k2 = random.split(key)
    kernel = draw(k1, (in_features, gates * hidden_features), dtype)
    square = (hidden_features, hidden_features)
    recurrent = tnp.concatenate([recur(k, square, dtype) for k in random.split(k2, gates)], -1)
    bias = options["bias_init"](key, (gates * hidden_features,), dtype) if options["use_bias"] else None
    return kernel, recurrent, bias


@layer
class RNNCell(_Cell):
    """h' = tanh(W x + U h + b). Elman, "Finding structure in time" (1990).

    The state is `h`, and so is the output.

    Attributes:
      kernel: W, shape `(in_features, hidden_features)`.
      recurrent_kernel: U, shape `(hidden_features, hidden_features)`.
      bias: shape `(hidden_features,)`, or `None`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> cell = nn.RNNCell.init(random.key(0), 3, 4)
      >>> h, out = cell(np.zeros((2, 4), np.float32), np.ones((2, 3), np.float32))
      >>> out.shape
      (2, 4)
    """

    @classmethod
    def init(
        cls,
        key: Any,
        in_features: int,
        hidden_features: int,
        *,
        use_bias: bool = True,
        kernel_init: Any = None,
        recurrent_kernel_init: Any = None,
        bias_init: Any = initializers.zeros,
        dtype: Any = None,
    ) -> RNNCell:
        """A cell with drawn kernels and a bias of zeros.

        Args:
          key: a random key.
          in_features, hidden_features: the sizes of the input and of the state.
          use_bias: whether there is a bias.
          kernel_init, recurrent_kernel_init, bias_init: initializers; by default `lecun_normal()`, `orthogonal()` and
            `zeros`, as in flax.
          dtype: of the parameters.

        Raises:
          TypeError, ValueError: if the key is none, or a size is not a positive number.
        """
        options = {"use_bias": use_bias, "kernel_init": kernel_init, "bias_init": bias_init, "dtype": dtype}
        options["recurrent_kernel_init"] = recurrent_kernel_init
        return cls(*_drawn(key, 1, in_features, hidden_features, options))

    def step(self, state: Any, z: Any) -> tuple[Any, Any]:
        """The next `h`, twice."""
        h = ops.tanh(z + tnp.matmul(state, self.recurrent_kernel))
        return h, h


@layer
class LSTMCell(_Cell):
    """Long short-term memory. Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000).

        i, f, o = sigmoid(W x + U h + b)    g = tanh(W x + U h + b)
        c' = f c + i g                      h' = o tanh(c')

    The state is `(c, h)` and the output `h`, as in flax. A forget gate that is open at first is
    `bias_init=initializers.constant(1.0)` (Jozefowicz et al., 2015: of that gate alone).

    Attributes:
      kernel: W of i, f, g, o side by side, shape `(in_features, 4 * hidden_features)`.
      recurrent_kernel: U, shape `(hidden_features, 4 * hidden_features)`.
      bias: shape `(4 * hidden_features,)`, or `None`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> cell = nn.LSTMCell.init(random.key(0), 3, 4)
      >>> zeros = np.zeros((2, 4), np.float32)
      >>> (c, h), out = cell((zeros, zeros), np.ones((2, 3), np.float32))
      >>> out.shape
      (2, 4)
    """

    @classmethod
    def init(
        cls,
        key: Any,
        in_features: int,
        hidden_features: int,
        *,
        use_bias: bool = True,
        kernel_init: Any = None,
        recurrent_kernel_init: Any = None,
        bias_init: Any = initializers.zeros,
        dtype: Any = None,
    ) -> LSTMCell:
        """A cell with drawn kernels and a bias of zeros; as `RNNCell.init`.

        Raises:
          TypeError, ValueError: if the key is none, or a size is not a positive number.
        """
        options = {"use_bias": use_bias, "kernel_init": kernel_init, "bias_init": bias_init, "dtype": dtype}
        options["recurrent_kernel_init"] = recurrent_kernel_init
        return cls(*_drawn(key, 4, in_features, hidden_features, options))

    def initial_state(self, batch: Sequence[int], dtype: Any = None) -> Any:
        """Zeros for `c` and for `h`."""
        zeros = tnp.zeros((*batch, self.recurrent_kernel.shape[-2]), dtype)
        return zeros, zeros

    def step(self, state: Any, z: Any) -> tuple[Any, Any]:
        """The next `(c, h)`, and `h`."""
        c, h = state
        i, f, g, o = tnp.split(z + tnp.matmul(h, self.recurrent_kernel), 4, axis=-1)
        c = ops.logistic(f) * c + ops.logistic(i) * ops.tanh(g)
        h = ops.logistic(o) * ops.tanh(c)
        return (c, h), h


@layer
class GRUCell(_Cell):
    """Gated recurrent unit. Cho et al. (2014), with the reset gate after the product, as in cuDNN, Keras and flax.

        r, z = sigmoid(W x + b + U h)    n = tanh(W x + b + r (U h + recurrent_bias))
        h' = (1 - z) n + z h

    The state is `h`, and so is the output.

    Attributes:
      kernel: W of r, z, n side by side, shape `(in_features, 3 * hidden_features)`.
      recurrent_kernel: U, shape `(hidden_features, 3 * hidden_features)`.
      bias: shape `(3 * hidden_features,)`, or `None`.
      recurrent_bias: of n, shape `(hidden_features,)`, or `None`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> cell = nn.GRUCell.init(random.key(0), 3, 4)
      >>> h, out = cell(np.zeros((2, 4), np.float32), np.ones((2, 3), np.float32))
      >>> out.shape
      (2, 4)
    """

    recurrent_bias: Any = None

    @classmethod
    def init(
        cls,
        key: Any,
        in_features: int,
        hidden_features: int,
        *,
        use_bias: bool = True,
        kernel_init: Any = None,
        recurrent_kernel_init: Any = None,
        bias_init: Any = initializers.zeros,
        dtype: Any = None,
    ) -> GRUCell:
        """A cell with drawn kernels and biases of zeros; as `RNNCell.init`.

        Raises:
          TypeError, ValueError: if the key is none, or a size is not a positive number.
        """
        options = {"use_bias": use_bias, "kernel_init": kernel_init, "bias_init": bias_init, "dtype": dtype}
        options["recurrent_kernel_init"] = recurrent_kernel_init
        kernel, recurrent, bias = _drawn(key, 3, in_features, hidden_features, options)
        return cls(kernel, recurrent, bias, bias_init(key, (hidden_features,), dtype) if use_bias else None)

    def step(self, state: Any, z: Any) -> tuple[Any, Any]:
        """The next `h`, twice."""
        size = self.recurrent_kernel.shape[-2]
        recurrent = tnp.matmul(state, self.recurrent_kernel)
        gates = ops.logistic(z[..., : 2 * size] + recurrent[..., : 2 * size])
        reset, update = tnp.split(gates, 2, axis=-1)
        inner = recurrent[..., 2 * size :]
        inner = inner if self.recurrent_bias is None else inner + self.recurrent_bias
        new = ops.tanh(z[..., 2 * size :] + reset * inner)
        h = new + update * (state - new)
        return h, h


def like_state(layer: Any, state: Any, zeros: Any, run: Run | None) -> Any:
    """A state in the dtypes of `zeros`, the one that a cell starts from.

    Raises:
      ValueError: if it has another structure or other shapes.
    """
    tree: Any
    leaves, tree = jax.tree.flatten(state)
    wanted, expected = jax.tree.flatten(zeros)
    shapes = [np.shape(x) for x in leaves]
    if tree != expected or shapes != [np.shape(x) for x in wanted]:
        given = ", ".join([describe(x) for x in leaves]) if tree == expected else describe(state)
        needed = "(c, h), each" if len(wanted) == 2 else "an array"
        raise ValueError(
            f"{name_in(layer, run)}: the state is {given}, and it takes {needed} {describe(wanted[0])} {here()}. "
            "Give what the layer returned last, or leave it out for zeros."
        )
    return jax.tree.unflatten(tree, [ops.astype(x, dtype=z.dtype) for x, z in zip(leaves, wanted, strict=True)])


@layer
class RNN:
    """A cell over time, by `scan`: what the input contributes to all steps is one product before it.

    Attributes:
      cell: such as an `RNNCell`: a layer with `project`, `initial_state` and `step`.
      reverse: whether time runs backwards. The outputs stay in the order of the inputs, and the last state is that
        after the first element.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> rnn = nn.RNN.init(random.key(0), 3, 4)
      >>> outputs, state = rnn(np.ones((2, 5, 3), np.float32), lengths=np.array([5, 2]))
      >>> outputs.shape, state.shape
      ((2, 5, 4), (2, 4))
      >>> bool((outputs[1, 2:] == 0).all()), bool((outputs[1, 1] == state[1]).all())
      (True, True)
    """

    cell: Any
    reverse: bool = static(default=False)

    @classmethod
    def init(cls, key: Any, in_features: int, hidden_features: int, *, reverse: bool = False, **options: Any) -> RNN:
        """A layer with a drawn cell.

        Args:
          key: a random key.
          in_features, hidden_features: the sizes of the input and of the state.
          reverse: whether time runs backwards.
          options: as in the `init` of the cell: `use_bias`, `kernel_init`, `recurrent_kernel_init`, `bias_init`,
            `dtype`.

        Raises:
          TypeError, ValueError: if the key is none, or a size is not a positive number.
        """
        return cls(RNNCell.init(key, in_features, hidden_features, **options), reverse)

    def __call__(
        self, x: Any, run: Run | None = None, *, lengths: Any = None, initial_state: Any = None
    ) -> tuple[Any, Any]:
        """Shape `(..., time, in_features)` to the outputs, `(..., time, hidden_features)`, and the last state.

        Args:
          x: the batch comes first; it may have any number of axes, and none.
          run: what the layer is called in.
          lengths: how many elements each sequence has, integers of the shape of the batch. What is beyond changes
            nothing, whatever it is: the outputs there are 0, the state stays, and the gradient is 0.
          initial_state: as the layer returns it; by default zeros.

        Raises:
          TypeError, ValueError: if the shape of one of these is wrong, or a length that is known is not from 0 to the
            number of steps. One that is not known, under `@jit`, gives NaN.
        """
        ndim = np.ndim(x)
        if ndim < 2:
            raise ValueError(
                f"{name_in(self, run)}: the input is {describe(x)}, which has no axis of time {here()}. Give "
                "(batch, time, features), or (time, features)."
            )
        x = tnp.moveaxis(x, -2, 0)
        steps, *batch = aval_of(x).shape[:-1]
        keep = None
        wrong = None
        if lengths is not None:
            self._check_lengths(lengths, tuple(batch), steps, run)
            known = is_known(lengths)
            lengths = tnp.asarray(lengths)[..., None]
            keep = ops.less(tnp.arange(steps).reshape((steps,) + (1,) * (ndim - 1)), lengths)
            # What is not finite there would be NaN in the gradient of the kernel, as 0 times it.
            x = ops.where(keep, x, 0)
            if not known:
                wrong = tnp.logical_or(ops.less(lengths, 0), ops.greater(lengths, np.asarray(steps, np.int32)))
        z = self.cell.project(x, run)
        aval = aval_of(z)
        state = self.cell.initial_state(batch, aval.dtype)
        if initial_state is not None:
            state = like_state(self, initial_state, state, run)
        if wrong is not None:
            state = jax.tree.map(lambda s: ops.where(wrong, math.nan, s), state)

        def step(state: Any, each: Any) -> tuple[Any, Any]:
            z, kept = each
            new, out = self.cell.step(state, z)
            if kept is not None:
                new = jax.tree.map(lambda n, s: ops.where(kept, n, s), new, state)
                out = ops.where(kept, out, 0)
            return new, out

        state, out = scan(step, state, (z, keep), length=steps, reverse=self.reverse)
        return tnp.moveaxis(out, 0, -2), state

    def _check_lengths(self, lengths: Any, batch: tuple[int, ...], steps: int, run: Run | None) -> None:
        try:
            aval = aval_of(lengths if not isinstance(lengths, (list, tuple)) else np.asarray(lengths))
        except TypeError:
            aval = None
        if aval is None or not jnp.issubdtype(aval.dtype, np.integer) or aval.shape != batch:
            raise ValueError(
                f"{name_in(self, run)}: lengths is {describe(lengths)} {here()}. Give an integer for each of the "
                f"sequences, of shape {batch}."
            )
        if is_known(lengths):
            values = np.asarray(lengths)
            wrong = values[(values < 0) | (values > steps)]
            if wrong.size:
                raise ValueError(
                    f"{name_in(self, run)}: a length is {wrong.flat[0]}, and the sequences have {steps} steps "
                    f"{here()}. Give lengths from 0 to {steps}, along the time axis, which is the last but one."
                )


@layer
class LSTM(RNN):
    """An `LSTMCell` over time. The last state is `(c, h)`.

    Attributes:
      cell: an `LSTMCell`.
      reverse: as in `RNN`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> lstm = nn.LSTM.init(random.key(0), 3, 4)
      >>> outputs, (c, h) = lstm(np.ones((2, 5, 3), np.float32))
      >>> outputs.shape, bool((outputs[:, -1] == h).all())
      ((2, 5, 4), True)
      >>> outputs, state = lstm(np.ones((2, 5, 3), np.float32), initial_state=(c, h))
    """

    @classmethod
    def init(cls, key: Any, in_features: int, hidden_features: int, *, reverse: bool = False, **options: Any) -> LSTM:
        """A layer with a drawn `LSTMCell`; as `RNN.init`.

        Raises:
          TypeError, ValueError: if the key is none, or a size is not a positive number.
        """
        return cls(LSTMCell.init(key, in_features, hidden_features, **options), reverse)


@layer
class GRU(RNN):
    """A `GRUCell` over time. The last state is `h`.

    Attributes:
      cell: a `GRUCell`.
      reverse: as in `RNN`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> gru = nn.GRU.init(random.key(0), 3, 4)
      >>> outputs, h = gru(np.ones((2, 5, 3), np.float32))
      >>> outputs.shape, h.shape
      ((2, 5, 4), (2, 4))
    """

    @classmethod
    def init(cls, key: Any, in_features: int, hidden_features: int, *, reverse: bool = False, **options: Any) -> GRU:
        """A layer with a drawn `GRUCell`; as `RNN.init`.

        Raises:
          TypeError, ValueError: if the key is none, or a size is not a positive number.
        """
        return cls(GRUCell.init(key, in_features, hidden_features, **options), reverse)


@layer
class Bidirectional:
    """Two recurrent layers over the same sequences, one forwards and one backwards, and their outputs side by side.

    Schuster and Paliwal, "Bidirectional recurrent neural networks" (1997).

    Attributes:
      forward: an `RNN`, `LSTM` or `GRU`.
      backward: another, which runs in reverse.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> k1, k2 = random.split(random.key(0))
      >>> both = nn.Bidirectional(nn.GRU.init(k1, 3, 4), nn.GRU.init(k2, 3, 4))
      >>> outputs, (forward, backward) = both(np.ones((2, 5, 3), np.float32), lengths=np.array([5, 2]))
      >>> outputs.shape, backward.shape
      ((2, 5, 8), (2, 4))
    """

    forward: Any
    backward: Any

    def __post_init__(self) -> None:
        for name in ("forward", "backward"):
            if not isinstance(getattr(self, name), RNN):
                raise TypeError(
                    f"{called()}: {name} is {describe(getattr(self, name))} {here()}. Give an nn.RNN, nn.LSTM or "
                    "nn.GRU; a cell over time is nn.RNN(cell)."
                )
        if self.forward.reverse:
            raise ValueError(f"{called()}: forward has reverse=True {here()}. Give it as backward.")
        object.__setattr__(self, "backward", dataclasses.replace(self.backward, reverse=True))

    def __call__(
        self, x: Any, run: Run | None = None, *, lengths: Any = None, initial_state: Any = (None, None)
    ) -> tuple[Any, tuple[Any, Any]]:
        """As `RNN` takes and gives, with a pair of states, of forward and backward."""
        outs, states = [], []
        for part, state in zip((self.forward, self.backward), initial_state, strict=True):
            out, last = part(x, run, lengths=lengths, initial_state=state)
            outs.append(out)
            states.append(last)
        return tnp.concatenate(outs, -1), (states[0], states[1])


__all__ = ["GRU", "LSTM", "RNN", "Bidirectional", "GRUCell", "LSTMCell", "RNNCell"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
