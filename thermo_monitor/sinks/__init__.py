"""Destinations of readings and events: memory, JSONL file, console, TensorBoard.

Importing this package loads none of what the single sinks need: a name is resolved when it is first used.

Example:
    >>> from thermo_monitor.sinks import MemorySink
    >>> MemorySink().readings
    []
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from thermo_monitor.sinks.base import Frame as Frame
from thermo_monitor.sinks.base import Sink as Sink
from thermo_monitor.sinks.base import Tick as Tick

if TYPE_CHECKING:
    from thermo_monitor.sinks.console import ConsoleSink as ConsoleSink
    from thermo_monitor.sinks.jsonl import JsonlSink as JsonlSink
    from thermo_monitor.sinks.jsonl import Run as Run
    from thermo_monitor.sinks.jsonl import read_jsonl as read_jsonl
    from thermo_monitor.sinks.memory import MemorySink as MemorySink
    from thermo_monitor.sinks.tensorboard import TensorBoardSink as TensorBoardSink

_LAZY = {
    "AlertSink": "thermo_monitor.sinks.alerts",
    "ConsoleSink": "thermo_monitor.sinks.console",
    "JsonlSink": "thermo_monitor.sinks.jsonl",
    "MemorySink": "thermo_monitor.sinks.memory",
    "Run": "thermo_monitor.sinks.jsonl",
    "TensorBoardSink": "thermo_monitor.sinks.tensorboard",
    "read_jsonl": "thermo_monitor.sinks.jsonl",
}

__all__ = [
    "AlertSink",
    "ConsoleSink",
    "Frame",
    "JsonlSink",
    "MemorySink",
    "Run",
    "Sink",
    "TensorBoardSink",
    "Tick",
    "read_jsonl",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'thermo_monitor.sinks' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
