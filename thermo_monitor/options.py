"""Whether options make sense, said before anything runs: a ``ValueError`` names what would be right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.records import KINDS, PHASES
from thermo_monitor.sinks.base import Sink


def check_run(model: Any, optimizer: Any) -> None:
    """What is monitored."""
    if isinstance(model, type) or not isinstance(model, nn.Module):
        raise ValueError(f"model={model!r} is no model: give the nn.Module that is trained")
    if optimizer is not None and not hasattr(optimizer, "param_groups"):
        raise ValueError(f"optimizer={optimizer!r} is no optimizer: give one of torch.optim, or leave it out")


def check_options(detector: Any, on_event: Any, layers: Any, seed: Any, strict: Any) -> None:
    """What all adapters share, beside cadence, preset and sinks."""
    if detector is not None and not isinstance(detector, OnlineDetector):
        raise ValueError(f"detector={detector!r} is no detector: give OnlineDetector(arl=10_000), say")
    if on_event is not None and not callable(on_event):
        raise ValueError(f"on_event={on_event!r} cannot be called: give a function that takes one event")
    listed = isinstance(layers, Sequence) and not isinstance(layers, str)
    if not listed or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in layers):
        raise ValueError(f"layers={layers!r}: give indices of layers, such as (0, 5)")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"seed={seed!r}: give a whole number")
    if not isinstance(strict, bool):
        raise ValueError(f"strict={strict!r}: give True or False")


def check_save_on(words: Any) -> tuple[str, ...]:
    """Kinds and phases of events at which a checkpoint is saved."""
    if isinstance(words, str) or not isinstance(words, Iterable):
        raise ValueError(f"save_checkpoint_on={words!r}: give a list, such as ('shift',)")
    found = tuple(words)
    for word in found:
        if word not in (*KINDS, *PHASES):
            raise ValueError(
                f"save_checkpoint_on holds {word!r}; kinds: {', '.join(KINDS)}; phases: {', '.join(PHASES)}"
            )
    return found


def check_sinks(sinks: Any) -> list[Sink]:
    """The given sinks as a list; a ``ValueError`` says what would be right."""
    if isinstance(sinks, str) or not hasattr(sinks, "__iter__"):
        raise ValueError(f"sinks={sinks!r}: give a list of sinks, such as [MemorySink()]; [] for none")
    found: list[Sink] = list(sinks)
    for sink in found:
        missing = [name for name in ("write", "event", "close") if not callable(getattr(sink, name, None))]
        if isinstance(sink, type) or missing:
            why = "it is a class" if isinstance(sink, type) else f"it has no {' and no '.join(missing)}"
            raise ValueError(f"{sink!r} is not a sink, since {why}: give objects such as MemorySink()")
    return found
