"""Transitions in logs that already exist, of this library or of any other: one run, or a fleet of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from thermo_monitor import spreadsheet
from thermo_monitor.eventlog.runs import Log, find
from thermo_monitor.records import Event

# Bookkeeping, whose steps are nobody's transition; `--tags` looks at it all the same.
_NEVER = ("epoch", "lr", "learning_rate", "hp_metric", "time", "speed", "runtime", "samples_per_second", "iterations")
_OURS = ("thermo/monitor/", "thermo/detect/")
COLUMNS = (
    "run", "onset", "onset_low", "onset_high", "confirmed", "kind", "phase", "level", "direction", "quantity",
    "message",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scanned:
    """What was found in a run.

    Attributes:
        run: name.
        curves: number of curves that were looked at.
        points: their points.
        events: of the monitor where it watched the run, else those that were found in the curves.
        watched: whether the monitor wrote them.
        problems: what could not be read.
        seconds: it took.
    """

    run: str
    curves: int
    points: int
    events: list[Event] = field(default_factory=list)
    watched: bool = False
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


def scan(places: Iterable[str], tags: Sequence[str] = (), jobs: int = -1) -> list[Scanned]:
    """Look through every run at some places.

    Several runs are spread over processes by joblib, so that a backend that was chosen with
    ``joblib.parallel_config`` (dask, ray) spreads them over machines; without joblib they are read one after the other.

    Args:
        places: directories, event files, CSV and JSONL files.
        tags: patterns such as ``val/*`` of the curves to look at; all that tell something unless given.
        jobs: processes; -1 for one a core.

    Raises:
        ValueError: a place does not exist.
    """
    logs = [log for place in places for log in find(place)]
    if len(logs) < 2 or jobs == 1:
        return [scan_run(log, tags) for log in logs]
    try:
        import joblib
    except ModuleNotFoundError:
        return [scan_run(log, tags) for log in logs]
    return list(joblib.Parallel(n_jobs=jobs)(joblib.delayed(scan_run)(log, tags) for log in logs))


def scan_run(log: Log, tags: Sequence[str] = ()) -> Scanned:
    """Look through one run."""
    from thermo_monitor.detect import finished

    started = time.perf_counter()
    log.read()
    problems = list(log.problems)
    if log.torn:
        problems.append(f"the last {log.torn} bytes are half a record; the run may still be written")
    told = [e for e in log.events if "part_of" not in e.details]
    columns = {tag: column for tag, column in sorted(log.columns.items()) if _wanted(tag, tags)}
    points = sum(map(len, columns.values()))
    watched = bool(told) and not tags
    events = told if watched else finished.find({tag: column.series() for tag, column in columns.items()})
    return Scanned(log.name, len(columns), points, events, watched, problems, time.perf_counter() - started)


def as_json(found: Sequence[Scanned]) -> str:
    """One document, for scripts."""
    runs = [
        {
            "run": one.run,
            "curves": one.curves,
            "points": one.points,
            "watched": one.watched,
            "events": [json.loads(event.to_json()) for event in one.events],
            "problems": one.problems,
        }
        for one in found
    ]
    return json.dumps({"found": sum(len(one.events) for one in found), "runs": runs}, indent=1, allow_nan=False)


def as_csv(found: Sequence[Scanned]) -> str:
    """One row an event."""
    rows: list[list[Any]] = []
    for one in found:
        for event in one.events:
            row: dict[str, Any] = {**json.loads(event.to_json()), "run": one.run, "confirmed": event.step}
            rows.append([row.get(name) for name in COLUMNS])
    return spreadsheet.csv(COLUMNS, rows)


def _wanted(tag: str, patterns: Sequence[str]) -> bool:
    if patterns:
        return any(fnmatchcase(tag, pattern) or fnmatchcase(tag, f"thermo/{pattern}") for pattern in patterns)
    return tag.lower().rpartition("/")[2] not in _NEVER and not tag.startswith(_OURS)
