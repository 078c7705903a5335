"""What the callbacks of all trainers share: their options, and what they do at an event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from thermo_monitor import presets, schedule
from thermo_monitor.budget import Budget
from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.monitor import Monitor
from thermo_monitor.options import check_options, check_save_on, check_sinks
from thermo_monitor.probes.base import Probe
from thermo_monitor.probes.probe_batch import check_probe_batch
from thermo_monitor.records import Event
from thermo_monitor.sinks.base import Sink


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


Sinks = Sequence[Sink] | Callable[[], Sequence[Sink]] | None


def checked_sinks(sinks: Sinks) -> Sinks:
    """Destinations as a callback is given them: none, a list, or a function that gives one when a training begins."""
    return sinks if sinks is None or callable(sinks) else check_sinks(sinks)


def new_sinks(sinks: Sequence[Sink] | Callable[[], Sequence[Sink]]) -> list[Sink]:
    """The destinations of one training."""
    return check_sinks(sinks()) if callable(sinks) else list(sinks)


class Reactions:
    """What a callback does at an event beside telling the sinks.

    Args:
        save_on: kinds and phases of events at which the trainer saves a checkpoint.
        on_event: the user's function.

    Raises:
        ValueError: there is no such kind or phase.
    """

    def __init__(self, save_on: Sequence[str], on_event: Callable[[Event], None] | None) -> None:
        self.save_on = check_save_on(save_on)
        self.on_event = on_event

    def __call__(self, event: Event, monitor: Monitor) -> None:
        """An event, on rank zero: at which a checkpoint is wanted is announced to all ranks."""
        if "part_of" not in event.details and (event.kind in self.save_on or event.phase in self.save_on):
            monitor.announce(event)
        if self.on_event is not None:
            # A part of its own: when it fails, checkpoints are saved all the same.
            monitor.guard.run("on_event of the user", self.on_event, event)
