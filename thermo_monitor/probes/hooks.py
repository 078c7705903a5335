"""A module hook that stays with the run it was made for.

A bound method as a hook would be copied with the model: an average of the weights made by ``copy.deepcopy`` would carry
a second monitor around, and ``torch.save(model)`` would write one into the file. And the model would keep a monitor
alive that the program has dropped.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch

from thermo_monitor.probes import hub as hubs
from thermo_monitor.probes import uncompiled


class Hook:
    """Calls a method as long as its object lives and a hub listens; a copy of it does nothing."""

    def __init__(self, method: Callable[..., None]) -> None:
        self._method = weakref.WeakMethod(method)

    @uncompiled.never_alone
    def __call__(self, *args: Any) -> None:
        """Never returns a value, which would replace what passes through the module."""
        if torch.compiler.is_compiling() or not hubs.ACTIVE:  # traced code is left exactly as it is
            return
        method = self._method()
        if method is not None:
            uncompiled.call(method, *args)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return nothing

    def __reduce__(self) -> tuple[Any, ...]:
        return give_nothing, ()


def nothing(*args: Any) -> None:
    """What a copied or saved hook becomes."""


def give_nothing() -> Callable[..., None]:
    """What stands in a saved file for a hook."""
    return nothing
