"""The tables in words and the figures of the study."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from specific_heat.grid import CONDITIONS
from specific_heat.tables import Trace

SHOWN = ("A answer", "B", "B_row answer", "D answer", "V answer", "spectral entropy", "weight norm")


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table."""
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (header, ["---"] * len(header), *rows))


def outcomes(runs: Sequence[Trace]) -> str:
    """How many runs of each condition grok, memorize and never generalize, or something between."""
    rows = []
    for condition in CONDITIONS:
        for p in sorted({r.cell.p for r in runs}):
            own = [r for r in runs if r.condition == condition and r.cell.p == p]
            counts = Counter("grok" if math.isfinite(r.grokked) else "never" if r.never else "between" for r in own)
            times = [r.grokked for r in own if math.isfinite(r.grokked)]
            middle = f"{np.median(times):.0f}" if times else "-"
            rows.append([condition, p, counts["grok"], counts["never"], counts["between"], middle])
    return markdown(["condition", "p", "grok", "never", "between", "median grok step"], rows)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row for each signal."""
    lines = []
    for row in rows:
        lead, correlation = row["lead"], row["spearman"]
        lines.append(
            [
                row["signal"],
                f"{row['peaks']} of {row['runs']}",
                f"{row['before']} ({row['chance'] * row['peaks']:.1f})",
                _three(lead, 0),
                _three(correlation, 2),
                f"{row['never']:.2f}",
                f"{row['auroc']:.2f}",
            ]
        )
    return markdown(
        [
            "signal",
            "runs with a peak",
            "before generalization (by chance)",
            "lead in steps, median (quartiles)",
            "rank correlation with the grok step (95 %)",
            "peak in runs that never do",
            "AUROC half-way",
        ],
        lines,
    )


def _three(values: Sequence[float], digits: int) -> str:
    if not math.isfinite(values[0]):
        return "-"
    return f"{values[0]:.{digits}f} ({values[1]:.{digits}f} to {values[2]:.{digits}f})"


def scaling(rows: Sequence[Mapping[str, Any]]) -> str:
    """Height and width of the peak against the modulus."""
    moduli = sorted({p for row in rows for p in row["height"]})
    lines = []
    for row in rows:
        if row["height"]:
            cells = [f"{row['height'][p]:.3g} / {row['width'][p]:.0f}" if p in row["height"] else "-" for p in moduli]
            lines.append([row["signal"], *cells])
    return markdown(["height / width in steps of the peak", *(f"p = {p}" for p in moduli)], lines)


def draw(runs: Sequence[Trace], folder: Path) -> None:
    """One panel for each signal: runs that grok, aligned at the grok step, over runs that never do."""
    folder.mkdir(parents=True, exist_ok=True)
    grokking = [r for r in runs if r.condition == "grokking" and math.isfinite(r.grokked)]
    never = [r for r in runs if r.condition in ("weak decay", "no decay") and r.never]
    figure, axes = plt.subplots(2, 4, figsize=(12, 5.2), constrained_layout=True)
    for axis, name in zip(axes.flat, ("held-out accuracy", *SHOWN), strict=True):
        for run in never:
            middle = float(np.median([r.grokked for r in grokking])) if grokking else 1.0
            axis.plot(run.steps / middle, run.signal(name), color="0.75", linewidth=0.6)
        for run in grokking:
            axis.plot(run.steps / run.grokked, run.signal(name), color="tab:blue", linewidth=0.6)
        axis.axvline(1.0, color="tab:red", linewidth=0.8)
        axis.set_title(name, fontsize=9)
        axis.set_xlim(0, 3)
        axis.tick_params(labelsize=7)
    figure.supxlabel("step / grok step (grey: runs that never generalize, by the median grok step)", fontsize=8)
    figure.savefig(folder / "specific-heat.png", dpi=110)
    plt.close(figure)
