"""Hooks that leave no trace: they do not keep the monitor alive, and copies of the module do not carry them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch

from thermo_monitor.probes import hub as hubs


class WeakHook:
    """Calls a method while its owner lives and some hub listens; traced code does not see it.

    A plain bound method would let the model keep a forgotten monitor alive, and ``copy.deepcopy(model)``, the usual
    way to make an averaged copy, would copy the monitor with all it holds. Copies and pickles of this carry a hook that
    does nothing.
    """

    def __init__(self, method: Callable[..., None]) -> None:
        self._method = weakref.WeakMethod(method)

    def __call__(self, *args: Any) -> None:
        """The hook."""
        if torch.compiler.is_compiling() or not hubs.ACTIVE:
            return
        method = self._method()
        if method is not None:
            method(*args)

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _made_silent, ()


def silent(*args: Any) -> None:
    """What is left of a hook in a copy of its module."""


def _made_silent() -> Callable[..., None]:
    return silent
