"""The callback for Lightning, under either of its names.

Example:
    ``Trainer(callbacks=[ThermoMonitor()])`` is all. Readings go through the trainer's own TensorBoard writer, events
    are printed and written beside it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.monitor import Monitor
from thermo_monitor.presets import resolve as resolve_preset
from thermo_monitor.probes.base import Probe
from thermo_monitor.records import KINDS, PHASES, Event
from thermo_monitor.schedule import Schedule
from thermo_monitor.schedule import resolve as resolve_cadence
from thermo_monitor.sinks.base import Sink
from thermo_monitor.sinks.defaults import logger_sinks

_NAMES = ("lightning.pytorch", "pytorch_lightning")
_METRICS = {"thermo/specific_heat_norm": "attn/specific_heat_norm", "thermo/entropy_fraction": "attn/entropy_fraction"}


def _bases() -> tuple[type, ...]:
    """``Callback`` of every Lightning that is loaded, so that the trainers of both accept the monitor.

    What is installed says nothing, since one package requires the other; with neither loaded the first that can be is.
    """
    loaded = [name for name in _NAMES if name in sys.modules]
    for name in () if loaded else _NAMES:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        loaded = [name]
        break
    if not loaded:
        raise ModuleNotFoundError("no Lightning is installed: pip install 'thermo-monitor[lightning]'")
    return tuple(dict.fromkeys(sys.modules[name].Callback for name in loaded))


if TYPE_CHECKING:

    class _Base:
        """What type checkers see of the two classes."""
else:
    _Base = type("_Base", _bases(), {"__doc__": "Callback of the Lightning that is loaded, or of both."})


class ThermoMonitor(_Base):
    """Watches the training of a Lightning module.

    Args:
        every: cadence of the costly probes, in optimizer steps, or a function of the step.
        fast_every: cadence of loss, gradient norm and weight norm.
        preset: name of a preset or a sequence of probes.
        detector: options of the detector of every reading.
        sinks: destinations instead of the default ones, which are the trainer's loggers, ``thermo.jsonl`` beside their
            files, and the terminal.
        on_event: called with every event.
        save_checkpoint_on: kinds or phases of events at which the trainer saves a checkpoint of its own.
        layers: layers whose values are also written as scalars of their own.
        seed: of the random numbers that the monitor draws, from a generator of its own.
        strict: raise when a part fails instead of switching it off.
    """

    def __init__(
        self,
        *,
        every: int | Schedule = 10,
        fast_every: int | Schedule = 1,
        preset: str | Sequence[Probe] = "default",
        detector: OnlineDetector | None = None,
        sinks: Sequence[Sink] | None = None,
        on_event: Callable[[Event], None] | None = None,
        save_checkpoint_on: Sequence[str] = (),
        layers: Sequence[int] = (),
        seed: int = 0,
        strict: bool = False,
    ) -> None:
        super().__init__()
        resolve_cadence(every)
        resolve_cadence(fast_every)
        resolve_preset(preset)
        if isinstance(save_checkpoint_on, str):
            raise ValueError(f"save_checkpoint_on={save_checkpoint_on!r}: give a list, such as ('shift',)")
        for word in save_checkpoint_on:
            if word not in (*KINDS, *PHASES):
                raise ValueError(
                    f"save_checkpoint_on holds {word!r}; kinds: {', '.join(KINDS)}; phases: {', '.join(PHASES)}"
                )
        self._options: dict[str, Any] = {
            "every": every,
            "fast_every": fast_every,
            "preset": preset,
            "detector": detector,
            "layers": tuple(layers),
            "seed": seed,
            "strict": strict,
        }
        self._sinks = sinks
        self._on_event = on_event
        self._save_on = tuple(save_checkpoint_on)
        self._to_save: list[Event] = []
        self._restored: Mapping[str, Any] | None = None
        self._open = False  # an optimizer step has begun
        self._at = -1  # the global step that it began at
        self.monitor: Monitor | None = None

    @property
    def events(self) -> list[Event]:
        """Events of the run so far."""
        return [] if self.monitor is None else self.monitor.events

    # ------------------------------------------------------------------------------------------------- life of a run
    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """A fit begins; what an earlier one left behind is closed."""
        self._close()

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """The parameters are final: attach."""
        sinks = list(self._sinks) if self._sinks is not None else logger_sinks(trainer, self._options["layers"])
        optimizers: list[Optimizer] = list(trainer.optimizers)
        self.monitor = Monitor(
            pl_module,
            optimizers[0] if optimizers else None,
            sinks=sinks if trainer.is_global_zero else [],
            on_event=self._event,
            **self._options,
        )
        if self._restored is not None:
            self.monitor.guard.run("checkpoint", self.monitor.load_state_dict, self._restored)
            self._restored = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """A micro-batch begins, the first of an optimizer step or a further one."""
        if self.monitor is None:
            return
        if self._open:
            self.monitor.micro_batch()
        else:
            self.monitor.begin(trainer.global_step)
            self._open, self._at = True, trainer.global_step

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Gradients are complete, unscaled, and not clipped."""
        if self.monitor is not None:
            self.monitor.gradients()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A micro-batch is over; the optimizer has stepped when the global step has moved."""
        if self.monitor is None:
            return
        self.monitor.pause()
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            # Lightning hands out the loss divided by the number of accumulated batches.
            self.monitor.loss(loss.detach() * trainer.accumulate_grad_batches)
        if trainer.global_step != self._at:
            self._open = False
            self.monitor.end()
            self._show(trainer)
            self._save(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The training is over."""
        self._close()
        self._show(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The training broke: nothing of ours stays behind. Lightning calls no teardown then."""
        self._close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """The trainer is done."""
        self._close()

    def _close(self) -> None:
        self._open = False
        if self.monitor is not None:
            self.monitor.close()

    # ---------------------------------------------------------------------------------------------- what users see
    def _event(self, event: Event) -> None:
        if "part_of" not in event.details and (event.kind in self._save_on or event.phase in self._save_on):
            self._to_save.append(event)
        if self._on_event is not None:
            self._on_event(event)

    def _save(self, trainer: Any) -> None:
        events, self._to_save = self._to_save, []
        for event in events:
            folder = Path(trainer.log_dir or trainer.default_root_dir) / "thermo_checkpoints"
            path = folder / f"step={event.step}-{event.kind}-{event.phase}.ckpt"
            assert self.monitor is not None
            self.monitor.guard.run("save_checkpoint_on", trainer.save_checkpoint, path)

    def _show(self, trainer: Any) -> None:
        """A few numbers for ModelCheckpoint, EarlyStopping and the progress bar."""
        if self.monitor is None:
            return
        for name, key in _METRICS.items():
            value = self.monitor.latest.get(key)
            if value is not None:
                trainer.callback_metrics[name] = torch.tensor(value)
        notable = [e for e in self.monitor.events if e.level != "info"]
        trainer.callback_metrics["thermo/transitions"] = torch.tensor(float(len(notable)))
        if notable:
            trainer.progress_bar_metrics["thermo"] = f"{notable[-1].phase}@{notable[-1].onset}"

    # -------------------------------------------------------------------------------------------------- checkpoints
    def state_dict(self) -> dict[str, Any]:
        """State of the detectors, plain Python."""
        return {} if self.monitor is None else self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning calls this before the fit starts: kept until the monitor exists."""
        self._restored = state_dict or None
