"""Where readings and events of a Lightning fit go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thermo_monitor.callback import Sinks, new_sinks
from thermo_monitor.guard import tell
from thermo_monitor.sinks.base import Sink
from thermo_monitor.sinks.channels import Target
from thermo_monitor.sinks.defaults import JSONL, alert_sinks


def destinations(trainer: Any, given: Sinks, alerts: Sequence[Target], layers: Sequence[int]) -> list[Sink]:
    """Those that the user gave, or those of the trainer's loggers; and people, where this is no rehearsal."""
    if given is None:
        sinks = logger_sinks(trainer, layers)
    elif not trainer.is_global_zero:
        return []
    else:
        sinks = new_sinks(given)
    if not trainer.is_global_zero or trainer.fast_dev_run:
        return sinks
    return [*sinks, *alert_sinks(alerts, str(getattr(trainer.logger, "name", None) or ""))]


def logger_sinks(trainer: Any, layers: Sequence[int] = ()) -> list[Sink]:
    """Destinations from a Lightning trainer: its own loggers, the terminal, and JSON lines beside the loggers' files.

    Only rank zero writes; elsewhere there are none. What cannot be made is said, and training begins without it.
    """
    from thermo_monitor.sinks.console import ConsoleSink
    from thermo_monitor.sinks.jsonl import JsonlSink
    from thermo_monitor.sinks.metrics import MetricsSink
    from thermo_monitor.sinks.tensorboard import TensorBoardSink

    # Asking for the directory is a broadcast: a rank that does not take part would keep the others waiting for ever.
    log_dir = trainer.log_dir
    if not trainer.is_global_zero:
        return []
    sinks: list[Sink] = [ConsoleSink()]
    loggers = [logger for logger in trainer.loggers if type(logger).__name__ != "DummyLogger"]
    if trainer.fast_dev_run or len(loggers) < len(trainer.loggers):
        return sinks  # a rehearsal, or the search for a learning rate, leaves no files
    for logger in loggers:
        if type(logger).__name__ == "TensorBoardLogger":
            sinks.append(TensorBoardSink(writer=lambda logger=logger: logger.experiment, layers=layers))
        else:
            sinks.append(MetricsSink(logger.log_metrics))
    directory = str(log_dir or trainer.default_root_dir)
    if "://" in directory:
        tell(f"{JSONL} is not written, since {directory} is not on this machine")
        return sinks
    path = Path(directory) / JSONL
    if not loggers:
        tell(f"the trainer has no logger, so there is no TensorBoard to write to; readings and events go to {path}")
    try:
        sinks.append(JsonlSink(path))
    except ValueError as error:
        tell(f"{error}; training begins without this file")
    return sinks
