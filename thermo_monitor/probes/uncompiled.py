"""Code of ours that runs beside compiled code and is never compiled itself.

Where the compiler cannot follow a model (a break of the graph inside ``try``, say), that function runs as it is, and
the compiler is offered every function that it calls: also ours, which are called in between. It must not take them:

* A function mode that was compiled by itself knows the function it was called with by its address. ``x.shape`` and
  ``x.device`` reach a mode as functions that live for one call, at an address that is used again: the compiled mode
  answers the question for the device with the shape, and the program stops with an error that is not its own.
* In a hook that was compiled by itself the question whether code is being traced has the answer yes, for ever after.

Code of ours that is traced as part of the program's own graph is another matter: it asks first, and leaves that graph
alone or puts one operator into it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch._dynamo.eval_frame import skip_code

_Function = TypeVar("_Function", bound=Callable[..., Any])


def never_alone(function: _Function) -> _Function:
    """Decorator: the compiler may trace this function inside another one, and never compiles it on its own.

    What it calls may be compiled on its own, as the program's functions have to be.
    """
    skip_code(function.__code__)
    return function


def left(function: _Function) -> _Function:
    """Decorator: the compiler neither compiles this function nor traces it; free where nothing is compiled.

    What it calls may be compiled on its own: that which works should be :func:`never`.
    """
    skip_code(function.__code__)
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    return function


def never(function: _Function) -> _Function:
    """Decorator: neither this function nor anything that it calls is compiled or traced; costs half a microsecond."""
    apart: _Function = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return apart


@never
def call(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function without the compiler."""
    return function(*args)
