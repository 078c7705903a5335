"""The output distribution of the model: its entropy, specific heat, and how it stands to the loss."""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thermo_monitor.physics.ensemble import OutputSums, output_sums, training_temperature
from thermo_monitor.physics.moments import Moments, moments_from_raw, raw_moments
from thermo_monitor.physics.precision import precise
from thermo_monitor.probes.base import Array, Listener, Measured, Surroundings, check_quantities, number
from thermo_monitor.probes.calls import OutputCall

_POSSIBLE = (
    "out/predictive_entropy", "out/output_specific_heat", "out/calibration_gap", "loss/loss_variance",
    "out/calibration_drift", "out/cross_entropy", "out/entropy_term", "out/training_free_energy",
)  # fmt: skip
_DRIFT = "out/calibration_drift"
_SLOPE_OF = 8  # readings, at least


@dataclass(frozen=True, slots=True)
class OutputProbe:
    """Readings of the logits and labels of the first cross entropy of each forward pass.

    Attributes:
        tokens: labelled tokens (or examples) read of each micro-batch at least, evenly spaced; more where the
            vocabulary is small enough to make them cheap.
        quantities: keys to measure.
        window: readings of the calibration gap through which its drift is drawn.
        entropy_bonus: beta, if the objective has ``- beta S``: it sets the temperature of the free energy of training
            (``physics.training_temperature``).
        label_smoothing: of an objective that is computed by hand; None: as ``cross_entropy`` is called.
    """

    tokens: int = 256
    quantities: tuple[str, ...] = ("out/predictive_entropy", "out/calibration_gap", "loss/loss_variance")
    window: int = 32
    entropy_bonus: float = 0.0
    label_smoothing: float | None = None

    def __post_init__(self) -> None:
        check_quantities(self.quantities, _POSSIBLE, "OutputProbe")
        if self.tokens < 2:
            raise ValueError(f"tokens={self.tokens}: a variance needs at least 2 tokens")
        if self.window < _SLOPE_OF:
            raise ValueError(f"window={self.window}: a drift needs at least {_SLOPE_OF} readings")
        training_temperature(self.entropy_bonus, self.label_smoothing or 0.0)

    @property
    def fast(self) -> bool:
        """Reads logits over the vocabulary, so no."""
        return False

    def listen(self, run: Surroundings) -> Listener:
        """Attach to a run."""
        return _OutputListener(self, run)


_CHEAP = 2**18  # logits that cost less than launching the reductions over them


class _OutputListener(Listener):
    def __init__(self, options: OutputProbe, run: Surroundings) -> None:
        self._options = options
        self._run = run
        self._sums: list[Tensor] = []
        self._pass = -1
        self._smoothing = 0.0
        self._gaps: deque[tuple[int, float]] = deque(maxlen=options.window)
        run.hub.on_output.append(self._hear)

    def _hear(self, call: OutputCall) -> None:
        if self._pass == self._run.hub.passes:
            return  # auxiliary losses follow the first one
        self._pass = self._run.hub.passes
        self._smoothing = call.label_smoothing
        logits, labels = call.logits.detach(), call.labels.to(call.logits.device)
        count = max(self._options.tokens, _CHEAP // max(1, logits.shape[-1]))
        if count < logits.shape[0]:
            logits, labels = _labelled(logits, labels, call.ignore_index, count)
        with precise(logits.device):
            sums = output_sums(logits, labels, call.ignore_index)
        self._sums.append(torch.stack([sums.count, sums.loss.mean, sums.loss.m2, sums.entropy, sums.specific_heat]))

    def on_loss(self, loss: Tensor) -> None:
        """A micro-batch ends."""
        self._run.hub.end_of_micro_batch()

    def collect(self) -> tuple[Any, list[Tensor]]:
        """The sums of each micro-batch."""
        sums, self._sums, self._pass = self._sums, [], -1
        given = self._options.label_smoothing
        return training_temperature(self._options.entropy_bonus, self._smoothing if given is None else given), sums

    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """Merged over the micro-batches."""
        if not arrays:
            return Measured([number(step, key, math.nan, reason="no_logits") for key in self._options.quantities])
        merged = functools.reduce(OutputSums.merge, map(_from_array, arrays))
        formulas: dict[str, Callable[[], Tensor]] = {
            "out/predictive_entropy": merged.predictive_entropy,
            "out/output_specific_heat": merged.output_specific_heat,
            "out/calibration_gap": merged.calibration_gap,
            "loss/loss_variance": merged.loss_variance,
            "out/cross_entropy": merged.mean_loss,
            "out/entropy_term": lambda: label * merged.predictive_entropy(),
            "out/training_free_energy": lambda: merged.training_free_energy(label),
        }
        reason = "non_finite" if float(merged.count) >= 2 else "n_lt_2"
        wanted = self._options.quantities
        readings = [number(step, key, float(formulas[key]()), reason=reason) for key in wanted if key != _DRIFT]
        if _DRIFT in wanted:
            gap = float(merged.calibration_gap())
            if math.isfinite(gap):
                self._gaps.append((step, gap))
            slope, error = _slope(self._gaps)
            readings.append(number(step, _DRIFT, 1000 * slope, reason="too_early", error=1000 * error))
        return Measured(readings)

    def shares(self, label: Any, arrays: Sequence[Array]) -> Mapping[str, Array]:
        """Sums over the tokens of this rank."""
        raw = [np.concatenate([raw_moments(array[:3]), array[3:]]) for array in arrays]
        return {"sums": np.sum(raw, axis=0)} if raw else {}

    def pooled(self, label: Any, sums: Mapping[str, Array], present: int) -> tuple[Any, Sequence[Array]] | None:
        """As if all tokens had been in one batch."""
        return label, [np.concatenate([moments_from_raw(array[:3]), array[3:]]) for array in sums.values()]


def _slope(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Slope of a straight line and its standard error, widened for residuals that hang together; NaN if too few.

    Example:
        >>> _slope([(t, 0.5 * t) for t in range(10)])
        (0.5, 0.0)
    """
    if len(points) < _SLOPE_OF:
        return math.nan, math.nan
    t, x = np.array(points, np.float64).T
    t = t - t.mean()
    slope = float(t @ x / (t @ t))
    left = x - x.mean() - slope * t
    square = float(left @ left)
    phi = max(0.0, float(left[1:] @ left[:-1]) / square) if square > 1e-24 * float(x @ x) else 0.0
    error = math.sqrt(square / (len(points) - 2) / float(t @ t) * (1 + phi) / (1 - min(phi, 0.99)))
    return slope, error


def _labelled(logits: Tensor, labels: Tensor, ignore_index: int, count: int) -> tuple[Tensor, Tensor]:
    """``count`` of the labelled tokens, evenly spaced among them; all of them, and ignored ones, where there are fewer.

    How many there are is known to the device only, and is not asked for.
    """
    labelled = (labels != ignore_index).cumsum(0)
    total = labelled[-1]
    index = torch.arange(count, device=labels.device)
    rank = torch.where(total > count, (2 * index + 1) * total // (2 * count), index)
    rows = torch.searchsorted(labelled, rank + 1).clamp(max=len(labels) - 1)
    return logits[rows], torch.where(index < total, labels[rows], ignore_index)


def _from_array(array: Array) -> OutputSums:
    count, mean, m2, entropy, heat = torch.from_numpy(array.copy())
    return OutputSums(Moments(count, mean, m2), entropy, heat)
