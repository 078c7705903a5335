"""Where readings and events go when the user says no more than a directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thermo_monitor.guard import tell
from thermo_monitor.sinks.base import Sink

if TYPE_CHECKING:
    from thermo_monitor.sinks.channels import Target

JSONL = "thermo.jsonl"


def default_sinks(log_dir: str | Path | None, layers: Sequence[int] = ()) -> list[Sink]:
    """Terminal, and with a directory also TensorBoard and JSON lines.

    A directory that already holds an event file belongs to another writer, and one of two writers in a directory is not
    read by every loader of TensorBoard: ours then goes to the sub-directory ``thermo``.
    """
    from thermo_monitor.sinks.console import ConsoleSink

    sinks: list[Sink] = [ConsoleSink()]
    if log_dir is not None:
        from thermo_monitor.sinks.jsonl import JsonlSink
        from thermo_monitor.sinks.tensorboard import TensorBoardSink

        directory = Path(log_dir)
        sinks.append(JsonlSink(directory / JSONL))  # says what is wrong when the directory cannot be written
        taken = any(directory.glob("events.out.tfevents.*"))
        try:
            sinks.append(TensorBoardSink(log_dir=directory / "thermo" if taken else directory, layers=layers))
        except BaseException:
            sinks[-1].close()
            raise
    return sinks


def alert_sinks(targets: Sequence[Target], run: str = "") -> list[Sink]:
    """The sink that tells people, where there is anybody to tell.

    Raises:
        ValueError: a target makes no sense.
    """
    from thermo_monitor.sinks.alerts import AlertSink

    sink = AlertSink(targets, run)
    return [sink] if len(list(targets)) else []


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
