"""The gradient noise scale from micro-batches and data-parallel ranks: no per-example norms, two norms of gradients."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from thermo_monitor.physics.noise_scale import SmoothedNoise, noise_parts
from thermo_monitor.physics.precision import squared_norms
from thermo_monitor.probes.base import Array, Listener, Measured, Surroundings, check_quantities, number
from thermo_monitor.probes.batch import BatchSize
from thermo_monitor.probes.norms import dense

_NOISE, _SCALE = "fisher/noise_trace", "fisher/gradient_noise_scale"
_POSSIBLE = (_NOISE, _SCALE)


@dataclass(frozen=True, slots=True)
class NoiseScaleProbe:
    """Gradient noise and noise scale from the micro-batches of an accumulated step, and from the ranks.

    A gradient that arrives at a parameter is that of one micro-batch on one rank; the gradient that is stepped with is
    the mean of all. Their norms at two batch sizes give both parts. One micro-batch on one rank says nothing: NaN. The
    loss of a step has to be the mean of those of its micro-batches, all of one size. ``ExampleGradientProbe`` gives the
    same quantities with far less variance; list one of the two.

    Attributes:
        examples: in one micro-batch of one rank. None: counted from what is heard.
        quantities: keys to measure.
    """

    examples: int | None = None
    quantities: tuple[str, ...] = _POSSIBLE

    def __post_init__(self) -> None:
        check_quantities(self.quantities, _POSSIBLE, "NoiseScaleProbe")
        if self.examples is not None and self.examples < 1:
            raise ValueError(f"examples={self.examples}: give the number of examples of a micro-batch, or None")

    @property
    def fast(self) -> bool:
        """A pass over the gradients of each micro-batch, so no."""
        return False

    def listen(self, run: Surroundings) -> Listener:
        """Attach to a run: one hook on each parameter."""
        return _NoiseScaleListener(self, run)


class _NoiseScaleListener(Listener):
    reads = "whole"  # gradients of single ranks, which a sharded parameter never shows

    def __init__(self, options: NoiseScaleProbe, run: Surroundings) -> None:
        self._options = options
        self._run = run
        self._batch = BatchSize(run.hub)
        self._parameters = [p for p in run.model.parameters() if p.requires_grad]
        self._norms: list[list[Tensor]] = [[] for _ in self._parameters]  # of each micro-batch
        self._witness: Tensor | None = None  # gradient of the smallest parameter, as it arrived
        sizes = [p.numel() for p in self._parameters]
        self._smallest = sizes.index(min(sizes)) if sizes else -1
        self._squares: list[Tensor] = []
        self._counts: list[int] = []
        self._losses = 0
        self._smoothed = SmoothedNoise()
        handles = [
            p.register_hook(_Arrival(self, index))  # type: ignore[no-untyped-call]
            for index, p in enumerate(self._parameters)
        ]
        # A listener that is dropped without close() must not leave its hooks behind.
        self._finalizer = weakref.finalize(self, _remove, handles)

    def hear(self, index: int, gradient: Tensor) -> None:
        """The gradient of one micro-batch arrived at a parameter."""
        if self._run.hub.listening:
            self._run.hub.hear_back("NoiseScaleProbe", lambda: self._arrived(index, gradient.detach()))

    def _arrived(self, index: int, gradient: Tensor) -> None:
        if gradient.layout is not torch.strided:
            gradient = gradient.coalesce().values()
        self._norms[index] += squared_norms([gradient])
        if index == self._smallest:
            self._witness = gradient.clone() if self._witness is None else self._witness + gradient

    def on_loss(self, loss: Tensor) -> None:
        """A micro-batch ends."""
        self._losses += 1
        self._batch.end_of_micro_batch()

    def before_step(self) -> None:
        """The gradient of the whole step, and what loss scaling was taken out of it."""
        pairs = [(norms, p.grad) for norms, p in zip(self._norms, self._parameters, strict=True) if norms]
        if not pairs or any(grad is None for _, grad in pairs):
            return
        with torch.no_grad():
            values = [dense(g) for _, g in pairs if g is not None]
            whole = torch.stack(squared_norms(values)).sum()
            parts = torch.stack([torch.stack(norms).sum() for norms, _ in pairs]).sum()
            squared = product = torch.ones((), device=whole.device)
            small = self._parameters[self._smallest].grad
            if self._witness is not None and small is not None:
                g = small.detach().to_dense().float() if small.is_sparse else small.float()
                w = self._witness.float()
                if g.shape == w.shape:
                    squared, product = (g * g).sum(), (g * w).sum()
            self._squares = [parts, whole, squared, product]
            self._counts = [len(norms) for norms, _ in pairs]

    def collect(self) -> tuple[Any, list[Tensor]]:
        """Two squared norms, and two products whose ratio is what loss scaling took out."""
        examples, _ = self._batch.collect()
        label = (examples, max(self._counts, default=0), min(self._counts, default=0), 1, self._losses)
        tensors, self._squares, self._counts = self._squares, [], []
        self._norms, self._witness, self._losses = [[] for _ in self._parameters], None, 0
        return label, tensors

    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """From the pair of norms."""
        examples, most, least, processes, losses = label
        why, value, scale = "", math.nan, math.nan
        if not arrays:
            why = "no_gradient"
        elif most != least or most != losses:
            why = "second_backward" if most > losses else "ambiguous_batch"
        elif not examples and self._options.examples is None:
            why = "unknown_batch"
        else:
            # ``examples`` counts all micro-batches, and all ranks where there are several.
            micro = self._options.examples or examples / (most * processes)
            parts, whole, squared, product = (float(a) for a in arrays)
            unscale = squared / product if product else math.nan
            # The loss of a micro-batch was divided by their number: undone here.
            small = parts * unscale**2 * most if most else math.nan
            found = noise_parts(small, whole, small_batch=micro, big_batch=micro * most * processes)
            why = found.reason
            if not why:
                self._smoothed.add(found)
                value, scale = found.noise, self._smoothed.parts.scale
        readings = {
            _NOISE: number(step, _NOISE, value, reason=why or "non_finite"),
            _SCALE: number(step, _SCALE, scale, reason=why or ("degenerate" if math.isfinite(value) else "non_finite")),
        }
        return Measured([readings[key] for key in self._options.quantities])

    def shares(self, label: Any, arrays: Sequence[Array]) -> Mapping[str, Array]:
        """Norms of this rank's micro-batches. What is the same everywhere is averaged, which changes nothing."""
        examples, most, least, _, losses = label
        counts = np.array([most, least, losses, most * most, examples], dtype=np.float64)
        return {"squares": np.array([float(a) for a in arrays]), "counts": counts} if arrays else {}

    def pooled(self, label: Any, sums: Mapping[str, Array], present: int) -> tuple[Any, Sequence[Array]] | None:
        """Means over ranks, if no rank's part is missing and all have the same number of micro-batches."""
        if present < self._run.ranks:
            return None
        if "squares" not in sums:
            return label, ()
        most, least, losses, square, examples = sums["counts"]
        most, least, losses = most / present, least / present, losses / present
        if square / present != most * most:
            least = -1  # micro-batches of different weight
        return (int(examples), most, least, present, losses), list(sums["squares"] / present)

    def close(self) -> None:
        """Take the hooks off."""
        self._finalizer()


class _Arrival:
    """A hook on a parameter: it changes no gradient, keeps no listener alive, and is nothing in a copy of the model."""

    def __init__(self, listener: _NoiseScaleListener | None, index: int) -> None:
        self._listener = weakref.ref(listener) if listener is not None else None
        self._index = index

    def __call__(self, gradient: Tensor) -> None:
        listener = None if self._listener is None else self._listener()
        if listener is not None:
            listener.hear(self._index, gradient)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Arrival:
        return _Arrival(None, self._index)

    def __reduce__(self) -> tuple[Callable[..., _Arrival], tuple[None, int]]:
        return _Arrival, (None, self._index)


def _remove(handles: Sequence[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
