"""What a monitor has seen at a step, as records that print as tables."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ..errors import source_position, user_source
from ..names import listed
from ..nn.statistics import bars
from ..nn.summaries import table
from .spreads import Spread


class TrainingWarning(UserWarning):
    """Something about a training that looks wrong, with what to do about it."""


def warn(text: str) -> None:
    """Warns at the user's line."""
    filename, line, _ = source_position(user_source())
    warnings.warn_explicit(text, TrainingWarning, filename, line)


class Finding(NamedTuple):
    """What looks wrong.

    Attributes:
      kind: "not finite", "unused", "no gradient", "dead", "saturated", "vanishing", "exploding", "constant",
        "learning rate too high", "learning rate too low", "diverging" or "overfitting".
      where: the path of the layer or the parameter, or empty.
      text: what is seen, and what to do.
    """

    kind: str
    where: str
    text: str


class LayerReport(NamedTuple):
    """What a layer has made of a batch.

    Attributes:
      path: where in the model the layer is; of an activation or a product outside layers, how it is called.
      kind: the class of the layer, or what it is.
      source: file and line of an activation or a product outside layers.
      values: its output.
      gradients: the gradient of the loss with respect to it.
      activation: "relu", "tanh", "sigmoid", or empty.
      dead: the fraction of its units, along the last axis, that are 0 for all of the batch; only of relu.
      saturated: the fraction of its elements at which the slope is below a twentieth of the greatest; only of tanh and
        sigmoid.
      units: how many units there are.
      examples: how many elements of each.
      hidden: whether products with parameters follow.
      weighted: whether it has parameters itself.
    """

    path: str
    kind: str
    source: str
    values: Spread
    gradients: Spread
    activation: str
    dead: float | None
    saturated: float | None
    units: int
    examples: int
    hidden: bool
    weighted: bool


class ParameterReport(NamedTuple):
    """A parameter at a step.

    Attributes:
      path: where it is.
      shape: its shape.
      norm: of the parameter; NaN if an element is NaN or infinite.
      gradients: the gradient of the loss with respect to it.
      update_ratio: the norm of what the step has changed, over the norm before it; `None` if the monitor was not called
        at the next step. Karpathy, "CS231n: Convolutional neural networks for visual recognition" (2016): about 1e-3.
    """

    path: str
    shape: tuple[int, ...]
    norm: float
    gradients: Spread
    update_ratio: float | None


@dataclass(frozen=True, repr=False)
class Report:
    """What a monitor has seen at a step. It prints as a table of the layers, and one of the parameters.

    Attributes:
      step: which.
      loss: of the batch.
      validation_loss: of the validation data, if there are any.
      layers: by path, in the order in which they are computed.
      parameters: by path.
      gradient_norm: of all parameters together.
      update_ratio: of all parameters of two axes or more together, as that of each.
      varies: how much the output of the model changes from example to example, relative to its greatest element.
      unused, fixed: the parameters from which no step leads to the loss, and those from which no derivative does.
      findings: what looks wrong.
    """

    step: int
    loss: float
    validation_loss: float | None
    layers: Mapping[str, LayerReport]
    parameters: Mapping[str, ParameterReport]
    gradient_norm: float
    update_ratio: float | None
    varies: float
    output: str | None
    unused: frozenset[str] = frozenset()
    fixed: frozenset[str] = frozenset()
    findings: tuple[Finding, ...] = field(default=())

    @property
    def gap(self) -> float | None:
        """The loss of the validation data less that of the batch."""
        return None if self.validation_loss is None else self.validation_loss - self.loss

    def __repr__(self) -> str:
        first = f"step {self.step}: loss {self.loss:.4g}"
        if self.validation_loss is not None:
            first += f", validation {self.validation_loss:.4g}"
        first += f", gradient {self.gradient_norm:.3g}"
        if self.update_ratio is not None:
            first += f", update/weight {self.update_ratio:.2g}"
        layers = [
            (
                row.path,
                f"{row.kind} {row.source}".strip(),
                f"{row.values.mean:.3g}",
                f"{row.values.std:.3g}",
                f"{row.values.edges[0]:.3g}",
                bars(row.values.counts),
                f"{row.values.edges[-1]:.3g}",
                f"{row.gradients.norm:.2g}",
                _state(row),
            )
            for row in self.layers.values()
        ]
        parameters = [
            (
                row.path,
                str(row.shape),
                f"{row.norm:.3g}",
                f"{row.gradients.norm:.2g}",
                "" if row.update_ratio is None else f"{row.update_ratio:.1g}",
            )
            for row in self.parameters.values()
        ]
        parts = [first]
        if layers:
            head = ("layer", "kind", "mean", "std", "from", "histogram", "to", "gradient", "units")
            parts.append(table(head, layers, "llrrrlrrl"))
        parts.append(table(("parameter", "shape", "norm", "gradient", "update/weight"), parameters, "llrrr"))
        parts += [f"! {finding.text}" for finding in self.findings]
        return "\n\n".join(parts)


def _state(row: LayerReport) -> str:
    if row.dead is not None:
        return f"{row.dead:.0%} dead"
    return "" if row.saturated is None else f"{row.saturated:.0%} saturated"


def together(norms: list[float]) -> float:
    """The norm of arrays together, of the norm of each."""
    return math.hypot(*norms) if norms else 0.0


__all__ = ["Finding", "LayerReport", "ParameterReport", "Report", "TrainingWarning"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
