"""Events in a picture: lines across the curves, and names above them that do not cover one another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thermo_monitor.records import LEVELS, PHASES, Event

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The palette of Okabe and Ito (2008), which the colour-blind can tell apart.
PHASE_COLOUR = {
    "memorization": "#0072B2",
    "generalization": "#009E73",
    "reorganization": "#CC79A7",
    "instability": "#D55E00",
    "unexplained": "#E69F00",
    "scheduled": "#8A8A8A",
}
_LANES = 3  # lines of text
_TRIES = 2_000  # arrangements looked at before a name is given up
_NAMED = 16  # events that may get a name, the weightiest ones


def told(events: Iterable[Event]) -> list[Event]:
    """The events less those that are another side of one of them."""
    return [event for event in events if "part_of" not in event.details]


def mark(axes: Axes, events: Iterable[Event]) -> None:
    """A solid line at the onset, a shade over its interval, dashes at the confirmation; excursions are left out."""
    for event in events:
        if event.kind == "excursion":
            continue
        colour = _colour(event)
        low = event.onset if event.onset_low is None else event.onset_low
        high = event.onset if event.onset_high is None else event.onset_high
        axes.axvspan(low, high, color=colour, alpha=0.18, linewidth=0, zorder=0.5)
        axes.axvline(event.onset, color=colour, linewidth=1.8, zorder=1.5)
        axes.axvline(event.step, color=colour, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1.5)


def name_events(axes: Axes, events: Sequence[Event]) -> None:
    """Write the names over their onsets into an empty strip whose step axis is set; excursions become ticks.

    Where there is no room for all, the weighty ones are named and the others are counted.
    """
    axes.grid(False)
    axes.set_ylim(0, 1)
    axes.spines[:].set_visible(False)
    axes.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False, which="both")
    for event in events:
        if event.kind == "excursion":
            axes.plot([event.onset] * 2, [0.0, 0.14], color=_colour(event), linewidth=1.0, alpha=0.6)
    ranked = sorted((e for e in events if e.kind != "excursion"), key=_weight)
    named, hidden = ranked[:_NAMED], len(ranked[_NAMED:])
    labels = [_measure(axes, e) for e in named]
    low, high = axes.get_window_extent().intervalx
    while (placed := arrange([(x, width) for x, width, _ in labels], low, high)) is None:
        labels.pop()  # the least weighty one
        hidden += 1
    for (_, _, event), (lane, is_right) in zip(labels, placed, strict=True):
        colour, height = _colour(event), 0.18 + 0.29 * lane
        words, side = (f" {_words(event)}", "left") if is_right else (f"{_words(event)} ", "right")
        axes.text(_place(axes, event), height, words, fontsize=9, color=colour, fontweight="bold", ha=side)
        axes.plot([_place(axes, event)] * 2, [0.0, height + 0.2], color=colour, linewidth=1.8, clip_on=False)
    if hidden:
        words = f"+{hidden} not named"
        axes.text(1, 1.02, words, transform=axes.transAxes, ha="right", va="baseline", fontsize=8, color="#777")


@dataclass(frozen=True, slots=True)
class _Label:
    stem: float
    left: float
    right: float
    lane: int

    def collides(self, other: _Label) -> bool:
        """Texts overlap in a lane, or the stem of the higher one goes through the text of the lower one."""
        if self.lane == other.lane:
            return self.left < other.right and other.left < self.right
        high, low = (self, other) if self.lane > other.lane else (other, self)
        return low.left - 2 < high.stem < low.right + 2


def arrange(labels: Sequence[tuple[float, float]], low: float, high: float) -> list[tuple[int, bool]] | None:
    """Place texts beside their stems so that nothing covers anything.

    From the right to the left, each to the right of its stem and low where it can be, so that the text of an early
    event passes above the stems of the later ones; with steps back where that leads nowhere.

    Args:
        labels: place of the stem and width of the text.
        low: the left end of what may be written on.
        high: the right end.

    Returns:
        For each label its lane and whether the text is to the right of the stem, ``None`` where there is no room.

    Example:
        >>> arrange([(10, 50), (40, 50)], 0, 100)
        [(1, True), (0, True)]
    """
    order = sorted(range(len(labels)), key=lambda i: -labels[i][0])
    placed: list[tuple[_Label, bool]] = []
    tries = 0

    def place(number: int) -> bool:
        nonlocal tries
        if number == len(order):
            return True
        stem, width = labels[order[number]]
        for is_right, lane in ((r, n) for r in (True, False) for n in range(_LANES)):
            label = _Label(stem, stem, stem + width, lane) if is_right else _Label(stem, stem - width, stem, lane)
            if low <= label.left and label.right <= high and not any(label.collides(o) for o, _ in placed):
                tries += 1
                placed.append((label, is_right))
                if place(number + 1):
                    return True
                placed.pop()
                if tries > _TRIES:
                    return False
        return False

    if not place(0):
        return None
    found = dict(zip(order, placed, strict=True))
    return [(found[i][0].lane, found[i][1]) for i in range(len(labels))]


def legend(figure: Figure, events: Sequence[Event]) -> None:
    """Phases that occur, and what the lines mean, at the foot of the picture."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    phases = [p for p in PHASES if any(e.phase == p and e.kind != "excursion" for e in events)]
    handles: list[Any] = [Patch(color=PHASE_COLOUR[p], label=p) for p in phases]
    if phases:
        handles += [
            Line2D([], [], color="#444", linewidth=1.8, label="onset"),
            Patch(color="#444", alpha=0.18, label="onset interval"),
            Line2D([], [], color="#444", linewidth=0.9, linestyle=(0, (4, 3)), label="confirmed"),
        ]
    if any(e.kind == "excursion" for e in events):
        handles.append(Line2D([], [], color="#999", marker="|", linestyle="", markersize=7, label="excursion"))
    if handles:
        figure.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=9.5, frameon=False)


def _measure(axes: Axes, event: Event) -> tuple[float, float, Event]:
    """Place of the onset and width of the name in pixels."""
    text = axes.text(_place(axes, event), 0, f" {_words(event)}", fontsize=9, fontweight="bold")
    box = text.get_window_extent()
    text.remove()
    return float(box.x0), float(box.width) + 6.0, event


def _colour(event: Event) -> str:
    return PHASE_COLOUR.get(event.phase, PHASE_COLOUR["unexplained"])


def _place(axes: Axes, event: Event) -> float:
    """The onset, or the left end where a logarithmic axis starts later."""
    return max(float(event.onset), axes.get_xlim()[0])


def _words(event: Event) -> str:
    is_kind = event.kind in ("collapse", "divergence") or event.phase == "unexplained"
    return f"{event.kind if is_kind else event.phase} {event.onset:,}"


def _weight(event: Event) -> tuple[bool, int, float, int]:
    """Weighty first: what nobody scheduled, then by level, then by evidence."""
    evidence = event.evidence if math.isfinite(event.evidence) else 0.0
    return event.phase == "scheduled", -LEVELS.index(event.level), -evidence, event.onset
