"""Temperatures of the optimizer, from what the weights do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from thermo_monitor.physics.precision import working
from thermo_monitor.probes.base import Array, Listener, Measured, Surroundings, check_quantities, number
from thermo_monitor.probes.batch import Batch, BatchSize, digest, of_digest
from thermo_monitor.probes.calls import OutputCall
from thermo_monitor.probes.descent import Descent, descent_of, velocity_of
from thermo_monitor.probes.shards import local, share
from thermo_monitor.probes.temperature_readings import (
    BALANCE,
    CONFIGURATIONAL,
    FDR,
    KINETIC,
    LOGITS,
    averages,
    logit_temperature,
)
from thermo_monitor.probes.window import Window, stationary
from thermo_monitor.records import Reading

_POSSIBLE = (CONFIGURATIONAL, KINETIC, FDR, BALANCE, LOGITS)
_OF_SGD = (CONFIGURATIONAL, KINETIC, FDR)


@dataclass(frozen=True, slots=True)
class TemperatureProbe:
    """Kinetic and configurational temperature, their ratio, the norm balance, and a proxy from the logits.

    Averages over the last readings, with error bars from blocks of them; forgotten where learning rate, momentum or
    weight decay change. The temperatures are those of SGD and heavy ball: under other optimizers, in full-batch
    training, where the gradient is clipped and while the loss still moves they are NaN with the reason; the
    configurational one also where the weights drift under a loss that stands still, which their ratio tells.

    Attributes:
        window: readings that are averaged, at least 32.
        elements: most elements that are read of one tensor, evenly spaced.
        tokens: rows of logits that are read of each micro-batch.
        quantities: keys to measure.
    """

    window: int = 64
    elements: int = 65_536
    tokens: int = 256
    quantities: tuple[str, ...] = _POSSIBLE

    def __post_init__(self) -> None:
        check_quantities(self.quantities, _POSSIBLE, "TemperatureProbe")
        if self.window < 32:
            raise ValueError(f"window={self.window}: an average over fewer than 32 readings has no error bar")
        if self.elements < 2:
            raise ValueError(f"elements={self.elements}: keep at least 2 elements of each tensor")
        if self.tokens < 1:
            raise ValueError(f"tokens={self.tokens}: read at least 1 row of logits")

    @property
    def fast(self) -> bool:
        """Needs a copy of the weights, so no."""
        return False

    def listen(self, run: Surroundings) -> Listener:
        """Attach to a run."""
        return _TemperatureListener(self, run)


class _Kept(NamedTuple):
    """Some elements of one parameter, from before the step."""

    parameter: Tensor
    weights: Tensor
    gradient: Tensor  # with weight decay
    expected: Tensor  # change that the optimizer will make, if nothing happens to the gradient
    factor: float  # parameters for each that is kept
    inverse: float  # (1 + mu) / (2 eta)


class _TemperatureListener(Listener):
    reads = "shards"

    def __init__(self, options: TemperatureProbe, run: Surroundings) -> None:
        self._options = options
        self._optimizer = run.optimizer
        self._parameters = list(run.model.parameters())
        self._batch = BatchSize(run.hub)
        self._window = Window(options.window)
        self._settings: tuple[Descent, ...] = ()
        self._averaged: tuple[Descent, ...] = ()  # those of the readings in the window
        self._kept: list[_Kept] = []
        self._sums: Tensor | None = None
        self._count = 0
        self._losses: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._before: Batch | None = None
        self._rank, self._ranks = run.rank, run.ranks
        if LOGITS in options.quantities:
            run.hub.on_output.append(self._hear)

    # ---------------------------------------------------------------------------------------------- on the device
    def _hear(self, call: OutputCall) -> None:
        logits = call.logits.detach()
        if logits.shape[0]:
            sample = working(logits[:: -(-logits.shape[0] // self._options.tokens)])
            self._logits.append(sample.var(-1, correction=0).mean())

    def on_loss(self, loss: Tensor) -> None:
        """A micro-batch ends."""
        self._batch.end_of_micro_batch()
        self._losses.append(loss.detach().float().mean())

    def _sample(self, x: Tensor) -> Tensor:
        flat = local(x).reshape(-1)
        return working(flat[:: max(1, -(-flat.numel() // self._options.elements))])

    def before_step(self) -> None:
        """Keep some weights and their gradients, from before the first optimizer where there are several."""
        if self._kept:
            return
        known, self._count = descent_of(self._optimizer), 0
        self._settings = tuple(dict.fromkeys(known.values()))
        for parameter in self._parameters:
            gradient = parameter.grad
            if gradient is None or gradient.layout is not torch.strided:
                continue
            self._count += parameter.numel()
            if not local(parameter).numel():  # this rank has nothing of it
                continue
            settings = known.get(id(parameter))
            weights = self._sample(parameter).clone()
            g = self._sample(gradient)
            inverse, expected = math.nan, torch.zeros_like(g)
            if settings is not None and settings.plain:
                g = g + settings.weight_decay * weights
                inverse = (1 + settings.momentum) / (2 * settings.lr)
                velocity = velocity_of(self._optimizer, parameter)
                expected = -settings.lr * (g if velocity is None else g + settings.momentum * self._sample(velocity))
            factor = share(parameter, self._ranks) * local(parameter).numel() / weights.numel()
            self._kept.append(_Kept(parameter, weights, g, expected, factor, inverse))

    def after_step(self) -> None:
        """Sums over the parameters: w.g, |dw|^2, w.dw, the kinetic energy, and how far off the expected step it is."""
        if not self._kept:
            return
        with torch.no_grad():
            rows = []
            device = self._kept[0].weights.device
            for kept in self._kept:
                change = self._sample(kept.parameter) - kept.weights
                square = torch.dot(change, change)
                off = change - kept.expected
                parts = torch.stack(
                    [
                        torch.dot(kept.weights, kept.gradient),
                        square,
                        torch.dot(kept.weights, change),
                        square * kept.inverse,
                        torch.dot(off, off),
                    ]
                )
                rows.append((kept.factor * parts).to(device, non_blocking=True))
            self._sums = torch.stack(rows).sum(0)
        self._kept = []

    def collect(self) -> tuple[Any, list[Tensor]]:
        """The sums, losses, logits and labels."""
        examples, labels = self._batch.collect()
        groups = [self._losses, self._logits, labels, [] if self._sums is None else [self._sums]]
        label = (self._settings, self._count, examples, [len(group) for group in groups])
        self._sums, self._count, self._losses, self._logits, self._kept = None, 0, [], [], []
        return label, [tensor for group in groups for tensor in group]

    # ------------------------------------------------------------------------------------------------ on the host
    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """Averages over the window."""
        settings, count, examples, sizes = label  # of several ranks, the examples are a batch
        losses, logits, labels, sums = (arrays[sum(sizes[:k]) : sum(sizes[: k + 1])] for k in range(len(sizes)))
        batch = examples if isinstance(examples, Batch) else Batch(examples, tuple(labels))
        before = self._before
        self._before = batch
        readings: dict[str, Reading] = {}
        if LOGITS in self._options.quantities:
            readings[LOGITS] = logit_temperature(step, logits)
        why = "no_gradient" if not sums else ""
        plain = bool(settings) and all(s.plain for s in settings)
        if sums:
            if settings != self._averaged:
                self._window.clear()
            self._averaged = settings
            loss = float(np.mean([float(x) for x in losses])) if losses else 0.0
            values = [float(x) for x in sums[0]]
            self._window.add(loss, *(v if plain or k < 3 else 0.0 for k, v in enumerate(values)))
        if not why and not self._window.full:
            why = "too_early"
        columns = None if why else self._window.columns()
        if columns is not None and not stationary(columns[0]):
            why = "not_stationary"
        reasons = {BALANCE: why}
        special = why
        if not plain:
            special = "unsupported_optimizer" if self._optimizer is not None else "no_optimizer"
        elif batch.same_as(before):
            special = "full_batch"
        elif columns is not None and columns[5].sum() > 1e-4 * columns[2].sum():
            special = special or "altered_gradient"
        reasons |= dict.fromkeys(_OF_SGD, special)
        for key in self._options.quantities:
            if reasons.get(key):
                readings[key] = number(step, key, math.nan, reason=reasons[key])
        if columns is not None:
            for reading in averages(step, columns, count):
                readings.setdefault(reading.quantity, reading)
        return Measured([readings[key] for key in self._options.quantities])

    def shares(self, label: Any, arrays: Sequence[Array]) -> Mapping[str, Array]:
        """The sums, and those of losses and logits with the number of ranks that have them."""
        _, _, examples, sizes = label
        losses, logits, labels, sums = (arrays[sum(sizes[:k]) : sum(sizes[: k + 1])] for k in range(len(sizes)))
        found = {"examples": np.asarray(float(examples)), "labels": digest(labels, self._rank)}
        for name, values in (("losses", losses), ("logits", logits)):
            if values:
                found[name] = np.array([float(np.mean([float(x) for x in values])), 1.0])
        return found | ({"sums": sums[0]} if sums else {})

    def pooled(self, label: Any, sums: Mapping[str, Array], present: int) -> tuple[Any, Sequence[Array]] | None:
        """One number of each, if no rank's part is missing."""
        settings, count, _, _ = label
        if present < self._ranks:
            return None
        means = [[np.asarray(sums[k][0] / sums[k][1])] if k in sums else [] for k in ("losses", "logits")]
        groups = [*means, [], [sums["sums"]] if "sums" in sums else []]
        batch = of_digest(int(sums["examples"]), sums["labels"])
        return (settings, count, batch, [len(group) for group in groups]), [x for group in groups for x in group]
