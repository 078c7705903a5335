"""Gradient norms of single examples, heard in the backward pass of the training itself."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from thermo_monitor.probes.base import Array, Listener, Measured, Surroundings, check_quantities
from thermo_monitor.probes.batch import BatchSize
from thermo_monitor.probes.descent import descent_of
from thermo_monitor.probes.example_readings import (
    POSSIBLE,
    RATIO,
    ExampleReadings,
    Heard,
    HeardStep,
    StepSums,
    compared,
)
from thermo_monitor.probes.fisher_proxy import FisherProxyProbe
from thermo_monitor.probes.hooks import Hook
from thermo_monitor.probes.layers import layer_of
from thermo_monitor.probes.norms import dense
from thermo_monitor.probes.uses import Use, norms_of, supported, uses_of


@dataclass(frozen=True, slots=True)
class ExampleGradientProbe:
    """Exact squared gradient norms of single examples: empirical Fisher information and gradient noise scale.

    Read from the inputs of linear layers, convolutions, embeddings and normalisations and from the gradients at their
    outputs: no gradient of a single example is kept, the model is not changed, and no further backward pass is made.
    Parameters of other modules are not covered; ``fisher/covered_share`` says how much of the squared gradient is.

    An example is a row of the attention's batch (a sequence), or else of the input of the first module that is read.
    Its loss is the mean over its tokens, in units in which the loss of a step is the mean over its examples.

    Attributes:
        examples: examples read of each micro-batch, evenly spaced; None: all of them.
        modules: ``all`` that can be read, or only the ``norms``, which cost next to nothing.
        per: whether the loss of an example is the ``mean`` or the ``sum`` over its tokens.
        dataset: number of examples that batches are drawn from without replacement, where it is known; the noise scale
            of the optimizer needs it.
        quantities: keys to measure; the share of the layers makes the trace a reading per layer as well.
    """

    examples: int | None = 8
    modules: Literal["all", "norms"] = "all"
    per: Literal["mean", "sum"] = "mean"
    dataset: int | None = None
    quantities: tuple[str, ...] = POSSIBLE[:-2]

    def __post_init__(self) -> None:
        check_quantities(self.quantities, POSSIBLE, "ExampleGradientProbe")
        if self.examples is not None and self.examples < 2:
            raise ValueError(f"examples={self.examples}: an error bar needs at least 2 examples; None reads all")
        if self.modules not in ("all", "norms"):
            raise ValueError(f"modules={self.modules!r}: give 'all' or 'norms'")
        if self.per not in ("mean", "sum"):
            raise ValueError(f"per={self.per!r}: give 'mean' or 'sum'")

    @property
    def fast(self) -> bool:
        """A part of a further backward pass, so no."""
        return False

    def listen(self, run: Surroundings) -> Listener:
        """Attach to a run: one forward hook on each module that is read."""
        return _ExampleGradientListener(self, run)


@dataclass(slots=True)
class _Pass:
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


class _ExampleGradientListener(Listener):
    reads = "whole"

    def __init__(self, options: ExampleGradientProbe, run: Surroundings) -> None:
        self._options = options
        self._run = run
        named = dict(run.model.named_parameters())
        self._parameters = {id(p): p for p in named.values()}
        self._layers = {id(p): layer_of(name) for name, p in named.items()}
        self._readings = ExampleReadings(
            options.quantities, options.per, options.dataset, tuple(dict.fromkeys(self._layers.values()))
        )
        self._batch = BatchSize(run.hub)
        mixing = [m for m in run.model.modules() if isinstance(m, nn.MultiheadAttention)]
        self._sequence_first = any(not m.batch_first for m in mixing)
        self._passes: dict[int, _Pass] = {}
        self._losses = 0
        self._calls = 0
        self._again = False  # a second backward pass
        self._squares: tuple[tuple[int, ...], Tensor] | None = None
        kinds = {m: supported(m) for m in run.model.modules()}
        if options.modules == "norms":
            kinds = {m: kind for m, kind in kinds.items() if kind in ("layer", "rms")}
        self._kinds = {id(m): kind for m, kind in kinds.items() if kind}
        self._known: Tensor | None = None  # gradient of one small parameter, as it was heard
        self._witness = _witness([m for m, kind in kinds.items() if kind])
        self._unscaled: Tensor | None = None
        # The spot check: the free proxy beside the exact value.
        self._proxy = FisherProxyProbe().listen(run) if RATIO in options.quantities else None
        hook = Hook(self._called)
        handles = [m.register_forward_hook(hook, with_kwargs=True) for m in kinds if id(m) in self._kinds]
        # A listener that is dropped without close() must not leave its hooks behind.
        self._finalizer = weakref.finalize(self, _remove, handles)
        run.hub.on_loss_value.append(self._loss_heard)

    # ------------------------------------------------------------------------------------------ in the forward pass
    def _called(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self._run.hub.listening and isinstance(output, Tensor) and output.requires_grad:
            self._run.hub.hear("ExampleGradientProbe", lambda: self._arm(module, args, kwargs, output))

    def _arm(self, module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        x = args[0] if args else kwargs.get("input")
        trained = {name: id(p) for name, p in module._parameters.items() if p is not None and p.requires_grad}
        trained = {name: key for name, key in trained.items() if key in self._parameters}
        if not trained or not isinstance(x, Tensor):
            return
        this = self._passes.setdefault(self._run.hub.passes, _Pass())
        this.batch = this.batch or (x.shape[0] if x.dim() else 1)
        for key in trained.values():
            this.uses[key] = this.uses.get(key, 0) + 1
        self._calls += 1
        call, x, version = self._calls, x.detach(), x._version

        def arrived(listener: _ExampleGradientListener, gradient: Tensor) -> None:
            listener._arrived(this, call, module, trained, x if x._version == version else None, gradient)

        output.register_hook(  # type: ignore[no-untyped-call]
            _Arrival(self, arrived)
        )

    def _loss_heard(self, value: Tensor, reduction: str, rows: Tensor | int) -> None:
        """What arrives in the backward pass at the value that a loss function returned is the scale of all gradients.

        A loss is divided for accumulation and multiplied for mixed precision on its way to ``backward``, by whom and
        when differs between trainers; here all of it has come together.
        """
        this = self._passes.get(self._run.hub.passes)
        if this is None or this.reduction or not value.requires_grad:
            return  # auxiliary losses follow the first one
        this.reduction, this.rows = reduction, rows

        def arrived(listener: _ExampleGradientListener, gradient: Tensor) -> None:
            this.scale = gradient.detach().sum()

        value.register_hook(_Arrival(self, arrived))  # type: ignore[no-untyped-call]

    # ----------------------------------------------------------------------------------------- in the backward pass
    def hear_back(self, report: Callable[[], None]) -> None:
        """Like all that is heard: guarded, metered, and not while somebody else is asked."""
        self._run.hub.hear_back("ExampleGradientProbe", report)

    def _arrived(
        self, this: _Pass, call: int, module: nn.Module, trained: dict[str, int], x: Tensor | None, gradient: Tensor
    ) -> None:
        if not this.alive:
            return
        if call in this.heard:
            self._again = True
            return
        this.heard.add(call)
        this.batch = self._run.hub.examples or this.batch
        if x is None:  # changed in place since
            this.unread.update(trained.values())
            return
        gradient = gradient.detach()
        kind, every = self._kinds[id(module)], slice(None)
        found = uses_of(module, kind, x, gradient, this.batch, self._part(this.batch), self._sequence_first)
        if found is None:
            this.unread.update(trained.values())
            return
        for name, key in trained.items():
            this.back.setdefault(key, []).append(found[name])
            if len(this.back[key]) == this.uses[key]:
                self._reduce(this, key)
            if key == self._witness:
                whole = uses_of(module, kind, x, gradient, this.batch, every, self._sequence_first)
                if whole is not None:
                    part = whole[name].right.float().sum((0, 1))
                    self._known = part if self._known is None else self._known + part

    def _part(self, batch: int) -> slice:
        if self._options.examples is None or self._options.examples >= batch:
            return slice(None)
        every = batch // self._options.examples
        return slice((every - 1) // 2, every * self._options.examples, every)

    def _reduce(self, this: _Pass, key: int) -> None:
        norms = norms_of(this.back.pop(key), len(range(this.batch)[self._part(this.batch)]))
        if norms is None:
            this.unread.add(key)
        else:
            this.norms[key] = norms

    # ---------------------------------------------------------------------------------------- at the end of the step
    def on_loss(self, loss: Tensor) -> None:
        """A micro-batch ends."""
        self._losses += 1
        self._batch.end_of_micro_batch()
        if self._proxy is not None:
            self._proxy.on_loss(loss)

    def before_step(self) -> None:
        """Squared norms of the whole gradients, and what loss scaling was taken out of them."""
        with torch.no_grad():
            for this in self._passes.values():
                for key in list(this.back):  # some of its uses had no part in the loss
                    self._reduce(this, key)
            grads = {key: p.grad for key, p in self._parameters.items() if p.requires_grad and p.grad is not None}
            values = {key: dense(g) for key, g in grads.items()}
            if values:
                wide = torch.float64 if any(v.dtype == torch.float64 for v in values.values()) else torch.float32
                norms = torch._foreach_norm(list(values.values()), 2.0, wide)
                self._squares = tuple(values), torch.stack([n.to(norms[0].device) for n in norms]).square()
            if self._known is not None and self._witness in values:
                g = values[self._witness].float()
                self._unscaled = torch.stack([(g * g).sum(), (g * self._known).sum()])
        self._known = None

    def after_step(self) -> None:
        """The moments of the optimizer have taken this step in."""
        if self._proxy is not None:
            self._proxy.after_step()

    def collect(self) -> tuple[Any, list[Tensor]]:
        """Norms [L, B] of each pass by layer, the squares of whole gradients, the scales."""
        passes, self._passes = list(self._passes.values()), {}
        unread = set().union(*(this.unread for this in passes))
        covered = set().union(*(this.norms for this in passes)) - unread
        tensors: list[Tensor] = []
        heard = []
        for this in passes:
            this.alive = False
            by_layer: dict[str, list[Tensor]] = {}
            for key, norms in this.norms.items():
                if key in covered:
                    by_layer.setdefault(self._layers[key], []).append(norms)
            if not by_layer:
                continue
            tensors.append(torch.stack([torch.stack(parts).sum(0) for parts in by_layer.values()]))
            rows = this.rows if isinstance(this.rows, int) else None
            heard.append(Heard(tuple(by_layer), this.batch, this.reduction, rows, this.scale is not None))
            tensors += [t for t in (this.scale, this.rows) if isinstance(t, Tensor)]
        squares: tuple[tuple[str, bool], ...] = ()
        if self._squares is not None:
            squares = tuple((self._layers[key], key in covered) for key in self._squares[0])
            tensors.append(self._squares[1])
        if self._unscaled is not None:
            tensors.append(self._unscaled)
        why = "second_backward" if self._again else "ambiguous_batch" if unread and not covered else ""
        descent = descent_of(self._run.optimizer)
        stepped = tuple(dict.fromkeys(descent[key] for key in covered if key in descent))
        count = sum(self._parameters[key].numel() for key in covered)
        _, labels = self._batch.collect()
        label = HeardStep(
            tuple(heard), squares, self._unscaled is not None, self._losses, why, count, stepped, len(labels),
            self._run.optimizer is not None,
        )  # fmt: skip
        self._squares, self._unscaled, self._known, self._losses, self._again = None, None, None, 0, False
        proxy, more = (None, []) if self._proxy is None else self._proxy.collect()
        return (label, len(more), proxy), tensors + labels + more

    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """Readings, in units of the loss of one example."""
        heard, count, proxy = label
        cut = len(arrays) - count
        if isinstance(heard, _Together):
            measured = self._readings.from_sums(step, heard.label, heard.sums)
        else:
            measured = self._readings.read(step, heard, arrays[:cut])
        if self._proxy is not None:
            (said,) = self._proxy.read(step, proxy, arrays[cut:]).readings
            measured.readings = [compared(r, said, measured.readings) for r in measured.readings]
        return measured

    def shares(self, label: Any, arrays: Sequence[Array]) -> Mapping[str, Array]:
        """Sums over the examples of this rank."""
        heard, count, proxy = label
        cut = len(arrays) - count
        found: dict[str, Array] = self._readings.shares(heard, arrays[:cut], self._run.rank)
        if self._proxy is not None:
            found |= {f"proxy {k}": v for k, v in self._proxy.shares(proxy, arrays[cut:]).items()}
        return found

    def pooled(self, label: Any, sums: Mapping[str, Array], present: int) -> tuple[Any, Sequence[Array]] | None:
        """As if all examples had been on one rank, if no rank's part is missing."""
        if present < self._run.ranks:
            return None
        heard, _, proxy = label
        arrays: Sequence[Array] = ()
        if self._proxy is not None:
            parts = {k.removeprefix("proxy "): v for k, v in sums.items() if k.startswith("proxy ")}
            together = self._proxy.pooled(proxy, parts, present)
            if together is None:
                return None
            proxy, arrays = together
        return (_Together(heard, self._readings.together(heard, sums, present)), len(arrays), proxy), arrays

    def close(self) -> None:
        """Take the hooks off."""
        self._finalizer()


class _Together(NamedTuple):
    """What the ranks have summed, and what each of them knows."""

    label: HeardStep
    sums: StepSums


class _Arrival:
    """A hook on a tensor of the user's graph, which must not keep the listener alive and never changes a gradient."""

    def __init__(
        self, listener: _ExampleGradientListener, report: Callable[[_ExampleGradientListener, Tensor], None]
    ) -> None:
        self._listener = weakref.ref(listener)
        self._report = report

    def __call__(self, gradient: Tensor) -> None:
        listener = self._listener()
        if listener is not None:
            listener.hear_back(lambda: self._report(listener, gradient))


def _witness(modules: Sequence[nn.Module]) -> int | None:
    """A small parameter whose whole gradient costs one sum: a bias, or else a gain."""
    for name in ("bias", "weight"):
        for module in modules:
            parameter = module._parameters.get(name)
            if parameter is not None and parameter.requires_grad and parameter.dim() == 1:
                return id(parameter)
    return None


def _remove(handles: Sequence[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
