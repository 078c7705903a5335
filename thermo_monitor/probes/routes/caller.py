"""Which module called a function: found on the Python stack, so that nothing is installed on the modules.

A hook on every module would cost half a microsecond each on every step; a look at the stack costs a few microseconds on
the steps that are measured, and is also right where attention is computed in a method other than ``forward``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from types import FrameType

from torch import nn


def calling_module(names: Mapping[int, str]) -> str | None:
    """Qualified name of the innermost module on the stack that belongs to the monitored model.

    Modules made during the run (a loss built inside ``forward``, say) are passed over: the model's own module above them
    is the one meant. None when no module of this model is on the stack, as for another model in the same process.

    Args:
        names: qualified names of the model's modules by ``id``.
    """
    return next((names[id(module)] for module in _modules() if id(module) in names), None)


def called_by_stranger(names: Mapping[int, str]) -> bool:
    """Whether the call comes from modules, and none of them belongs to the monitored model."""
    stranger = False
    for module in _modules():
        if id(module) in names:
            return False
        stranger = True
    return stranger


def _modules() -> Iterator[nn.Module]:
    """The modules whose methods are on the stack, innermost first."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_argcount:
            first = frame.f_locals.get(code.co_varnames[0])
            if isinstance(first, nn.Module):
                yield first
        frame = frame.f_back
