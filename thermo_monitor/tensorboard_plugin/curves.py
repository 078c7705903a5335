"""Curves of a log as arrays, in order, and without what a resumed run has done again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.eventlog.resume import current
from thermo_monitor.tensorboard_plugin import wire
from thermo_monitor.tensorboard_plugin.listing import Log

MOST = 100_000  # points of a curve that are asked for; TensorBoard keeps a thousand unless it is told otherwise
Array = NDArray[np.float64]


def columns(data: Sequence[Any]) -> tuple[Array, Array, Array]:
    """Steps, wall times and values of one tag."""
    n = len(data)
    steps = np.fromiter((d.step for d in data), np.float64, n)
    walls = np.fromiter((d.wall_time for d in data), np.float64, n)
    values = np.fromiter((d.value for d in data), np.float64, n)
    keep = current(steps, walls)
    return steps[keep], walls[keep], values[keep]


def curves(log: Log, runs: Iterable[str], tags: Iterable[str]) -> bytes:
    """The curves of some runs and tags that exist: three arrays for each (steps, wall times, values)."""
    runs, tags = list(runs), list(tags)
    names: list[dict[str, str]] = []
    arrays: list[NDArray[Any]] = []
    if runs and tags:
        for run, found in sorted(log.read("scalars", "scalars", runs, tags, MOST).items()):
            for tag, data in sorted(found.items()):
                names.append({"run": run, "tag": tag})
                arrays += columns(data)
    return wire.pack({"curves": names}, arrays)
