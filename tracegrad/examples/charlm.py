"""Trains a small transformer to write documentation, character by character, and lets it write.

The text is what every machine with Python has: the documentation strings of its standard library, so that another
version of Python has another text. A tenth of the modules is kept for the test. The figure is bits per character,
beside those of a model that knows how often each character comes, and of one that knows how often after each other one.

The model: two blocks of attention and MLP with rotary positions, over the 96 characters of ASCII that can be printed;
AdamW with a rate that rises for a tenth of the steps and falls to 0 along a cosine.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import math
import warnings
from typing import Any

import numpy as np

import tracegrad as tg
from tracegrad import nn, optimizers, schedules, train
from tracegrad.examples import running

MODULES = (
    "abc", "argparse", "array", "ast", "asyncio", "base64", "bdb", "bisect", "bz2", "calendar", "cmath", "cmd",
    "codecs", "collections", "configparser", "contextlib", "copy", "csv", "dataclasses", "datetime", "decimal",
    "difflib", "dis", "doctest", "email.message", "enum", "filecmp", "fnmatch", "fractions", "ftplib", "functools",
    "gettext", "glob", "hashlib", "heapq", "hmac", "html", "http.client", "imaplib", "inspect", "io", "ipaddress",
    "itertools", "json", "locale", "logging", "mailbox", "math", "mimetypes", "multiprocessing", "numbers",
    "operator", "os", "pathlib", "pdb", "pickle", "pickletools", "platform", "pprint", "queue", "random", "re",
    "sched", "secrets", "selectors", "shelve", "shlex", "shutil", "signal", "smtplib", "socket", "sqlite3", "ssl",
    "statistics", "string", "struct", "subprocess", "sys", "tarfile", "tempfile", "textwrap", "threading", "time",
    "timeit", "tokenize", "traceback", "tracemalloc", "types", "typing", "unittest", "urllib.request", "uuid",
    "warnings", "weakref", "xml.dom.minidom", "zipfile",
)  # fmt: skip

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))


def documentation(names: tuple[str, ...]) -> str:
    """What these modules, and the public classes, methods and functions in them, say of themselves, each text once."""
    texts: dict[str, None] = {}

    def add(value: Any) -> None:
        # `__doc__`, and not what `inspect.getdoc` finds in a class above.
        text = getattr(value, "__doc__", None)
        if isinstance(text, str):
            texts[inspect.cleandoc(text)] = None

    with warnings.catch_warnings():
        # Some names are kept for old programs, and warn when they are looked at.
        warnings.simplefilter("ignore", DeprecationWarning)
        for name in names:
            try:
                module = importlib.import_module(name)
            except ImportError:
                # Some are left out where the library that they need is not there.
                continue
            add(module)
            for key, value in sorted(vars(module).items()):
                if key.startswith("_") or not (inspect.isclass(value) or inspect.isroutine(value)):
                    continue
                if getattr(value, "__module__", None) == name:
                    add(value)
                    for method, function in sorted(vars(value).items()) if inspect.isclass(value) else ():
                        if not method.startswith("_"):
                            add(function)
    known = set(ALPHABET)
    return "\n\n".join("".join(c for c in text if c in known) for text in texts if text) + "\n"


def load(context: int) -> tuple[Any, Any]:
    """The texts to train and to test on, as windows of characters, integers of shape `(N, context + 1)`.

    Each window begins with the last character of the one before, so that each character is predicted once.
    """
    number = {c: i for i, c in enumerate(ALPHABET)}
    cut = len(MODULES) * 9 // 10
    # In an order of their own, so that the last are not those whose names end the alphabet.
    order = np.random.default_rng(0).permutation(len(MODULES))
    parts = []
    for chosen in (order[:cut], order[cut:]):
        text = np.array([number[c] for c in documentation(tuple(MODULES[i] for i in sorted(chosen)))], np.int32)
        starts = np.arange(0, len(text) - context, context)
        parts.append(text[starts[:, None] + np.arange(context + 1)])
    return parts[0], parts[1]


def network(key: Any, width: int, layers: int) -> nn.Sequential:
    """The network: characters of shape `(N, T)` to scores of the next ones, `(N, T, 96)`."""
    keys = tg.random.split(key, 3)

    def block(key: Any) -> nn.TransformerBlock:
        return nn.TransformerBlock.init(key, width, max(1, width // 32), is_causal=True, rotary_base=10_000.0)

    return nn.Sequential(
        [
            nn.Embedding.init(keys[0], len(ALPHABET), width),
            nn.Stack.init(keys[1], layers, block),
            nn.LayerNorm.init(width),
            nn.Linear.init(keys[2], width, len(ALPHABET)),
        ]
    )


def loss(model: Any, windows: Any) -> Any:
    """Mean cross-entropy, in nats a character."""
    logits = model(windows[:, :-1])
    return nn.losses.sparse_categorical_cross_entropy(logits, windows[:, 1:], from_logits=True)


def counted(train_x: Any, test_x: Any) -> tuple[float, float]:
    """Bits per character of the test by counts of characters, and of pairs of them, in training; each is one more."""
    k = len(ALPHABET)
    pairs = np.ones((k, k))
    np.add.at(pairs, (train_x[:, :-1], train_x[:, 1:]), 1)
    single, double = pairs.sum(0) / pairs.sum(), pairs / pairs.sum(1, keepdims=True)
    bits = (-np.log2(p).mean() for p in (single[test_x[:, 1:]], double[test_x[:, :-1], test_x[:, 1:]]))
    return tuple(float(b) for b in bits)  # type: ignore[return-value]


def write(model: Any, prompt: str, length: int, seed: int, temperature: float = 0.7) -> str:
    """The prompt, and what the model writes after it, character by character, with keys and values in a cache."""

    @tg.jit
    def step(model: Any, state: Any, token: Any, key: Any) -> Any:
        run = nn.Run(model, state)
        logits = model(token, run)[:, -1]
        return tg.random.categorical(key, logits / temperature), run.state

    keys = tg.random.split(tg.random.key(seed), length)
    state, text = nn.init_cache(model, 1, length), list(prompt)
    for i in range(length - 1):
        token = np.array([[ALPHABET.index(text[i])]], np.int32)
        drawn, state = step(model, state, token, keys[i])
        if i + 1 == len(text):
            text.append(ALPHABET[int(drawn[0])])
    return "".join(text)


def fit(args: argparse.Namespace) -> tuple[train.FitResult, Any, Any]:
    """Trains, and returns the result with the windows to train and to test on."""
    train_x, test_x = load(args.context)
    rate = schedules.warmup_cosine(args.learning_rate, max(1, args.steps // 10), args.steps)
    optimizer = optimizers.chain(optimizers.clip_by_global_norm(1.0), optimizers.adamw(rate, weight_decay=0.01))
    model = network(tg.random.key(args.seed), args.width, args.layers)
    sizes = train_x[:, 1:].size, test_x[:, 1:].size, running.count(model)
    print("{:,} characters to train on, {:,} to test on; {:,} parameters".format(*sizes))
    measure = tg.jit(loss)
    sample = test_x[:: max(1, len(test_x) // 256)]
    result = train.fit(
        loss,
        model,
        train.data.DataLoader((train_x,), args.batch_size, seed=args.seed, last="drop"),
        optimizer,
        steps=args.steps,
        validate=lambda state: float(measure(state.params, sample)),
        validate_every=max(1, args.steps // 10),
        checkpoints=running.checkpoints(args, every=max(1, args.steps // 10)),
        resume=args.resume,
    )
    return result, train_x, test_x


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tracegrad.examples.charlm",
        description="Train a small transformer to write documentation, on the documentation strings of Python.",
    )
    parser.add_argument("--steps", type=int, default=600, help="steps of training in all (default: 600)")
    parser.add_argument("--batch-size", type=int, default=32, help="windows a step (default: 32)")
    parser.add_argument("--context", type=int, default=96, help="characters a window (default: 96)")
    parser.add_argument("--width", type=int, default=64, help="of the model, a multiple of 32 (default: 64)")
    parser.add_argument("--layers", type=int, default=2, help="blocks of the model (default: 2)")
    parser.add_argument("--learning-rate", type=float, default=4e-3, help="of AdamW at its peak (default: 0.004)")
    parser.add_argument("--prompt", default="Return the ", help="what the samples begin with (default: 'Return the ')")
    running.add_options(parser, "charlm.png")
    args = parser.parse_args(arguments)
    running.check(parser, args, "steps", "batch_size", "context", "width", "layers")
    if args.width % 32:
        parser.error(f"--width must be a multiple of 32, not {args.width}")
    if not 0 < len(args.prompt) < args.context or not set(args.prompt) <= set(ALPHABET):
        parser.error(f"--prompt must have 1 to {args.context - 1} characters of ASCII")
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    result, train_x, test_x = fit(args)
    measure = tg.jit(loss)
    whole = len(test_x) // args.batch_size * args.batch_size or len(test_x)
    batches = [(part,) for part in np.split(test_x[:whole], max(1, whole // args.batch_size))]
    bits = train.evaluate(lambda windows: measure(result.params, windows), batches) / math.log(2)
    single, double = counted(train_x, test_x)
    print(f"test: {bits:.2f} bits per character; by counts of characters {single:.2f}, of pairs of them {double:.2f}")
    for i in range(2):
        print(f"--- sample {i + 1}\n{write(result.params, args.prompt, args.context, args.seed + i)}")
    print("---")
    running.finish(args, result)


if __name__ == "__main__":
    main()
