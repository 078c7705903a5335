"""The callback for Lightning, under either of its names.

Example:
    ``Trainer(callbacks=[ThermoMonitor()])`` is all. Readings go through the trainer's own TensorBoard writer, events
    are printed and written beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from thermo_monitor.callback import Reactions, checked_sinks, monitor_options
from thermo_monitor.decisions import Told
from thermo_monitor.detect.held_out import is_held_out
from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.guard import tell
from thermo_monitor.lightning_batches import Batches
from thermo_monitor.lightning_metrics import show
from thermo_monitor.lightning_names import Base
from thermo_monitor.lightning_sinks import destinations
from thermo_monitor.monitor import Monitor
from thermo_monitor.probes.base import Probe
from thermo_monitor.records import Event
from thermo_monitor.schedule import Schedule
from thermo_monitor.sinks.base import Sink
from thermo_monitor.sinks.channels import Target
from thermo_monitor.sinks.defaults import alert_sinks


class ThermoMonitor(Base):
    """Watches the training of a Lightning module.

    Args:
        every: cadence of the costly probes, in optimizer steps, or a function of the step.
        fast_every: cadence of loss and gradient norm.
        budget: share of the wall time that the monitor may take; it measures less often where it takes more.
        preset: name of a preset or a sequence of probes.
        probe_batch: a fixed batch that is read beside the training, on the same inputs every time: what the model is
            called with, or a function that calls the model. It adds the geometry of attention to a preset.
        detector: options of the detector of every reading.
        sinks: destinations instead of the default ones, which are the trainer's loggers, ``thermo.jsonl`` beside their
            files, and the terminal; or a function that returns them, called at the start of every fit. They are closed
            when a fit ends.
        on_event: called with every event, on the process of global rank zero.
        save_checkpoint_on: kinds or phases of events at which the trainer saves a checkpoint, in the folder
            ``thermo_checkpoints`` of the run.
        alerts: where people are told of events: addresses such as ``slack://...``, ``wandb``, ``trackio``, functions;
            see :class:`~thermo_monitor.sinks.alerts.AlertSink`.
        layers: layers whose values are also written as scalars of their own.
        seed: of the random numbers that the monitor draws, from a generator of its own.
        strict: raise when a part fails instead of switching it off.

    Raises:
        ValueError: an option makes no sense; the message says what would.
    """

    def __init__(
        self,
        *,
        every: int | Schedule = 10,
        fast_every: int | Schedule = 1,
        budget: float | None = None,
        preset: str | Sequence[Probe] = "default",
        probe_batch: Any = None,
        detector: OnlineDetector | None = None,
        sinks: Sequence[Sink] | Callable[[], Sequence[Sink]] | None = None,
        on_event: Callable[[Event], None] | None = None,
        save_checkpoint_on: Sequence[str] = (),
        alerts: Sequence[Target] = (),
        layers: Sequence[int] = (),
        seed: int = 0,
        strict: bool = False,
    ) -> None:
        super().__init__()
        self._options = monitor_options(
            every=every,
            fast_every=fast_every,
            budget=budget,
            preset=preset,
            probe_batch=probe_batch,
            detector=detector,
            on_event=on_event,
            layers=layers,
            seed=seed,
            strict=strict,
        )
        self._alerts = tuple(alerts) if alert_sinks(alerts) else ()  # an address that is none raises here
        self._sinks = checked_sinks(sinks)
        self._reactions = Reactions(save_checkpoint_on, on_event)
        self._folder = Path()
        self._restored: Mapping[str, Any] | None = None
        self._fitted: tuple[int, int] | None = None  # identities of trainer and module of the last fit
        self._batches = Batches()
        self._rank_zero = True
        self._shown = 0  # measured steps that the trainer's metrics know
        self.monitor: Monitor | None = None

    @property
    def events(self) -> list[Event]:
        """Events of the run so far."""
        return [] if self.monitor is None else self.monitor.events

    # ------------------------------------------------------------------------------------------------- life of a run
    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """A fit is prepared: what was left of an earlier one, or restored for a test, is not its own."""
        if stage == "fit":
            self._close()
            self._restored = None

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """The parameters are final: attach."""
        self._close()
        # On every rank: the directory is broadcast.
        self._folder = Path(trainer.log_dir or trainer.default_root_dir) / "thermo_checkpoints"
        state = self._continued(trainer, pl_module)
        self._batches.step = int(trainer.global_step if state is None else state.get("step", trainer.global_step))
        self._rank_zero = bool(trainer.is_global_zero)
        self._shown, self.monitor = 0, None
        try:
            sinks = destinations(trainer, self._sinks, self._alerts, self._options["layers"])
            optimizer: Optimizer | None = next(iter(trainer.optimizers), None)
            self.monitor = Monitor(pl_module, optimizer, sinks=sinks, on_event=self._event, **self._options)
        except ValueError:  # an option that does not fit this model
            raise
        except Exception as error:
            if self._options["strict"]:
                raise
            tell(f"the monitor could not be attached; training goes on without it. {type(error).__name__}: {error}")
            return
        if state is not None:
            self.monitor.guard.run("checkpoint", self.monitor.load_state_dict, state)
        self._restored, self._fitted = None, (id(trainer), id(pl_module))

    def _continued(self, trainer: Any, pl_module: Any) -> Mapping[str, Any] | None:
        """State to go on from: of the checkpoint, or of an earlier fit when this one counts its steps on."""
        if self._restored is not None:
            return self._restored
        earlier = self.monitor
        same = earlier is not None and self._fitted == (id(trainer), id(pl_module))
        return self.state_dict() if same and trainer.global_step > 0 else None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """A micro-batch begins, the first of an optimizer step or a further one."""
        if self.monitor is not None:
            self._batches.begins(self.monitor, trainer)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        """An optimizer that evaluates its closure several times hands out the last loss; the first is the step's."""
        if self.monitor is not None and self.monitor.measuring:
            self._batches.losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Gradients are complete, unscaled, and not clipped."""
        if self.monitor is not None:
            self.monitor.gradients()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A micro-batch is over; the optimizer has stepped when the global step has moved."""
        monitor = self.monitor
        if monitor is None or not self._batches.ended(monitor, trainer, pl_module, outputs) or not monitor.measuring:
            return
        monitor.end()
        if self._shown == 0:
            monitor.flush()  # once: a metric that is monitored shall be there from the first step
        self._show(trainer)
        self._save(trainer, monitor.announced())

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Nothing between two epochs is listened to, also when the last batch of this one was skipped."""
        if self.monitor is not None:
            self.monitor.pause()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Neither is a validation, which may come in the middle of an accumulated step."""
        if self.monitor is not None:
            self.monitor.pause()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """What was logged of held-out data under a name such as ``val_loss`` is passed on, once for each evaluation."""
        if self.monitor is None or trainer.sanity_checking:
            return
        for name, value in trainer.callback_metrics.items():
            if is_held_out(name):
                self.monitor.validation(name, value, step=max(self._batches.step - 1, 0))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The training is over."""
        self._close()
        self._show(trainer)
        if self._reactions.save_on and self.monitor is not None:
            last = self.monitor.announced() + self.monitor.unsaid()
            # The run is over for all ranks: what rank zero has found since their last exchange is told by the trainer.
            self._save(trainer, trainer.strategy.broadcast(last) if trainer.world_size > 1 else last)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The training broke: nothing of ours stays behind. Lightning calls no teardown then."""
        if self.monitor is not None:
            self.monitor.abandon()  # other ranks are not waited for
        self._close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """The trainer is done."""
        self._close()

    def _close(self) -> None:
        self._batches.open = False
        if self.monitor is not None:
            self.monitor.close()

    # ---------------------------------------------------------------------------------------------- what users see
    def _event(self, event: Event) -> None:
        if self._rank_zero and self.monitor is not None:
            self._reactions(event, self.monitor)

    def _save(self, trainer: Any, found: Sequence[Told]) -> None:
        """Every rank takes part in a checkpoint: all do what rank zero has found, after the same step."""
        monitor, part = self.monitor, "save_checkpoint_on"
        for event in found:
            assert monitor is not None
            if trainer.world_size == 1 and part in monitor.guard.disabled:
                return  # several ranks go on trying: one that has failed must not leave the others waiting
            try:
                trainer.save_checkpoint(self._folder / f"step={event.step}-{event.kind}-{event.phase}.ckpt")
            except Exception as error:
                monitor.guard.failed(part, error)

    def _show(self, trainer: Any) -> None:
        """What is new, for those who look at the trainer."""
        if self.monitor is not None and self.monitor.ticks != self._shown:
            self._shown = self.monitor.ticks
            show(trainer, self.monitor)

    # -------------------------------------------------------------------------------------------------- checkpoints
    def state_dict(self) -> dict[str, Any]:
        """State of the detectors, plain Python."""
        if self._restored is not None:  # not yet taken up
            return dict(self._restored)
        if self.monitor is None:
            return {}
        state = self.monitor.guard.run("checkpoint", self.monitor.state_dict)
        return {} if state is None else {**state, "step": self._batches.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning calls this before the fit starts: kept until the monitor exists."""
        self._restored = state_dict or None
