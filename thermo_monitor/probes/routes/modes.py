"""A function mode that can be entered and left while other modes come and go."""

from __future__ import annotations

from typing import Any

import torch.overrides
from torch.overrides import TorchFunctionMode

_stack: Any = torch.overrides  # its functions on the stack of modes are private and untyped


class LowMode(TorchFunctionMode):
    """A mode under the modes of the program."""

    def __init__(self) -> None:
        super().__init__()
        self._entered = False

    def enter(self) -> None:
        """Put the mode under the modes of the program.

        There it hears what the program's own modes made of a call, and the program may leave a mode that it entered
        before, which takes off the topmost one. Only the mode of ``torch.set_default_device`` insists on the bottom.
        """
        if self._entered:
            return
        self._entered = True
        lowest, above = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None), []
        while _stack._len_torch_function_stack():
            if _stack._get_current_function_mode() is lowest:
                break
            above.append(_stack._pop_mode())
        for mode in (self, *reversed(above)):
            _stack._push_mode(mode)

    def leave(self) -> None:
        """Take the mode off the stack, wherever it is; harmless when it is not there."""
        if not self._entered:
            return
        self._entered = False
        above = []
        while _stack._len_torch_function_stack() and _stack._get_current_function_mode() is not self:
            above.append(_stack._pop_mode())
        if _stack._len_torch_function_stack():
            _stack._pop_mode()
        for mode in reversed(above):
            _stack._push_mode(mode)
