"""Weights by name: a pytree as a flat dict of arrays and back, and in files of safetensors."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from ..errors import called, describe, here
from . import agreement
from .extras import extra

_ITEMS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64",
    "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
}  # fmt: skip
"""What the format calls dtypes, by its description (huggingface/safetensors, README and `Dtype`)."""


def named_leaves(tree: Any) -> dict[str, Any]:
    """The arrays of a pytree by readable names: the parts of their paths, with dots between.

    Raises:
      ValueError: if two have the same name.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random, train
      >>> model = nn.Sequential([nn.Linear.init(random.key(0), 2, 3)])
      >>> {name: leaf.shape for name, leaf in train.named_leaves({"model": model, "step": np.zeros(())}).items()}
      {'model.layers.0.kernel': (2, 3), 'model.layers.0.bias': (3,), 'step': ()}
    """
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name in found:
            raise ValueError(
                f"{called()}: two arrays have the name {name!r} {here()}. Leave out dots in the keys of dicts."
            )
        found[name] = leaf
    return found


def differences(found: Mapping[str, tuple[Any, Any]], like: Any, there: str) -> list[str]:
    """How named shapes and dtypes, `(shape, dtype)`, differ from the leaves of a tree: a line for each."""
    wanted = {name: shape_and_dtype(leaf) for name, leaf in named_leaves(like).items()}
    lines = [
        f"{name} is {text(*found[name])} in {there}, and {text(*wanted[name])} here"
        for name in wanted
        if name in found and found[name] != wanted[name]
    ]
    lines += [f"{name}, {text(*wanted[name])}, is not in {there}" for name in wanted if name not in found]
    return lines + [f"{name}, {text(*found[name])}, is in {there} alone" for name in found if name not in wanted]


def text(shape: Any, dtype: Any) -> str:
    return f"{dtype}[{','.join(map(str, shape))}]"


def shape_and_dtype(leaf: Any) -> tuple[tuple[int, ...], str]:
    """Of an array or a number, the dtype by its name."""
    if not hasattr(leaf, "dtype"):
        if not isinstance(leaf, (bool, int, float, complex)):
            raise TypeError(f"{called()}: {describe(leaf)} is to be saved {here()}, and is no array. Leave it out.")
        leaf = np.asarray(leaf, jax.dtypes.canonicalize_dtype(np.result_type(leaf)))
    return tuple(leaf.shape), str(leaf.dtype)


def is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def is_spread(leaf: Any) -> bool:
    """Whether parts of an array are in other processes alone."""
    return isinstance(leaf, jax.Array) and not leaf.is_fully_addressable and not leaf.is_fully_replicated


def on_host(leaf: Any) -> np.ndarray[Any, Any]:
    """A copy of an array in NumPy's memory, which stays when the array is donated; of a random key, its bits.

    What is spread over processes is gathered: all of them have to call this.
    """
    if is_key(leaf):
        leaf = jax.random.key_data(leaf)
    dtype = np.dtype(shape_and_dtype(leaf)[1])
    return np.array(multihost_utils.process_allgather(leaf, tiled=True) if is_spread(leaf) else leaf, dtype, order="C")


def placed_like(value: np.ndarray[Any, Any], like: Any) -> Any:
    """The value on the devices on which an array is, sharded as that; a key where that is one."""
    if is_key(like):
        return jax.random.wrap_key_data(placed_like(value, jax.random.key_data(like)), impl=jax.random.key_impl(like))
    if not isinstance(like, jax.Array) or not like.committed:
        return jnp.asarray(value)
    if like.is_fully_addressable:
        return jax.device_put(value, like.sharding)
    return jax.make_array_from_callback(value.shape, like.sharding, lambda part: value[part])


def save_weights(path: str | os.PathLike[str], tree: Any, metadata: Mapping[str, str] | None = None) -> None:
    """Writes the arrays of a pytree to a file of safetensors, by `named_leaves`; the file is whole, or is not there.

    Args:
      path: of the file, such as "model.safetensors".
      tree: a pytree of arrays, such as a model; bfloat16 and the 8-bit floats are kept as they are.
      metadata: texts to put beside them.

    In many processes all of them call it, and process 0 alone writes.

    Raises:
      ImportError: without safetensors.
      TypeError: for what the format has not: random keys, complex128, 4-bit numbers.
      OSError: if the file cannot be written; what was there before stays.

    Example:
      >>> import tempfile, numpy as np
      >>> from tracegrad import nn, random, train
      >>> model = nn.Linear.init(random.key(0), 2, 3)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     train.save_weights(f"{folder}/model.safetensors", model)
      ...     again = train.load_weights(f"{folder}/model.safetensors", like=model)
      ...     list(train.load_weights(f"{folder}/model.safetensors"))
      ['kernel', 'bias']
      >>> bool((again.kernel == model.kernel).all())
      True
    """
    save = extra("safetensors.numpy", "safetensors").save
    of = {dtype: item for item, dtype in _ITEMS.items()}
    arrays = {}
    for name, leaf in named_leaves(tree).items():
        dtype = shape_and_dtype(leaf)[1]
        if dtype not in of:
            raise TypeError(
                f"{called()}: {name or 'the tree'} is {describe(leaf)}, and safetensors has no dtype {dtype} {here()}. "
                "Convert it, or save it by train.Checkpoints."
            )
        arrays[name] = on_host(leaf)
    # A name cannot be empty, as that of a tree which is one array.
    tensors = {name or "weights": array for name, array in arrays.items()}
    if agreement.index():
        return
    # The format orders by size, and what reads it gives that order: the order of the tree is put beside it.
    names = dict(metadata or {}) | {"order": "\n".join(tensors)}
    whole_file(path, save(tensors, metadata=names))


def load_weights(path: str | os.PathLike[str], like: Any = None) -> Any:
    """Reads what is in a file of safetensors, whoever wrote it.

    Args:
      path: of the file.
      like: a pytree of arrays with the same names, shapes and dtypes, such as a model.

    Returns:
      A pytree like `like`, its arrays on the same devices; without it, a dict of NumPy's arrays by name.

    Raises:
      ImportError: without safetensors.
      FileNotFoundError: if there is no such file.
      ValueError: if it is damaged, or what it has is not what `like` has; the message names what differs.
    """
    safetensors = extra("safetensors", "safetensors")
    content = Path(path).read_bytes()
    try:
        found = dict(safetensors.deserialize(content))
    except safetensors.SafetensorError as error:
        raise ValueError(f"{called()}: {path} is damaged, or no file of safetensors {here()}: {error}") from error
    arrays: dict[str, Any] = {}
    for name, tensor in found.items():
        if tensor["dtype"] not in _ITEMS:
            raise ValueError(
                f"{called()}: {name} in {path} is of dtype {tensor['dtype']}, which NumPy has not {here()}."
            )
        array = np.frombuffer(bytes(tensor["data"]), jnp.dtype(_ITEMS[tensor["dtype"]])).reshape(tensor["shape"])
        arrays[name] = array if sys.byteorder == "little" else array.byteswap()
    order = _metadata(content).get("order", "").split("\n")
    arrays = {name: arrays[name] for name in order} if sorted(order) == sorted(arrays) else arrays
    if like is None:
        return {name: array.copy() for name, array in arrays.items()}
    if list(named_leaves(like)) == [""]:
        arrays = {"" if name == "weights" else name: array for name, array in arrays.items()}
    wrong = differences({name: shape_and_dtype(array) for name, array in arrays.items()}, like, "the file")
    if wrong:
        raise ValueError(
            f"{called()}: {path} does not fit {here()}: {shortened(wrong)}. Give like= the model that was saved, or "
            "leave it out for a dict of arrays."
        )
    return from_named(arrays, like)


def from_named(arrays: Mapping[str, Any], like: Any) -> Any:
    """A tree like `like`, of arrays of the same names."""
    leaves = [placed_like(arrays[name], leaf) for name, leaf in named_leaves(like).items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def shortened(lines: list[str], most: int = 3) -> str:
    rest = f"; and {len(lines) - most} more" if len(lines) > most else ""
    return "; ".join(lines[:most]) + rest


def whole_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file so that it is there whole, or as it was before."""
    temporary = f"{os.fspath(path)}.tmp{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _metadata(content: bytes) -> dict[str, str]:
    """The texts beside the arrays: the header is JSON, after its length in 8 bytes."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header.get("__metadata__", {})  # type: ignore[no-any-return]


__all__ = ["load_weights", "named_leaves", "save_weights"]
