"""From measurements to numbers: for every signal how often, how early and how well its peak announces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from specific_heat import protocol, signals
from specific_heat.grid import CONDITIONS, Cell
from thermo_monitor.detect.evaluate import auroc

EARLY = 0.5  # share of the median grok step at which runs are ranked, measured from memorization
SETS = 2


@dataclass
class Trace:
    """One run.

    Attributes:
        cell: what it is a run of.
        condition: see ``grid``.
        seed: (model, split).
        steps: of the measurements.
        heads: [T, L, H] for each name in ``signals.HEADS``.
        values: [T] for each name in ``signals.RUNS`` and ``signals.ORDERS``.
    """

    cell: Cell
    condition: str
    seed: tuple[int, int]
    steps: NDArray[np.int64]
    heads: Mapping[str, NDArray[np.float32]]
    values: Mapping[str, NDArray[np.float32]]
    memorized: float = field(init=False)
    grokked: float = field(init=False)

    def __post_init__(self) -> None:
        """Date what happened, from the accuracies."""
        self.memorized = protocol.memorized_at(self.steps, self.values["train accuracy"])
        self.grokked = protocol.grokked_at(self.steps, self.values["held-out accuracy"])

    @property
    def never(self) -> bool:
        """Whether it memorized and its held-out accuracy stayed low throughout."""
        return bool(np.isfinite(self.memorized) and self.values["held-out accuracy"].max() < protocol.NEVER)

    def signal(self, name: str) -> NDArray[np.floating]:
        """Mean over heads, then over layers; a signal of the run as it is."""
        return self.heads[name].mean((1, 2)) if name in self.heads else self.values[name]


def traces(cell: Cell, arrays: Mapping[str, NDArray[np.float32]]) -> list[Trace]:
    """The runs of a cell from its file: arrays [T, S, ...] by name."""
    labels = [(condition, seed) for condition in CONDITIONS for seed in cell.seeds]
    steps = arrays["steps"].astype(np.int64)
    out = []
    for i, (condition, seed) in enumerate(labels):
        heads = {name: arrays[f"head:{name}"][:, i] for name in signals.HEADS}
        values = {name: arrays[f"run:{name}"][:, i] for name in (*signals.RUNS, *signals.ORDERS)}
        out.append(Trace(cell, condition, seed, steps, heads, values))
    return out


SIGNALS: tuple[str, ...] = (*(n for n in signals.HEADS if n != "B"), *(n for n in signals.RUNS if n != "train loss"))


def announcements(runs: Sequence[Trace]) -> list[dict[str, object]]:
    """A row for each signal: what its peak says about the runs that grok, and what it does in those that never do."""
    grokking = [r for r in runs if r.condition == "grokking" and math.isfinite(r.grokked) and r.grokked > r.memorized]
    never = [r for r in runs if r.condition != "grokking" and r.never]
    rows = [_row(name, grokking, never, runs) for name in SIGNALS]
    return [*rows, _uniform(grokking, never)]


def _row(name: str, grokking: Sequence[Trace], never: Sequence[Trace], runs: Sequence[Trace]) -> dict[str, object]:
    peaks = [protocol.peak(r.steps, r.signal(name), r.memorized) for r in grokking]
    times = np.array([time for time, _, _ in peaks])
    in_never = [protocol.peak(r.steps, r.signal(name), r.memorized)[0] for r in never]
    return {
        "signal": name,
        **_summary(times, grokking),
        "never": float(np.mean(np.isfinite(in_never))) if never else math.nan,
        "auroc": _ranked(name, grokking, never),
        "height": _by_modulus(grokking, [height for _, height, _ in peaks]),
        "width": _by_modulus(grokking, [width for _, _, width in peaks]),
    }


def _summary(times: NDArray[np.float64], grokking: Sequence[Trace]) -> dict[str, object]:
    grok = np.array([r.grokked for r in grokking])
    found = np.isfinite(times)
    leads = grok[found] - times[found]
    chance = [(r.grokked - r.memorized) / (r.steps[-1] - r.memorized) for r in grokking]
    return {
        "runs": len(grokking),
        "peaks": int(found.sum()),
        "before": int((leads > 0).sum()),
        "chance": float(np.mean(chance)) if chance else math.nan,
        "lead": _quantiles(leads),
        "spearman": _correlation(times[found], grok[found]),
    }


def _uniform(grokking: Sequence[Trace], never: Sequence[Trace]) -> dict[str, object]:
    """A time drawn at random between memorization and the end: what a signal that knows nothing would do."""
    rng = np.random.default_rng(0)
    times = np.array([rng.uniform(r.memorized, r.steps[-1]) for r in grokking])
    return {"signal": "random time", **_summary(times, grokking), "never": 1.0, "auroc": 0.5, "height": {}, "width": {}}


def _quantiles(values: NDArray[np.float64]) -> tuple[float, float, float]:
    if not len(values):
        return math.nan, math.nan, math.nan
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(middle), float(low), float(high)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float, float]:
    """Spearman's rank correlation and its 95 % bootstrap interval."""
    if len(a) < 5 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan, math.nan, math.nan
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(1000):
        chosen = rng.integers(0, len(a), len(a))
        if np.ptp(a[chosen]) and np.ptp(b[chosen]):
            drawn.append(spearmanr(a[chosen], b[chosen]).statistic)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(spearmanr(a, b).statistic), float(low), float(high)


def _ranked(name: str, grokking: Sequence[Trace], never: Sequence[Trace]) -> float:
    """AUROC of the change since memorization at one early step of each modulus, whichever direction tells more."""
    inside, outside = [], []
    for p in sorted({r.cell.p for r in grokking}):
        own = [r for r in grokking if r.cell.p == p]
        step = np.median([r.memorized + EARLY * (r.grokked - r.memorized) for r in own])
        scale = np.std([_change(r, name, step) for r in (*own, *(n for n in never if n.cell.p == p))]) or 1.0
        inside += [_change(r, name, step) / scale for r in own]
        outside += [_change(r, name, step) / scale for r in never if r.cell.p == p]
    area = auroc(inside, outside)
    return max(area, 1.0 - area)


def _change(run: Trace, name: str, step: float) -> float:
    values = run.signal(name)
    start = int(np.searchsorted(run.steps, run.memorized))
    return float(values[np.searchsorted(run.steps, step)] - values[start])


def _by_modulus(runs: Sequence[Trace], values: Iterable[float]) -> dict[int, float]:
    """Median of the runs of each modulus."""
    found: dict[int, list[float]] = {}
    for run, value in zip(runs, values, strict=True):
        if math.isfinite(value):
            found.setdefault(run.cell.p, []).append(value)
    return {p: float(np.median(own)) for p, own in sorted(found.items())}


def halves(runs: Sequence[Trace]) -> tuple[list[Trace], list[Trace]]:
    """Two disjoint sets of seeds, to see whether the conclusion is the same."""
    seeds = sorted({r.seed for r in runs})
    first = set(seeds[::SETS])
    return [r for r in runs if r.seed in first], [r for r in runs if r.seed not in first]
