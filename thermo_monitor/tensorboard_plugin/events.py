"""Events of runs as the page takes them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from thermo_monitor import spreadsheet
from thermo_monitor.eventlog import vectors
from thermo_monitor.quantities import REGISTRY
from thermo_monitor.records import Event
from thermo_monitor.sinks.advice import advice
from thermo_monitor.tensorboard_plugin.listing import EVENTS, Log

_FEW, _ALL = 2, 100_000  # tensors of a tag: its newest is always among them, and holds all that matters
COLUMNS = (
    "run", "onset", "onset_low", "onset_high", "confirmed", "kind", "phase", "level", "direction", "quantity",
    "evidence", "before", "after", "message",
)  # fmt: skip


def read(log: Log, runs: Iterable[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Events of each run that has any, by onset: the record, with words on what to do."""
    asked = None if runs is None else list(runs)
    if asked is not None and not asked:
        return {}
    found = {run: collect(tags) for run, tags in log.read("tensors", EVENTS, asked, None, _FEW).items()}
    missing = [run for run, events in found.items() if vectors.incomplete(events)]
    if missing:  # a log from a writer that only repeats its last ones: whatever else was kept may fill the gaps
        found |= {run: collect(tags) for run, tags in log.read("tensors", EVENTS, missing, None, _ALL).items()}
    return {run: [told(event) for event in events] for run, events in sorted(found.items()) if events}


def collect(tags: Mapping[str, Iterable[Any]]) -> list[Event]:
    """Events of one run from the tensors of all its tags."""
    data = [d for tag, series in tags.items() if vectors.holds(tag) for d in series]
    return vectors.collect((d.wall_time, d.step, d.numpy.reshape(-1).tolist()) for d in data)


def told(event: Event) -> dict[str, Any]:
    """The record as plain JSON, with what to look at."""
    return {**json.loads(event.to_json()), "advice": advice(event)}


def table(events: Mapping[str, Iterable[Mapping[str, Any]]]) -> str:
    """The events as a CSV file."""
    rows = []
    for run, of_run in events.items():
        for event in of_run:
            details = event.get("details") or {}
            row = {**event, "run": run, "confirmed": event.get("step")}
            row |= {name: _level(event, details.get(name)) for name in ("before", "after")}
            rows.append([_plain(row.get(name)) for name in COLUMNS])
    return spreadsheet.csv(COLUMNS, rows)


def _level(event: Mapping[str, Any], value: Any) -> Any:
    """A level in the unit of its quantity: the detector sees the logarithm of what is on a log scale."""
    known = REGISTRY.get(str(event.get("quantity")))
    if known is None or known.scale != "log" or not isinstance(value, float):
        return value
    return math.exp(min(value, 700.0))


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | str) else json.dumps(value)
