"""The thermodynamics of attention: statistics of sampled query rows, per layer and head."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from thermo_monitor.physics.attention import EvenRows, random_rows
from thermo_monitor.physics.canonical import ROW_QUANTITIES
from thermo_monitor.physics.heads import HeadSums, RowSums, pooled_moments, row_sums
from thermo_monitor.physics.moments import Moments, moments_from_raw, raw_moments
from thermo_monitor.physics.precision import precise
from thermo_monitor.probes.attention_readings import POOLED, TEMPERATURE, attention_readings, name_of
from thermo_monitor.probes.base import Array, Listener, Measured, Surroundings, check_quantities, number
from thermo_monitor.probes.calls import AttentionCall
from thermo_monitor.probes.ways import FROM_LOG_PARTITION, NAMES, WAYS, Way, statistics

ALL_QUANTITIES: tuple[str, ...] = (*(f"attn/{name}" for name in ROW_QUANTITIES), TEMPERATURE, POOLED)
_LARGEST = 2**24  # logits held at one time (64 MB in single precision)


@dataclass(frozen=True, slots=True)
class AttentionProbe:
    """Exact logits of a sample of query rows, one layer at a time; the whole attention matrix is never made.

    Attributes:
        rows: query rows read of each sequence.
        sequences: sequences read of each micro-batch at most, evenly spaced.
        sampling: ``even``: fixed, evenly spaced rows, so that successive readings compare and nothing is drawn;
            ``random``: a new simple random sample at every measured step, unbiased, with a standard error.
        on: ``training``: what the steps see; ``probe_batch``: the monitor's fixed batch, in evaluation mode.
        way: ``exact``: from the exact logits of the rows; ``kernel``: by a
            Triton kernel, in eight numbers a row; ``log_partition``: from three calls of the fused attention of the
            device, which gives no spread and no largest logit; ``auto``: the kernel on a CUDA device, else exact. What
            a way does not read (a bias, say) is read exactly; ``monitor.describe()`` tells.
        quantities: keys to measure.
    """

    rows: int = 64
    sequences: int = 128
    sampling: Literal["even", "random"] = "even"
    on: Literal["training", "probe_batch"] = "training"
    way: Way = "exact"
    quantities: tuple[str, ...] = (
        "attn/specific_heat",
        "attn/specific_heat_norm",
        "attn/entropy_fraction",
        "attn/reduced_temperature",
        "attn/freezing_ratio",
        "attn/max_logit",
    )

    def __post_init__(self) -> None:
        check_quantities(self.quantities, ALL_QUANTITIES, "AttentionProbe")
        if self.rows < 1:
            raise ValueError(f"rows={self.rows}: read at least 1 query row of each sequence")
        if self.sequences < 1:
            raise ValueError(f"sequences={self.sequences}: read at least 1 sequence of each micro-batch")
        if self.sampling not in ("even", "random"):
            raise ValueError(f"sampling={self.sampling!r}: give 'even' or 'random'")
        if self.on not in ("training", "probe_batch"):
            raise ValueError(f"on={self.on!r}: give 'training' or 'probe_batch'")
        if self.way not in WAYS:
            raise ValueError(f"way={self.way!r}: give one of {', '.join(WAYS)}")
        beyond = [key for key in self.quantities if key not in FROM_LOG_PARTITION]
        if self.way == "log_partition" and beyond:
            raise ValueError(f"way='log_partition' does not give {', '.join(beyond)}: leave them out of quantities")

    @property
    def fast(self) -> bool:
        """A matrix product for every layer, so no."""
        return False

    def listen(self, run: Surroundings) -> Listener:
        """Attach to a run."""
        if self.on == "probe_batch" and run.fixed is None:
            raise ValueError("AttentionProbe(on='probe_batch') reads a fixed batch: give the monitor a probe_batch=")
        return _AttentionListener(self, run)


@dataclass(slots=True)
class _Site:
    """Sums of one attention module over the micro-batches of a step.

    Attributes:
        sums: of each head; with their squared errors where rows are drawn.
        pooled: moments of the logits of each head, where they are asked for.
    """

    sums: HeadSums
    pooled: Moments | None

    def add(self, other: _Site) -> None:
        """A further micro-batch, which drew its own rows."""
        self.sums = self.sums.merge(other.sums)
        if self.pooled is not None and other.pooled is not None:
            self.pooled = self.pooled.merge(other.pooled)


class _AttentionListener(Listener):
    def __init__(self, options: AttentionProbe, run: Surroundings) -> None:
        self._options = options
        self._hub = run.hub
        self._order = {name: k for k, name in enumerate(run.hub.names.values())}
        self._seed = run.seed + run.rank  # every rank draws rows of its own, so that errors add up
        self._generators: dict[torch.device, torch.Generator] = {}
        names = [name_of(key) for key in options.quantities if key not in (TEMPERATURE, POOLED)]
        names += ["logit_std"] if TEMPERATURE in options.quantities else []
        self._names = tuple(dict.fromkeys(names))
        self._random = options.sampling == "random"
        self._pool = POOLED in options.quantities
        self._sites: dict[str, _Site] = {}
        self._ways: dict[str, str] = {}  # how each layer was read last, in words
        self._layers: list[str] = []  # row of each site in the maps; grows, never reordered
        heard = run.fixed if options.on == "probe_batch" and run.fixed is not None else run.hub
        heard.on_attention.append(self._hear)

    # ---------------------------------------------------------------------------------------------- on the device
    def _hear(self, call: AttentionCall) -> None:
        batch, heads, queries, _ = call.query.shape
        batch, keys = max(batch, call.key.shape[0]), call.key.shape[2]
        if not (batch and heads and queries and keys):
            return  # an empty batch holds no rows
        rows = self._rows(queries, call.query.device)
        every = -(-batch // self._options.sequences)  # of the examples, one in so many is read
        share = every * max(1, _LARGEST // (heads * len(rows) * keys))
        with precise(call.query.device):
            starts = range((every - 1) // 2, batch, share)
            parts = [self._part(call, rows, slice(at, at + share, every)) for at in starts]
            by_row, pooled = parts[0]
            for other, moments in parts[1:]:  # the same rows of further examples
                by_row = by_row + other
                pooled = pooled.merge(moments) if pooled is not None and moments is not None else None
            site = _Site(by_row.heads(queries if self._random else None), pooled)
        if call.name in self._sites:
            self._sites[call.name].add(site)
        else:
            self._sites[call.name] = site

    def on_loss(self, loss: Tensor) -> None:
        """A micro-batch ends."""
        self._hub.end_of_micro_batch()

    def _rows(self, queries: int, device: torch.device) -> Tensor | EvenRows:
        if not self._random:
            return EvenRows(queries, self._options.rows)
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return random_rows(queries, self._options.rows, self._generators[device])

    def _part(self, call: AttentionCall, rows: Tensor | EvenRows, part: slice) -> tuple[RowSums, Moments | None]:
        """Sums over some examples."""
        stats, valid, way, why = statistics(call, rows, part, self._options.way)
        told = f"{NAMES[way]}, {len(rows)} of {call.query.shape[2]}"
        self._ways[call.name] = f"{told} ({why})" if why else told
        return row_sums(stats, valid, self._names), pooled_moments(stats, valid) if self._pool else None

    def collect(self) -> tuple[Any, list[Tensor]]:
        """Sums of every site, in the order of the model's modules."""
        sites, self._sites = self._sites, {}
        fresh = [name for name in sites if name not in self._layers]
        self._layers += sorted(fresh, key=self._position)
        tensors = []
        for site in sites.values():
            tensors.append(torch.cat([site.sums.count.unsqueeze(0), site.sums.total]))
            if site.sums.squared_error is not None:
                tensors.append(site.sums.squared_error)
            if site.pooled is not None:
                tensors.append(torch.stack([site.pooled.count, site.pooled.mean, site.pooled.m2]))
        return list(sites), tensors

    def describe(self) -> dict[str, str]:
        """How each layer was read last."""
        return self._ways

    def _position(self, name: str) -> tuple[int, str]:
        module, _, call = name.partition("#")
        return self._order.get(module, len(self._order)), f"{call:>6}"

    # ------------------------------------------------------------------------------------------------ on the host
    def shares(self, label: Any, arrays: Sequence[Array]) -> Mapping[str, Array]:
        """The sums of every site; of moments, those from which they can be made again."""
        width = 1 + self._random + self._pool
        found = {}
        for k, site in enumerate(label):
            parts = [np.array(array) for array in arrays[k * width : (k + 1) * width]]
            if self._pool:
                parts[-1] = raw_moments(parts[-1])
            found[site] = np.concatenate([part.reshape(-1) for part in parts])
        return found

    def pooled(self, label: Any, sums: Mapping[str, Array], present: int) -> tuple[Any, Sequence[Array]] | None:
        """Sites in the order of the model, those too that this rank has not heard."""
        self._layers += sorted((site for site in sums if site not in self._layers), key=self._position)
        sites, arrays = sorted(sums, key=self._layers.index), []
        n, more = len(self._names), len(self._names) if self._random else 0
        for site in sites:
            flat = sums[site]
            heads = (len(flat) - more) // (1 + n + more + 3 * self._pool)
            cuts = [(1 + n, heads), *([(n, heads + 1)] if self._random else []), *([(3, heads)] if self._pool else [])]
            at = 0
            for rows, columns in cuts:
                arrays.append(flat[at : at + rows * columns].reshape(rows, columns))
                at += rows * columns
            if self._pool:
                arrays[-1] = moments_from_raw(arrays[-1])
        return sites, arrays

    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """Means over rows for each head, then over heads, then over layers."""
        if not label:
            return Measured([number(step, key, math.nan, reason="no_attention") for key in self._options.quantities])
        width = 1 + self._random + self._pool
        sums = dict(zip(label, arrays[::width], strict=True))
        errors = dict(zip(label, arrays[1::width], strict=True)) if self._random else {}
        moments = arrays[width - 1 :: width] if self._pool else []
        return attention_readings(
            step, self._options.quantities, self._names, sums, errors, moments, tuple(self._layers)
        )
