"""The callback for the trainer of transformers.

Example:
    ``Trainer(..., callbacks=[ThermoMonitor()])`` is all. Readings go through the trainer's own TensorBoard writer where
    it has one (``report_to="tensorboard"``), else into the folder ``thermo`` of its output directory; events are
    printed and written there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from thermo_monitor.callback import Reactions, checked_sinks, monitor_options, new_sinks
from thermo_monitor.detect.held_out import is_held_out
from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.guard import tell
from thermo_monitor.monitor import Monitor
from thermo_monitor.passes import Passes, calling_trainer
from thermo_monitor.probes.base import Probe
from thermo_monitor.records import Event
from thermo_monitor.schedule import Schedule
from thermo_monitor.sinks.base import Sink
from thermo_monitor.sinks.channels import Target
from thermo_monitor.sinks.defaults import alert_sinks
from thermo_monitor.sinks.trainer import trainer_sinks

_CLOCK = ("_runtime", "_per_second", "_time", "_epoch")


class ThermoMonitor(TrainerCallback, ExportableState):
    """Watches the training of a transformers trainer.

    A trainer tells its callbacks neither loss nor gradients before clipping: both are overheard, from a hook on the
    model and at the end of its backward pass. Steps count from 0, so the trainer's ``global_step`` is one more.

    Args:
        every: cadence of the costly probes, in optimizer steps, or a function of the step.
        fast_every: cadence of loss and gradient norm.
        budget: share of the wall time that the monitor may take; it measures less often where it takes more.
        preset: name of a preset or a sequence of probes.
        probe_batch: a fixed batch that is read beside the training, on the same inputs every time: what the model is
            called with, or a function that calls the model. It adds the geometry of attention to a preset.
        detector: options of the detector of every reading.
        sinks: destinations instead of the default ones, which are the trainer's TensorBoard writer and reporters,
            ``thermo.jsonl`` and the terminal; or a function that returns them, called at the start of every training.
            They are closed when a training ends.
        on_event: called with every event, on the process of global rank zero.
        alerts: where people are told of events: addresses such as ``slack://...``, ``wandb``, ``trackio``, functions;
            see :class:`~thermo_monitor.sinks.alerts.AlertSink`.
        save_checkpoint_on: kinds or phases of events at which the trainer saves a checkpoint.
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
        alerts: Sequence[Target] = (),
        save_checkpoint_on: Sequence[str] = (),
        layers: Sequence[int] = (),
        seed: int = 0,
        strict: bool = False,
    ) -> None:
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
        self._sinks = checked_sinks(sinks)
        self._alerts = tuple(alerts) if alert_sinks(alerts) else ()  # an address that is none raises here
        self._reactions = Reactions(save_checkpoint_on, on_event)
        self._rank_zero = True
        self._at = 0  # the trainer's global step
        self._passes = Passes()
        self._restored: str | None = None
        self.monitor: Monitor | None = None

    @property
    def events(self) -> list[Event]:
        """Events of the run so far."""
        return [] if self.monitor is None else self.monitor.events

    # ------------------------------------------------------------------------------------------------- life of a run
    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """The parameters are final: attach. What an earlier training left behind, after an error say, goes first."""
        self._close()
        self.monitor = None
        self._rank_zero, self._at = bool(state.is_world_process_zero), state.global_step
        # A checkpoint from before the monitor was added has no place for it, and the trainer would stumble over that.
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())
        trainer = calling_trainer()
        model, optimizer = given["model"], given.get("optimizer")
        if type(optimizer).__name__ == "DeepSpeedOptimizerWrapper" or getattr(trainer, "is_deepspeed_enabled", False):
            tell("DeepSpeed keeps gradients and parameters in shapes of its own, which are not read: no monitor.")
            return
        try:
            sinks = self._destinations(args, state, control, trainer)
            self.monitor = Monitor(model, optimizer, sinks=sinks, on_event=self._event, **self._options)
            wrapped = getattr(trainer, "model_wrapped", model)
            compiled = type(wrapped).__name__ == "OptimizedModule"  # hooks on the model inside would be compiled too
            self._passes.attach(wrapped if compiled else model, self.monitor, optimizer, trainer, args)
        except ValueError:  # an option that does not fit this model
            raise
        except Exception as error:
            if self._options["strict"]:
                raise
            tell(f"the monitor could not be attached; training goes on without it. {type(error).__name__}: {error}")
            self._close()
            return
        saved = self._saved(state)
        if saved is not None:
            self.monitor.guard.run("checkpoint", self.monitor.load_state_dict, saved)

    def _destinations(self, args: Any, state: Any, control: Any, trainer: Any) -> list[Sink]:
        if not self._rank_zero:
            return []
        if self._sinks is None:
            callbacks = [] if trainer is None else trainer.callback_handler.callbacks
            sinks = trainer_sinks(args, state, control, callbacks, self._options["layers"])
        else:
            sinks = new_sinks(self._sinks)
        return [*sinks, *alert_sinks(self._alerts, str(getattr(args, "run_name", None) or ""))]

    def _saved(self, state: Any) -> Mapping[str, Any] | None:
        """State to go on from. The trainer hands it over with its own, whether it restores callbacks or not."""
        text, self._restored = self._restored, None
        if text is None and state.global_step > 0:
            kept = (state.stateful_callbacks or {}).get(type(self).__name__) or {}
            kept = kept[-1] if isinstance(kept, list) else kept  # the newest of several checkpoints
            text = kept.get("attributes", {}).get("saved")
        if text is None:
            return None
        saved: Mapping[str, Any] = json.loads(text)
        return saved if saved.get("step") == state.global_step else None

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """An optimizer step begins."""
        if self.monitor is not None:
            self.monitor.begin(state.global_step)
            self.monitor.pause()  # until the model is called

    def on_substep_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """A micro-batch that is not the last one is over."""
        if self.monitor is not None:
            self.monitor.pause()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Gradients are clipped by now."""
        if self.monitor is not None:
            self.monitor.pause()

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> Any:
        """The optimizer has stepped."""
        self._at = state.global_step
        if self.monitor is None:
            return None
        self.monitor.end()
        if self.monitor.announced():  # on every rank after the same step, since all take part in a checkpoint
            control.should_save = True
            return control
        return None

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **given: Any) -> None:
        """Held-out metrics confirm and label what the readings show."""
        if self.monitor is None:
            return
        for name, value in (metrics or {}).items():
            # The trainer counts seconds and epochs among them.
            if is_held_out(name) and isinstance(value, int | float) and not name.endswith(_CLOCK):
                self.monitor.validation(name, value, step=max(state.global_step - 1, 0))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
        """The last thing that is logged comes before the trainer's writers are closed, ``on_train_end`` after."""
        if logs and "train_runtime" in logs:
            self._close()

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """The training is over."""
        self._close()

    def _close(self) -> None:
        self._passes.detach()
        if self.monitor is not None:
            self.monitor.close()

    def _event(self, event: Event) -> None:
        if self._rank_zero and self.monitor is not None:
            self._reactions(event, self.monitor)

    # -------------------------------------------------------------------------------------------------- checkpoints
    def state(self) -> dict[str, Any]:
        """For the trainer's own checkpoint, which is JSON: the state of the detectors as one string."""
        monitor = self.monitor
        saved = None if monitor is None else monitor.guard.run("checkpoint", monitor.state_dict)
        text = None if saved is None else json.dumps({**saved, "step": self._at})
        return {"args": {}, "attributes": {"saved": text}}

    @property
    def saved(self) -> str | None:
        """State that was restored and is not yet taken up."""
        return self._restored

    @saved.setter
    def saved(self, text: str | None) -> None:
        """The trainer restores a callback by making it anew, without what the user gave to the one that it drops."""
        trainer = calling_trainer()
        for dropped in [] if trainer is None else trainer.callback_handler.callbacks:
            if type(dropped) is type(self):
                self._options, self._sinks = dropped._options, dropped._sinks
                self._reactions, self._alerts = dropped._reactions, dropped._alerts
                break
        self._restored = text
