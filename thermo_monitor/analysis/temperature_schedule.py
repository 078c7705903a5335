"""Temperatures that hold the entropy of parallel generations at a target, position by position.

Three ways: :func:`fit_schedule` solves ``H(pbar(T)) = H*`` exactly at every position, from left to right, since the
temperature of one position changes what all later ones see; :class:`Feedback` takes one Newton step at every position,
for use while generating; and ``least_squares_schedule`` (in ``least_squares``) fits a few parameters of a curve, as the
blog "Physics of Language" (November 2025) does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thermo_monitor.analysis.language import Model
from thermo_monitor.analysis.parallel import EnsembleEntropy, ensemble_entropy
from thermo_monitor.analysis.prompts import Given
from thermo_monitor.analysis.solved_temperature import COLDEST, HOTTEST
from thermo_monitor.analysis.solved_temperature import Solution as Solution
from thermo_monitor.analysis.solved_temperature import solve_temperature as solve_temperature
from thermo_monitor.physics.parallel import marginal_entropy, marginal_entropy_slope

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Schedule:
    """A temperature for each position.

    Attributes:
        target: marginal entropy that is to be held, nats; NaN if the fit had none.
        temperatures: [T]; the last one holds for all later positions.
        unreachable: [T] where no temperature gives the target.
        ensemble: what was measured while fitting.
    """

    target: float
    temperatures: Array
    unreachable: NDArray[np.bool_]
    ensemble: EnsembleEntropy


def fit_schedule(
    model: Model,
    prompt: Given,
    target: float,
    *,
    start: float = 1.0,
    runs: int = 30,
    tokens: int = 256,
    **options: Any,
) -> Schedule:
    """Fit T_t from left to right: solve at position t on the logits of the B runs, then sample with fixed noise.

    The noise of run and position follows from the seed alone (common random numbers), so that schedules for two targets
    differ by their temperatures only.

    Args:
        model: see ``parallel.ensemble_entropy``.
        prompt: a text or ids.
        target: H*, nats.
        start: where the search at the first position begins.
        runs: B.
        tokens: positions, T.
        options: of ``parallel.ensemble_entropy``: tokenizer, begin, suppress, seed, report, progress.

    Returns:
        The schedule, with what was measured on the way.

    Example:
        >>> def model(ids):  # the same four logits after every text
        ...     return torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64).expand(*ids.shape, 4)
        >>> fit_schedule(model, [0], 1.2, runs=3, tokens=2).temperatures.round(4).tolist()
        [1.7117, 1.7117]
    """
    for name in ("top_k", "top_p", "temperature"):
        if name in options:
            raise ValueError(f"{name} cannot be given: the schedule is fitted to the whole distribution")
    previous, unreachable = start, []

    def solve(_: int, logits: Tensor) -> float:
        nonlocal previous
        found = solve_temperature(logits, target, previous)
        unreachable.append(found.unreachable)
        previous = found.temperature
        return previous

    measured = ensemble_entropy(model, prompt, runs=runs, tokens=tokens, temperature=solve, **options)
    return Schedule(target, measured.temperature, np.array(unreachable, np.bool_), measured)


@dataclass
class Feedback:
    """A controller that holds an entropy while generating: one Newton step in ln T at each position.

    ``marginal``: the logits of the rows that are generated side by side give the marginal entropy at the temperature
    before, and ``ln T += gain (H* - H) / (dH/dlnT)``; one temperature serves all rows. ``conditional``: every row on
    its own, ``ln T_b += gain (H* - H_b) / C_b``, which needs no second row, and holds what one run knows, not the
    marginal.

    The derivative is kept above ``floor`` and the step below ``reach``: the marginal entropy may fall with temperature.

    Args:
        target: H*, nats.
        of: ``marginal`` or ``conditional``.
        start: temperature at the first position.
        gain: share of the Newton step that is taken.
        steps: Newton steps at each position.
        reach: largest change of ln T at one step.
        floor: smallest derivative that is divided by, nats.

    Example:
        >>> control = Feedback(1.2, steps=8)
        >>> y = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
        >>> [round(x, 6) for x in control.update(y).tolist()]
        [1.711715]
    """

    target: float
    of: Literal["marginal", "conditional"] = "marginal"
    start: float = 1.0
    gain: float = 1.0
    steps: int = 2
    reach: float = 0.5
    floor: float = 0.02
    _log: Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the options."""
        if not (math.isfinite(self.target) and self.target > 0):
            raise ValueError(f"target={self.target}: give a positive entropy in nats")
        if self.of not in ("marginal", "conditional"):
            raise ValueError(f"of={self.of!r}: give 'marginal' or 'conditional'")
        if not COLDEST <= self.start <= HOTTEST:
            raise ValueError(f"start={self.start}: give a temperature between {COLDEST} and {HOTTEST}")
        if not (0 < self.gain <= 2 and self.steps >= 1 and self.reach > 0 and self.floor > 0):
            raise ValueError("gain lies in (0, 2], steps is at least 1, reach and floor are positive")

    def reset(self) -> None:
        """Begin another generation."""
        self._log = None

    def update(self, y: Tensor) -> Tensor:
        """Temperatures [1] (marginal) or [B] (conditional) for logits [B, V] of the next position.

        Nothing is read back to the host.
        """
        y = y.double() if y.device.type != "mps" else y.float()
        z = y.unsqueeze(0) if self.of == "marginal" else y.unsqueeze(1)  # [1, B, V] or [B, 1, V]
        if self._log is None or self._log.shape[0] != z.shape[0]:
            self._log = torch.full((z.shape[0],), math.log(self.start), dtype=z.dtype, device=z.device)
        log_t = self._log
        for _ in range(self.steps):
            scaled = z * torch.exp(-log_t).view(-1, 1, 1)
            slope = marginal_entropy_slope(scaled).clamp(min=self.floor)
            step = self.gain * (self.target - marginal_entropy(scaled)) / slope
            log_t = (log_t + step.clamp(-self.reach, self.reach)).clamp(math.log(COLDEST), math.log(HOTTEST))
        self._log = log_t
        return log_t.exp()

    def __call__(self, position: int, logits: Tensor) -> float:
        """As ``temperature=`` of ``parallel.ensemble_entropy``; the marginal only."""
        if self.of == "conditional":
            raise ValueError("every row has a temperature of its own: use ScheduledTemperature with generate")
        if position == 0:
            self.reset()
        return float(self.update(logits)[0])


def held(entropy: Array, target: float, tolerance: float = 0.05) -> int:
    """Number of positions, from the first on, at which the entropy stays within a tolerance of the target.

    Args:
        entropy: [T].
        target: H*.
        tolerance: as a share of the target.

    Example:
        >>> held(np.array([1.0, 1.04, 0.97, 1.2, 1.0]), 1.0)
        3
    """
    outside = np.flatnonzero(~(np.abs(entropy / target - 1.0) <= tolerance))
    return int(outside[0]) if len(outside) else len(entropy)


def smooth(values: Sequence[float] | Array, width: int) -> Array:
    """Running mean over ``width`` positions, fewer at the ends.

    Example:
        >>> smooth([0.0, 3.0, 0.0], 3).tolist()
        [1.5, 1.0, 1.5]
    """
    x = np.asarray(values, np.float64)
    total = np.concatenate([[0.0], np.cumsum(x)])
    at = np.arange(len(x))
    low, high = np.maximum(at - width // 2, 0), np.minimum(at + (width - 1) // 2 + 1, len(x))
    return np.asarray((total[high] - total[low]) / (high - low))
