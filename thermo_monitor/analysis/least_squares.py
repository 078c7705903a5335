"""The source's way to a temperature schedule: a curve with a few parameters, fitted by least squares to a first part.

The blog "Physics of Language" (November 2025) minimises the squared distance of the marginal entropy from its target
over the first 300 of 1000 positions; target, model and parametrisation are not given there. The curve here is ours:
``T_t = exp(a + b exp(-t / c))``, which goes from one temperature to another.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from thermo_monitor.analysis.language import Model
from thermo_monitor.analysis.parallel import EnsembleEntropy, ensemble_entropy
from thermo_monitor.analysis.prompts import Given
from thermo_monitor.analysis.solved_temperature import COLDEST, HOTTEST
from thermo_monitor.analysis.temperature_schedule import Array, Schedule


def curve(parameters: Array, tokens: int) -> Array:
    """``exp(a + b exp(-t / c))`` at positions 0 ... tokens - 1, within the bounds of temperatures.

    Example:
        >>> curve(np.array([0.0, math.log(2.0), 30.0]), 1).round(6).tolist()
        [2.0]
    """
    a, b, c = parameters
    log_t = a + b * np.exp(-np.arange(tokens) / c)
    return np.asarray(np.exp(np.clip(log_t, math.log(COLDEST), math.log(HOTTEST))))


def least_squares_schedule(
    model: Model,
    prompt: Given,
    target: float,
    *,
    fitted: int = 300,
    tokens: int = 1000,
    runs: int = 30,
    start: float = 1.0,
    evaluations: int = 24,
    **options: Any,
) -> Schedule:
    """Fit the curve to the first positions by ``scipy.optimize.least_squares``, and measure it over all.

    The noise is the same in all generations; what is minimised still jumps where a token changes, which is why the
    difference quotients are taken over a twentieth in ln T, and a twentieth of c.

    Args:
        model: see ``parallel.ensemble_entropy``.
        prompt: a text or ids.
        target: H*, nats.
        fitted: positions that are fitted.
        tokens: positions that are generated at the end.
        runs: B.
        start: temperature of the curve at first.
        evaluations: most generations of the fit, those for derivatives included.
        options: of ``parallel.ensemble_entropy``.

    Returns:
        The schedule, with the entropies measured under it over all ``tokens``; ``unreachable`` is nowhere set.

    Example:
        >>> import torch
        >>> def model(ids):
        ...     return torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64).expand(*ids.shape, 4)
        >>> found = least_squares_schedule(model, [0], 1.2, fitted=3, tokens=5, runs=2)
        >>> bool(np.abs(found.ensemble.marginal - 1.2).max() < 0.01)
        True
    """
    options = {**options, "report": ()}
    spent = 0
    best: tuple[float, Array] | None = None

    def generate(parameters: Array, length: int) -> EnsembleEntropy:
        return ensemble_entropy(
            model, prompt, runs=runs, tokens=length, temperature=curve(parameters, length), **options
        )

    # In units in which all three start at 1, since the steps of difference quotients are relative.
    # The curve begins with a slight fall: where it is flat, its third parameter has no effect.
    origin, unit = np.array([math.log(start) - 1.2, -0.8, 0.0]), np.array([1.0, 1.0, fitted / 4])

    def residuals(x: Array) -> Array:
        nonlocal spent, best
        if spent >= evaluations:
            raise StopIteration
        spent += 1
        parameters = origin + unit * x
        out = generate(parameters, min(fitted, tokens)).marginal - target
        cost = float((out**2).sum())
        if best is None or cost < best[0]:
            best = (cost, parameters)
        return out

    bounds = ([-5.0, -5.0, 0.02], [7.0, 7.0, 100.0])
    with contextlib.suppress(StopIteration):  # scipy has no limit that counts derivatives too
        least_squares(residuals, np.ones(3), bounds=bounds, diff_step=0.05)
    assert best is not None
    measured = generate(best[1], tokens)
    return Schedule(target, measured.temperature, np.zeros(len(measured.temperature), np.bool_), measured)
