"""How the loss of fixed examples fluctuates while the weights wander: specific heat, degrees of freedom, their kin."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from thermo_monitor.physics.temperature import loss_degrees_of_freedom, loss_specific_heat
from thermo_monitor.probes.base import Array, Listener, Measured, Surroundings, check_quantities, number
from thermo_monitor.probes.example_gradients import ExampleGradientProbe
from thermo_monitor.probes.example_readings import HEAT as _TEMPERATURE
from thermo_monitor.probes.fixed import Forward, plain_forward, to_device, undisturbed

_VARIANCE, _HEAT = "loss/loss_window_variance", "loss/loss_specific_heat"
_DOF, _FUNCTIONAL = "loss/loss_effective_dof_proxy", "loss/functional_variance_proxy"
_POSSIBLE = (_VARIANCE, _HEAT, _DOF, _FUNCTIONAL)


def example_losses(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of each example, its tokens averaged: [B] from outputs [B, ..., V] and labels [B, ...].

    Example:
        >>> example_losses(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64)).exp().tolist()
        [4.0, 4.0]
    """
    losses = F.cross_entropy(outputs.flatten(0, -2).float(), labels.flatten(), reduction="none")
    return losses.view(len(outputs), -1).mean(1)


@dataclass(frozen=True, slots=True)
class LossWindowProbe:
    """Fluctuations of the loss of a fixed batch over the last readings.

    One forward pass in evaluation mode for each reading; nothing of the training changes. A linear trend is taken off
    first. The specific heat needs a temperature, which comes from the noise of the gradient: SGD and mini-batches only.

    Attributes:
        inputs: what the model is called with: a tensor, a tuple of arguments or a mapping of named ones.
        labels: of the batch.
        forward: gives outputs from the model and the inputs; None: calls the model.
        loss: gives [B] losses from outputs and labels.
        window: readings that are looked at, at least 20.
        least: the least possible loss; None: the least that was seen.
        examples: of each micro-batch whose gradients give the temperature.
        quantities: keys to measure.
    """

    inputs: Any
    labels: Any
    forward: Forward | None = None
    loss: Callable[[Tensor, Any], Tensor] = example_losses
    window: int = 64
    least: float | None = None
    examples: int | None = 8
    quantities: tuple[str, ...] = _POSSIBLE

    def __post_init__(self) -> None:
        check_quantities(self.quantities, _POSSIBLE, "LossWindowProbe")
        if self.window < 20:
            raise ValueError(f"window={self.window}: a variance of fluctuations needs at least 20 readings")

    @property
    def fast(self) -> bool:
        """A forward pass, so no."""
        return False

    def listen(self, run: Surroundings) -> Listener:
        """Attach to a run: nothing is installed, but for what the temperature needs."""
        return _LossWindowListener(self, run)


class _LossWindowListener(Listener):
    reads = "whole"

    def __init__(self, options: LossWindowProbe, run: Surroundings) -> None:
        self._options = options
        self._model = run.model
        self._inputs, self._labels = options.inputs, options.labels
        self._device: torch.device | None = None
        self._losses: Tensor | None = None
        self._rows: deque[Array] = deque(maxlen=options.window)
        self._least = math.inf
        self._noise: Listener | None = None
        self._alone = run.rank > 0
        if _HEAT in options.quantities:
            self._noise = ExampleGradientProbe(options.examples, quantities=(_TEMPERATURE,)).listen(run)

    def on_loss(self, loss: Tensor) -> None:
        """A micro-batch ends."""
        if self._noise is not None:
            self._noise.on_loss(loss)

    def before_step(self) -> None:
        """The fixed batch, at the weights that the step saw."""
        if self._noise is not None:
            self._noise.before_step()
        if self._losses is not None or self._alone:
            return  # model and batch are the same on every rank, so that rank zero measures alone
        device = next((p.device for p in self._model.parameters()), torch.device("cpu"))
        if device != self._device:
            self._inputs, self._labels = (to_device(x, device) for x in (self._options.inputs, self._options.labels))
            self._device = device
        with torch.no_grad(), undisturbed(self._model), torch.autocast(device.type, enabled=False):
            outputs = (self._options.forward or plain_forward)(self._model, self._inputs)
            self._losses = self._options.loss(outputs, self._labels).detach().reshape(-1).clone()

    def collect(self) -> tuple[Any, list[Tensor]]:
        """The losses, and what the temperature is made of."""
        label, tensors = (None, []) if self._noise is None else self._noise.collect()
        losses, self._losses = self._losses, None
        return (label, losses is not None), ([] if losses is None else [losses]) + tensors

    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """From the window of losses [readings, examples]."""
        noise, heard = label
        temperature, cold = math.nan, ""
        if self._noise is not None:
            (reading,) = self._noise.read(step, noise, arrays[1 if heard else 0 :]).readings
            temperature, cold = reading.value, reading.reason or ""
        if heard and np.isfinite(arrays[0]).all():
            self._rows.append(np.array(arrays[0]))
            self._least = min(self._least, float(arrays[0].mean()))
        why = "" if heard and np.isfinite(arrays[0]).all() else "non_finite"
        if not why and len(self._rows) < self._options.window:
            why = "too_early"
        values = dict.fromkeys(_POSSIBLE, math.nan)
        if not why:
            rows = np.stack(self._rows)
            mean = rows.mean(1)
            variance = float(detrended_variance(mean[:, None])[0])
            least = self._least if self._options.least is None else self._options.least
            values[_VARIANCE] = variance
            values[_HEAT] = loss_specific_heat(variance, temperature)
            values[_DOF] = loss_degrees_of_freedom(float(mean.mean()), least, variance)
            values[_FUNCTIONAL] = float(detrended_variance(rows).sum())
        measured = Measured()
        for key in self._options.quantities:
            reason = why or (cold if key == _HEAT else "") or "degenerate"
            measured.readings.append(number(step, key, values[key], reason=reason))
        return measured

    def shares(self, label: Any, arrays: Sequence[Array]) -> Mapping[str, Array]:
        """The losses of rank zero, and every rank's part of the temperature."""
        noise, heard = label
        found: dict[str, Array] = {"losses": arrays[0]} if heard else {}
        if self._noise is not None:
            found |= {f"noise {k}": v for k, v in self._noise.shares(noise, arrays[1 if heard else 0 :]).items()}
        return found

    def pooled(self, label: Any, sums: Mapping[str, Array], present: int) -> tuple[Any, Sequence[Array]] | None:
        """The same, as one rank would have it."""
        noise: Any = None
        arrays = [sums["losses"]] if "losses" in sums else []
        if self._noise is not None:
            parts = {k.removeprefix("noise "): v for k, v in sums.items() if k.startswith("noise ")}
            together = self._noise.pooled(label[0], parts, present)
            if together is None:
                return None
            noise = together[0]
            arrays += together[1]
        return (noise, "losses" in sums), arrays

    def close(self) -> None:
        """Take off what the temperature needed."""
        if self._noise is not None:
            self._noise.close()


def detrended_variance(rows: Array) -> Array:
    """Variance of each column after its straight line is taken off (ddof 2).

    Example:
        >>> detrended_variance(np.arange(30.0)[:, None]).round(12).tolist()
        [0.0]
    """
    n = len(rows)
    time = np.arange(n) - (n - 1) / 2
    centred = rows - rows.mean(0)
    slope = time @ centred / (time @ time)
    residual: Array = centred - time[:, None] * slope
    variance: Array = (residual**2).sum(0) / (n - 2)
    return variance
