"""Hearing the backward pass of a trainer that tells neither its loss nor when the gradients are complete.

A hook on what the model gave marks the begin of a backward pass; a callback of the autograd engine runs when it is
over. Frameworks that average gradients over processes write them back in such a callback too, so ours is queued a
second time from inside the first: by then every gradient is what the optimizer will see, before clipping.

The loss is the tensor that ``backward`` was called on: whatever the trainer made of what the model gave (label
smoothing, weights of accumulated batches, a loss of its own), its value is what is minimised. It stands on the stack of
the thread that called.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from thermo_monitor.probes.hooks import give_nothing, nothing
from thermo_monitor.probes.routes.caller import first_argument


class Listener:
    """What is told of the passes of a model; nothing is told while :attr:`wanted` is false."""

    @property
    def wanted(self) -> bool:
        """Whether anything shall be told."""
        raise NotImplementedError

    def forward_begins(self, training: bool) -> None:
        """The model is called, to be trained or for something else."""

    def forward_ended(self, failed: bool, loss: bool) -> None:
        """The model gave something, with its loss or without, or it raised an error."""

    def backward_ended(self, loss: Tensor | None) -> None:
        """The gradients are complete; ``loss`` is what they were taken of, None where it was not found.

        May be called on a thread of the autograd engine, while the thread that trains waits.
        """


class PassRoute:
    """Tells a listener of the forward and backward passes of a model.

    Args:
        model: the module that the trainer calls.
        listener: held weakly.
    """

    def __init__(self, model: nn.Module, listener: Listener) -> None:
        self._listener = weakref.ref(listener)
        self._thread = 0
        self._pending = False  # a backward pass is under way
        before, after = _Before(self), _After(self)
        handles = [
            model.register_forward_pre_hook(before),
            model.register_forward_hook(after, always_call=True),  # also when the model raises
        ]
        self._finalizer = weakref.finalize(self, _remove, handles)

    def close(self) -> None:
        """Remove the hooks; harmless when called twice."""
        self._finalizer()

    def _wanted(self) -> Listener | None:
        listener = self._listener()
        return listener if listener is not None and listener.wanted else None

    def before(self, module: nn.Module) -> None:
        """The model is called."""
        listener = self._wanted()
        if listener is not None:
            self._thread, self._pending = threading.get_ident(), False
            listener.forward_begins(module.training and torch.is_grad_enabled())

    def after(self, module: nn.Module, output: Any) -> None:
        """The model has given something, or nothing where it raised."""
        listener = self._wanted()
        if listener is None:
            return
        if output is None or not (module.training and torch.is_grad_enabled()):
            return listener.forward_ended(failed=output is None, loss=False)
        tensors = [x for x in _tensors(output) if x.requires_grad]
        for tensor in tensors:
            tensor.register_hook(_Begin(self))  # type: ignore[no-untyped-call]
        listener.forward_ended(failed=False, loss=any(x.dim() == 0 for x in tensors))

    def begin(self) -> None:
        """A backward pass has reached what the model gave."""
        if not self._pending and self._wanted() is not None:
            self._pending = True
            _queue(lambda: _queue(self._end))

    def _end(self) -> None:
        self._pending = False
        listener = self._wanted()
        caller = sys._current_frames().get(self._thread)
        while caller is not None:
            if caller.f_code in _BACKWARD:
                root = first_argument(caller)
                root = root[0] if isinstance(root, Sequence) and len(root) == 1 else root
                if listener is not None:
                    listener.backward_ended(root.detach() if isinstance(root, Tensor) else None)
                return
            if caller.f_code is torch.autograd.grad.__code__:
                return  # gradients for something else, none of which reach a parameter
            caller = caller.f_back
        if listener is not None:
            listener.backward_ended(None)


_BACKWARD = (torch.Tensor.backward.__code__, torch.autograd.backward.__code__)


def _queue(call: Callable[[], None]) -> None:
    # Private, and what the data-parallel modules of torch rest on themselves; a test watches it on every torch.
    torch.autograd.Variable._execution_engine.queue_callback(call)


class _Weak:
    """A hook that a copy or a saved file of the model does not take along."""

    def __init__(self, route: PassRoute) -> None:
        self._route = weakref.ref(route)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return nothing

    def __reduce__(self) -> tuple[Any, ...]:
        return give_nothing, ()

    def route(self) -> PassRoute | None:
        """The route, unless it is gone or the code is being traced, which is left exactly as it is."""
        return None if torch.compiler.is_compiling() else self._route()


class _Before(_Weak):
    def __call__(self, module: nn.Module, args: Any) -> None:
        route = self.route()
        if route is not None:
            route.before(module)


class _After(_Weak):
    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        route = self.route()
        if route is not None:
            route.after(module, output)


class _Begin(_Weak):
    def __call__(self, gradient: Tensor) -> None:
        route = self.route()
        if route is not None:
            route.begin()


def _tensors(output: Any) -> list[Tensor]:
    """The floating tensors that a model gave, one level deep."""
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else ()
    return [x for x in values if isinstance(x, Tensor) and x.is_floating_point()]


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
