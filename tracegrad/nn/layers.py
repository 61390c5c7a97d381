"""The idiom of layers: a layer is a pytree whose leaves are its parameters, and what changes besides is in a run."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import DictKey, GetAttrKey, SequenceKey

from .. import random
from ..errors import called, describe, here
from ..names import listed
from ..recording import state as recording
from ..tape import aval_of

T = TypeVar("T")

_MARK = "__tracegrad_layer__"


def static(*, default: Any = dataclasses.MISSING) -> Any:
    """A field of a layer that is a setting, not a parameter: part of the program, hashable, never trained.

    Args:
      default: its value where the constructor is given none.

    Example:
      >>> from tracegrad import nn
      >>> @nn.layer
      ... class Scale:
      ...     factor: float = nn.static(default=2.0)
      ...
      ...     def __call__(self, x, run=None):
      ...         return self.factor * x
      >>> Scale()(3.0), Scale(5.0)(3.0)
      (6.0, 15.0)
    """
    return dataclasses.field(default=default, metadata={"static": True})


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(static, dataclasses.field))
def layer(cls: type[T]) -> type[T]:
    """Makes a class a layer: a frozen dataclass and a pytree, whose leaves are its parameters.

    The fields are arrays, other layers, lists, tuples and dicts of these, or `None`; settings are marked by `static`.
    The constructor takes the fields, and by convention a class method `init(key, ...)` draws them. By convention too,
    `__call__(self, x, run=None)` passes `run` on to the layers inside: a `Run` has what is no parameter. A layer
    with something that changes in training has `init_state(self)`, which gives a dict of arrays.

    Two layers are equal if they are the same object. `print(model)` shows the tree, with shapes and counts.

    Raises:
      TypeError: from the constructor, for a field that is neither a parameter nor marked as a setting, or a setting
        that is not hashable.
      ValueError: from the constructor, for a layer with parameters that is there twice.

    Example:
      >>> from tracegrad import nn, random
      >>> @nn.layer
      ... class Net:
      ...     hidden: nn.Linear
      ...     out: nn.Linear
      ...
      ...     def __call__(self, x, run=None):
      ...         return self.out(nn.relu(self.hidden(x, run)), run)
      >>> k1, k2 = random.split(random.key(0))
      >>> print(Net(nn.Linear.init(k1, 4, 8), nn.Linear.init(k2, 8, 3)))
      Net: 67 parameters
        hidden: Linear: 40 parameters
          kernel: f32[4,8]
          bias: f32[8]
        out: Linear: 27 parameters
          kernel: f32[8,3]
          bias: f32[3]
    """
    after = cls.__dict__.get("__post_init__")

    def __post_init__(self: Any) -> None:
        if type(self) is not made:
            raise TypeError(
                f"{type(self).__name__} is no layer of its own {here()}. Write @nn.layer above the class, as its "
                f"parent {cls.__name__} has it."
            )
        if after is not None:
            after(self)
        _check_fields(self)

    written = "__init__" in cls.__dict__
    if isinstance(own := cls.__dict__.get("init"), classmethod):
        setattr(cls, "init", classmethod(_fitting(own.__func__, ".init")))  # noqa: B010
    setattr(cls, "__post_init__", __post_init__)  # noqa: B010
    if "__call__" in cls.__dict__:
        setattr(cls, "__call__", _watched(cls.__dict__["__call__"]))  # noqa: B010
    if "__repr__" not in cls.__dict__:
        setattr(cls, "__repr__", _text)  # noqa: B010
    made = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
    if not written:
        # The place of an error is in the user's code: not in what `dataclass` writes, which has no file.
        init: Any = made.__init__
        init.__code__ = init.__code__.replace(co_filename=__file__)
        setattr(made, "__init__", _fitting(init, ""))  # noqa: B010
    fields = dataclasses.fields(made)  # type: ignore[arg-type]
    names = [f.name for f in fields if not f.metadata.get("static")]
    settings = [f.name for f in fields if f.metadata.get("static")]
    keys = [GetAttrKey(name) for name in names]
    order, new = (*names, *settings), object.__new__

    # A call of a jitted step does these for each layer, so they do no more than they must.
    def flatten(self: Any) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(self, name) for name in names], tuple([getattr(self, name) for name in settings])

    def flatten_with_keys(self: Any) -> tuple[list[Any], tuple[Any, ...]]:
        children, values = flatten(self)
        return list(zip(keys, children, strict=True)), values

    def unflatten(values: tuple[Any, ...], children: Any) -> Any:
        # Not by the constructor: the leaves may be anything here.
        self = new(made)
        self.__dict__.update(zip(order, (*children, *values)))  # noqa: B905
        return self

    setattr(made, _MARK, True)
    jax.tree_util.register_pytree_with_keys(made, flatten_with_keys, unflatten, flatten)
    return made


def _watched(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call of a layer, of which whoever watches is told, such as `summary`."""
    names = list(inspect.signature(call).parameters)
    place = names.index("run") - 1 if "run" in names else None

    @functools.wraps(call)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        if place is not None:
            run = args[place] if len(args) > place else kwargs.get("run")
            if run is not None and not isinstance(run, Run):
                raise TypeError(
                    f"{type(self).__name__}: run is {given(run)}, which is not a run {here()}. Write model(x, run) "
                    "with run = nn.Run(model, state, key=key, training=True): it has the state and the key."
                )
        watch = recording.watch
        return call(self, *args, **kwargs) if watch is None else watch(call, self, args, kwargs)

    return __call__


def _fitting(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The constructor of a layer, or its `init`, which says how it is called where the arguments do not fit."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapped(own: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            signature.bind(own, *args, **kwargs)
        except TypeError as error:
            cls = own if isinstance(own, type) else type(own)
            forms = [_form(cls, name, signature)] + ([] if name else _init_form(cls))
            text = f"{cls.__name__}{name}: {error} {here()}. Write {', or '.join(forms)}."
            raise TypeError(text) from None
        return function(own, *args, **kwargs)

    return wrapped


def _form(cls: type, name: str, signature: inspect.Signature) -> str:
    """How it is called: `Linear.init(key, in_features, out_features)`."""
    _, *parameters = signature.parameters.values()
    names = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return f"{cls.__name__}{name}({', '.join(names)})"


def _init_form(cls: type) -> list[str]:
    init = vars(cls).get("init")
    if not isinstance(init, classmethod):
        return []
    return [f"{_form(cls, '.init', inspect.signature(init.__func__))}, which makes the parameters"]


def is_layer(x: Any) -> bool:
    """Whether this is a layer, an instance of a class under `@nn.layer`."""
    return hasattr(type(x), _MARK)


def sublayers(layer: Any) -> Iterator[tuple[str, Any]]:
    """The layers that are parts of a layer, each with its name there, such as `norm` or `layers[1]`."""
    for name, value in _parts(layer):
        if is_layer(value):
            yield name, value


def _parts(layer: Any) -> Iterator[tuple[str, Any]]:
    """The layers and the leaves that a layer has itself, by name."""
    for f in dataclasses.fields(layer):
        if not f.metadata.get("static"):
            for path, value in jax.tree_util.tree_flatten_with_path(getattr(layer, f.name), is_leaf=is_layer)[0]:
                yield f.name + named(path), value


def named(path: tuple[Any, ...]) -> str:
    """A path of a pytree as it is written, such as `[1]`."""
    if all(isinstance(key, (DictKey, SequenceKey)) for key in path):
        return "".join([f"[{key.key if isinstance(key, DictKey) else key.idx!r}]" for key in path])
    return jax.tree_util.keystr(path)


def walk(layer: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A layer and all the layers in it, each with the names that lead there."""
    yield names, layer
    for name, part in sublayers(layer):
        yield from walk(part, (*names, name))


def _check_fields(layer: Any) -> None:
    kind = type(layer).__name__
    for f in dataclasses.fields(layer):
        value = getattr(layer, f.name)
        if f.metadata.get("static"):
            try:
                hash(value)
            except TypeError:
                remedy = f"Give a tuple: {tuple(value)}." if isinstance(value, list) else "Give one that is hashable."
                raise TypeError(
                    f"{kind}: the setting {f.name}, {describe(value)}, is part of the program and has to be hashable "
                    f"{here()}. {remedy}"
                ) from None
            continue
        for path, x in jax.tree_util.tree_flatten_with_path(value, is_leaf=is_layer)[0]:
            if isinstance(x, (bool, int, float, complex, str)) or (callable(x) and not is_layer(x)):
                forms = "".join([f"Write {form}. " for form in _init_form(type(layer))])
                raise TypeError(
                    f"{kind}: {f.name}{named(path)} is {given(x)}, which is no parameter {here()}. {forms}Mark a "
                    f"setting of a layer by nn.static(): `{f.name}: {type(x).__name__} = nn.static()`. A parameter is "
                    "an array, and a function among layers is nn.Function(f)."
                )
            if jnp.issubdtype(getattr(x, "dtype", np.float32), jax.dtypes.prng_key):
                forms = "".join([f"Write {form}. " for form in _init_form(type(layer))])
                raise TypeError(
                    f"{kind}: {f.name}{named(path)} is a random key, which is no parameter {here()}. {forms}The keys "
                    "of a call are those of its run: nn.Run(model, key=key)."
                )
    seen: dict[int, str] = {}
    for names, part in walk(layer):
        where = ".".join(names)
        if jax.tree.leaves(part) and seen.setdefault(id(part), where) != where:
            raise ValueError(
                f"{kind}: {where} and {seen[id(part)]} are one {type(part).__name__} {here()}. As a pytree it would "
                "have its parameters twice, and they would be trained apart. Keep it once, and call it twice."
            )


# -- how a layer prints


def count(tree: Any) -> int:
    """The number of elements of the arrays of a pytree."""
    return sum(math.prod(np.shape(x)) for x in jax.tree.leaves(tree))


def settings(layer: Any) -> str:
    """The settings of a layer that are not its defaults, such as `(rate=0.5)`."""
    shown = [
        f"{f.name}={getattr(value, '__name__', repr(value))}"
        for f in dataclasses.fields(layer)
        if f.metadata.get("static") and (value := getattr(layer, f.name)) != f.default
    ]
    return f"({', '.join(shown)})" if shown else ""


def _text(layer: Any) -> str:
    return "\n".join(_lines(layer))


def _lines(layer: Any) -> Iterator[str]:
    n = count(layer)
    total = f": {n:,} parameter{'s' if n != 1 else ''}" if n else ""
    yield f"{type(layer).__name__}{settings(layer)}{total}"
    for name, value in _parts(layer):
        if is_layer(value):
            first, *rest = _lines(value)
            yield f"  {name}: {first}"
            yield from (f"  {line}" for line in rest)
        else:
            yield f"  {name}: {describe(value)}"


# -- what is no parameter


def init_state(model: Any) -> dict[str, Any]:
    """What changes in training and is no parameter, such as running averages, as it is at first.

    Returns:
      A dict of each layer that has any, by its name, empty where there is none: `{"norm": {"mean": ..., "var": ...}}`.

    Raises:
      TypeError: if `model` is not a layer.

    Example:
      >>> from tracegrad import nn
      >>> state = nn.init_state(nn.Sequential([nn.BatchNorm.init(2), nn.Dropout(0.5)]))
      >>> print(state["layers[0]"]["var"])
      [1. 1.]
      >>> list(state)
      ['layers[0]']
    """
    need_layer(model)
    own: dict[str, Any] = model.init_state() if hasattr(type(model), "init_state") else {}
    parts = {name: init_state(part) for name, part in sublayers(model) if name not in own}
    return {name: part for name, part in parts.items() if part} | own


def need_layer(model: Any) -> None:
    """Raises unless this is a layer."""
    if not is_layer(model):
        raise TypeError(
            f"{called()}: the model is {describe(model)}, which is not a layer {here()}. Give an instance of a class "
            "under @nn.layer; of several layers make one with nn.Sequential."
        )


def _place() -> Any:
    """What records now, and under which trace of JAX's."""
    # Late, as in `recording`: it brings Pallas with it.
    from jax.extend.core import get_opaque_trace_state

    return recording.tape, get_opaque_trace_state(convention="nnx")


class Run:
    """One pass through a model: whether it is training, and the state and the random keys that its layers ask for.

    It is made where the model is called, of the very object that is called, and the layers pass it on:

        def loss(model, state, x, y, key):
            run = nn.Run(model, state, key=key, training=True)
            return nn.losses.squared_error(model(x, run), y), run.state

    Each layer has a key of its own, by its path in the model and by how often it has asked: layers elsewhere in the
    model change nothing. A run belongs to the recording that it was made in. What a loop, a branch, `vmap` or
    `checkpoint` calls makes one of its own: see `through`.

    Args:
      model: a layer.
      state: as `init_state(model)` gives it at first, and `run.state` afterwards; may be left out if it is empty.
      key: a random key, where a layer needs one, a new one for each run.
      training: whether layers like `Dropout` and `BatchNorm` do what they do in training.

    Attributes:
      training: whether this is training.

    Raises:
      TypeError: if the model is not a layer.
      ValueError: if the state is of another model.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> model = nn.Sequential([nn.BatchNorm.init(1), nn.Dropout(0.5)])
      >>> run = nn.Run(model, nn.init_state(model), key=random.key(0), training=True)
      >>> model(np.array([[0.0], [2.0]], np.float32), run).shape
      (2, 1)
      >>> print(run.state["layers[0]"]["mean"])
      [0.01]
    """

    def __init__(self, model: Any, state: Any = None, *, key: Any = None, training: bool = False) -> None:
        need_layer(model)
        if key is not None and not is_key(key):
            raise TypeError(
                f"{called()}: key is {given(key)}, which is not a random key {here()}. Give one key, a new one for "
                "each step: tracegrad.random.key(0), or tracegrad.random.fold_in(key, step)."
            )
        self.training = training
        self._start(model, state, key, ())

    def _start(self, model: Any, state: Any, key: Any, prefix: tuple[str, ...]) -> None:
        self._model = model
        self._state: dict[str, Any] = {} if state is None else state
        self._key = key
        self._prefix = prefix
        self._asked: dict[tuple[str, ...], int] = {}
        self._place = _place()
        self._names: dict[int, tuple[str, ...]] = {}
        for names, part in walk(model):
            self._names.setdefault(id(part), names)
        self._check_state(self._state, model, ())

    def _check_state(self, state: Any, layer: Any, names: tuple[str, ...]) -> None:
        if not isinstance(state, dict):
            raise TypeError(
                f"{called()}: the state of {self._at(names)} is {describe(state)}, not a dict {here()}. Start from "
                "nn.init_state(model), and go on with run.state."
            )
        parts = dict(sublayers(layer))
        for name, value in state.items():
            if name in parts:
                self._check_state(value, parts[name], (*names, name))
            elif not hasattr(type(layer), "init_state"):
                raise ValueError(
                    f"{called()}: the state has {self._at((*names, name))}, and the model has no such layer {here()}. "
                    "It is of another model: start from nn.init_state(model)."
                )

    def _at(self, names: tuple[str, ...]) -> str:
        return ".".join(("model", *self._prefix, *names))

    def _names_of(self, layer: Any) -> tuple[str, ...]:
        names = self._names.get(id(layer))
        if names is None:
            raise ValueError(
                f"{called()}: this {type(layer).__name__} is not a part of the model that the run was made of "
                f"{here()}. Make the run inside the function that is differentiated, of the model that it calls there: "
                "run = nn.Run(model, state, key=key, training=True)."
            )
        return names

    def path(self, layer: Any) -> str:
        """Where in the model a layer is, such as `model.layers[1]`; only its kind for one that is elsewhere."""
        names = self._names.get(id(layer))
        return type(layer).__name__ if names is None else self._at(names)

    @property
    def state(self) -> dict[str, Any]:
        """The state of the model after all that has been called: what to give to the next run."""
        return self._state

    def key(self, layer: Any) -> Any:
        """A random key for a layer, another each time that it asks.

        Raises:
          ValueError: if the run has no key, or is not of this model, or was made outside the body that runs now.
        """
        names = self._names_of(layer)
        if self._key is None:
            raise ValueError(
                f"{name_in(layer, self)} needs a random key {here()}. Give one to the run: "
                "nn.Run(model, state, key=key, training=True), a new one for each step of training."
            )
        self._check_place(layer, "asks for a random key", "would get the same one")
        count = self._asked[names] = self._asked.get(names, -1) + 1
        return random.fold_in(self._key, np.uint32(zlib.crc32(f"{'.'.join(names)}#{count}".encode())))

    def get(self, layer: Any) -> dict[str, Any]:
        """The state of a layer and of the layers in it.

        Raises:
          ValueError: if the layer has a state and the run was given none, or the run is not of this model.
        """
        names = self._names_of(layer)
        found: Any = self._state
        for name in names:
            found = found.get(name, {})
        if not found and hasattr(type(layer), "init_state") and layer.init_state():
            raise ValueError(
                f"{name_in(layer, self)} has a state, and the run has none for it {here()}. Make it by "
                "state = nn.init_state(model), and the run by nn.Run(model, state)."
            )
        return dict(found)

    def set(self, layer: Any, state: dict[str, Any]) -> None:
        """Puts a new state of a layer, and of the layers in it, in the place of the old one.

        Raises:
          ValueError: if the run is not of this model, or was made outside the body that runs now.
        """
        names = self._names_of(layer)
        self._check_place(layer, "has a new state", "would lose it")

        def put(old: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
            return {**old, names[0]: put(old.get(names[0], {}), names[1:])} if names else state

        if state or self.get(layer):
            self._state = put(self._state, names)

    def _check_place(self, layer: Any, what: str, why: str) -> None:
        if _place() != self._place:
            raise ValueError(
                f"{name_in(layer, self)} {what} {here()} inside a function that a transform calls (scan, cond, vmap, "
                f"checkpoint, jit, grad), and the run was made outside it: each step {why}. Make the run inside, or "
                "call the layer by run.through(tg.checkpoint, layer, x); layers one after the other are nn.Stack."
            )

    def through(self, transform: Callable[..., Any], layer: Any, *args: Any) -> Any:
        """`layer(*args, run)` through a transform of functions, such as `tg.checkpoint` or `tg.jit`.

        What the transform is given is a function of the layer, its state, a key and `args`: all that it reads is among
        its arguments, and all that changes among its results.

        Example:
          >>> import numpy as np, tracegrad as tg
          >>> from tracegrad import nn
          >>> model = nn.Sequential([nn.BatchNorm.init(3)])
          >>> run = nn.Run(model, nn.init_state(model), training=True)
          >>> run.through(tg.checkpoint, model, np.eye(3, dtype=np.float32)).shape
          (3, 3)
        """
        out, new = transform(self.within(layer))(layer, self.get(layer), self.split(layer), *args)
        self.set(layer, new)
        return out

    def split(self, layer: Any) -> Any:
        """The key of a layer, or `None` if the run has none."""
        return None if self._key is None else self.key(layer)

    def within(self, layer: Any) -> Callable[..., Any]:
        """`layer` as a function `(layer, state, key, *args) -> (out, state)` that keeps nothing: for transforms.

        Further keyword arguments are the layer's.
        """
        prefix = (*self._prefix, *self._names_of(layer))

        def body(layer: Any, state: Any, key: Any, *args: Any, **kwargs: Any) -> Any:
            run = object.__new__(Run)
            run.training = self.training
            run._start(layer, state, key, prefix)
            return layer(*args, run, **kwargs), run.state

        return body


# -- what layers say of themselves


def name_in(layer: Any, run: Run | None) -> str:
    """What a message calls a layer: its kind, and its path in the model where a run knows it."""
    path = run.path(layer) if isinstance(run, Run) else type(layer).__name__
    kind = type(layer).__name__
    return kind if path == kind else f"{kind} at {path}"


def hashable(value: Any) -> Any:
    """A setting with tuples for its lists."""
    return tuple([hashable(v) for v in value]) if isinstance(value, (list, tuple)) else value


def input_features(layer: Any, x: Any, wanted: int, run: Run | None, remedy: str) -> Any:
    """The type of the input of a layer that takes `wanted` features, in the last axis.

    Raises:
      TypeError, ValueError: if it is not an array, or has another number of features.
    """
    try:
        aval = aval_of(x)
    except TypeError:
        remedy = "Convert it with numpy.asarray."
        if isinstance(x, tuple):
            remedy = "If it is what a layer like LSTM returns, (outputs, state), pass on the outputs alone."
        raise TypeError(
            f"{name_in(layer, run)}: the input is {describe(x)}, which is not an array {here()}. {remedy}"
        ) from None
    if aval.ndim < 1 or aval.shape[-1] != wanted:
        has = f"{aval.shape[-1]} features in its last axis" if aval.ndim else "no axis of features"
        raise ValueError(
            f"{name_in(layer, run)}: the input {aval} has {has}, and the layer takes {wanted} {here()}. {remedy}"
        )
    return aval


def check_parameters(layer: Any, run: Run | None, **axes: int) -> None:
    """Raises unless these parameters of a layer have so many axes: those of an ensemble have one more.

    Raises:
      ValueError: if one has more or fewer.
    """
    for name, count in axes.items():
        value = getattr(layer, name)
        if value is not None and value.ndim != count:
            raise ValueError(
                f"{name_in(layer, run)}: its {name} is {describe(value)}, with {value.ndim} axes in place of {count} "
                f"{here()}. The models of an ensemble are called through vmap, the layers of a stack by nn.Stack."
            )


def given(value: Any) -> str:
    """A value as a message names it, a number of Python's as it is written."""
    return repr(value) if isinstance(value, (bool, int, float)) else describe(value)


def is_key(key: Any) -> bool:
    """Whether this is one random key."""
    try:
        aval = aval_of(key)
    except TypeError:
        return False
    if jnp.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return not aval.shape
    return aval.dtype == np.uint32 and aval.ndim == 1


def check_init(key: Any, **sizes: Any) -> None:
    """Raises unless this is a random key, and these are positive numbers.

    Raises:
      TypeError, ValueError: as the message says.
    """
    if not is_key(key):
        raise TypeError(
            f"{called()}: key is {given(key)}, which is not a random key {here()}. The key is the first argument: "
            "tracegrad.random.key(0), or one of tracegrad.random.split(key, n)."
        )
    check_sizes(**sizes)


def check_sizes(**sizes: Any) -> None:
    """Raises unless these are positive numbers.

    Raises:
      TypeError, ValueError: as the message says.
    """
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"{called()}: {name} is {given(value)}, not a whole number {here()}.")
        if value < 1:
            raise ValueError(f"{called()}: {name}={value} {here()}. Give 1 or more.")


__all__ = ["Run", "init_state", "layer", "static"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
