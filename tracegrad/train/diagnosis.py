"""What looks wrong in the reports of a monitor, in plain words, with what to do about it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from .reports import Finding, LayerReport, Report

DEAD, SATURATED = 0.7, 0.5
"""From which fraction of a layer's units, or elements, on.

In a deep network of relu that is as it should be, the examples become alike, and half of the units may be 0 for all.
"""

EXAMPLES = 16
"""Of fewer elements a unit is not called dead: it may be 0 by chance."""

DEPTH = 1e3
"""How much the gradients of the first and the last layers may differ."""

RISE = 100.0
"""How often the greatest gradient norm so far a gradient norm may be."""

HIGH, LOW, USUAL = 0.1, 1e-4, 1e-3
"""Of the update-to-weight ratio. Karpathy, "CS231n" (2016): about 1e-3 is usual."""

CONSTANT = 1e-4
"""How little, relative to its greatest element, an output may change from example to example."""

TWICE = frozenset({"no gradient", "vanishing", "constant", "learning rate too high", "overfitting"})
"""What may be so at a step and be well at the next, as where the last layer starts at 0: said when it is so twice."""


def raw(reports: Sequence[Report]) -> list[Finding]:
    """What looks wrong in the last report, looked at alone and beside those before it."""
    return [
        finding for check in (_finite, _connected, _units, _depth, _output, _rate, _gap) for finding in check(reports)
    ]


def findings(reports: Sequence[Report]) -> tuple[Finding, ...]:
    """What looks wrong in the last report, and where one report may mislead, in the one before it too."""
    before = {(f.kind, f.where) for f in raw(reports[:-1])} if len(reports) > 1 else set()
    return tuple(f for f in raw(reports) if f.kind not in TWICE or (f.kind, f.where) in before)


def _name(row: LayerReport) -> str:
    return f"{row.path} ({row.kind}{f' at {row.source}' if row.source else ''})"


def _finite(reports: Sequence[Report]) -> Iterator[Finding]:
    now = reports[-1]
    bad = [f"the parameter {p.path}" for p in now.parameters.values() if not math.isfinite(p.norm)]
    bad += [f"the output of {_name(row)}" for row in now.layers.values() if row.values.finite < 1]
    bad += [f"the loss ({now.loss})"] if not math.isfinite(now.loss) else []
    bad += [f"the gradient of {p.path}" for p in now.parameters.values() if p.gradients.finite < 1]
    if bad:
        yield Finding(
            "not finite", "", f"step {now.step}: {bad[0]} is not finite, the first of {len(bad)} such. Lower the "
            "learning rate, clip the gradients (optimizers.clip_by_global_norm), or look at the inputs of that layer.",
        )  # fmt: skip


def _connected(reports: Sequence[Report]) -> Iterator[Finding]:
    now, without = reports[-1], []
    for path, row in now.parameters.items():
        if path in now.unused:
            yield Finding(
                "unused", path, f"{path} is never trained: no step of the loss reads it. Use it in the model, or leave "
                "it out of the parameters.",
            )  # fmt: skip
        elif path not in now.fixed and row.gradients.norm == 0 and 0 not in row.shape:
            without.append(path)
    if without:
        # One layer that lets none through is the cause of all before it: it is said once.
        others = len(without) - 1
        more = f", and that of {others} more parameter{'s' * (others > 1)}," if others else ""
        yield Finding(
            "no gradient", without[0], f"the gradient of {without[0]}{more} is exactly 0: what is behind it lets none "
            "through, such as dead or saturated units, or products with 0. Look at the layers after it, and at their "
            "initial scale.",
        )  # fmt: skip


def _units(reports: Sequence[Report]) -> Iterator[Finding]:
    for row in reports[-1].layers.values():
        if row.hidden and row.dead is not None and row.dead >= DEAD and row.examples >= EXAMPLES:
            yield Finding(
                "dead", row.path, f"{_name(row)}: {row.dead:.0%} of {row.units} {row.activation} units are dead on "
                "this batch: 0 for all of it, so that no gradient passes. Lower the learning rate or the initial "
                "scale, or take leaky_relu.",
            )  # fmt: skip
        if row.hidden and row.saturated is not None and row.saturated >= SATURATED:
            yield Finding(
                "saturated", row.path, f"{_name(row)}: {row.saturated:.0%} of {row.activation} is saturated on this "
                "batch, where it has hardly a slope. Lower the initial scale or the learning rate, normalize the "
                "inputs, or put a normalization before it.",
            )  # fmt: skip


def _depth(reports: Sequence[Report]) -> Iterator[Finding]:
    now = reports[-1]
    rows = [row for row in now.layers.values() if row.weighted and math.isfinite(row.gradients.norm)]
    if len(rows) > 1:
        third = max(1, len(rows) // 3)
        first, last = (max(part, key=lambda row: row.gradients.norm) for part in (rows[:third], rows[-third:]))
        a, b = first.gradients.norm, last.gradients.norm
        if 0 < a * DEPTH < b:
            yield Finding(
                "vanishing", "", f"gradients vanish: what reaches {_name(first)} is {a / b:.0e} of what reaches "
                f"{_name(last)}. Raise the initial scale (he_normal for relu, glorot for tanh, nn.lsuv), or use relu, "
                "normalization or residual connections.",
            )  # fmt: skip
        if 0 < b * DEPTH < a:
            yield Finding(
                "exploding", "", f"gradients explode: what reaches {_name(first)} is {a / b:.0e} times what reaches "
                f"{_name(last)}. Lower the initial scale (nn.lsuv), put normalizations between the layers, or clip "
                "(optimizers.clip_by_global_norm).",
            )  # fmt: skip
    before = [report.gradient_norm for report in reports[:-1]]
    if len(before) > 2 and 0 < max(before) * RISE < now.gradient_norm:
        yield Finding(
            "exploding", "in time", f"step {now.step}: the gradient has norm {now.gradient_norm:.2g}, and never had "
            f"more than {max(before):.2g}. Clip it (optimizers.clip_by_global_norm), or lower the learning rate.",
        )  # fmt: skip


def _output(reports: Sequence[Report]) -> Iterator[Finding]:
    now = reports[-1]
    if now.output is not None and now.varies < CONSTANT:
        row = now.layers[now.output]
        yield Finding(
            "constant", row.path, f"{_name(row)}, the last layer, makes the same of every example of the batch. The "
            "model has stopped to look at its input: see which layer before it is the first with a standard deviation "
            "near 0 or dead units; lower the learning rate, and start again.",
        )  # fmt: skip


def _rate(reports: Sequence[Report]) -> Iterator[Finding]:
    now, first = reports[-1], reports[0]
    rates = [report.update_ratio for report in reports if report.update_ratio is not None]
    if now.update_ratio is not None and HIGH < now.update_ratio < math.inf:
        yield Finding(
            "learning rate too high", "", f"a step changes the weights by {now.update_ratio:.2g} of their norm; about "
            f"{USUAL} is usual. Divide the learning rate by about {_round(now.update_ratio / USUAL):g}.",
        )  # fmt: skip
    if now is not first and math.isfinite(now.loss) and now.loss > first.loss + 2 * abs(first.loss) > 0:
        yield Finding(
            "diverging", "", f"the loss has risen from {first.loss:.3g} at step {first.step} to {now.loss:.3g} at step "
            f"{now.step}. Lower the learning rate; train.lr_range_test finds one.",
        )  # fmt: skip
    if len(rates) > 2 and max(rates) < LOW and now.loss > first.loss - 0.05 * abs(first.loss):
        yield Finding(
            "learning rate too low", "", f"a step changes the weights by {max(rates):.1g} of their norm at most, and "
            f"the loss is {now.loss:.4g} after {first.loss:.4g} at step {first.step}. About {USUAL} is usual: multiply "
            + (f"the learning rate by about {_round(USUAL / max(rates)):g}." if max(rates) else "one that is not 0."),
        )  # fmt: skip


def _gap(reports: Sequence[Report]) -> Iterator[Finding]:
    now: Any = reports[-1]
    if now.validation_loss is None:
        return
    best: Any = min(reports, key=lambda report: math.inf if report.validation_loss is None else report.validation_loss)
    if now.validation_loss > best.validation_loss + 0.1 * abs(best.validation_loss) and now.loss < best.loss:
        yield Finding(
            "overfitting", "", f"the validation loss has risen from {best.validation_loss:.3g} at step {best.step} to "
            f"{now.validation_loss:.3g}, while that of the batches went from {best.loss:.3g} to {now.loss:.3g}: the "
            "model learns the training data by heart. Stop at the best step (early stopping), take more data or "
            "augment them, or add weight decay or dropout.",
        )  # fmt: skip


def _round(x: float) -> float:
    """To a power of 10."""
    return float(10.0 ** round(math.log10(x)))


__all__ = ["findings", "raw"]
