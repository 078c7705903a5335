"""The families of series that the tables of ``detection.py`` have a row for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from thermo_monitor.detect.synthetic import Change as Change
from thermo_monitor.detect.synthetic import (
    Series,
    decay,
    flat,
    learning_rate,
    moved,
    slingshots,
    spikes,
    variance,
)

Make = Callable[[int, int], Series]
NULLS: dict[str, Make] = {
    "independent, normal": flat,
    "AR .5": partial(flat, phi=0.5),
    "AR .9": partial(flat, phi=0.9),
    "independent, t3": partial(flat, tail="t3"),
    "AR .9, t3": partial(flat, phi=0.9, tail="t3"),
    "power-law decay, AR .9, t3": partial(decay, kind="power"),
    "exponential decay, AR .9, t3": partial(decay, kind="exponential"),
    "spikes, AR .9": spikes,
    "slingshots, AR .5": slingshots,
    "declared learning-rate drops": learning_rate,
}
CHANGES: dict[str, Make] = {
    "step of 1, independent": partial(moved, phi=0.0, tail="normal", amplitude=1.0, width=1),
    "step of 4, AR .9, t3": partial(moved, phi=0.9, tail="t3", amplitude=4.0, width=1),
    "width 100, 4, AR .9, t3": partial(moved, phi=0.9, tail="t3", amplitude=4.0, width=100),
    "width 1000, 4, AR .9, t3": partial(moved, phi=0.9, tail="t3", amplitude=4.0, width=1000),
    "width 100, 4, on a decay": partial(moved, phi=0.9, tail="t3", amplitude=4.0, width=100, curve="power"),
    "5 % missing, width 100, 4": partial(moved, phi=0.9, tail="normal", amplitude=4.0, width=100, missing=0.05),
    "read every 10, width 10, 4": partial(moved, phi=0.5, tail="normal", amplitude=4.0, width=10, every=10),
    "spread x 3, AR .9": partial(variance, phi=0.9, ratio=3.0),
    "spread / 3, AR .5": partial(variance, phi=0.5, ratio=1 / 3),
}
