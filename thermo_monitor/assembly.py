"""What a monitor is made of: put together from the user's options, described, saved, and taken apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from thermo_monitor import presets
from thermo_monitor.cadence import Cadence
from thermo_monitor.decisions import Told
from thermo_monitor.delivery import Delivery
from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.detect.run import RunDetector
from thermo_monitor.exchange import ranks
from thermo_monitor.guard import Guard, tell
from thermo_monitor.meter import Meter
from thermo_monitor.notices import Notices
from thermo_monitor.options import check_options, check_run, check_sinks
from thermo_monitor.parts import Parts
from thermo_monitor.pooling import Pool
from thermo_monitor.probes.base import Probe, Surroundings
from thermo_monitor.probes.ear import Ear
from thermo_monitor.probes.held_out import HeldOut
from thermo_monitor.probes.probe_batch import ProbeBatch
from thermo_monitor.probes.shards import sharding
from thermo_monitor.reader import Reader
from thermo_monitor.records import Event
from thermo_monitor.schedule import Schedule
from thermo_monitor.settings import unwrapped
from thermo_monitor.sinks.base import Sink
from thermo_monitor.sinks.channels import Target
from thermo_monitor.sinks.defaults import alert_sinks, default_sinks
from thermo_monitor.transport import Transport


class Assembly:
    """The parts of a monitor; see :class:`~thermo_monitor.monitor.Monitor` for the options."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        log_dir: str | Path | None = None,
        every: int | Schedule = 10,
        fast_every: int | Schedule = 1,
        budget: float | None = None,
        preset: str | Sequence[Probe] = "default",
        probe_batch: Any = None,
        detector: OnlineDetector | None = None,
        sinks: Sequence[Sink] | None = None,
        on_event: Callable[[Event], None] | None = None,
        alerts: Sequence[Target] = (),
        layers: Sequence[int] = (),
        seed: int = 0,
        strict: bool = False,
    ) -> None:
        self._meter = Meter()
        self._cadence = Cadence(every, fast_every, budget, self._meter)
        probes = presets.resolve(preset, fixed=probe_batch is not None)
        given = None if sinks is None else check_sinks(sinks)
        check_run(model, optimizer)
        check_options(detector, on_event, layers, seed, strict)
        self.guard = Guard(strict)
        self._closed = False
        self._transport = Transport()
        self._parts = Parts(self.guard)
        self._optimizer = optimizer
        self._notices = Notices(optimizer)
        self._rank, self._ranks = ranks()
        self._pool: Pool | None = None
        self._told: list[Told] = []
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module  # under the names that it has on one device
        spread = sharding(model, optimizer)
        self._ear = Ear(model, self.guard)
        self._ear.hub.meter = self._meter
        try:  # a wrong option raises here, where nothing runs yet
            self._fixed = None if probe_batch is None else ProbeBatch(model, probe_batch, self._ear)
            run = Surroundings(
                model,
                unwrapped(optimizer),
                self._ear.hub,
                seed,
                rank=self._rank,
                ranks=self._ranks,
                sharded=spread == "fully_shard",
                fixed=None if self._fixed is None else self._fixed.hub,
            )
            self._parts.attach(probes, run, spread)
            if self._fixed is not None and not self._fixed.used and not self._parts.refused:
                raise ValueError("probe_batch is given and no probe reads it: add GeometryProbe() to the list")
            self._ear.install()
            # First the alerts, which may refuse an address: other sinks make files.
            self.sinks: list[Sink] = []
            if self._rank == 0:  # who alone writes
                telling = alert_sinks(alerts, "" if log_dir is None else Path(log_dir).name)
                self.sinks = [*(default_sinks(log_dir, layers) if given is None else given), *telling]
            if self._ranks > 1:
                self._meet(spread)
        except BaseException:
            self._take_apart()
            raise
        self._delivery = Delivery(self.sinks, on_event if self._rank == 0 else None, self.guard)
        listeners = {**self._parts.listeners, "validation": HeldOut()}
        self._reader = Reader(listeners, detector, self._delivery, self.guard, self._meter, self._ear.explain)
        self._reader.quiet = self._rank > 0

    def _meet(self, spread: str) -> None:
        """On several ranks: find the monitors of the others."""
        if spread == "tensor parallelism":
            self.guard.disabled["ranks"] = f"{spread} is not supported"
            if self._rank == 0:
                tell(f"{spread} is not supported: heads and tokens of different ranks are not of one kind. No monitor.")
            return
        self._pool = self.guard.run(
            "ranks", Pool, self._rank, self._ranks, self._parts.listeners, self._parts.quantities, self.guard
        )

    @property
    def events(self) -> list[Event]:
        """Events of the run so far."""
        return self._reader.events

    @property
    def latest(self) -> dict[str, float]:
        """Newest value of each quantity of the whole model."""
        return self._reader.latest

    @property
    def detector(self) -> RunDetector:
        """What finds the events."""
        return self._reader.detector

    @property
    def ticks(self) -> int:
        """How many measured steps have been read."""
        return self._reader.ticks

    def flush(self) -> None:
        """Read what is still under way, waiting for it: before a checkpoint, or to see the newest numbers."""
        for arrival in self.guard.run("arrival", self._transport.drain) or []:
            self._reader.read(arrival)

    def describe(self) -> str:
        """What is measured, how often, and how the model is heard: by layer, as of the last full measurement."""
        lines = self._parts.describe()
        lines += [f"switched off: {part} ({why})" for part, why in self.guard.disabled.items()]
        lines += self._ear.describe({name: listener.describe() for name, listener in self._parts.listeners.items()})
        if self._fixed is not None:
            lines += self._fixed.describe()
        return "\n".join(lines)

    def state_dict(self) -> dict[str, Any]:
        """Plain Python, for a checkpoint: a resumed run continues the detectors where they were.

        What is still on its way from the device is read first, or a resumed run would never see it.
        """
        self.flush()
        return {"version": 1, **self._reader.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint, before the first step.

        Raises:
            ValueError: it is not what :meth:`state_dict` gave; nothing has changed then.
        """
        self._reader.load_state_dict(state)

    def _take_apart(self) -> None:
        try:
            self._parts.close()
        finally:
            self._ear.close()
            if self._pool is not None:
                self._pool.close()
