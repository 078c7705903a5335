"""Squared gradient norms of single examples as numbers that add up: over passes, layers and ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from thermo_monitor.probes.base import Array
from thermo_monitor.probes.batch import Batch, digest, of_digest
from thermo_monitor.probes.descent import Descent


class Heard(NamedTuple):
    """What is known on the host about one pass.

    Attributes:
        layers: of the rows of its norms.
        batch: examples of the micro-batch.
        reduction: of its loss function; empty where none was heard.
        rows: that the loss is the mean or the sum over; None where only the device knows.
        scaled: whether the gradient at the loss was heard.
    """

    layers: tuple[str, ...]
    batch: int
    reduction: str
    rows: int | None
    scaled: bool


class Gradient(NamedTuple):
    """A parameter that has a gradient: its layer, whether its norms are there, and how many numbers it is."""

    layer: str
    there: bool
    size: int


class HeardStep(NamedTuple):
    """What is known on the host about a step.

    Attributes:
        passes: in order.
        gradients: each parameter that has one.
        unscaled: whether the factor that loss scaling left was measured.
        losses: micro-batches that were told.
        why: reason code of what makes the step unusable; empty if nothing does.
        descent: settings of the optimizer, one for each way in which parameters are stepped.
        labels: how many tensors of labels come last.
        optimizer: whether there is one.
    """

    passes: tuple[Heard, ...]
    gradients: tuple[Gradient, ...]
    unscaled: bool
    losses: int
    why: str
    descent: tuple[Descent, ...]
    labels: int
    optimizer: bool


@dataclass(slots=True)
class StepSums:
    """What one step comes to, in numbers that add up over ranks.

    Attributes:
        why: reason code of what makes it unusable; empty if nothing does.
        batch: the examples, of which the sums hold ``count``.
        count: examples of the passes whose norms are there.
        traces: squared norms by layer, summed over these examples.
        spreads: of each micro-batch: how many norms were read, their sum and that of their squares, and its size.
        error: squared standard error of the sum over layers; NaN where it is not known.
        covered: squared norm of the whole gradient of covered parameters.
        whole: the same of all parameters.
        weight: of the mean gradient of the examples in that of the step.
        size: number of covered parameters.
        parameters: number of all that have a gradient.
        all_read: whether the norm of every example was read.
    """

    why: str
    batch: Batch
    count: float = 0.0
    traces: dict[str, float] = field(default_factory=dict)
    spreads: list[Array] = field(default_factory=list)
    error: float = math.nan
    covered: float = math.nan
    whole: float = math.nan
    weight: float = math.nan
    size: int = 0
    parameters: int = 0
    all_read: bool = False


@dataclass(slots=True)
class _Examples:
    """Squared norms [L, B'] of some examples of a micro-batch of B, in units of the loss of an example."""

    layers: tuple[str, ...]
    norms: Array
    batch: int
    weight: float  # of the mean gradient of the micro-batch in the gradient of the step


def sums_of(label: HeardStep, arrays: Sequence[Array], per: str, unscale: float | None = None) -> StepSums:
    """What one rank has measured.

    Args:
        label: what is known on the host.
        arrays: that were sent, in the order of the label.
        per: whether the loss of an example is the ``mean`` or the ``sum`` over its tokens.
        unscale: what takes loss scaling out again, where it is known; else from the arrays.
    """
    examples = sum(heard.batch for heard in label.passes)
    sums = StepSums(_unusable(label), Batch(examples, tuple(arrays[len(arrays) - label.labels :])))
    if sums.why:
        return sums
    parts, squares, full = _parts(label, iter(arrays), per, unscale)
    there = [g for g, whole in zip(label.gradients, full, strict=True) if g.there and whole]
    if not there:  # each is used where it is not heard
        sums.why = "incomplete_gradient"
        return sums
    layers = {g.layer for g in there}
    sums.size, sums.parameters = sum(g.size for g in there), sum(g.size for g in label.gradients)
    sums.count = sum(part.batch for part in parts)
    sums.traces = {layer: trace for layer, trace in _traces(parts).items() if layer in layers}
    sums.spreads = [_spread(part) for part in parts]
    sums.error, sums.all_read = _squared_error(sums.spreads), _all_read(sums.spreads)
    sums.whole = sum(squares)
    sums.covered = sum(s for s, g, ok in zip(squares, label.gradients, full, strict=True) if g.there and ok)
    sums.weight = sum(part.weight for part in parts)
    return sums


def shares(label: HeardStep, arrays: Sequence[Array], per: str, rank: int) -> dict[str, Array]:
    """What one of several ranks adds to the sums of all."""
    sums = sums_of(label, arrays, per, 1.0)
    found = {
        "examples": np.asarray(float(sums.batch.examples)),
        "labels": digest(sums.batch.labels, rank),
    }
    if sums.why:
        return found | {"unusable": np.asarray(1.0)}
    if label.unscaled:
        found["unscale"] = np.array(_products(label, arrays))
    if not all(heard.scaled for heard in label.passes):
        found["unheard"] = np.asarray(1.0)
    # The same micro-batch of all ranks is one: its examples have one mean.
    found |= {f"pass {k}": spread for k, spread in enumerate(sums.spreads)}
    whole = [sums.count, sums.covered, sums.whole, sums.weight]
    return found | {"sums": np.array(whole)} | {f"layer {k}": np.asarray(v) for k, v in sums.traces.items()}


def together(label: HeardStep, sums: Mapping[str, Array], ranks: int) -> StepSums:
    """The sums of all ranks. The gradient of the step is the mean of theirs."""
    batch = of_digest(int(sums["examples"]), sums["labels"])
    if "unusable" in sums or "sums" not in sums:
        return StepSums(_unusable(label) or "ambiguous_batch", batch)
    squared, product = sums.get("unscale", (1.0, 1.0))
    unscale = _positive(squared / product if product else 1.0)
    # A loss that was not heard is known from the gradient of the step only: its norms still carry the factor.
    heard, more = (1.0, unscale**2) if "unheard" in sums else (unscale, 1.0)
    count, covered, whole, weight = sums["sums"]
    spreads = [v for k, v in sums.items() if k.startswith("pass ")]
    error = _squared_error(spreads)
    traces = {k.removeprefix("layer "): more * float(v) for k, v in sums.items() if k.startswith("layer ")}
    return StepSums(
        "", batch, count, traces, [], more**2 * error, covered / ranks, whole / ranks, heard * weight / ranks,
        sum(g.size for g in label.gradients if g.there), sum(g.size for g in label.gradients),
        _all_read(spreads),
    )  # fmt: skip


def _parts(
    label: HeardStep, arrays: Iterator[Array], per: str, known: float | None
) -> tuple[list[_Examples], list[float], list[bool]]:
    raw = []
    for heard in label.passes:
        norms = next(arrays)
        scale = float(next(arrays)) if heard.scaled else math.nan
        rows = float(next(arrays)) if heard.rows is None else float(heard.rows)
        raw.append((heard, norms, scale, rows))
    squares = [float(s) for s in next(arrays)] if label.gradients else []
    full = [bool(f) for f in next(arrays)] if label.gradients else []
    unscale = 1.0 if known is None else known  # 1 / factor of loss scaling
    if label.unscaled and known is None:
        unscale = _positive(float(next(arrays)))
    parts = []
    for heard, norms, scale, rows in raw:
        if not heard.scaled:  # a loss that was not heard is taken for the mean over the step
            scale, rows, mean = 1 / (unscale * len(label.passes)), heard.batch, True
        else:
            mean = heard.reduction == "mean"
            rows = max(rows, 1.0)
        # Weight of a single row in what was differentiated.
        row = scale / rows if mean or heard.reduction == "none" else scale
        example = row * (rows / heard.batch if per == "mean" else 1.0)
        usable = math.isfinite(example) and example != 0
        norms = norms / example**2 if usable else np.full_like(norms, math.nan)
        parts.append(_Examples(heard.layers, norms, heard.batch, example * heard.batch * unscale))
    return parts, squares, full


def _positive(factor: float) -> float:
    return float(factor) if math.isfinite(factor) and factor > 0 else 1.0


def _products(label: HeardStep, arrays: Sequence[Array]) -> tuple[float, float]:
    """Where the two products lie whose ratio is the factor that loss scaling took out: last, before the labels."""
    squared, product = arrays[len(arrays) - label.labels - 1]
    return float(squared), float(product)


def _unusable(label: HeardStep) -> str:
    if label.why:
        return label.why
    if not label.gradients or not label.passes:
        return "no_gradient"
    if not any(heard.batch for heard in label.passes):
        return "n_lt_2"
    # A pass that is not a micro-batch (a pair, a second view) holds only a part of each example.
    return "ambiguous_batch" if label.losses != len(label.passes) else ""


def _traces(parts: Sequence[_Examples]) -> dict[str, float]:
    """Squared norms by layer, summed over the examples: those that were read stand for their micro-batch."""
    traces: dict[str, float] = {}
    for part in parts:
        for layer, row in zip(part.layers, part.norms.mean(1), strict=True):
            traces[layer] = traces.get(layer, 0.0) + float(row) * part.batch
    return traces


def _spread(part: _Examples) -> Array:
    whole = part.norms.sum(0)
    return np.array([len(whole), whole.sum(), np.square(whole, dtype=np.float64).sum(), part.batch])


def _squared_error(spreads: Sequence[Array]) -> float:
    """Squared standard error of the sum of the norms, from the spread between examples; NaN with fewer than two."""
    variance = 0.0
    for count, total, squares, batch in spreads:
        if count < 2 or not np.isfinite([total, squares]).all():
            return math.nan
        variance += batch**2 * max(squares - total**2 / count, 0.0) / (count - 1) / count
    return float(variance)


def _all_read(spreads: Sequence[Array]) -> bool:
    return len(spreads) > 0 and all(count == batch for count, _, _, batch in spreads)
