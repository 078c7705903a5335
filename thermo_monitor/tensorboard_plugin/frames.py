"""Layers and heads over time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.eventlog.resume import current
from thermo_monitor.tensorboard_plugin import wire
from thermo_monitor.tensorboard_plugin.listing import HEADS, Log

MOST = 2_000


def frames(log: Log, run: str, tag: str, after: float = -np.inf) -> bytes:
    """Steps [n] and frames [n, L, H] of one quantity, those above a step; float16, as they were written.

    A frame of another shape than the newest one is left out: the model was another one then.
    """
    data = log.read("tensors", HEADS, [run], [tag], MOST).get(run, {}).get(tag, [])
    n = len(data)
    steps = np.fromiter((d.step for d in data), np.float64, n)
    walls = np.fromiter((d.wall_time for d in data), np.float64, n)
    kept: list[tuple[float, NDArray[Any]]] = []
    shape: tuple[int, ...] | None = None
    for index in reversed(current(steps, walls).tolist()):
        grid = np.asarray(data[index].numpy)
        if grid.dtype.kind != "f" or grid.ndim != 2 or not grid.size:
            continue
        shape = shape or grid.shape
        if grid.shape == shape and steps[index] > after:
            kept.append((float(steps[index]), grid.astype(np.float16, copy=False)))
    kept.reverse()
    stack = np.stack([grid for _, grid in kept]) if kept else np.zeros((0, *(shape or (0, 0))), np.float16)
    return wire.pack({"run": run, "tag": tag}, [np.array([step for step, _ in kept], np.float64), stack])
