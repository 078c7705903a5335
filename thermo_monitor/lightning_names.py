"""Which of Lightning's two names is meant: the callback belongs to the trainers of whichever is loaded."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

__all__ = ["Base", "bases"]

_NAMES = ("lightning.pytorch", "pytorch_lightning")


def bases() -> tuple[type, ...]:
    """``Callback`` of every Lightning that is loaded, so that the trainers of both accept the monitor.

    What is installed says nothing, since one package requires the other; with neither loaded the first that can be is.
    """
    loaded = [name for name in _NAMES if sys.modules.get(name) is not None]
    for name in () if loaded else _NAMES:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        loaded = [name]
        break
    if not loaded:
        raise ModuleNotFoundError("no Lightning is installed: pip install 'thermo-monitor[lightning]'")
    return tuple(dict.fromkeys(sys.modules[name].Callback for name in loaded))


if TYPE_CHECKING:  # to type checkers it is a callback of the one that they find
    from lightning.pytorch import Callback as Base
else:
    Base = type("Base", bases(), {"__doc__": "Callback of the Lightning that is loaded, or of both."})
