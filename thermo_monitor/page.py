"""One self-contained HTML file of the runs of a log: curves with their events, and the table. No script, no network."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from thermo_monitor import __version__
from thermo_monitor.eventlog.curves import Series
from thermo_monitor.quantities import REGISTRY
from thermo_monitor.records import Event
from thermo_monitor.scan import Scanned
from thermo_monitor.sinks.advice import advice, interval

COLOURS = {
    "memorization": "#0072b2",
    "generalization": "#00855f",
    "reorganization": "#b4558f",
    "instability": "#c94f00",
    "scheduled": "#767676",
}
_OTHER = "#9a6a00"
FIRST = (
    "loss/train", "attn/specific_heat_norm", "attn/reduced_temperature", "attn/entropy_fraction",
    "out/predictive_entropy", "repr/representation_entropy", "repr/spectral_entropy", "fisher/gradient_coherence",
    "opt/gradient_norm", "opt/weight_norm",
)  # fmt: skip
_MOST = 12  # curves of a run
_WIDTH, _HEIGHT, _LEFT, _RIGHT = 900, 110, 70, 26
_BINS = 420  # least and largest value of each are drawn: no spike gets lost

_STYLE = """
:root{color-scheme:light dark;--ink:#20262d;--soft:#5b656f;--line:#dfe3e6;--paper:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e8ebee;--soft:#a4adb7;--line:#2b323a;--paper:#191e23}}
body{font:14px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1000px;margin:32px auto;
padding:0 20px;font-variant-numeric:tabular-nums}
h1{font-size:24px}h2{font-size:19px;margin-top:40px;border-top:1px solid var(--line);padding-top:24px;
overflow-wrap:anywhere}h3{font-size:13px;margin:14px 0 0}h3 small{font-weight:400;color:var(--soft)}
.soft{color:var(--soft)}table{border-collapse:collapse;width:100%;margin:12px 0}
th,td{text-align:left;padding:5px 12px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--soft);font-weight:600;font-size:12px}.n{text-align:right;white-space:nowrap}
svg{width:100%;height:auto;display:block}svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
.curve{fill:none;stroke:var(--ink);stroke-width:1.4}.grid{stroke:var(--line)}
"""


def page(title: str, runs: Sequence[tuple[Scanned, Mapping[str, Series]]]) -> str:
    """The document.

    Args:
        title: its heading.
        runs: what was found in each, and its curves by name.
    """
    found = sum(len(one.events) for one, _ in runs)
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p class=soft>{len(runs)} run{'s' * (len(runs) != 1)}, {found} event{'s' * (found != 1)}; "
        f"thermo-monitor {__version__}. A solid line is the onset of a change, the shade the interval that it may be "
        "in, dashes the step at which it was confirmed.</p>",
    ]
    for one, curves in runs:
        body += _run(one, curves)
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _run(one: Scanned, curves: Mapping[str, Series]) -> Iterator[str]:
    yield f"<h2>{html.escape(one.run)}</h2>"
    how = "watched by the monitor" if one.watched else "changes looked for in the finished curves"
    yield f"<p class=soft>{one.points:,} points in {one.curves} curves; {how}.</p>"
    for problem in one.problems:
        yield f"<p class=soft>{html.escape(problem)}</p>"
    yield _table(one.events) if one.events else "<p>No event.</p>"
    shown = chosen(curves, one.events)
    ends = [x for tag in shown for x in (curves[tag][0][0], curves[tag][0][-1])]
    for tag in shown:
        known = REGISTRY.get(tag.removeprefix("thermo/"))
        name, unit = (known.name, "" if known.unit == "1" else known.unit) if known else (tag, "")
        yield f"<h3>{html.escape(name)} <small>{html.escape(unit)}</small></h3>"
        yield _chart(
            curves[tag], known.scale == "log" if known else "loss" in tag.lower(), one.events, min(ends), max(ends)
        )


def chosen(curves: Mapping[str, Series], events: Sequence[Event]) -> list[str]:
    """Curves that are drawn: the usual readings, those that changed, then the others."""
    there = {tag for tag, (steps, values) in curves.items() if steps.size and np.isfinite(values).any()}
    usual = [f"thermo/{key}" for key in FIRST]
    changed = [tag for e in events for tag in (e.quantity, *e.details.get("also", ())) if isinstance(tag, str)]
    own = sorted(tag for tag in there if not tag.startswith("thermo/") and not tag.endswith("epoch"))
    return [tag for tag in dict.fromkeys([*usual, *changed, *own]) if tag in there][:_MOST]


def _table(events: Sequence[Event]) -> str:
    head = ("onset [low, high]", "confirmed", "what", "what happened", "what to look at")
    rows = []
    for e in events:
        name = e.kind if e.phase == "unexplained" else e.phase
        colour = COLOURS.get(e.phase, _OTHER)
        cells = [
            f"<td class=n>{html.escape(interval(e))}</td><td class=n>{e.step}</td>",
            f'<td style="color:{colour};font-weight:600">{html.escape(name)}</td>',
            f"<td>{html.escape(e.message)}</td><td>{html.escape(advice(e))}</td>",
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{''.join(rows)}</table>"


def _chart(series: Series, log: bool, events: Sequence[Event], first: float, last: float) -> str:
    log = log and not (series[1] <= 0).any()
    pieces = [envelope(*piece, log=log) for piece in _pieces(*series)]
    low = min((float(y.min()) for _, y in pieces if y.size), default=0.0)
    high = max((float(y.max()) for _, y in pieces if y.size), default=1.0)
    room = (high - low) * 0.06 or 0.5
    low, high = low - room, high + room

    def across(step: float) -> float:
        return _LEFT + (step - first) / ((last - first) or 1.0) * (_WIDTH - _LEFT - _RIGHT)

    def up(value: float) -> float:
        return _HEIGHT - 18 - (value - low) / (high - low) * (_HEIGHT - 24)

    parts = []
    for at in np.linspace(low + room, high - room, 3):
        label = f"{10**at:.3g}" if log else f"{at:.3g}"
        parts.append(f'<line class=grid x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{up(at):.1f}" y2="{up(at):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{up(at) + 4:.1f}" text-anchor="end">{label}</text>')
    for at in np.linspace(first, last, 6):
        parts.append(f'<text x="{across(at):.1f}" y="{_HEIGHT - 3}" text-anchor="middle">{at:,.0f}</text>')
    for e in events:
        if e.kind == "excursion":
            continue
        colour = COLOURS.get(e.phase, _OTHER)
        a, b = (across(e.onset if s is None else s) for s in (e.onset_low, e.onset_high))
        dash = ' stroke-dasharray="2 2"' if e.phase == "scheduled" else ""
        size = f'width="{max(b - a, 0):.1f}" height="{_HEIGHT - 18}"'
        parts.append(f'<rect x="{a:.1f}" y="0" {size} fill="{colour}" opacity=".2"/>')
        for at, width, style in ((e.onset, 2, dash), (e.step, 1, ' stroke-dasharray="4 3"')):
            place = f'x1="{across(at):.1f}" x2="{across(at):.1f}" y1="0" y2="{_HEIGHT - 18}"'
            parts.append(f'<line {place} stroke="{colour}" stroke-width="{width}"{style}/>')
    for x, y in pieces:
        points = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))
        parts.append(f'<polyline class=curve points="{points}"/>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'


def _pieces(steps: NDArray[np.float64], values: NDArray[np.float64]) -> list[Series]:
    """The curve between its gaps: where nothing valid was read no line is drawn."""
    known = np.flatnonzero(np.isfinite(values))
    parts = np.split(known, np.flatnonzero(np.diff(known) > 1) + 1) if known.size else []
    return [(steps[part], values[part]) for part in parts]


def envelope(
    steps: NDArray[np.float64], values: NDArray[np.float64], log: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most two points for each of 420 stretches, the least and the largest value, in the order in which they came.

    Example:
        >>> x, y = envelope(np.arange(10_000.0), np.r_[np.zeros(5000), 7.0, np.zeros(4999)])
        >>> len(x) <= 840, float(y.max()), float(x[y.argmax()])
        (True, 7.0, 5000.0)
    """
    with np.errstate(all="ignore"):
        y = np.log10(values) if log else values
    keep = np.isfinite(y) & np.isfinite(steps)
    x, y = steps[keep], y[keep]
    if x.size <= 2 * _BINS:
        return x, y
    picked: set[int] = {0, x.size - 1}
    for part in np.array_split(np.arange(x.size), _BINS - 1):
        picked |= {int(part[y[part].argmin()]), int(part[y[part].argmax()])}
    index = np.array(sorted(picked))
    return x[index], y[index]
