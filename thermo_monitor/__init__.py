"""Thermodynamic readings of a training run, and alerts when the run changes regime.

Importing this package loads no torch: the names that need it are resolved when they are first used.

Example:
    >>> import thermo_monitor
    >>> thermo_monitor.Reading(step=3, quantity="loss/train", value=0.5).value
    0.5
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from thermo_monitor.records import Event as Event
from thermo_monitor.records import Reading as Reading

if TYPE_CHECKING:
    from thermo_monitor.monitor import Monitor as Monitor
    from thermo_monitor.probes import record_attention as record_attention
    from thermo_monitor.probes import record_output as record_output
    from thermo_monitor.probes import record_representation as record_representation

__version__ = "0.1.0.dev0"

_LAZY = {
    "Monitor": "thermo_monitor.monitor",
    "record_attention": "thermo_monitor.probes",
    "record_output": "thermo_monitor.probes",
    "record_representation": "thermo_monitor.probes",
}

__all__ = ["Event", "Monitor", "Reading", "record_attention", "record_output", "record_representation"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'thermo_monitor' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
