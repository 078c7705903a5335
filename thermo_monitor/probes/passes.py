"""The forward and backward passes of a measured step, as far as parameters of single modules take part in them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from thermo_monitor.physics.precision import working
from thermo_monitor.probes.base import Surroundings
from thermo_monitor.probes.hooks import Hook
from thermo_monitor.probes.uses import Use, norms_of, supported, uses_of
from thermo_monitor.probes.whole import Whole

_PART = "ExampleGradientProbe"  # that is switched off when something here fails


@dataclass(slots=True)
class Pass:
    """One forward pass, and what has come back of it."""

    batch: int = 0
    alive: bool = True  # its step is not over
    uses: dict[int, int] = field(default_factory=dict)  # of each parameter, in the forward pass
    back: dict[int, list[Use]] = field(default_factory=dict)  # those whose gradients have arrived
    norms: dict[int, Tensor] = field(default_factory=dict)  # of each parameter, [examples read]
    heard: set[int] = field(default_factory=set)  # calls whose gradients have arrived
    unread: set[int] = field(default_factory=set)  # parameters
    reduction: str = ""
    rows: Tensor | int = 0  # that the loss is the mean or the sum over
    scale: Tensor | None = None  # gradient at the loss


class Passes:
    """Hears the modules of a model, and reduces what comes back to squared norms of single examples at once.

    Args:
        run: the model and its hub.
        examples: read of each micro-batch, evenly spaced; None: all of them.
        norms_only: whether only normalisations are heard.
    """

    def __init__(self, run: Surroundings, examples: int | None, norms_only: bool) -> None:
        self._hub = run.hub
        self._examples = examples
        self._parameters = {id(p): p for p in run.model.parameters()}
        mixing = [m for m in run.model.modules() if isinstance(m, nn.MultiheadAttention)]
        self._sequence_first = any(not m.batch_first for m in mixing)
        self._passes: dict[int, Pass] = {}
        self._calls = 0
        self.again = False  # a second backward pass was made
        kinds = {m: supported(m) for m in run.model.modules()}
        if norms_only:
            kinds = {m: kind for m, kind in kinds.items() if kind in ("layer", "rms")}
        self._kinds = {id(m): kind for m, kind in kinds.items() if kind}
        self.whole = Whole(self._parameters, run.seed)
        self.checking = True  # whether all that is heard in this step is held against the gradients
        self._witnesses = _witnesses([m for m, kind in kinds.items() if kind])
        hook = Hook(self._called)
        handles = [m.register_forward_hook(hook, with_kwargs=True) for m in kinds if id(m) in self._kinds]
        # A listener that is dropped without close() must not leave its hooks behind.
        self._finalizer = weakref.finalize(self, _remove, handles)
        run.hub.on_loss_value.append(self._loss_heard)

    # ------------------------------------------------------------------------------------------ in the forward pass
    def _called(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self._hub.listening and isinstance(output, Tensor) and output.requires_grad:
            self._hub.hear(_PART, lambda: self._arm(module, args, kwargs, output))

    def _arm(self, module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        x = args[0] if args else kwargs.get("input")
        trained = {name: id(p) for name, p in module._parameters.items() if p is not None and p.requires_grad}
        trained = {name: key for name, key in trained.items() if key in self._parameters}
        if not trained or not isinstance(x, Tensor):
            return
        this = self._passes.setdefault(self._hub.passes, Pass())
        this.batch = this.batch or (x.shape[0] if x.dim() else 1)
        for key in trained.values():
            this.uses[key] = this.uses.get(key, 0) + 1
        self._calls += 1
        call, x, version = self._calls, x.detach(), x._version

        def arrived(passes: Passes, gradient: Tensor) -> None:
            passes._arrived(this, call, module, trained, x if x._version == version else None, gradient)

        output.register_hook(  # type: ignore[no-untyped-call]
            _Arrival(self, arrived)
        )

    def _loss_heard(self, value: Tensor, reduction: str, rows: Tensor | int) -> None:
        """What arrives in the backward pass at the value that a loss function returned is the scale of all gradients.

        A loss is divided for accumulation and multiplied for mixed precision on its way to ``backward``, by whom and
        when differs between trainers; here all of it has come together.
        """
        this = self._passes.get(self._hub.passes)
        if this is None or this.reduction or not value.requires_grad:
            return  # auxiliary losses follow the first one
        this.reduction, this.rows = reduction, rows

        def arrived(passes: Passes, gradient: Tensor) -> None:
            this.scale = gradient.detach().sum()

        value.register_hook(_Arrival(self, arrived))  # type: ignore[no-untyped-call]

    # ----------------------------------------------------------------------------------------- in the backward pass
    def hear_back(self, report: Callable[[], None]) -> None:
        """Like all that is heard: guarded, metered, and not while somebody else is asked."""
        self._hub.hear_back(_PART, report)

    def _arrived(
        self, this: Pass, call: int, module: nn.Module, trained: dict[str, int], x: Tensor | None, gradient: Tensor
    ) -> None:
        if not this.alive:
            return
        if call in this.heard:
            self.again = True
            return
        this.heard.add(call)
        this.batch = self._hub.examples or this.batch
        if x is None:  # changed in place since
            this.unread.update(trained.values())
            return
        gradient = gradient.detach()
        kind, part = self._kinds[id(module)], self._part(this.batch)
        found = uses_of(module, kind, x, gradient, this.batch, part, self._sequence_first)
        if found is None:
            this.unread.update(trained.values())
            return
        watched = [name for name, key in trained.items() if self.checking or key in self._witnesses]
        if watched:
            whole = found
            if part != slice(None):
                whole = uses_of(module, kind, x, gradient, this.batch, slice(None), self._sequence_first) or found
            for name in watched:
                self.whole.hear(trained[name], whole[name], this.batch)
        for name, key in trained.items():
            use = found[name]
            if use.kind == "sum":  # all that is needed of it, and small
                use = Use("sum", None, working(use.right).sum(1, keepdim=True))
            this.back.setdefault(key, []).append(use)
            if len(this.back[key]) == this.uses[key]:
                self._reduce(this, key)

    def _part(self, batch: int) -> slice:
        if self._examples is None or self._examples >= batch:
            return slice(None)
        every = batch // self._examples
        return slice((every - 1) // 2, every * self._examples, every)

    def _reduce(self, this: Pass, key: int) -> None:
        norms = norms_of(this.back.pop(key), len(range(this.batch)[self._part(this.batch)]))
        if norms is None:
            this.unread.add(key)
        else:
            this.norms[key] = norms

    # ---------------------------------------------------------------------------------------- at the end of the step
    def over(self) -> None:
        """The backward passes of the step are over: some uses of a parameter may have had no part in the loss."""
        for this in self._passes.values():
            for key in list(this.back):
                self._reduce(this, key)

    def forget(self) -> list[Pass]:
        """The passes of the step, to which nothing is added any more."""
        passes, self._passes = list(self._passes.values()), {}
        for this in passes:
            this.alive = False
        self.again = False
        return passes

    def close(self) -> None:
        """Take the hooks off."""
        self._finalizer()


class _Arrival:
    """A hook on a tensor of the user's graph, which must not keep the listener alive and never changes a gradient."""

    def __init__(self, listener: Passes, report: Callable[[Passes, Tensor], None]) -> None:
        self._listener = weakref.ref(listener)
        self._report = report

    def __call__(self, gradient: Tensor) -> None:
        listener = self._listener()
        if listener is not None:
            listener.hear_back(lambda: self._report(listener, gradient))


def _witnesses(modules: Sequence[nn.Module]) -> set[int]:
    """Three small parameters whose whole gradients cost one sum each: biases, or else gains."""
    named = [item for module in modules for item in module._parameters.items()]
    small = [(name, p) for name, p in named if p is not None and p.requires_grad and p.dim() == 1]
    small.sort(key=lambda item: (item[0] != "bias", item[1].numel()))
    return {id(p) for _, p in small[:3]}


def _remove(handles: Sequence[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
