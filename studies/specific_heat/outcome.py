"""What is kept of a run: when what happened, and where each signal peaked. All tables come from these few numbers."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specific_heat import protocol, signals
from specific_heat.grid import CONDITIONS, Cell
from specific_heat.protocol import Peak

DEFINITIONS = ("A answer", "A all", "B", "B_row answer", "B_row all", "D answer", "V answer")
NULLS = (
    "weight norm",
    "gradient norm",
    "logit rms",
    "spectral entropy",
    "held-out loss",
    "freezing ratio",
    "sharpening",
    "random time",
)
"""They know nothing of specific heat. ``sharpening`` is A of random rows that are spread as those of the run."""
DIGITS = 5

Key = tuple[str, int, int]  # a signal, its layer and head; -1: the mean over all


@dataclass
class Outcome:
    """One run.

    Attributes:
        p: modulus.
        layers: of the model.
        condition: see ``grid``.
        model: seed of the weights.
        split: seed of the split.
        end: last step.
        memorized: step; NaN: never.
        grokked: step for each of the thresholds; NaN: never.
        best: highest held-out accuracy.
        final: the last one.
        peaks: by signal, layer and head.
        early: reading soon after memorization, by signal.
        levels: readings at memorization, at generalization and at the end, by signal.
        later: step of the peak if it is looked for only some time after memorization, by signal.
    """

    p: int
    layers: int
    condition: str
    model: int
    split: int
    end: float
    memorized: float
    grokked: dict[float, float]
    best: float
    final: float
    peaks: dict[Key, Peak] = field(default_factory=dict)
    early: dict[str, float] = field(default_factory=dict)
    levels: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    later: dict[str, float] = field(default_factory=dict)

    @property
    def at(self) -> float:
        """Grok step of the verdict."""
        return self.grokked[protocol.GROKKED]

    @property
    def groks(self) -> bool:
        """Whether it memorized first and generalized later."""
        return self.at > self.memorized

    @property
    def never(self) -> bool:
        """Whether it memorized and its held-out accuracy stayed low throughout."""
        return math.isfinite(self.memorized) and self.best < protocol.NEVER

    @property
    def name(self) -> tuple[int, int, str, int, int]:
        """What tells it from others."""
        return self.p, self.layers, self.condition, self.model, self.split


def series(arrays: Mapping[str, NDArray[np.float32]], run: int) -> dict[str, NDArray[np.floating]]:
    """Signals of one run of a cell: [T], those of heads their mean over heads, then over layers."""
    out: dict[str, NDArray[np.floating]] = {}
    for side, suffix in zip(signals.SIDES, ("", " held-out"), strict=True):
        for name in DEFINITIONS:
            values = arrays[f"{side}/{'B of the run' if name == 'B' else name}"][:, run]
            out[name + suffix] = values if name == "B" else values.mean((1, 2))
    frozen = arrays["train/freezing_ratio answer"][:, run]
    out |= {name: arrays[name][:, run] for name in signals.OF_RUNS}
    out |= {name: arrays[f"train/{name}"][:, run] for name in ("logit rms", "spectral entropy")}
    out["held-out loss"] = arrays["held-out/loss"][:, run]
    out["freezing ratio"] = frozen.mean((1, 2))
    out["sharpening"] = signals.of_random_rows(frozen).mean((1, 2))
    return out


def outcomes(cell: Cell, arrays: Mapping[str, NDArray[np.float32]]) -> list[Outcome]:
    """The runs of a cell from its recording: arrays [T, S, ...] by name."""
    steps = arrays["steps"].astype(np.int64)
    out = []
    for run, (condition, (model, split)) in enumerate(cell.runs()):
        held_out = arrays["held-out/accuracy"][:, run]
        memorized = protocol.memorized_at(steps, arrays["train/accuracy"][:, run])
        found = Outcome(
            cell.p,
            cell.layers,
            condition,
            model,
            split,
            float(steps[-1]),
            memorized,
            {threshold: protocol.grokked_at(steps, held_out, threshold) for threshold in protocol.THRESHOLDS},
            float(held_out.max()),
            float(held_out[-1]),
        )
        for name, values in series(arrays, run).items():
            found.peaks[name, -1, -1] = protocol.peak(steps, values, memorized)
            found.early[name] = protocol.early(steps, values, memorized)
            found.later[name] = protocol.peak(steps, values, memorized + protocol.LATER).step
            found.levels[name] = (*(_at(steps, values, step) for step in (memorized, found.at)), float(values[-1]))
        for name in DEFINITIONS:
            heads = arrays[f"train/{name}"][:, run]
            for layer, head in np.ndindex(heads.shape[1:]):
                found.peaks[name, layer, head] = protocol.peak(steps, heads[:, layer, head], memorized)
        found.peaks["random time", -1, -1], found.early["random time"] = _random(found)
        found.levels["random time"] = math.nan, math.nan, math.nan
        found.later["random time"] = found.peaks["random time", -1, -1].step
        out.append(found)
    return out


def _at(steps: NDArray[np.int64], values: NDArray[np.floating], step: float) -> float:
    return float(values[np.searchsorted(steps, step)]) if math.isfinite(step) else math.nan


def _random(run: Outcome) -> tuple[Peak, float]:
    """A time drawn at random between memorization and the end: what a signal that knows nothing would do."""
    if not math.isfinite(run.memorized):
        return Peak(math.nan, math.nan, math.nan, ""), math.nan
    rng = np.random.default_rng([run.p, run.layers, CONDITIONS.index(run.condition), run.model, run.split])
    return Peak(rng.uniform(run.memorized, run.end), math.nan, math.nan, "inside"), rng.uniform()


RUN = ("p", "layers", "condition", "model", "split")
HEADER = (*RUN, "end", "memorized", *(f"grokked {t}" for t in protocol.THRESHOLDS), "best", "final")
LEVELS = ("at memorized", "at grokked", "at end")
PEAKS = (*RUN, "signal", "layer", "head", "step", "height", "width", "top", "early", *LEVELS, "later")


def save(runs: Iterable[Outcome], folder: Path) -> None:
    """Two tables, ``runs.csv`` and ``peaks.csv``, in the order of the runs."""
    runs = sorted(runs, key=lambda run: (run.layers, run.p, CONDITIONS.index(run.condition), run.model, run.split))
    with (folder / "runs.csv").open("w", newline="") as file:
        to = csv.writer(file, lineterminator="\n")
        to.writerow(HEADER)
        for run in runs:
            dates = (run.end, run.memorized, *run.grokked.values(), run.best, run.final)
            to.writerow([*run.name, *map(_short, dates)])
    with (folder / "peaks.csv").open("w", newline="") as file:
        to = csv.writer(file, lineterminator="\n")
        to.writerow(PEAKS)
        for run in runs:
            for (name, layer, head), found in run.peaks.items():
                readings = (run.early[name], *run.levels[name], run.later[name]) if layer < 0 else [math.nan] * 5
                to.writerow([*run.name, name, layer, head, *map(_short, found[:3]), found.top, *map(_short, readings)])


def load(folder: Path) -> list[Outcome]:
    """The runs that :func:`save` has written."""
    runs: dict[Sequence[str], Outcome] = {}
    with (folder / "runs.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            own = tuple(line[name] for name in RUN)
            grokked = {t: _long(line[f"grokked {t}"]) for t in protocol.THRESHOLDS}
            dates = (_long(line["end"]), _long(line["memorized"]), grokked, _long(line["best"]), _long(line["final"]))
            runs[own] = Outcome(int(own[0]), int(own[1]), own[2], int(own[3]), int(own[4]), *dates)
    with (folder / "peaks.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            run = runs[tuple(line[name] for name in RUN)]
            key = line["signal"], int(line["layer"]), int(line["head"])
            run.peaks[key] = Peak(_long(line["step"]), _long(line["height"]), _long(line["width"]), line["top"])
            if key[1] < 0:
                run.early[key[0]] = _long(line["early"])
                run.later[key[0]] = _long(line["later"])
                run.levels[key[0]] = tuple(_long(line[name]) for name in LEVELS)
    return list(runs.values())


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.{DIGITS}g}"


def _long(text: str) -> float:
    return float(text) if text else math.nan
