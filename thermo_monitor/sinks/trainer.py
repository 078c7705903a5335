"""Destinations from a transformers trainer: its own TensorBoard writer, its reporters, JSON lines, the terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thermo_monitor.guard import tell
from thermo_monitor.sinks.base import Sink
from thermo_monitor.sinks.defaults import JSONL, default_sinks

FOLDER = "thermo"
_QUIET = ("TensorBoardCallback", "CodeCarbonCallback", "FlyteCallback")  # the first is written to directly


def trainer_sinks(args: Any, state: Any, control: Any, callbacks: Sequence[Any], layers: Sequence[int]) -> list[Sink]:
    """Where readings and events go when the user gave no sinks; rank zero asks.

    A trainer that reports to TensorBoard has a writer, and ours goes through it. Otherwise, which is the default of
    transformers, there is none: ours makes an event file in the folder ``thermo`` of the output directory.
    """
    from thermo_monitor.sinks.console import ConsoleSink
    from thermo_monitor.sinks.jsonl import JsonlSink
    from thermo_monitor.sinks.metrics import MetricsSink
    from thermo_monitor.sinks.tensorboard import TensorBoardSink

    boards = [c for c in callbacks if getattr(c, "tb_writer", None) is not None]
    reporters = [c for c in callbacks if type(c).__module__ == _INTEGRATIONS and type(c).__name__ not in _QUIET]
    if boards:
        board = boards[0]
        folder = Path(board.tb_writer.log_dir)
        sinks: list[Sink] = [ConsoleSink(), TensorBoardSink(writer=lambda: board.tb_writer, layers=layers)]
    else:
        folder = Path(args.output_dir) / FOLDER / (state.trial_name or "")
        try:
            return [*default_sinks(folder, layers), *(MetricsSink(_Report(c, args, state, control)) for c in reporters)]
        except ValueError as error:
            tell(f"{error}; training begins without files")
            return [ConsoleSink(), *(MetricsSink(_Report(c, args, state, control)) for c in reporters)]
    try:
        sinks.append(JsonlSink(folder / JSONL))
    except ValueError as error:
        tell(f"{error}; training begins without this file")
    return [*sinks, *(MetricsSink(_Report(c, args, state, control)) for c in reporters)]


_INTEGRATIONS = "transformers.integrations.integration_utils"


class _Report:
    """Hands numbers to a reporting callback as the trainer does, at the step that they were read."""

    def __init__(self, callback: Any, args: Any, state: Any, control: Any) -> None:
        self._callback, self._args, self._state, self._control = callback, args, state, control

    def __call__(self, numbers: Mapping[str, float], step: int) -> None:
        """A step counts as the trainer counts it: one more once the optimizer has stepped."""
        state = dataclasses.replace(self._state, global_step=step + 1)
        self._callback.on_log(self._args, state, self._control, logs=dict(numbers))
