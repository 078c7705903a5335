"""Where everything that is overheard arrives, and the one switch that decides whether anybody listens.

The routes (``probes/routes``) recognise an attention, a loss or a representation in the user's program and report it here;
the probes subscribe. Between ``shut`` and ``open`` nothing is heard and nothing is spent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Hubs that listen right now. A tuple that is replaced, never changed: reading it is the whole idle cost of a route.
ACTIVE: tuple[Hub, ...] = ()


@dataclass(slots=True)
class AttentionCall:
    """One call of an attention function, as the softmax saw it.

    Attributes:
        name: qualified name of the module that called, or the name that the user gave.
        query: [B, H, Q, D].
        key: [B, H_kv, K, D], before the heads are repeated.
        scale: factor on the scores.
        mask: bool (True = may attend) or additive, broadcastable to [B, H, Q, K], or None.
        bias: added to the scores, or None.
        causal: whether query i sees keys 0 to i only, beside the mask.
    """

    name: str
    query: Tensor
    key: Tensor
    scale: float
    mask: Tensor | None = None
    bias: Tensor | None = None
    causal: bool = False


@dataclass(slots=True)
class OutputCall:
    """Logits [N, V] and integer labels [N] of one cross entropy."""

    logits: Tensor
    labels: Tensor
    ignore_index: int


@dataclass(slots=True)
class RepresentationCall:
    """Token representations [B, T, d] (or [N, d]) of one block, and which tokens are not padding ([B, T] or None)."""

    name: str
    hidden: Tensor
    padding: Tensor | None


Refusal = Callable[[str, str], None]


class Hub:
    """Passes what is overheard on to the listeners, one monitored model at a time.

    Args:
        names: qualified name of every module of the monitored model by ``id``.
        failed: called with the name of a part and its exception; it may raise (strict) or note and go on.
        refused: called with the name of a layer and a sentence when a call cannot be read correctly.
    """

    def __init__(self, names: Mapping[int, str], failed: Callable[[str, Exception], None], refused: Refusal) -> None:
        self.names = names
        self.on_attention: list[Callable[[AttentionCall], None]] = []
        self.on_output: list[Callable[[OutputCall], None]] = []
        self.on_representation: list[Callable[[RepresentationCall], None]] = []
        self.passes = 0  # forward passes so far
        self.examples = 0  # in the batch of the attention that was heard last
        self.padding: Tensor | None = None  # the attention mask [B, T] that the root model was called with
        self._failed = failed
        self._refused = refused
        self._calls: dict[str, int] = {}
        self._deaf = False
        self._off: set[str] = set()  # parts that failed
        self.meter: AbstractContextManager[object] = nullcontext()  # entered while something is heard

    @property
    def listening(self) -> bool:
        """Whether this hub is open."""
        return self in ACTIVE

    def open(self) -> None:
        """Listen from here on."""
        global ACTIVE
        if self not in ACTIVE:
            ACTIVE = (*ACTIVE, self)

    def shut(self) -> None:
        """Stop listening; harmless when shut already."""
        global ACTIVE
        if self in ACTIVE:
            ACTIVE = tuple(hub for hub in ACTIVE if hub is not self)
        self.padding = None

    def new_pass(self) -> None:
        """A forward pass begins: a module that is heard again from here on is not a second call of the same pass."""
        self.passes += 1
        self._calls.clear()
        self.padding = None

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Hear nothing inside: the call around it has been heard already."""
        before, self._deaf = self._deaf, True
        try:
            yield
        finally:
            self._deaf = before

    def hear(self, part: str, report: Callable[[], None]) -> None:
        """Run a route's report without ever disturbing the program around it."""
        if self._deaf or part in self._off or recomputing() or torch.compiler.is_compiling():
            return
        try:
            with self.meter, torch.no_grad():
                report()
        except Exception as error:
            self._off.add(part)
            self._failed(part, error)

    def attention(self, call: AttentionCall) -> None:
        """An attention was called; the second call of one module in a pass is a site of its own."""
        call.name = self._numbered(call.name)
        self.examples = call.query.shape[0]
        for listener in self.on_attention:
            listener(call)

    def output(self, call: OutputCall) -> None:
        """A cross entropy was computed."""
        for listener in self.on_output:
            listener(call)

    def representation(self, call: RepresentationCall) -> None:
        """A block gave its representations."""
        for listener in self.on_representation:
            listener(call)

    def refuse(self, name: str, why: str) -> None:
        """A call was recognised that cannot be read correctly; the layer is absent, and the user is told once."""
        self._refused(self._numbered(name), why)

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
