"""The tables in words and the figures of the study."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from specific_heat import protocol, signals
from specific_heat.grid import Cell
from specific_heat.outcome import DEFINITIONS, NULLS, Outcome, outcomes, series
from specific_heat.tables import SETS

SHOWN = ("A answer", "B", "B_row answer", "D answer", "V answer", "sharpening", "weight norm")
BLUE, RED = "#1f77b4", "#b0201c"


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table."""
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (header, ["---"] * len(header), *rows))


COLUMNS = (
    "peak in",
    "highest at memorization / at the end",
    "peak before generalization",
    "by a random time / by peaks of other runs",
    "lead in steps, median (95 %)",
    "rank correlation with the grok step (95 %)",
    "peak in runs that never do",
    "AUROC, other seeds",
)


def report(arm: str, runs: Sequence[Outcome], found: Mapping[str, Any]) -> str:
    """All tables of an arm, one for each definition first."""
    of = found["announcements"]
    passed = found["verdicts"]
    short = [row for row in of["all"] if row["signal"] in (*DEFINITIONS, *NULLS)]
    own = [row for row in short if row["signal"] in DEFINITIONS]
    parts = [f"# {arm}", "## What became of the runs", counts(found["outcomes"])]
    parts += ["## All runs", table(own)]
    parts += ["## Null signals", table([row for row in short if row["signal"] in NULLS])]
    parts += ["## Verdicts", verdicts(passed)]
    rows = {subset: {row["signal"]: row for row in own} for subset, own in of.items()}
    for name in [*DEFINITIONS, *(f"{name} {signals.SIDES[1]}" for name in DEFINITIONS)]:
        lines = [[subset, *cells(rows[subset][name])] for subset in rows]
        words = "; ".join(f"{subset}: {passes(passed[subset][name])}" for subset in ("all", *SETS))
        parts += [f"## {name}", markdown(["runs", *COLUMNS], lines), f"Predictive? {words}."]
    fixed = [row for row in found["fixed scale"] if row["signal"] in DEFINITIONS]
    parts += ["## Runs of fixed scale", table(fixed)]
    parts += ["## Single heads", heads(found["heads"])]
    parts += [
        "## Early reading against each control, AUROC",
        separation([row for row in found["separation"] if row["signal"] in (*DEFINITIONS, *NULLS)]),
    ]
    parts += [
        f"## Peaks from {protocol.LATER} steps after memorization on; no part of the verdict",
        later(own),
    ]
    parts += [
        "## How far readings have come since memorization",
        growth([row for row in short if row["signal"] in (*DEFINITIONS, "sharpening")]),
    ]
    parts += ["## Height and width of the peak against the modulus", scaling(short)]
    return "\n\n".join(parts) + "\n"


def counts(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row for each condition: how many runs grok, never do, or something between, and when."""
    moduli = sorted({row["p"] for row in rows})
    lines = []
    for condition in dict.fromkeys(row["condition"] for row in rows):
        own = {row["p"]: row for row in rows if row["condition"] == condition}
        lines.append([condition, *(_count(own[p]) for p in moduli)])
    return markdown(["grok / never / between: grok step, median (quartiles)", *(f"p = {p}" for p in moduli)], lines)


def _count(row: Mapping[str, Any]) -> str:
    text = f"{row['grok']} / {row['never']} / {row['runs'] - row['grok'] - row['never']}"
    return f"{text}: {_three(row['grok step'], 0)}" if row["grok"] else text


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row for each signal."""
    return markdown(["signal", *COLUMNS], [[row["signal"], *cells(row)] for row in rows])


def cells(row: Mapping[str, Any]) -> list[str]:
    """The columns of a signal."""
    low, high = row["share"][1:]
    between = f" (95 % {low:.2f} to {high:.2f})" if row["runs"] else ""
    return [
        f"{row['peaks']} of {row['runs']}",
        f"{row['top at start']} / {row['top at end']}",
        f"{row['before']}{between}",
        " / ".join("-" if math.isnan(x) else f"{x:.2f}" for x in (row["chance"], row["of other runs"])),
        _three(row["lead"], 0),
        _three(row["rank correlation"], 2),
        f"{row['peaks in never']} of {row['never']}",
        "-" if math.isnan(row["auroc"]) else f"{row['auroc']:.2f}",
    ]


def passes(found: Mapping[str, bool]) -> str:
    """A verdict in words."""
    if all(found.values()):
        return "predictive"
    passed = [name for name, ok in found.items() if ok]
    return f"no: only {' and '.join(passed)}" if passed else "no: nothing"


def verdicts(found: Mapping[str, Mapping[str, Mapping[str, bool]]]) -> str:
    """What each definition passes, on all runs and on either set of seeds."""
    lines = [[name, *(passes(found[subset][name]) for subset in found)] for name in DEFINITIONS]
    return markdown(["signal", *found], lines)


def heads(rows: Sequence[Mapping[str, Any]]) -> str:
    """The peaks of single heads."""
    lines = [
        [
            row["signal"],
            row["layer"],
            f"{row['peaks']} of {row['heads']}",
            row["before"],
            _three(row["lead"], 0),
            f"{row['runs whose heads agree']} of {row['runs']}",
        ]
        for row in rows
    ]
    header = ["definition", "layer", "heads with a peak", "before generalization", "lead in steps, median (quartiles)"]
    return markdown([*header, "runs whose heads agree"], lines)


def separation(rows: Sequence[Mapping[str, Any]]) -> str:
    """One column for each control."""
    kinds = [name for name in rows[0] if name != "signal"]
    return markdown(["signal", *kinds], [[row["signal"], *(f"{row[kind]:.2f}" for kind in kinds)] for row in rows])


def growth(rows: Sequence[Mapping[str, Any]]) -> str:
    """How far a reading has come since memorization."""
    kinds = ("grown at grok", "grown at end", "grown at end in never")
    header = [
        "ratio to memorization, median (quartiles)",
        "at generalization",
        "at the end",
        "at the end of runs that never do",
    ]
    return markdown(header, [[row["signal"], *(_three(row[kind], 2) for kind in kinds)] for row in rows])


def later(rows: Sequence[Mapping[str, Any]]) -> str:
    """The peaks that are looked for from some time after memorization on."""
    header = ["signal", COLUMNS[0], "before generalization", *COLUMNS[4:7]]
    lines = []
    for row in rows:
        own = row["later"]
        counts = f"{own['peaks']} of {row['runs']}", own["before"]
        estimates = _three(own["lead"], 0), _three(own["rank correlation"], 2)
        lines.append([row["signal"], *counts, *estimates, f"{own['peaks in never']} of {row['never']}"])
    return markdown(header, lines)


def scaling(rows: Sequence[Mapping[str, Any]]) -> str:
    """Height and width of the peak against the modulus."""
    moduli = sorted({p for row in rows for p in row["height"]}, key=int)
    lines = []
    for row in rows:
        if row["height"]:
            each = [
                f"{row['height'][p][0]:.3g} / {row['width'][p][0]:.0f}" if p in row["height"] else "-" for p in moduli
            ]
            lines.append([row["signal"], *each, _three(row["exponent"], 2), _three(row["width exponent"], 2)])
    header = ["height / width in steps", *(f"p = {p}" for p in moduli)]
    return markdown([*header, "exponent of the height (95 %)", "exponent of the width (95 %)"], lines)


def _three(values: Sequence[float], digits: int) -> str:
    if not math.isfinite(values[0]):
        return "-"
    return f"{values[0]:.{digits}f} ({values[1]:.{digits}f} to {values[2]:.{digits}f})"


def draw_traces(recordings: Mapping[Cell, Mapping[str, NDArray[np.float32]]], file: Path) -> None:
    """One panel for each signal: runs that grok over runs that never do, in units of the delay of generalization."""
    figure, axes = plt.subplots(2, 4, figsize=(11, 5), layout="constrained")
    found = [
        (run, arrays["steps"], series(arrays, i) | {"held-out accuracy": arrays["held-out/accuracy"][:, i]})
        for cell, arrays in recordings.items()
        for i, run in enumerate(outcomes(cell, arrays))
    ]
    typical = {
        p: float(np.median([r.at - r.memorized for r, _, _ in found if r.p == p and r.groks and _main(r)] or [1.0]))
        for p in {run.p for run, _, _ in found}
    }
    for axis, name in zip(axes.flat, ("held-out accuracy", *SHOWN), strict=True):
        for run, steps, values in sorted(found, key=lambda of: of[0].groks):
            after = steps >= run.memorized
            time, y = steps[after] - run.memorized, values[name][after]
            if run.never and run.condition != "fixed scale":
                axis.plot(time / typical[run.p], y, color="0.78", linewidth=0.5)
            elif run.groks and _main(run):
                axis.plot(time / (run.at - run.memorized), y, color=BLUE, linewidth=0.5)
        axis.axvline(1.0, color=RED, linewidth=0.9)
        axis.set_title(name, fontsize=9)
        axis.set_xlim(0, 3)
        axis.tick_params(which="both", labelsize=7)
        if name in ("B", "B_row answer", "V answer"):
            axis.set_yscale("log")
    label = "time since memorization, in units of the delay of generalization (red: held-out accuracy .9)\n"
    figure.supxlabel(f"{label}blue: runs that grok; grey: runs that never do, by the median delay", fontsize=8)
    _save(figure, file)


def _main(run: Outcome) -> bool:
    return run.condition == "grokking"


def draw_peaks(runs: Sequence[Outcome], file: Path) -> None:
    """Peak step over grok step: a peak that announces lies below the diagonal, one that dates lies along it."""
    names = (*(n for n in SHOWN if n in DEFINITIONS), *(n for n in SHOWN if n not in DEFINITIONS), "spectral entropy")
    figure, axes = plt.subplots(2, 4, figsize=(11, 5.4), layout="constrained", sharex=True, sharey=True)
    grokking = [run for run in runs if _main(run) and run.groks]
    moduli = sorted({run.p for run in grokking})
    colours = {p: f"C{i}" for i, p in enumerate(moduli)}
    for axis, name in zip(axes.flat, names, strict=True):
        for p in moduli:
            own = [run for run in grokking if run.p == p]
            steps = [run.peaks[name, -1, -1].step for run in own]
            axis.plot([run.at for run in own], steps, ".", color=colours[p], markersize=5, label=f"p = {p}")
            for top, mark in (("start", "v"), ("end", "^")):
                none = [run for run in own if run.peaks[name, -1, -1].top == top]
                edge = [run.memorized if top == "start" else run.end for run in none]
                axis.plot([run.at for run in none], edge, mark, color="0.7", markersize=3)
        nowhere = sum(math.isnan(run.peaks[name, -1, -1].step) for run in grokking)
        axis.axline((100, 100), (1000, 1000), color=RED, linewidth=0.8)
        axis.set_title(f"{name} (no peak: {nowhere} of {len(grokking)})", fontsize=9)
        axis.tick_params(labelsize=7)
        axis.set_xscale("log")
        axis.set_yscale("log")
    if moduli:
        axes.flat[0].legend(fontsize=7, frameon=False)
    figure.supxlabel("grok step (grey: no peak, highest at memorization or at the end of the run)", fontsize=8)
    figure.supylabel("peak step (below the line: before generalization)", fontsize=8)
    _save(figure, file)


def draw_heights(found: Mapping[str, Any], file: Path) -> None:
    """Height of the peak against the modulus, with the quartiles over runs and the fitted exponent."""
    rows = {row["signal"]: row for row in found["announcements"]["all"]}
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.9), layout="constrained")
    for axis, name in zip(axes.flat, ("A answer", "D answer", "V answer", "sharpening"), strict=True):
        row = rows[name]
        moduli = sorted(row["height"], key=int)
        x = np.array([int(p) for p in moduli], float)
        y = np.array([row["height"][p] for p in moduli]).reshape(-1, 3)
        axis.errorbar(x, y[:, 0], yerr=np.abs(y[:, 1:] - y[:, :1]).T, fmt="o-", color=BLUE, markersize=4, linewidth=0.9)
        axis.set_ylim(0, max(1.15 * y.max(initial=0.0), 1e-9))
        axis.set_title(f"{name}: exponent {_three(row['exponent'], 2)}", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.supxlabel("modulus p (bars: quartiles over the runs that have a peak)", fontsize=8)
    figure.supylabel("height of the peak", fontsize=8)
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=90)
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(96).save(file, optimize=True)  # few colours: a third of the size
