"""The geometry of the token representations that leave the blocks: the last one, or each."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from thermo_monitor.physics import representation as geometry
from thermo_monitor.physics.attention import EvenRows
from thermo_monitor.physics.precision import precise, working
from thermo_monitor.probes.base import Array, Listener, Map, Measured, Surroundings, check_quantities, number
from thermo_monitor.probes.blocks import blocks, last_block
from thermo_monitor.probes.calls import RepresentationCall
from thermo_monitor.probes.hooks import Hook
from thermo_monitor.probes.hub import Hub
from thermo_monitor.probes.padding import Padding, batch_first

_POSSIBLE = (
    "repr/representation_entropy",
    "repr/spectral_entropy",
    "repr/effective_rank",
    "repr/participation_ratio",
    "repr/head_tail_contrast",
)


@dataclass(frozen=True, slots=True)
class RepresentationProbe:
    """Rate-distortion entropy, spectral entropy and effective rank of a sample of token representations.

    The sample is fixed: evenly spaced over the tokens of the first micro-batch of a step. Padding is left out where the
    model is called with an ``attention_mask``.

    Attributes:
        module: qualified name of the block; empty: the last element of the model's largest ``nn.ModuleList``.
        layers: ``last``: that block only. ``all``: the blocks before it in its list as well; each is then a row of a
            map over layers, and the reading of the model is that of the last. Costs as much again for each block.
        positions: ``all`` tokens, or the ``last`` of each sequence (the one that answers, in a task with one answer).
        tokens: size of the sample; the spectrum then has at most this many values.
        quantities: keys to measure.
    """

    module: str = ""
    layers: Literal["last", "all"] = "last"
    positions: Literal["all", "last"] = "all"
    tokens: int = 256
    quantities: tuple[str, ...] = _POSSIBLE[:3]

    def __post_init__(self) -> None:
        check_quantities(self.quantities, _POSSIBLE, "RepresentationProbe")
        if self.positions not in ("all", "last"):
            raise ValueError(f"positions={self.positions!r}: give 'all' or 'last'")
        if self.layers not in ("last", "all"):
            raise ValueError(f"layers={self.layers!r}: give 'last' or 'all'")
        if self.tokens < 2:
            raise ValueError(f"tokens={self.tokens}: a spectrum needs at least 2 tokens")

    @property
    def fast(self) -> bool:
        """A matrix product and an eigenvalue problem, so no."""
        return False

    def listen(self, run: Surroundings) -> Listener:
        """Attach to a run: one forward hook on each block."""
        return _RepresentationListener(self, run)


@dataclass(frozen=True, slots=True)
class _Sample:
    """What is kept of the tokens of one block.

    Attributes:
        told: whether the user's own line reported it.
        width: of the representations.
        tensors: Gram matrices of the unit rows, and of the centred rows; on several ranks the rows themselves, with a
            first column that says whether one is there.
    """

    told: bool
    width: int
    tensors: list[Tensor]


class _RepresentationListener(Listener):
    def __init__(self, options: RepresentationProbe, run: Surroundings) -> None:
        self._options = options
        self._hub: Hub = run.hub
        self._rank, self._ranks = run.rank, run.ranks
        self._heard: dict[str, _Sample] = {}
        self._padding: dict[str, Padding] = {}
        self._rows: list[str] = []  # of the maps; grows, never reordered
        handles = []
        last = options.module or last_block(run.model)
        if last is not None:
            try:
                run.model.get_submodule(last)
            except AttributeError:
                near = ", ".join([name for name, _ in run.model.named_modules()][1:9])
                raise ValueError(f"the model has no module {last!r}; it has {near}, ...") from None
            self._rows = blocks(run.model, last) if options.layers == "all" else [last]
            for name in self._rows:
                self._padding[name] = Padding(run.model, name)
                block = run.model.get_submodule(name)
                handles += [*self._padding[name].handles, block.register_forward_hook(Hook(self._hook))]
        self._last = last
        # A listener that is dropped without close() must not leave its hooks behind.
        self._finalizer = weakref.finalize(self, _remove, handles)
        run.hub.on_representation.append(self._hear)

    def _hook(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._hub.listening and id(module) in self._hub.names:
            # Our own arithmetic, which no function mode of the program or of ours has to hear: half of a small call.
            with torch._C.DisableTorchFunction():
                self._hub.hear("representation", lambda: self._report(module, output))

    def _report(self, module: nn.Module, output: Any) -> None:
        if isinstance(output, Mapping):
            output = tuple(output.values())
        hidden = output if isinstance(output, Tensor) else next(iter(output)) if output else None
        if not isinstance(hidden, Tensor) or not hidden.is_floating_point():
            return
        if hidden.dim() == 3 and not batch_first(module):
            hidden = hidden.transpose(0, 1)
        name = self._hub.names[id(module)]
        self._hub.representation(RepresentationCall(name, hidden, self._padding[name].real))

    def _hear(self, call: RepresentationCall) -> None:
        hidden, padding = call.hidden.detach(), call.padding
        if hidden.dim() < 2 or not hidden.numel():
            return
        site = call.name if self._options.layers == "all" else ""
        before = self._heard.get(site)
        if before is not None and (before.told or not call.told):
            return  # the first micro-batch is the sample: the same sequences where batches are fixed
        real = None
        if padding is not None and padding.shape == hidden.shape[:-1]:
            real = padding.detach().to(hidden.device).bool()
        if hidden.dim() == 3 and self._options.positions == "last":
            hidden, real = _last(hidden, real)
        hidden = hidden.reshape(-1, hidden.shape[-1])
        tokens = self._places.stop - self._places.start
        if not tokens:
            return
        rows = EvenRows(hidden.shape[0], tokens).index(hidden.device)
        sample, present = hidden[rows], None if real is None else real.reshape(-1)[rows]
        if self._ranks > 1:  # what the Gram matrices of all ranks together are can only be told from the rows
            there = torch.ones(len(rows), device=hidden.device) if present is None else present.float()
            placed = torch.cat([there.unsqueeze(1), working(sample)], 1)
            self._heard[site] = _Sample(call.told, sample.shape[-1], [placed])
            return
        with precise(sample.device):
            grams = [geometry.normalised_gram(sample, present), geometry.centred_gram(sample, present)]
        self._heard[site] = _Sample(call.told, sample.shape[-1], grams)

    @property
    def _places(self) -> range:
        """Which of the rows of the sample are this rank's: an equal share, or one row of every so many ranks."""
        tokens, each = self._options.tokens, self._options.tokens // self._ranks
        if each:
            return range(self._rank * each, (self._rank + 1) * each)
        every = -(-self._ranks // tokens)
        at = self._rank // every
        return range(at, at + 1) if self._rank % every == 0 else range(0)

    def shares(self, label: Any, arrays: Sequence[Array]) -> Mapping[str, Array]:
        """This rank's rows of each block's sample, at their places [tokens, 1 + d]; the first column: one is there."""
        found = {}
        for (name, told, width), rows in zip(label, arrays, strict=True):
            sample = np.zeros((self._options.tokens, 1 + width))
            sample[self._places.start : self._places.start + len(rows)] = rows
            found[f"{'told' if told else 'heard'}:{name}"] = sample
        return found

    def pooled(self, label: Any, sums: Mapping[str, Array], present: int) -> tuple[Any, Sequence[Array]] | None:
        """The Gram matrices of the whole samples."""
        facts, grams = [], []
        for key, rows in sums.items():
            how, _, name = key.partition(":")
            there, sample = torch.from_numpy(rows[:, 0] > 0), torch.from_numpy(rows[:, 1:]).float()
            facts.append((name, how == "told", sample.shape[1]))
            for gram in (geometry.normalised_gram(sample, there), geometry.centred_gram(sample, there)):
                grams.append(gram.numpy())
        return facts, grams

    def collect(self) -> tuple[Any, list[Tensor]]:
        """Two Gram matrices for each block: eigenvalue solvers wait for the device, so the host does them."""
        heard, self._heard = self._heard, {}
        label = [(name, sample.told, sample.width) for name, sample in heard.items()]
        return label, [tensor for sample in heard.values() for tensor in sample.tensors]

    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """Readings from the spectra."""
        keys = self._options.quantities
        if not label:
            return Measured([number(step, key, math.nan, reason="no_representation") for key in keys])
        sites = {}
        for k, (name, _, width) in enumerate(label):
            sites[name] = _values(keys, width, *(torch.from_numpy(array.copy()) for array in arrays[2 * k : 2 * k + 2]))
        told = [name for name, own, _ in label if own]
        values, finite = sites[told[0] if told else self._last if self._last in sites else label[-1][0]]
        reason = "degenerate" if finite else "non_finite"
        measured = Measured([number(step, key, values[key], reason=reason) for key in keys])
        if self._options.layers == "all":
            self._rows += [name for name in sites if name not in self._rows]
            for key in keys:
                column = [sites[name][0][key] if name in sites else math.nan for name in self._rows]
                measured.maps.append(Map(key, np.array(column)[:, None], tuple(self._rows)))
        return measured

    def describe(self) -> dict[str, str]:
        """Which blocks are read."""
        return {name: f"{self._options.tokens} token representations at most" for name in self._padding}

    def close(self) -> None:
        """Take the hooks off."""
        self._finalizer()


def _values(keys: Sequence[str], d: int, normalised: Tensor, centred: Tensor) -> tuple[dict[str, float], bool]:
    """The quantities of one block, and whether its representations were finite."""
    lam = geometry.spectrum_from_gram(centred)
    formulas = {
        "repr/representation_entropy": lambda: geometry.representation_entropy_from_gram(normalised, None, d),
        "repr/spectral_entropy": lambda: geometry.spectral_entropy(lam, d),
        "repr/effective_rank": lambda: geometry.effective_rank(lam),
        "repr/participation_ratio": lambda: geometry.participation_ratio(lam),
        "repr/head_tail_contrast": lambda: geometry.head_tail_contrast(lam),
    }
    finite = bool(np.isfinite(normalised.numpy()).all() and np.isfinite(centred.numpy()).all())
    return {key: float(formulas[key]()) for key in keys}, finite


def _last(hidden: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The last real token of each sequence, wherever the padding stands; and whether there is one."""
    if real is None:
        return hidden[:, -1], None
    position = torch.arange(hidden.shape[1], device=hidden.device)
    last = torch.where(real, position, 0).amax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), last], real.any(1)


def _remove(handles: Sequence[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
