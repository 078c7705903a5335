"""Gradient norms of single examples, heard in the backward pass of the training itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from thermo_monitor.physics.precision import squared_norms
from thermo_monitor.probes import example_sums
from thermo_monitor.probes.base import Array, Listener, Measured, Surroundings, check_quantities, number
from thermo_monitor.probes.batch import BatchSize
from thermo_monitor.probes.descent import descent_of
from thermo_monitor.probes.example_readings import COHERENCE, POSSIBLE, RATIO, TRACE, ExampleReadings
from thermo_monitor.probes.example_sums import Gradient, Heard, HeardStep, StepSums
from thermo_monitor.probes.fisher_proxy import FisherProxyProbe
from thermo_monitor.probes.layers import layer_of
from thermo_monitor.probes.norms import dense
from thermo_monitor.probes.passes import Passes
from thermo_monitor.records import Reading

CHECKED = 10  # of so many readings the first is held against the gradients themselves


@dataclass(frozen=True, slots=True)
class ExampleGradientProbe:
    """Exact squared gradient norms of single examples: empirical Fisher information and gradient noise scale.

    Read from the inputs of linear layers, convolutions, embeddings and normalisations and from the gradients at their
    outputs: no gradient of a single example is kept, the model is not changed, and no further backward pass is made.
    Parameters of other modules are not covered; ``fisher/covered_share`` says how much of the squared gradient is. Nor
    is a weight that a bare function uses as well: at the first of every ten readings what was heard is held against
    the gradients themselves, by their products with a random vector.

    An example is a row of the attention's batch (a sequence), or else of the input of the first module that is read.
    Its loss is the mean over its tokens, in units in which the loss of a step is the mean over its examples.

    Attributes:
        examples: examples read of each micro-batch, evenly spaced; None: all of them.
        modules: ``all`` that can be read, or only the ``norms``, which cost next to nothing.
        per: whether the loss of an example is the ``mean`` or the ``sum`` over its tokens.
        dataset: number of examples that batches are drawn from without replacement, where it is known; the noise scale
            of the optimizer needs it, and the gradient coherence is then that of all of them.
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
        self._passes = Passes(run, options.examples, options.modules == "norms")
        self._losses = 0
        self._loss: Tensor | None = None  # summed over the micro-batches
        self._squares: tuple[tuple[int, ...], Tensor] | None = None
        self._unscaled: Tensor | None = None
        self._full: dict[int, Tensor] = {}  # whether what is heard of a parameter is its whole gradient
        self._steps = 0
        # The spot check: the free proxy beside the exact value.
        self._proxy = FisherProxyProbe().listen(run) if RATIO in options.quantities else None

    def on_loss(self, loss: Tensor) -> None:
        """A micro-batch ends."""
        self._losses += 1
        if COHERENCE in self._options.quantities:
            self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()
        self._batch.end_of_micro_batch()
        if self._proxy is not None:
            self._proxy.on_loss(loss)

    def before_step(self) -> None:
        """Squared norms of the whole gradients, and what loss scaling was taken out of them."""
        with torch.no_grad():
            self._passes.over()
            grads = {key: p.grad for key, p in self._parameters.items() if p.requires_grad and p.grad is not None}
            values = {key: dense(g) for key, g in grads.items()}
            if values:
                squares = squared_norms(list(values.values()))
                self._squares = tuple(values), torch.stack([s.to(squares[0].device) for s in squares])
            whole = self._passes.whole
            factor, full = whole.compare()
            if (
                self._run.ranks > 1
            ):  # gradients are averaged over ranks, and what is heard is not: sums say how they stand
                self._unscaled = whole.products
            else:
                self._unscaled = factor
                if self._passes.checking:
                    self._full.update(full)

    def after_step(self) -> None:
        """The moments of the optimizer have taken this step in."""
        if self._proxy is not None:
            self._proxy.after_step()

    def collect(self) -> tuple[Any, list[Tensor]]:
        """Norms [L, B] of each pass by layer, the squares of whole gradients, the scales."""
        again, passes = self._passes.again, self._passes.forget()
        unread = set().union(*(this.unread for this in passes))
        covered = set().union(*(this.norms for this in passes)) - unread
        tensors: list[Tensor] = []
        heard = []
        for this in passes:
            by_layer: dict[str, list[Tensor]] = {}
            for key, norms in this.norms.items():
                if key in covered:
                    full = self._full.get(key)
                    norms = norms if full is None else torch.where(full.to(norms.device), norms, 0.0)
                    by_layer.setdefault(self._layers[key], []).append(norms)
            if not by_layer:
                continue
            tensors.append(torch.stack([torch.stack(parts).sum(0) for parts in by_layer.values()]))
            rows = this.rows if isinstance(this.rows, int) else None
            heard.append(Heard(tuple(by_layer), this.batch, this.reduction, rows, this.scale is not None))
            tensors += [t for t in (this.scale, this.rows) if isinstance(t, Tensor)]
        gradients: tuple[Gradient, ...] = ()
        if self._squares is not None:
            keys, squares = self._squares
            gradients = tuple(Gradient(self._layers[k], k in covered, self._parameters[k].numel()) for k in keys)
            whole = squares.new_ones(())
            flags = [self._full[k].to(squares) if k in self._full else whole for k in keys]
            tensors += [squares, torch.stack(flags)]
        if self._unscaled is not None:
            tensors.append(self._unscaled)
        why = "second_backward" if again else "ambiguous_batch" if unread and not covered else ""
        descent = descent_of(self._run.optimizer)
        stepped = tuple(dict.fromkeys(descent[key] for key in covered if key in descent))
        _, labels = self._batch.collect()
        label = HeardStep(
            tuple(heard), gradients, self._unscaled is not None, self._losses, why, stepped, len(labels),
            self._run.optimizer is not None,
        )  # fmt: skip
        losses = [] if self._loss is None else [self._loss.abs() / torch.finfo(self._loss.dtype).eps]
        self._squares, self._unscaled, self._losses, self._loss = None, None, 0, None
        self._steps += 1
        self._passes.checking = self._steps % CHECKED == 0
        proxy, more = (None, []) if self._proxy is None else self._proxy.collect()
        return (label, len(losses), len(more), proxy), tensors + labels + losses + more

    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """Readings, in units of the loss of one example."""
        heard, losses, count, proxy = label
        cut = len(arrays) - count
        loss = float(arrays[cut - 1]) if losses else math.inf
        if isinstance(heard, _Together):
            measured = self._readings.from_sums(step, heard.label, heard.sums, loss)
        else:
            measured = self._readings.read(step, heard, arrays[: cut - losses], loss)
        if self._proxy is not None:
            (said,) = self._proxy.read(step, proxy, arrays[cut:]).readings
            measured.readings = [_compared(r, said, measured.readings) for r in measured.readings]
        return measured

    def shares(self, label: Any, arrays: Sequence[Array]) -> Mapping[str, Array]:
        """Sums over the examples of this rank."""
        heard, losses, count, proxy = label
        cut = len(arrays) - count
        found: dict[str, Array] = example_sums.shares(heard, arrays[: cut - losses], self._options.per, self._run.rank)
        found |= {"loss": np.asarray(arrays[cut - 1], np.float64)} if losses else {}
        if self._proxy is not None:
            found |= {f"proxy {k}": v for k, v in self._proxy.shares(proxy, arrays[cut:]).items()}
        return found

    def pooled(self, label: Any, sums: Mapping[str, Array], present: int) -> tuple[Any, Sequence[Array]] | None:
        """As if all examples had been on one rank, if no rank's part is missing."""
        if present < self._run.ranks:
            return None
        heard, losses, _, proxy = label
        arrays: Sequence[Array] = ()
        if self._proxy is not None:
            parts = {k.removeprefix("proxy "): v for k, v in sums.items() if k.startswith("proxy ")}
            together = self._proxy.pooled(proxy, parts, present)
            if together is None:
                return None
            proxy, arrays = together
        loss = [np.asarray(sums["loss"] / present)] if losses and "loss" in sums else []
        together_now = _Together(heard, example_sums.together(heard, sums, present))
        return (together_now, len(loss), len(arrays), proxy), [*loss, *arrays]

    def close(self) -> None:
        """Take the hooks off."""
        self._passes.close()


class _Together(NamedTuple):
    """What the ranks have summed, and what each of them knows."""

    label: HeardStep
    sums: StepSums


def _compared(reading: Reading, proxy: Reading, readings: Sequence[Reading]) -> Reading:
    """The spot check: the proxy over the exact value of the same step, in place of the reading that waits for it."""
    if reading.quantity != RATIO:
        return reading
    exact = next((r for r in readings if r.quantity == TRACE), None)
    if exact is None or math.isnan(exact.value):
        return number(reading.step, RATIO, math.nan, reason=reading.reason or "degenerate")
    if not exact.value > 0:
        return number(reading.step, RATIO, math.nan, reason="degenerate")
    ratio = proxy.value / exact.value
    error = None if exact.error is None else abs(ratio) * exact.error / exact.value
    return number(reading.step, RATIO, ratio, reason=proxy.reason or "degenerate", error=error)
