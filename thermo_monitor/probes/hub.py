"""Where everything that is overheard arrives, and the one switch that decides whether anybody listens.

The routes (``probes/routes``) recognise an attention, a loss or a representation in the user's program and report it
here; the probes subscribe. Between ``shut`` and ``open`` nothing is heard and nothing is spent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from thermo_monitor.probes import uncompiled
from thermo_monitor.probes.calls import AttentionCall, OutputCall, RepresentationCall, unreadable

# Hubs that listen right now. A tuple that is replaced, never changed: reading it is the whole idle cost of a route.
ACTIVE: tuple[Hub, ...] = ()
LISTENING = False  # whether there are any: what compiled code asks, so that it is compiled once for each answer

Refusal = Callable[[str, str, str], None]


class Hub:
    """Passes what is overheard on to the listeners, one monitored model at a time.

    Args:
        names: qualified name of every module of the monitored model by ``id``, the model itself first.
        failed: called with the name of a part and its exception; it may raise (strict) or note and go on.
        refused: called with what is absent (attention, say), of which layer, and why.
    """

    def __init__(self, names: Mapping[int, str], failed: Callable[[str, Exception], None], refused: Refusal) -> None:
        self.names = names
        self.on_attention: list[Callable[[AttentionCall], None]] = []
        self.on_output: list[Callable[[OutputCall], None]] = []
        self.on_representation: list[Callable[[RepresentationCall], None]] = []
        self.on_loss_value: list[Callable[[Tensor, str, Tensor | int], None]] = []
        self.passes = 0  # forward passes so far
        self.examples = 0  # in the batch of the attention that was heard last
        self.entrances = 0  # calls of the model itself that were seen while open
        self.gradient_scale: Tensor | None = None  # factor that the gradients of the step still carry
        self.inside: int | None = None  # module of a compiled attention whose function is still to come
        self._failed = failed
        self._refused = refused
        self.heard: dict[str, str] = {}  # route of each attention that was heard
        self._calls: dict[str, int] = {}
        self._deaf = False
        self._off: set[str] = set()  # parts that failed
        self.expecting = False  # gradients of the step may still arrive
        self.meter: AbstractContextManager[object] = nullcontext()  # entered while something is heard

    @property
    def listening(self) -> bool:
        """Whether this hub is open."""
        return self in ACTIVE

    def open(self) -> None:
        """Listen from here on."""
        global ACTIVE, LISTENING
        self.expecting = True
        if self not in ACTIVE:
            ACTIVE = (*ACTIVE, self)
        LISTENING = True

    def shut(self) -> None:
        """Stop listening; harmless when shut already."""
        global ACTIVE, LISTENING
        if self in ACTIVE:
            ACTIVE = tuple(hub for hub in ACTIVE if hub is not self)
        LISTENING = ACTIVE != ()

    @property
    def _subscriptions(self) -> tuple[list[Any], ...]:
        return self.on_attention, self.on_output, self.on_representation, self.on_loss_value

    def subscribed(self) -> tuple[int, ...]:
        """How many have subscribed so far, for :meth:`unsubscribe`."""
        return tuple(map(len, self._subscriptions))

    def unsubscribe(self, before: tuple[int, ...]) -> None:
        """Forget who has subscribed since."""
        for subscribers, count in zip(self._subscriptions, before, strict=True):
            del subscribers[count:]

    def new_pass(self) -> None:
        """A forward pass begins: a module that is heard again from here on is not a second call of the same pass."""
        self.passes += 1
        self._calls.clear()

    def end_of_micro_batch(self) -> None:
        """A loss is there. Where the model is never seen to be called (compiled, say), this is what ends a pass."""
        if not self.entrances:
            self.new_pass()

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Hear nothing inside: the call around it has been heard already."""
        before, self._deaf = self._deaf, True
        try:
            yield
        finally:
            self._deaf = before

    @uncompiled.never
    def hear(self, part: str, report: Callable[[], None]) -> None:
        """Run a route's report without ever disturbing the program around it; a part that failed is not asked again."""
        if not (self._deaf or self not in ACTIVE or torch.compiler.is_compiling() or recomputing()):
            self._run(part, report)

    @uncompiled.never
    def hear_back(self, part: str, report: Callable[[], None]) -> None:
        """The same from inside a backward pass, where a gradient arrived that was waited for.

        Not only while open: a trainer may shut the hub between the passes of a step, for what runs in between.
        """
        if self.expecting:
            self._run(part, report)

    def _run(self, part: str, report: Callable[[], None]) -> None:
        if part in self._off:
            return
        try:
            with self.meter, torch.no_grad():
                report()
        except Exception as error:
            self._off.add(part)
            self._failed(part, error)

    def loss_value(self, value: Tensor, reduction: str, rows: Tensor | int) -> None:
        """A loss function returned."""
        for listener in self.on_loss_value:
            listener(value, reduction, rows)

    def attention(self, call: AttentionCall) -> None:
        """An attention was called; the second call of one module in a pass is a site of its own."""
        why = unreadable(
            call.query, call.key, *(x for x in (call.mask, call.bias, call.sinks) if isinstance(x, Tensor))
        )
        if why:
            return self.refuse(call.name, why)
        call.name = self._numbered(call.name)
        self.heard[call.name] = call.route
        self.examples = call.query.shape[0]
        for listener in self.on_attention:
            listener(call)

    def output(self, call: OutputCall) -> None:
        """A cross entropy was computed."""
        why = unreadable(call.logits, call.labels)
        if why:
            return self._refused("output", "", why)
        for listener in self.on_output:
            listener(call)

    def representation(self, call: RepresentationCall) -> None:
        """A block gave its representations."""
        why = unreadable(call.hidden, call.padding)
        if why:
            return self._refused("representation", call.name, why)
        for listener in self.on_representation:
            listener(call)

    def refuse(self, name: str, why: str) -> None:
        """An attention was recognised that cannot be read correctly; it is absent, and the user is told once."""
        self._refused("attention", self._numbered(name), why)

    def _numbered(self, name: str) -> str:
        count = self._calls[name] = self._calls.get(name, 0) + 1
        return name if count == 1 else f"{name}#{count}"


def recomputing() -> bool:
    """Whether this forward is the second one of gradient checkpointing, run inside the backward pass."""
    # The only sign that is right for both variants of checkpointing; private, so a test watches it on every torch.
    return bool(torch._C._current_graph_task_id() != -1)


def module_names(model: nn.Module) -> dict[int, str]:
    """Qualified name of every module by ``id``; the model itself is ``""``."""
    return {id(module): name for name, module in model.named_modules()}
