"""The formulas of three workloads in PyTorch, eager, on the CPU: for the figure that holds a step against PyTorch's."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy

Array = Any
Params = dict[str, Any]


def available() -> bool:
    return importlib.util.find_spec("torch") is not None


def step(workload: str, arguments: tuple[Any, ...]) -> Callable[[], Any]:
    """A call of the value and gradient of this workload, with as many threads as XLA takes."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(os.cpu_count() or 1)
    formula, prepare = FORMULAS[workload]
    params, *batch = prepare(torch, *jax.tree.map(lambda a: torch.tensor(numpy.asarray(a)), arguments))
    leaves, tree = jax.tree.flatten(params)
    leaves = [leaf.contiguous().requires_grad_() for leaf in leaves]

    def run() -> Any:
        value = formula(torch, jax.tree.unflatten(tree, leaves), *batch)
        gradient = torch.autograd.grad(value, leaves)
        return value.detach().numpy(), jax.tree.unflatten(tree, [g.numpy() for g in gradient])

    return run


def with_long_labels(torch: Any, params: Any, x: Array, labels: Array) -> Any:
    return params, x, labels.long()


def features_first(torch: Any, params: Params, x: Array, labels: Array) -> Any:
    """PyTorch's own layouts: images as `NCHW`, kernels as `OIHW`."""
    params = {k: p.permute(3, 2, 0, 1) if k.startswith("conv") else p for k, p in params.items()}
    return params, x.permute(0, 3, 1, 2).contiguous(), labels.long()


def as_they_are(torch: Any, *arguments: Any) -> Any:
    return arguments


def mlp(torch: Any, params: list[Params], x: Array, labels: Array) -> Array:
    *hidden, last = params
    for layer in hidden:
        x = torch.relu(x @ layer["w"] + layer["b"])
    return torch.nn.functional.cross_entropy(x @ last["w"] + last["b"], labels)


def cnn(torch: Any, params: Params, x: Array, labels: Array) -> Array:
    f = torch.nn.functional
    x = f.max_pool2d(f.relu(f.conv2d(x, params["conv1"], params["bias1"], padding=1)), 2)
    x = f.max_pool2d(f.relu(f.conv2d(x, params["conv2"], params["bias2"], padding=1)), 2)
    return f.cross_entropy(x.flatten(1) @ params["dense"] + params["bias3"], labels)


def lstm(torch: Any, params: Params, xs: Array, target: Array) -> Array:
    h = c = torch.zeros(xs.shape[1], params["u"].shape[0])
    for x in xs:
        i, f, g, o = (x @ params["w"] + h @ params["u"] + params["b"]).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    return ((h @ params["out"] - target) ** 2).mean()


FORMULAS: dict[str, tuple[Callable[..., Array], Callable[..., Any]]] = {
    "mlp": (mlp, with_long_labels),
    "cnn": (cnn, features_first),
    "scan-lstm": (lstm, as_they_are),
}
