"""One picture of one or several runs: curves above one another, and the events marked across all of them.

It needs readings and events only, so it can be drawn from memory, from a JSONL file, or on a machine without torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.quantities import REGISTRY
from thermo_monitor.records import Event, Reading
from thermo_monitor.report_events import legend, mark, name_events, told

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]  # steps [n], values [n]

# What the phases of events leave of a palette that the colour-blind can tell apart.
_CURVE_COLOURS = ("#1A1A1A", "#56A5DC", "#B5A000", "#7A7A7A")
_DENSE = 500  # from this number of points on a curve is a median and a band


class RunRecord(Protocol):
    """What is drawn; :class:`~thermo_monitor.sinks.memory.MemorySink` and what ``read_jsonl`` returns qualify.

    A run may also have ``curves``, by name: steps [n] and values [n] of something that the monitor does not read, such
    as the accuracy on training and validation data.
    """

    @property
    def readings(self) -> Sequence[Reading]:
        """In the order of the steps."""

    @property
    def events(self) -> Sequence[Event]:
        """In the order of their confirmation."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A strip of the picture: quantities on the left axis, at most one on the right."""

    label: str
    left: tuple[str, ...] = ()
    right: str | None = None
    log: bool = False


_ROWS = (
    _Row("loss [nats]", ("loss/train",), "opt/gradient_norm", log=True),
    _Row("accuracy"),  # the curves that a run brings along
    _Row("attention", ("attn/specific_heat_norm", "attn/entropy_fraction")),
    _Row("temperature T*", ("attn/reduced_temperature",), log=True),
    _Row("representation", ("repr/representation_entropy", "repr/spectral_entropy")),
    _Row("coherence C", ("fisher/gradient_coherence",)),
)


def draw(runs: Mapping[str, RunRecord], path: str | os.PathLike[str], *, log_steps: bool = False) -> None:
    """Draw one column per run and write the picture, 1400 by 900 pixels for up to three runs.

    A solid line is the onset of an event, the shade around it the interval that the onset may be in, and the dashes the
    step at which it was confirmed; colours are phases. Excursions are ticks under the names of the events. Rows that no
    run has data for are left out, and a long curve is drawn as its median and range over short stretches.

    Args:
        runs: title -> run.
        path: the file; its ending gives the format, and its directory is made.
        log_steps: whether equal distances are equal factors of the step; for runs whose story starts early.

    Raises:
        ValueError: there is no run, or the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not runs:
        raise ValueError("there is no run to draw; give at least one title and its record")
    data = [_curves(run) for run in runs.values()]
    rows = [i for i in range(len(_ROWS)) if any(any(curve[0].size for curve in d[i].values()) for d in data)] or [0]
    # Through the objects alone: pyplot keeps global state, and the notebook that calls this has figures of its own.
    figure = Figure(figsize=(max(14.0, 4.5 * len(runs)), 9.0), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        1 + len(rows),
        len(runs),
        height_ratios=[0.55, *([1.0] * len(rows))],
        hspace=0.26,
        wspace=0.16 if len(runs) < 3 else 0.26,
        left=0.065,
        right=0.935,
        top=0.925,
        bottom=0.105,
    )
    strips: dict[int, Axes] = {}
    right: Axes | None = None
    for column, (title, run) in enumerate(runs.items()):
        steps = _extent(data[column], run.events, log_steps)
        names = figure.add_subplot(grid[0, column])
        for at, index in enumerate(rows, start=1):
            axes = figure.add_subplot(grid[at, column], sharey=strips.get(at))
            strips.setdefault(at, axes)
            right = _strip(axes, _ROWS[index], data[column][index], right, log_steps)
            axes.tick_params(labelbottom=at == len(rows), labelleft=column == 0)
            if column == 0:
                axes.set_ylabel(_ROWS[index].label, fontsize=9)
            _dress(axes, steps, log_steps)
            mark(axes, told(run.events))
        _dress(names, steps, log_steps)
        name_events(names, told(run.events))
        axes.set_xlabel("optimizer step", fontsize=10)
        found = sum(e.kind != "excursion" and e.phase != "scheduled" for e in told(run.events))
        words = f"{found} change{'' if found == 1 else 's'} found"
        names.text(0, 1.25, title, transform=names.transAxes, fontsize=14, fontweight="bold", va="baseline")
        names.text(1, 1.25, words, transform=names.transAxes, fontsize=9.5, color="#555", ha="right", va="baseline")
    for shared in (*strips.values(), right):
        if shared is not None and shared.get_yscale() == "log":
            _log_axis(shared)  # again, now that the limits are known
    figure.align_ylabels(list(strips.values()))
    legend(figure, [e for run in runs.values() for e in told(run.events)])
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}; give a place that can be written") from error


def _curves(run: RunRecord) -> list[dict[str, Curve]]:
    """Curves of each row by name: quantities by their key, what the run brings along by its own name."""
    points: dict[str, tuple[list[int], list[float]]] = {}
    for r in run.readings:
        if r.layer is None and r.head is None:
            steps, values = points.setdefault(r.quantity, ([], []))
            steps.append(r.step)
            values.append(r.value)
    rows: list[dict[str, Curve]] = []
    for row in _ROWS:
        keys = [*row.left, *([row.right] if row.right else [])]
        rows.append({k: _clean(*points[k]) for k in keys if k in points})
    for name, (own_steps, own_values) in (getattr(run, "curves", None) or {}).items():
        rows[1][name] = _clean(own_steps, own_values)
    return rows


def _clean(steps: Iterable[float], values: Iterable[float]) -> Curve:
    x, y = np.asarray(list(steps), np.float64), np.asarray(list(values), np.float64)
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    y = np.where(np.isfinite(y), y, np.nan)  # where nothing valid was read the line has a gap
    known = np.flatnonzero(~np.isnan(y))
    return (x[known[0] : known[-1] + 1], y[known[0] : known[-1] + 1]) if known.size else (x[:0], y[:0])


def _extent(rows: Iterable[Mapping[str, Curve]], events: Sequence[Event], log: bool) -> tuple[float, float]:
    ends = [float(x[i]) for row in rows for x, _ in row.values() if x.size for i in (0, -1)]
    ends += [float(s) for e in events for s in (e.onset, e.step)]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    if log:
        low = max(low, 1.0)
        return low, max(high, low * 10)
    return low, max(high, low + 1)


def _strip(axes: Axes, row: _Row, curves: Mapping[str, Curve], right: Axes | None, log_steps: bool) -> Axes | None:
    """Draw one strip; its right axis, which the next column shares, or the one given where it has none."""
    axes.tick_params(labelsize=9, length=3)
    if row.log:
        _log_axis(axes)
    handles: list[Any] = []
    for number, (name, curve) in enumerate(curves.items()):
        colour, target = _CURVE_COLOURS[number % len(_CURVE_COLOURS)], axes
        if name == row.right:
            target = axes.twinx()
            if right is not None:
                target.sharey(right)
            right = target
            _log_axis(target)
            target.tick_params(labelsize=8, length=3, colors=colour, which="both")
            target.spines[["top", "left", "bottom"]].set_visible(False)
            target.spines["right"].set_color(colour)
        handles += _line(target, name, curve, colour, log=row.log, log_steps=log_steps)
    if handles:  # above the strip, where it hides neither a curve nor an event
        place: dict[str, Any] = {
            "loc": "lower right",
            "bbox_to_anchor": (1.0, 1.0),
            "borderaxespad": 0.0,
            "borderpad": 0.0,
            "columnspacing": 1.4,
        }
        axes.legend(handles=handles, fontsize=8.5, frameon=False, ncols=len(handles), handlelength=1.2, **place)
    else:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color="#999")
    return right


def _log_axis(axes: Axes) -> None:
    """Plain numbers, and more than powers of ten only where those would be too few."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log", nonpositive="mask")
    low, high = axes.get_ylim()
    many = high > 30 * low
    axes.yaxis.set_major_locator(LogLocator(numticks=5) if many else LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _line(axes: Axes, name: str, curve: Curve, colour: str, *, log: bool, log_steps: bool) -> list[Any]:
    x, y = curve
    known = REGISTRY.get(name)
    unit = "" if known is None or known.unit == "1" else f" [{known.unit}]"
    label = name if known is None else f"{known.name}{unit}"
    keep = (~(y <= 0) if log else True) & (x > 0 if log_steps else True) & np.isfinite(x)
    x, y = x[keep], y[keep]
    if len(x) > _DENSE:
        places = np.log(x) if log_steps else x
        edges = np.linspace(places[0], places[-1], _DENSE // 2)
        parts = np.split(np.arange(len(x)), np.unique(np.searchsorted(places, edges[1:])))
        parts = [p for p in parts if p.size]
        # Only valid values count; a part without one is a gap.
        valid = [p[np.isfinite(y[p])] for p in parts]
        low, middle, high = (
            np.array([f(y[v]) if v.size else np.nan for v in valid]) for f in (np.min, np.median, np.max)
        )
        x, y = np.array([x[p].mean() for p in parts]), middle
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    return list(axes.plot(x, y, color=colour, linewidth=1.6, label=label)) if len(x) else []


def _dress(axes: Axes, steps: tuple[float, float], log: bool) -> None:
    axes.set_xscale("log" if log else "linear")
    axes.set_xlim(*steps)
    if not log:
        axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, axis="y", color="#EEEEEE", linewidth=0.8)
    axes.set_axisbelow(True)
