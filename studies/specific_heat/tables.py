"""From dates to numbers: for every signal how often, how early and how well its peak announces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from specific_heat import estimates, protocol, signals
from specific_heat.grid import CONDITIONS
from specific_heat.outcome import DEFINITIONS, NULLS, Key, Outcome
from thermo_monitor.detect.evaluate import auroc

SIGNALS = (*DEFINITIONS, *(f"{name} {signals.SIDES[1]}" for name in DEFINITIONS), *NULLS)
SETS = ("first seeds", "second seeds")
Row = dict[str, Any]


def announcements(runs: Sequence[Outcome], others: Sequence[Outcome] = (), condition: str = "grokking") -> list[Row]:
    """A row for each signal: what its peak says about the runs that grok, and what it does in those that never do.

    Args:
        runs: that are judged.
        others: that only say whether a high or a low reading speaks for generalization; without them AUROC is NaN.
        condition: of the runs that grok.
    """
    grokking = [r for r in runs if r.condition == condition and r.groks]
    never = [r for r in runs if r.condition != condition and r.never]
    rows = [_row(name, grokking, never) for name in SIGNALS]
    for row in rows:
        up = _area(row["signal"], _judged(others, condition)) >= 0.5 if others else None
        row["auroc"] = math.nan if up is None else _directed(_area(row["signal"], (grokking, never)), up)
    return rows


def _row(name: str, grokking: Sequence[Outcome], never: Sequence[Outcome]) -> Row:
    peaks = [r.peaks[name, -1, -1] for r in grokking]
    times = np.array([peak.step for peak in peaks])
    grok = np.array([r.at for r in grokking])
    p = np.array([r.p for r in grokking])
    found = np.isfinite(times)
    leads = grok[found] - times[found]
    before = int((leads > 0).sum())
    others = [(p == p[i]) & (np.arange(len(p)) != i) for i in np.flatnonzero(found)]
    elsewhere = [float(np.mean(t < grok[own])) for t, own in zip(times[found], others, strict=True) if own.any()]
    chance = [(r.at - r.memorized) / (r.end - r.memorized) for r in grokking]
    return {
        "signal": name,
        "runs": len(grokking),
        "peaks": int(found.sum()),
        "before": before,
        "share": estimates.share(before, len(grokking)),
        "by threshold": {
            str(t): int(sum(peak.step < r.grokked[t] for r, peak in zip(grokking, peaks, strict=True)))
            for t in protocol.THRESHOLDS
        },
        "chance": estimates.mean(chance),
        "of other runs": estimates.mean(elsewhere),
        "lead": estimates.interval(leads),
        "relative lead": estimates.interval(leads / np.array([r.at for r in grokking])[found]),
        "rank correlation": estimates.correlation(times[found], grok[found], p[found]),
        "rank correlation over all": estimates.correlation(times[found], grok[found], np.zeros(int(found.sum()))),
        "top at start": sum(peak.top == "start" for peak in peaks),
        "top at end": sum(peak.top == "end" for peak in peaks),
        "never": len(never),
        "peaks in never": int(sum(math.isfinite(r.peaks[name, -1, -1].step) for r in never)),
        "later": _later(name, grokking, never),
        "grown at grok": estimates.quartiles(_grown(name, grokking, 1)),
        "grown at end": estimates.quartiles(_grown(name, grokking, 2)),
        "grown at end in never": estimates.quartiles(_grown(name, never, 2)),
        "height": _by_modulus(grokking, [peak.height for peak in peaks]),
        "width": _by_modulus(grokking, [peak.width for peak in peaks]),
        "exponent": estimates.exponent(p, np.array([peak.height for peak in peaks])),
        "width exponent": estimates.exponent(p, np.array([peak.width for peak in peaks])),
    }


def _later(name: str, grokking: Sequence[Outcome], never: Sequence[Outcome]) -> Row:
    """The same of peaks that are looked for only some time after memorization."""
    times, grok = np.array([r.later[name] for r in grokking]), np.array([r.at for r in grokking])
    found = np.isfinite(times)
    return {
        "peaks": int(found.sum()),
        "before": int((times < grok).sum()),
        "lead": estimates.interval((grok - times)[found]),
        "rank correlation": estimates.correlation(times[found], grok[found], np.array([r.p for r in grokking])[found]),
        "peaks in never": int(sum(math.isfinite(r.later[name]) for r in never)),
    }


def _grown(name: str, runs: Sequence[Outcome], to: int) -> estimates.Values:
    """Ratio of a later reading to that at memorization."""
    levels = np.array([r.levels[name] for r in runs]).reshape(-1, 3)
    levels = levels[np.isfinite(levels[:, [0, to]]).all(1) & (levels[:, 0] > 0)]
    return levels[:, to] / levels[:, 0]


def heads(runs: Sequence[Outcome], condition: str = "grokking") -> list[Row]:
    """A row for each definition and layer: the peaks of the single heads, which have no names across seeds."""
    grokking = [r for r in runs if r.condition == condition and r.groks]
    rows = []
    for name in DEFINITIONS:
        for layer in sorted({of for r in grokking for _, of, _ in r.peaks if of >= 0}):
            found = [(r, r.peaks[key]) for r in grokking for key in _heads_of(r, name, layer)]
            leads = np.array([r.at - peak.step for r, peak in found if math.isfinite(peak.step)])
            agreed = [_agree(r, name, layer) for r in grokking]
            rows.append(
                {
                    "signal": name,
                    "layer": layer,
                    "heads": len(found),
                    "peaks": len(leads),
                    "before": int((leads > 0).sum()),
                    "lead": estimates.quartiles(leads),
                    "runs whose heads agree": int(sum(agreed)),
                    "runs": len(grokking),
                }
            )
    return rows


def _heads_of(run: Outcome, name: str, layer: int) -> list[Key]:
    return [key for key in run.peaks if key[0] == name and key[1] == layer]


def _agree(run: Outcome, name: str, layer: int) -> bool:
    """All heads of a layer on the same side of generalization, or all without a peak."""
    return len({_side(run, run.peaks[key].step) for key in _heads_of(run, name, layer)}) == 1


def _side(run: Outcome, step: float) -> int:
    return 0 if math.isnan(step) else 1 if step < run.at else 2


def separation(runs: Sequence[Outcome]) -> list[Row]:
    """How well an early reading of each signal tells runs that grok from each kind of control, 0 to 1, .5 by chance."""
    grokking = [r for r in runs if r.condition == "grokking" and r.groks]
    kinds = dict.fromkeys(r.condition for r in runs if r.condition != "grokking" and r.never)
    return [
        {"signal": name}
        | {kind: _area(name, (grokking, [r for r in runs if r.condition == kind and r.never])) for kind in kinds}
        for name in SIGNALS
    ]


def verdict(row: Row, nulls: Sequence[Row]) -> dict[str, bool]:
    """What a signal has to pass to be called predictive, all of it; fixed beforehand.

    ``precedes``: the 95 % interval of the share of runs whose peak comes before generalization is above what a random
    time and what the peaks of other runs reach. ``dates``: the interval of its rank correlation with the grok step,
    within moduli, is above zero. ``separates``: among seeds that did not choose its direction, its early reading tells
    grokking from never grokking better than every null signal; or its median lead is longer than that of every null
    signal which peaks in no more of the runs that never grok.
    """
    low = row["share"][1]
    rate = _rate(row)
    better = all(row["auroc"] > null["auroc"] for null in nulls)
    rivals = [null["lead"][0] for null in nulls if _rate(null) <= rate and math.isfinite(null["lead"][0])]
    earlier = row["lead"][0] > max(rivals, default=0.0)
    return {
        "precedes": bool(low > row["chance"] and low > row["of other runs"]),
        "dates": bool(row["rank correlation"][1] > 0),
        "separates": bool(better or earlier),
    }


def halves(runs: Sequence[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """Two disjoint sets of seeds, to see whether the conclusion is the same."""
    seeds = sorted({(r.split, r.model) for r in runs})
    first = set(seeds[: (len(seeds) + 1) // 2])
    return [r for r in runs if (r.split, r.model) in first], [r for r in runs if (r.split, r.model) not in first]


def _judged(runs: Sequence[Outcome], condition: str) -> tuple[list[Outcome], list[Outcome]]:
    return (
        [r for r in runs if r.condition == condition and r.groks],
        [r for r in runs if r.condition != condition and r.never],
    )


def _area(name: str, both: tuple[Sequence[Outcome], Sequence[Outcome]]) -> float:
    """AUROC of the early reading within each modulus, averaged over them: moduli differ in every reading."""
    areas = []
    for p in sorted({r.p for r in both[0]}):
        inside, outside = ([r.early[name] for r in own if r.p == p] for own in both)
        inside, outside = ([x for x in values if math.isfinite(x)] for values in (inside, outside))
        if inside and outside:
            areas.append(auroc(inside, outside))
    return estimates.mean(areas)


def _directed(area: float, up: bool) -> float:
    return area if up else 1.0 - area


def _rate(row: Row) -> float:
    rate: float = row["peaks in never"] / row["never"] if row["never"] else math.nan
    return rate


def _by_modulus(runs: Sequence[Outcome], values: Sequence[float]) -> dict[str, list[float]]:
    """Quartiles over the runs of each modulus that have a peak."""
    out = {}
    for p in sorted({r.p for r in runs}):
        own = np.array([value for r, value in zip(runs, values, strict=True) if r.p == p and math.isfinite(value)])
        if len(own):
            out[str(p)] = estimates.quartiles(own)
    return out


def everything(runs: Sequence[Outcome]) -> dict[str, Any]:
    """All tables of an arm: of all runs, of each modulus, of two disjoint sets of seeds; heads, controls, verdicts."""
    first, second = halves(runs)
    subsets = dict(zip(SETS, (announcements(first, second), announcements(second, first)), strict=True))
    whole = announcements(runs)
    for row, a, b in zip(whole, *subsets.values(), strict=True):
        row["auroc"] = estimates.mean([a["auroc"], b["auroc"]])  # each with the direction that the other has chosen
    moduli = {f"p = {p}": announcements([r for r in runs if r.p == p]) for p in sorted({r.p for r in runs})}
    subsets = {"all": whole, **moduli, **subsets}
    return {
        "outcomes": counts(runs),
        "announcements": subsets,
        "fixed scale": announcements(runs, condition="fixed scale"),
        "heads": heads(runs),
        "separation": separation(runs),
        "verdicts": {name: verdicts(rows) for name, rows in subsets.items() if name in ("all", *SETS)},
    }


def verdicts(rows: Sequence[Row]) -> dict[str, dict[str, bool]]:
    """That of each definition against the null signals beside it."""
    nulls = [row for row in rows if row["signal"] in NULLS]
    return {row["signal"]: verdict(row, nulls) for row in rows if row["signal"] not in NULLS}


def counts(runs: Sequence[Outcome]) -> list[Row]:
    """How many runs of each condition grok, memorize and never generalize, or do something between."""
    rows = []
    for condition in CONDITIONS:
        for p in sorted({r.p for r in runs}):
            own = [r for r in runs if r.condition == condition and r.p == p]
            rows.append(
                {
                    "condition": condition,
                    "p": p,
                    "runs": len(own),
                    "grok": sum(r.groks for r in own),
                    "never": sum(r.never for r in own),
                    "memorized": estimates.quartiles(np.array([r.memorized for r in own if r.memorized >= 0])),
                    "grok step": estimates.quartiles(np.array([r.at for r in own if r.groks])),
                    "best": estimates.quartiles(np.array([r.best for r in own])),
                }
            )
    return rows
