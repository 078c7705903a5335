"""Options that the callbacks of all trainers take for their monitor, which is made only when a training begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from thermo_monitor import presets, schedule
from thermo_monitor.budget import Budget
from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.options import check_options
from thermo_monitor.probes.base import Probe
from thermo_monitor.probes.probe_batch import check_probe_batch
from thermo_monitor.records import Event


def monitor_options(
    *,
    every: int | schedule.Schedule,
    fast_every: int | schedule.Schedule,
    budget: float | None,
    preset: str | Sequence[Probe],
    probe_batch: Any,
    detector: OnlineDetector | None,
    on_event: Callable[[Event], None] | None,
    layers: Sequence[int],
    seed: int,
    strict: bool,
) -> dict[str, Any]:
    """Keyword arguments of the monitor to come, apart from ``on_event``, which a callback puts its own before.

    Raises:
        ValueError: an option makes no sense; now, and not when the training begins.
    """
    schedule.resolve(every)
    schedule.resolve(fast_every)
    presets.resolve(preset, fixed=probe_batch is not None)
    if probe_batch is not None:
        check_probe_batch(probe_batch)
    if budget is not None:
        Budget(budget)
    check_options(detector, on_event, layers, seed, strict)
    return {
        "every": every,
        "fast_every": fast_every,
        "budget": budget,
        "preset": preset,
        "probe_batch": probe_batch,
        "detector": detector,
        "layers": tuple(layers),
        "seed": seed,
        "strict": strict,
    }
