"""The listeners of a monitor's probes: chosen for a step, told what happens in it, asked for what they measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from thermo_monitor.guard import Guard, tell
from thermo_monitor.probes.base import Absent, Listener, Probe, Surroundings, adds_up

_MOMENTS = ("on_loss", "before_step", "after_step")

Labels = dict[str, tuple[Any, int]]  # part -> what it reads its arrays by, and how many there are


class Parts:
    """Every part at its own risk: one that fails is switched off, and the others go on.

    Args:
        guard: switches off what fails.

    Attributes:
        listeners: by name of the part.
        quantities: that each of them gives.
        refused: parts that cannot be right here.
        measuring: parts that measure in the step under way.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.listeners: dict[str, Listener] = {}
        self.quantities: dict[str, tuple[str, ...]] = {}
        self.refused: set[str] = set()
        self.fast: tuple[str, ...] = ()
        self.measuring: tuple[str, ...] = ()
        self._moments: dict[str, dict[str, Callable[..., None]]] = {moment: {} for moment in _MOMENTS}

    def attach(self, probes: Iterable[Probe], run: Surroundings, sharding: str = "") -> None:
        """Let every probe listen; one whose options do not fit the model raises.

        Args:
            probes: options of what is measured.
            run: what they are told of the run.
            sharding: how parameters are spread over ranks, see :func:`~thermo_monitor.probes.shards.sharding`. A probe
                that cannot be right under it, or on several ranks, is refused in one line.
        """
        for probe in probes:
            name = type(probe).__name__
            hubs = [run.hub] if run.fixed is None else [run.hub, run.fixed]
            before = [hub.subscribed() for hub in hubs]
            listener = probe.listen(run)
            reason, words = _refusal(listener, run.ranks, sharding)
            if run.sharded and run.fixed is not None and run.fixed.subscribed() != before[-1]:
                reason, words = "sharded", "a pass of a fixed batch communicates under fully_shard."
            if reason:
                listener.close()
                for hub, count in zip(hubs, before, strict=True):
                    hub.unsubscribe(count)
                self.refused.add(name)
                listener = Absent(tuple(probe.quantities), reason)
                if run.rank == 0:
                    tell(f"{name} is absent: {words}")
            self.listeners[name], self.quantities[name] = listener, tuple(probe.quantities)
            if probe.fast:
                self.fast = (*self.fast, name)
            for moment, methods in self._moments.items():
                if getattr(type(listener), moment) is not getattr(Listener, moment):
                    methods[name] = getattr(listener, moment)

    def choose(self, full: bool) -> None:
        """A step begins in which all parts measure, or the cheap ones only."""
        chosen = self.listeners if full else self.fast
        self.measuring = tuple(name for name in chosen if name not in self._guard.disabled)

    def each(self, moment: str, *args: Any) -> None:
        """Tell the parts that measure and that care about this moment of a step."""
        for name, method in self._moments[moment].items():
            if name in self.measuring:
                self._guard.run(name, method, *args)

    def collect(self) -> tuple[Labels, list[Tensor]]:
        """What the step has measured; the step is over."""
        labels: Labels = {}
        tensors: list[Tensor] = []
        for name in self.measuring:
            collected = self._guard.run(name, _collect, self.listeners[name])
            if collected is not None:
                labels[name] = (collected[0], len(collected[1]))
                tensors += collected[1]
        self.measuring = ()
        return labels, tensors

    def forget(self) -> None:
        """The step was broken off."""
        measuring, self.measuring = self.measuring, ()
        for name in measuring:
            self._guard.run(name, self.listeners[name].collect)

    def describe(self) -> list[str]:
        """A line for each."""
        return [f"{name}: {'fast' if name in self.fast else 'slow'} cadence" for name in self.listeners]

    def close(self) -> None:
        """Remove what they have installed; one that cannot be removed does not keep the others."""
        for name, listener in self.listeners.items():
            try:
                listener.close()
            except Exception as error:
                tell(f"{name} could not be removed: {type(error).__name__}: {error}")


def _refusal(listener: Listener, ranks: int, sharding: str) -> tuple[str, str]:
    """Reason code and words for what a listener cannot do here; empty where it can."""
    if sharding == "fully_shard" and listener.reads == "whole":
        return "sharded", "it needs whole parameters and gradients on every rank, and fully_shard spreads them."
    if sharding not in ("", "fully_shard") and listener.reads != "nothing":
        return "sharded", f"it reads parameters and gradients, which {sharding} keeps in pieces of its own."
    if ranks > 1 and not adds_up(listener):
        return "several_ranks", f"{type(listener).__name__} does not say how its numbers are put together over ranks."
    return "", ""


def _collect(listener: Listener) -> tuple[Any, list[Tensor]]:
    """What a listener measured; what is no tensor is its own fault, and not that of the transport of all."""
    label, tensors = listener.collect()
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"collect() gave a {type(tensor).__name__} where a tensor belongs")
    return label, list(tensors)
