"""Where readings and events go when the user says no more than a directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
