"""The detector's own scores along a recorded run, step by step: what a user would have seen at the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.detect.run import RunDetector
from thermo_monitor.records import Event
from transitions.recording import Curve, Recording, walk

SCORES = ("detect/score", "detect/early_warning")


@dataclass
class Followed:
    """The live detector on one recording.

    Attributes:
        events: of the run.
        scores: ``detect/score`` and ``detect/early_warning`` at the steps of the slow readings, by name.
    """

    events: Sequence[Event]
    scores: dict[str, Curve] = field(default_factory=dict)


def follow(recording: Recording, options: OnlineDetector, every: int) -> Followed:
    """Replay a recording; asking for the scores changes no event."""
    detector = RunDetector(options)
    points: dict[str, list[tuple[int, float]]] = {name: [] for name in SCORES}
    events: list[Event] = []
    for step, found in walk(recording, detector):
        events += found
        if step % every == 0:
            for reading in detector.readings(step):
                points[reading.quantity].append((step, reading.value))
    events += detector.finish()
    scores = {
        name: (np.array([s for s, _ in own], np.int64), np.array([v for _, v in own], np.float64))
        for name, own in points.items()
    }
    return Followed(events, scores)
