"""Which number tells runs that will generalize from runs that never do: a reading, or a score of the detector?

A reading is compared at one step of each run: for one that generalizes the step at which half of the held-out answers
are right, for one that never does the median of that step over the runs of the task that it is a control of. What a
reading does is its change since the training set was fitted; the sign that counts is learned on the seeds for
development.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from thermo_monitor import quantities
from thermo_monitor.detect.evaluate import auroc
from transitions.recording import Curve, Recording
from transitions.truth import Truth


@dataclass(frozen=True)
class Sample:
    """One run at its step of comparison.

    Attributes:
        generalizes: whether it does, later.
        development: whether the seed is one for development.
        values: of each reading.
    """

    generalizes: bool
    development: bool
    values: Mapping[str, float]


def at(recording: Recording, quantity: str, step: float, smooth: int = 5) -> float:
    """Median of the last readings before a step; logarithm for quantities on a log scale."""
    steps, values = recording.curve(quantity)
    if quantity in quantities.REGISTRY and quantities.REGISTRY[quantity].scale == "log":
        values = np.log(np.maximum(values, 1e-300))
    before = values[steps <= step]
    return float(np.median(before[-smooth:])) if len(before) else math.nan


def changes(recording: Recording, truth: Truth, step: float) -> dict[str, float]:
    """Change of each reading from the fit of the training set to a step."""
    fit = truth.rise("memorization")
    start = fit.end + 20 if fit is not None else 0.1 * step
    keys = {key for _, values in recording.updates for key in values}
    return {key: at(recording, key, step) - at(recording, key, start) for key in keys}


def peaks(scores: Mapping[str, Curve], truth: Truth, step: float) -> dict[str, float]:
    """Largest value of each of the detector's scores from the fit of the training set to a step."""
    fit = truth.rise("memorization")
    start = fit.end + 20 if fit is not None else 0
    out = {}
    for name, (steps, values) in scores.items():
        own = values[(steps >= start) & (steps <= step) & np.isfinite(values)]
        out[name] = float(own.max()) if len(own) else 0.0
    return out


def spread(right: Sequence[float], wrong: Sequence[float], draws: int = 500) -> tuple[float, float]:
    """95 % percentile interval of an AUROC over resampled runs, both kinds apart."""
    if not right or not wrong:
        return math.nan, math.nan
    rng = np.random.default_rng(0)
    a, b = np.array(right), np.array(wrong)
    drawn = [auroc(list(rng.choice(a, len(a))), list(rng.choice(b, len(b)))) for _ in range(draws)]
    return float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


def table(samples: Sequence[Sample]) -> list[tuple[str, float, float, int, float, float]]:
    """Name, AUROC on development and on reported seeds, number of reported runs, interval of the latter; best first."""
    names = sorted({name for s in samples for name in s.values})
    rows = []
    for name in names:

        def both(development: bool, sign: float, name: str = name) -> tuple[list[float], list[float]]:
            chosen = [
                s for s in samples if s.development == development and math.isfinite(s.values.get(name, math.nan))
            ]
            return (
                [sign * s.values[name] for s in chosen if s.generalizes],
                [sign * s.values[name] for s in chosen if not s.generalizes],
            )

        learned = auroc(*both(True, 1.0))
        sign = -1.0 if learned < 0.5 else 1.0
        reported = both(False, sign)
        rows.append(
            (name, auroc(*both(True, sign)), auroc(*reported), len(reported[0]) + len(reported[1]), *spread(*reported))
        )
    return sorted(rows, key=lambda row: -np.nan_to_num(row[2]))
