"""The picture of the detection benchmark: one change, the evidence for it, and what others would have alarmed on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from families import NULLS

from thermo_monitor.detect import OnlineDetector
from thermo_monitor.detect.synthetic import noise, sigmoid

matplotlib.use("Agg")

N, MIDDLE, WIDTH = 1400, 800, 150
INK, OURS, OTHER, BAND = "#2b2f36", "#1f6feb", "#b9bec7", "#f5a623"
FLOOR = 0.02  # where a rate of zero is drawn


def draw(online: dict[str, Any], path: str) -> None:
    """Draw into ``path``; ``online`` are the online figures of the benchmark."""
    import matplotlib.pyplot as plt

    curve = -3.0 * sigmoid(N, MIDDLE, WIDTH)
    values = curve + noise(N, 4, 0.7, "t3")
    detector = OnlineDetector(arl=100_000)
    state, path_of, event = detector.init(), [], None
    for step, value in enumerate(values.tolist()):
        state, decision = detector.update(state, value, step)
        watching = state["mode"] == "watch" or decision.event is not None
        path_of.append(max(decision.statistic, -3.0) if watching else math.nan)
        event = event or decision.event
    assert event is not None

    plt.rcParams |= {"font.size": 9, "axes.edgecolor": INK, "text.color": INK, "axes.labelcolor": INK}
    figure = plt.figure(figsize=(10, 4.6), dpi=130)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.45, 1), height_ratios=(1.5, 1), wspace=0.42, hspace=0.12)
    top, bottom = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[1, 0])
    right = figure.add_subplot(grid[:, 1])

    top.plot(values, color=OTHER, lw=0.7, label="reading")
    top.plot(curve, color=INK, lw=1.4, label="its mean, unknown to the detector")
    top.set(ylabel="reading", xlim=(0, N), xticklabels=[])
    top.set_title("A change in correlated, heavy-tailed noise", loc="left", fontsize=10, fontweight="bold")
    low, high = float(values.min()), float(values.max())
    top.set_ylim(low - 0.5, high + 1.8)
    top.legend(loc="lower left", frameon=False, fontsize=8)
    bottom.plot(path_of, color=OURS, lw=1.2)
    bottom.axhline(decision.threshold, color=INK, lw=0.9, ls="--")
    bottom.text(N - 10, decision.threshold - 0.5, "threshold: log 100,000", ha="right", va="top", fontsize=8)
    bottom.set(ylabel="log of the\nstatistic", xlabel="step", xlim=(0, N), ylim=(-0.5, decision.threshold + 2.5))
    bottom.axvspan(0, detector.burn_in, color=OTHER, alpha=0.25, lw=0)
    bottom.text(detector.burn_in / 2, 4.5, "burn-in", ha="center", fontsize=8)
    for axis in (top, bottom):
        axis.axvspan(event.onset_low, max(event.onset_high, event.onset_low + 4), color=BAND, alpha=0.35, lw=0)
        axis.axvline(event.onset, color=BAND, lw=1.4)
        axis.axvline(event.step, color=OURS, lw=1.4)
    top.text(event.onset - 15, high + 0.4, f"onset, dated: {event.onset}", ha="right", color="#b36b00", fontsize=8.5)
    top.text(event.step + 15, high + 0.4, f"found at: {event.step}", color=OURS, fontsize=8.5)
    settled = next(i for i in range(event.step + 1, N) if not math.isnan(path_of[i]))
    bottom.text((event.step + settled) / 2, 4.5, "settling", ha="center", fontsize=7)

    names = list(next(iter(online.values())))
    rates = {name: np.array([online[family][name]["false"] for family in online if family in NULLS]) for name in names}
    order = sorted(names, key=lambda name: -rates[name].mean())
    for place, name in enumerate(order):
        mean = float(rates[name].mean())
        colour = OURS if place == len(order) - 1 else OTHER
        right.barh(place, max(mean, FLOOR), left=0, color=colour, height=0.62, zorder=2)
        spots = np.maximum(rates[name], FLOOR)
        right.plot(spots, place + np.linspace(-0.2, 0.2, spots.size), "o", ms=3, color=INK, alpha=0.55, zorder=3)
        text = f"{mean:.2g}" if mean < 10 else f"{mean:.0f}"
        right.text(max(spots.max(), FLOOR) * 1.35, place, text, va="center", fontweight="bold", fontsize=9, zorder=4)
    right.set(xscale="log", xlim=(FLOOR * 0.9, 900), yticks=range(len(order)))
    right.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    right.set_yticklabels(order)
    right.set_xlabel("false alarms per 10,000 readings")
    right.set_title("Series without a change", loc="left", fontsize=10, fontweight="bold")
    right.text(
        0.99, 0.015, "bar: mean of the families of noise\ndot: one family; leftmost: none",
        transform=right.transAxes, ha="right", va="bottom", fontsize=7.5,
    )  # fmt: skip
    right.set_ylim(-1.1, len(order) - 0.5)
    right.grid(axis="x", color=OTHER, lw=0.4, alpha=0.6, zorder=0)
    for axis in (top, bottom, right):
        axis.spines[["top", "right"]].set_visible(False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)
