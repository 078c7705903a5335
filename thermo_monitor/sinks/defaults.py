"""Where readings and events go when the user says no more than a directory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thermo_monitor.guard import tell
from thermo_monitor.sinks.base import Sink

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
        jsonl = JsonlSink(directory / JSONL)  # says what is wrong when the directory cannot be written
        taken = any(directory.glob("events.out.tfevents.*"))
        sinks += [jsonl, TensorBoardSink(log_dir=directory / "thermo" if taken else directory, layers=layers)]
    return sinks


def logger_sinks(trainer: Any, layers: Sequence[int] = ()) -> list[Sink]:
    """Destinations from a Lightning trainer: its own loggers, the terminal, and JSON lines beside the loggers' files.

    Only rank zero writes; elsewhere there are none.
    """
    from thermo_monitor.sinks.console import ConsoleSink
    from thermo_monitor.sinks.jsonl import JsonlSink
    from thermo_monitor.sinks.metrics import MetricsSink
    from thermo_monitor.sinks.tensorboard import TensorBoardSink

    if not trainer.is_global_zero:
        return []
    sinks: list[Sink] = [ConsoleSink()]
    for logger in trainer.loggers:
        if type(logger).__name__ == "TensorBoardLogger":
            sinks.append(TensorBoardSink(writer=lambda logger=logger: logger.experiment, layers=layers))
        else:
            sinks.append(MetricsSink(logger.log_metrics))
    if not trainer.loggers:
        tell(
            "the trainer has no logger, so there is no TensorBoard to write to; readings and events go to "
            f"{os.path.join(trainer.default_root_dir, JSONL)}"
        )
    sinks.append(JsonlSink(Path(trainer.log_dir or trainer.default_root_dir) / JSONL))
    return sinks
