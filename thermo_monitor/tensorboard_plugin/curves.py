"""Curves of a log as arrays, in order, and without what a resumed run has done again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.eventlog.resume import current
from thermo_monitor.tensorboard_plugin import wire
from thermo_monitor.tensorboard_plugin.listing import PREFIX, SERIES, Log

MOST = 100_000  # points of a curve that are asked for; TensorBoard keeps a thousand unless it is told otherwise
Array = NDArray[np.float64]


def columns(data: Sequence[Any], chunks: Sequence[Any] = ()) -> tuple[Array, Array, Array]:
    """Steps, wall times and values of one tag.

    Args:
        data: scalars, thinned as TensorBoard does.
        chunks: tensors [k, 3] of the same curve with all points, as far as there are.
    """
    n = len(data)
    steps = np.fromiter((d.step for d in data), np.float64, n)
    walls = np.fromiter((d.wall_time for d in data), np.float64, n)
    values = np.fromiter((d.value for d in data), np.float64, n)
    whole = [c for d in chunks if (c := np.asarray(d.numpy)).ndim == 2 and c.shape[1] == 3 and c.dtype == np.float64]
    if whole:  # a point that is in both counts once: the second account of a step supersedes the first
        points = np.concatenate(whole)
        steps, walls, values = (np.concatenate(pair) for pair in zip((steps, walls, values), points.T, strict=True))
    keep = current(steps, walls)
    return steps[keep], walls[keep], values[keep]


def curves(log: Log, runs: Iterable[str], tags: Iterable[str]) -> bytes:
    """The curves of some runs and tags that exist: three arrays for each (steps, wall times, values)."""
    runs, tags = list(runs), list(tags)
    names: list[dict[str, str]] = []
    arrays: list[NDArray[Any]] = []
    if runs and tags:
        series = ["series/" + tag.removeprefix(PREFIX) for tag in tags if tag.startswith(PREFIX)]
        whole = log.read("tensors", SERIES, runs, series, MOST) if series else {}
        for run, found in sorted(log.read("scalars", "scalars", runs, tags, MOST).items()):
            for tag, data in sorted(found.items()):
                names.append({"run": run, "tag": tag})
                arrays += columns(data, whole.get(run, {}).get("series/" + tag.removeprefix(PREFIX), ()))
    return wire.pack({"curves": names}, arrays)
