"""What the detector of a run was given, in the order in which it was given it: enough to run any detector again.

Readings are kept as 32-bit numbers in two tables, one for the quantities of every step and one for the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.detect.run import RunDetector
from thermo_monitor.records import Event, Reading

Curve = tuple[NDArray[np.int64], NDArray[np.float64]]


@dataclass
class Recording:
    """One run.

    Attributes:
        updates: for each step that was read its number and its readings.
        notices: for each look at the settings of the run how many updates came before it, the step and the settings.
        orders: order parameters by name, steps and values; the detector never sees them.
    """

    updates: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    notices: list[tuple[int, int, dict[str, float]]] = field(default_factory=list)
    orders: dict[str, Curve] = field(default_factory=dict)

    def curve(self, quantity: str) -> Curve:
        """Steps and values of one quantity."""
        found = [(step, values[quantity]) for step, values in self.updates if quantity in values]
        return np.array([s for s, _ in found], np.int64), np.array([v for _, v in found], np.float64)

    def save(self, path: Path) -> None:
        """Write one compressed file."""
        keys = sorted({key for _, values in self.updates for key in values})
        arrays: dict[str, Any] = {"steps": np.array([step for step, _ in self.updates], np.int32)}
        for key in keys:
            rows = [i for i, (_, values) in enumerate(self.updates) if key in values]
            arrays[f"rows:{key}"] = np.diff(np.array(rows, np.int32), prepend=0)
            arrays[f"values:{key}"] = np.array([self.updates[i][1][key] for i in rows], np.float32)
        for name, (steps, values) in self.orders.items():
            arrays[f"order:{name}"] = np.stack([steps.astype(np.float32), values.astype(np.float32)])
        arrays["notices"] = np.frombuffer(json.dumps(self.notices).encode(), np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read what :meth:`save` wrote."""
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        updates: list[tuple[int, dict[str, float]]] = [(int(step), {}) for step in arrays["steps"]]
        orders = {}
        for name, array in arrays.items():
            kind, _, key = name.partition(":")
            if kind == "values":
                for row, value in zip(np.cumsum(arrays[f"rows:{key}"]), array, strict=True):
                    updates[row][1][key] = float(value)
            elif kind == "order":
                orders[key] = (array[0].astype(np.int64), array[1].astype(np.float64))
        notices = [(int(a), int(b), c) for a, b, c in json.loads(arrays["notices"].tobytes().decode())]
        return cls(updates, notices, orders)


class Tap(RunDetector):
    """A run's detector that remembers what it was given."""

    def __init__(self, options: OnlineDetector, recording: Recording) -> None:
        super().__init__(options)
        self.recording = recording

    def update(self, readings: Iterable[Reading]) -> list[Event]:
        """One step."""
        news = list(readings)
        # In the precision of the file, so that a replay is the run again to the last digit.
        own = {r.quantity: float(np.float32(r.value)) for r in news if r.layer is None}
        step = news[0].step if news else -1
        self.recording.updates.append((step, own))
        return super().update(_readings(step, own))

    def notice(self, step: int, facts: Mapping[str, float]) -> None:
        """The settings at a step."""
        self.recording.notices.append((len(self.recording.updates), step, dict(facts)))
        super().notice(step, facts)


def _readings(step: int, values: Mapping[str, float]) -> list[Reading]:
    # In the order of the names, which a file can keep.
    return [Reading(step, key, values[key]) for key in sorted(values)]


def walk(recording: Recording, detector: RunDetector) -> Iterator[tuple[int, list[Event]]]:
    """Give a detector what the run gave its own, and after each step its events."""
    notices = iter([*recording.notices, (len(recording.updates) + 1, 0, {})])
    due = next(notices)
    for done, (step, values) in enumerate(recording.updates):
        while due[0] <= done:
            detector.notice(due[1], due[2])
            due = next(notices)
        yield step, detector.update(_readings(step, values))


def replay(recording: Recording, options: OnlineDetector) -> Sequence[Event]:
    """The events of the live detector on a recording."""
    detector = RunDetector(options)
    events = [event for _, found in walk(recording, detector) for event in found]
    return [*events, *detector.finish()]
