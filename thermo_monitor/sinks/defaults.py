"""Where readings and events go when the user says no more than a directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
