"""The geometry of the token representations that leave one block."""

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
from thermo_monitor.physics.precision import working
from thermo_monitor.probes.base import Array, Listener, Measured, Surroundings, check_quantities, number
from thermo_monitor.probes.calls import RepresentationCall
from thermo_monitor.probes.hooks import Hook
from thermo_monitor.probes.hub import Hub
from thermo_monitor.probes.padding import Padding, batch_first

_POSSIBLE = (
    "repr/representation_entropy",
    "repr/spectral_entropy",
    "repr/effective_rank",
    "repr/participation_ratio",
)


@dataclass(frozen=True, slots=True)
class RepresentationProbe:
    """Rate-distortion entropy, spectral entropy and effective rank of a sample of token representations.

    The sample is fixed: evenly spaced over the tokens of the first micro-batch of a step. Padding is left out where the
    model is called with an ``attention_mask``.

    Attributes:
        module: qualified name of the block; empty: the last element of the model's largest ``nn.ModuleList``.
        positions: ``all`` tokens, or the ``last`` of each sequence (the one that answers, in a task with one answer).
        tokens: size of the sample; the spectrum then has at most this many values.
        quantities: keys to measure.
    """

    module: str = ""
    positions: Literal["all", "last"] = "all"
    tokens: int = 256
    quantities: tuple[str, ...] = _POSSIBLE[:3]

    def __post_init__(self) -> None:
        check_quantities(self.quantities, _POSSIBLE, "RepresentationProbe")
        if self.positions not in ("all", "last"):
            raise ValueError(f"positions={self.positions!r}: give 'all' or 'last'")
        if self.tokens < 2:
            raise ValueError(f"tokens={self.tokens}: a spectrum needs at least 2 tokens")

    @property
    def fast(self) -> bool:
        """A matrix product and an eigenvalue problem, so no."""
        return False

    def listen(self, run: Surroundings) -> Listener:
        """Attach to a run: one forward hook, on the block."""
        return _RepresentationListener(self, run)


def last_block(model: nn.Module) -> str | None:
    """Qualified name of the last element of the largest ``nn.ModuleList``, which in a transformer is its last block.

    Example:
        >>> last_block(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 3, enable_nested_tensor=False))
        'layers.2'
    """
    best, most = None, 0
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module):
            size = sum(p.numel() for p in module.parameters())
            if size >= most:  # of equal ones the later: a decoder follows its encoder
                best, most = f"{name}.{len(module) - 1}".lstrip("."), size
    return best


class _RepresentationListener(Listener):
    def __init__(self, options: RepresentationProbe, run: Surroundings) -> None:
        self._options = options
        self._hub: Hub = run.hub
        self._rank, self._ranks = run.rank, run.ranks
        self._heard: tuple[bool, int, list[Tensor]] | None = None
        self._padding: Padding | None = None
        self.module = options.module or last_block(run.model)
        handles = []
        if self.module is not None:
            try:
                block = run.model.get_submodule(self.module)
            except AttributeError:
                near = ", ".join([name for name, _ in run.model.named_modules()][1:9])
                raise ValueError(f"the model has no module {self.module!r}; it has {near}, ...") from None
            self._padding = Padding(run.model, self.module)
            handles = [*self._padding.handles, block.register_forward_hook(Hook(self._hook))]
        # A listener that is dropped without close() must not leave its hooks behind.
        self._finalizer = weakref.finalize(self, _remove, handles)
        run.hub.on_representation.append(self._hear)

    def _hook(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._hub.listening and id(module) in self._hub.names:
            self._hub.hear("representation", lambda: self._report(module, output))

    def _report(self, module: nn.Module, output: Any) -> None:
        if isinstance(output, Mapping):
            output = tuple(output.values())
        hidden = output if isinstance(output, Tensor) else next(iter(output)) if output else None
        if not isinstance(hidden, Tensor) or not hidden.is_floating_point():
            return
        if hidden.dim() == 3 and not batch_first(module):
            hidden = hidden.transpose(0, 1)
        padding = None if self._padding is None else self._padding.real
        self._hub.representation(RepresentationCall(self.module or "", hidden, padding))

    def _hear(self, call: RepresentationCall) -> None:
        hidden, padding = call.hidden.detach(), call.padding
        if hidden.dim() < 2 or not hidden.numel():
            return
        if self._heard is not None and (self._heard[0] or not call.told):
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
            self._heard = call.told, sample.shape[-1], [torch.cat([there.unsqueeze(1), working(sample)], 1)]
            return
        with torch.autocast(sample.device.type, enabled=False):
            grams = [geometry.normalised_gram(sample, present), geometry.centred_gram(sample, present)]
        self._heard = call.told, sample.shape[-1], grams

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
        """This rank's rows of the sample, at their places [tokens, 1 + d]; the first column: one is there."""
        if not arrays:
            return {}
        (rows,) = arrays
        sample = np.zeros((self._options.tokens, rows.shape[1]))
        sample[self._places.start : self._places.start + len(rows)] = rows
        return {"rows": sample}

    def pooled(self, label: Any, sums: Mapping[str, Array], present: int) -> tuple[Any, Sequence[Array]] | None:
        """The Gram matrices of the whole sample."""
        if "rows" not in sums:
            return None, ()
        there, sample = torch.from_numpy(sums["rows"][:, 0] > 0), torch.from_numpy(sums["rows"][:, 1:]).float()
        grams = geometry.normalised_gram(sample, there), geometry.centred_gram(sample, there)
        return sample.shape[1], [gram.numpy() for gram in grams]

    def collect(self) -> tuple[Any, list[Tensor]]:
        """Two Gram matrices: eigenvalue solvers wait for the device, so the host does them."""
        heard, self._heard = self._heard, None
        return (None, []) if heard is None else heard[1:]

    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """Readings from the spectra."""
        if not arrays:
            return Measured(
                [number(step, key, math.nan, reason="no_representation") for key in self._options.quantities]
            )
        d = label
        normalised, centred = (torch.from_numpy(a.copy()) for a in arrays)
        lam = geometry.spectrum_from_gram(centred)
        formulas = {
            "repr/representation_entropy": lambda: geometry.representation_entropy_from_gram(normalised, None, d),
            "repr/spectral_entropy": lambda: geometry.spectral_entropy(lam, d),
            "repr/effective_rank": lambda: geometry.effective_rank(lam),
            "repr/participation_ratio": lambda: geometry.participation_ratio(lam),
        }
        values = {key: float(formulas[key]()) for key in self._options.quantities}
        finite = bool(torch.isfinite(normalised).all() and torch.isfinite(centred).all())
        reason = "degenerate" if finite else "non_finite"
        return Measured([number(step, key, value, reason=reason) for key, value in values.items()])

    def describe(self) -> dict[str, str]:
        """Which block is read."""
        return {} if self.module is None else {self.module: f"{self._options.tokens} token representations at most"}

    def close(self) -> None:
        """Take the hooks off."""
        self._finalizer()


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
