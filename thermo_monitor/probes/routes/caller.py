"""Which module called a function: found on the Python stack, so that nothing is installed on the modules.

A hook on every module would cost half a microsecond each on every step; a look at the stack costs a few microseconds on
the steps that are measured, and is also right where attention is computed in a method other than ``forward``.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from torch import nn
from torch.fx import GraphModule
from torch.optim import Optimizer


def calling_module(names: Mapping[int, str], *, graphs: bool = False) -> str | None:
    """Qualified name of the innermost module on the stack that belongs to the monitored model.

    Modules without parameters (a loss built inside ``forward``, say) and modules added to the model during the run are
    passed over: the model's own module above them is the one meant. None when no module of this model is on the stack,
    or when another model was called in between, as a teacher is that is no part of the student, or a graph that the
    compiler made, in which the layers are not to be told apart.

    Args:
        names: qualified names of the model's modules by ``id``, the model itself first.
        graphs: look through graphs of the compiler, for a function that makes one of its own.
    """
    name, stranger = _innermost(names, graphs)
    return None if stranger else name


def called_by_stranger(names: Mapping[int, str]) -> bool:
    """Whether the call comes from another model than the monitored one.

    A module without parameters is no model, and one that holds the monitored model is no stranger.
    """
    return _innermost(names)[1]


def _innermost(names: Mapping[int, str], graphs: bool = False) -> tuple[str | None, bool]:
    """Name of the innermost module that is known, and whether a model that is not stands between it and the call."""
    unknown: list[nn.Module] = []
    for module in _modules():
        name = names.get(id(module))
        if name is not None:
            inside = {id(m) for m in module.modules()} if unknown else set()
            return name, any(id(m) not in inside for m in unknown)
        if isinstance(module, GraphModule):
            if not graphs:
                unknown.append(module)
        elif any(True for _ in module.parameters()):
            unknown.append(module)
    root = next(iter(names), None)
    return None, any(all(id(m) != root for m in module.modules()) for module in unknown)


def _modules() -> Iterator[nn.Module]:
    """The modules whose methods are on the stack, innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        # Functions of ours on the way here are of no module, and a look at variables costs more than all else here.
        if frame.f_code.co_argcount and not frame.f_globals.get("__name__", "").startswith(_OURS):
            first = first_argument(frame)
            if isinstance(first, nn.Module):
                yield first
        frame = frame.f_back


def modules_of_frames() -> Iterator[list[nn.Module]]:
    """The modules that functions on the stack hold, innermost function first; a method holds the one it is of."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        variables = frame.f_locals
        own = variables.get("self")
        if isinstance(own, nn.Module):
            found = [own]
        else:
            found = list({id(x): x for x in variables.values() if isinstance(x, nn.Module)}.values())
        of_function = frame.f_code.co_flags & inspect.CO_OPTIMIZED  # elsewhere the dictionary is the variables
        if type(variables) is dict and of_function and sys.getrefcount(variables) <= _UNSHARED:
            variables.clear()  # see first_argument
        del variables
        if found:
            yield found
        frame = frame.f_back


def called_compiled() -> bool:
    """Whether what runs was called through a compiled wrapper of a module."""
    return any(type(module).__name__ == "OptimizedModule" for module in _modules())


def in_optimizer_step() -> bool:
    """Whether the caller runs inside the step of an optimizer, which is then in the closure that it was given."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "step" and code.co_argcount and isinstance(first_argument(frame), Optimizer):
            return True
        frame = frame.f_back
    return False


def first_argument(frame: FrameType) -> Any:
    """Value of the first parameter of the function that runs in a frame."""
    variables = frame.f_locals
    first = variables.get(frame.f_code.co_varnames[0])
    # Before Python 3.13 a frame keeps the copy of its variables that was asked for, and with it, in a training loop,
    # the logits of a step that is long over. Given back, unless the program holds it too: it may have called locals().
    if type(variables) is dict and sys.getrefcount(variables) <= _UNSHARED:
        variables.clear()
    return first


_OURS = "thermo_monitor.probes."
_UNSHARED = 3  # the frame's own reference, the variable's, and the argument of getrefcount
