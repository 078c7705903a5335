"""The thermodynamics of attention: statistics of sampled query rows, per layer and head."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from thermo_monitor.physics.attention import evenly_spaced_rows, pooled_moments, random_rows, valid_rows
from thermo_monitor.physics.canonical import ROW_QUANTITIES, row_statistics
from thermo_monitor.physics.moments import Moments
from thermo_monitor.physics.precision import accumulator
from thermo_monitor.probes.base import Array, Listener, Map, Measured, Surroundings, check_quantities, number
from thermo_monitor.probes.calls import AttentionCall
from thermo_monitor.records import Reading

_TEMPERATURE, _POOLED = "attn/reduced_temperature", "attn/specific_heat_pooled"
ALL_QUANTITIES: tuple[str, ...] = (*(f"attn/{name}" for name in ROW_QUANTITIES), _TEMPERATURE, _POOLED)
_LARGEST = 2**24  # logits held at one time (64 MB in single precision)


@dataclass(frozen=True, slots=True)
class AttentionProbe:
    """Exact logits of a sample of query rows, one layer at a time; the whole attention matrix is never made.

    Attributes:
        rows: query rows read of each sequence.
        sequences: sequences read of each micro-batch at most, evenly spaced.
        sampling: ``even``: fixed, evenly spaced rows, so that successive readings compare and nothing is drawn;
            ``random``: a new simple random sample at every measured step, unbiased, with a standard error.
        quantities: keys to measure.
    """

    rows: int = 64
    sequences: int = 128
    sampling: Literal["even", "random"] = "even"
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

    @property
    def fast(self) -> bool:
        """A matrix product for every layer, so no."""
        return False

    def listen(self, run: Surroundings) -> Listener:
        """Attach to a run."""
        return _AttentionListener(self, run)


@dataclass(slots=True)
class _Site:
    """Sums of one attention module over the micro-batches of a step.

    Attributes:
        sums: [N + 1, H]: count, and the sum of each quantity.
        spread: [N, H + 1]: squared error of the sums of each head, and of all heads together; random rows only.
        pooled: moments of the logits of each head, where they are asked for.
    """

    sums: Tensor
    spread: Tensor | None
    pooled: Moments | None

    def add(self, other: _Site) -> None:
        """A further micro-batch, which drew its own rows."""
        self.sums = self.sums + other.sums
        if self.spread is not None and other.spread is not None:
            self.spread = self.spread + other.spread
        if self.pooled is not None and other.pooled is not None:
            self.pooled = self.pooled.merge(other.pooled)


class _AttentionListener(Listener):
    def __init__(self, options: AttentionProbe, run: Surroundings) -> None:
        self._options = options
        self._hub = run.hub
        self._order = {name: k for k, name in enumerate(run.hub.names.values())}
        self._seed = run.seed
        self._generators: dict[torch.device, torch.Generator] = {}
        names = [key.removeprefix("attn/") for key in options.quantities if key not in (_TEMPERATURE, _POOLED)]
        if _TEMPERATURE in options.quantities and "logit_std" not in names:
            names.append("logit_std")
        self._names = tuple(names)
        self._random = options.sampling == "random"
        self._pool = _POOLED in options.quantities
        self._sites: dict[str, _Site] = {}
        self._layers: list[str] = []  # row of each site in the maps; grows, never reordered
        run.hub.on_attention.append(self._hear)

    # ---------------------------------------------------------------------------------------------- on the device
    def _hear(self, call: AttentionCall) -> None:
        batch, heads, queries, _ = call.query.shape
        batch, keys = max(batch, call.key.shape[0]), call.key.shape[2]
        if not (batch and heads and queries and keys):
            return  # an empty batch holds no rows
        rows = self._rows(queries, call.query.device)
        every = -(-batch // self._options.sequences)  # of the examples, one in so many is read
        share = every * max(1, _LARGEST // (heads * len(rows) * keys))
        with torch.autocast(call.query.device.type, enabled=False):
            starts = range((every - 1) // 2, batch, share)
            parts = [self._part(call, rows, slice(at, at + share, every)) for at in starts]
            by_row, pooled = parts[0]
            for other, moments in parts[1:]:  # the same rows of further examples
                by_row = by_row + other
                pooled = pooled.merge(moments) if pooled is not None and moments is not None else None
            site = _Site(by_row.sum(-1), _spread(by_row, queries) if self._random else None, pooled)
        if call.name in self._sites:
            self._sites[call.name].add(site)
        else:
            self._sites[call.name] = site

    def on_loss(self, loss: Tensor) -> None:
        """A micro-batch ends."""
        self._hub.end_of_micro_batch()

    def _rows(self, queries: int, device: torch.device) -> Tensor:
        if not self._random:
            return evenly_spaced_rows(queries, self._options.rows, device)
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return random_rows(queries, self._options.rows, self._generators[device])

    def _part(self, call: AttentionCall, rows: Tensor, part: slice) -> tuple[Tensor, Moments | None]:
        """Counts and sums [N + 1, H, R] over some examples."""
        queries, keys = call.query.shape[2], call.key.shape[2]
        selected = None if len(rows) == queries else rows
        z, allowed = call.logits(selected, part)
        valid = valid_rows(allowed, selected, queries, keys)
        stats = row_statistics(z, allowed)
        # Rows with one key are dropped; a row that is not finite is kept, so that it shows.
        keep = stats.n >= 2 if valid is None else (stats.n >= 2) & valid
        wide = accumulator(z.device)
        values = [torch.where(keep, ROW_QUANTITIES[name](stats), 0.0).sum(0, dtype=wide) for name in self._names]
        by_row = torch.stack([keep.sum(0).to(wide), *values])
        return by_row, pooled_moments(stats, valid) if self._pool else None

    def collect(self) -> tuple[Any, list[Tensor]]:
        """Sums of every site, in the order of the model's modules."""
        sites, self._sites = self._sites, {}
        fresh = [name for name in sites if name not in self._layers]
        self._layers += sorted(fresh, key=self._position)
        tensors = []
        for site in sites.values():
            tensors.append(site.sums)
            if site.spread is not None:
                tensors.append(site.spread)
            if site.pooled is not None:
                tensors.append(torch.stack([site.pooled.count, site.pooled.mean, site.pooled.m2]))
        return list(sites), tensors

    def _position(self, name: str) -> tuple[int, str]:
        module, _, call = name.partition("#")
        return self._order.get(module, len(self._order)), f"{call:>6}"

    # ------------------------------------------------------------------------------------------------ on the host
    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """Means over rows for each head, then over heads, then over layers."""
        if not label:
            return Measured([number(step, key, math.nan, reason="no_attention") for key in self._options.quantities])
        width = 1 + self._random + self._pool
        sums = dict(zip(label, arrays[::width], strict=True))
        spreads = dict(zip(label, arrays[1::width], strict=True)) if self._random else {}
        layers = tuple(self._layers)
        heads = max(array.shape[1] for array in sums.values())
        out = Measured()
        with np.errstate(invalid="ignore", divide="ignore"):
            for key in self._options.quantities:
                if key == _POOLED:
                    pooled = _pooled(arrays[width - 1 :: width])
                    reason = "non_finite" if float(pooled.count) >= 2 else "n_lt_2"
                    out.readings.append(number(step, key, float(pooled.variance()), reason=reason))
                    continue
                at = self._names.index("logit_std" if key == _TEMPERATURE else key.removeprefix("attn/"))
                values = np.full((len(layers), heads), np.nan)
                errors = []
                for name, array in sums.items():
                    mean, error = _mean(key, at, array, spreads.get(name))
                    values[layers.index(name), : len(mean)] = mean
                    errors.append(error)
                out.maps.append(Map(key, values, layers))
                finite = all(np.isfinite(array[[0, 1 + at]]).all() for array in sums.values())
                rows = sum(float(array[0].sum()) for array in sums.values())
                reason = "n_lt_2" if rows == 0 else "non_finite" if not finite else "degenerate"
                out.readings.append(_whole(step, key, values, errors, finite, reason))
        return out


def _mean(key: str, at: int, sums: Array, spread: Array | None) -> tuple[Array, float]:
    """Mean of a quantity [H], and the standard error of its mean over heads."""
    count = sums[0]
    mean, error = sums[1 + at] / count, math.nan
    if spread is not None:
        # Heads share their rows, so the error of their mean is not that of independent numbers.
        error = float(np.sqrt(spread[at, -1]) / count.sum())
    if key != _TEMPERATURE:
        return mean, error
    mean = np.where(mean > 0, mean, np.nan)
    if spread is not None:
        single = np.sqrt(spread[at, :-1]) / count
        # Carried over from the spread of the logits, as if the heads were as correlated in the one as in the other.
        error *= float(np.nanmean(single / mean**2) / np.nanmean(single)) if np.nansum(single) > 0 else 1.0
    return 1 / mean, error


def _spread(by_row: Tensor, queries: int) -> Tensor:
    """Variance of the sums of each head, and of all heads [N, H + 1], under simple random sampling of the rows.

    All examples and heads share the rows, so the row positions are what was sampled: with y_r and c_r the sum and the
    count of position r, m of M positions and the mean y / c, the variance is
    m / (m - 1) sum_r (y_r - (y / c) c_r)^2 (1 - m / M) (Cochran 1977, section 6).
    """
    count, values = by_row[0], by_row[1:]
    m = by_row.shape[-1]
    ratio = values.sum(-1, keepdim=True) / count.sum(-1, keepdim=True).clamp(min=1)
    residual = values - ratio * count
    residual = torch.cat([residual, residual.sum(1, keepdim=True)], 1)
    if m >= queries:
        return torch.zeros_like(residual[..., 0])
    if m < 2:
        return torch.full_like(residual[..., 0], math.nan)
    return residual.square().sum(-1) * (m / (m - 1) * (1 - m / queries))


def _pooled(arrays: Sequence[Array]) -> Moments:
    """Moments of all logits of all heads and layers."""
    parts = [Moments(*torch.from_numpy(array.copy())).pooled(0) for array in arrays]
    return functools.reduce(Moments.merge, parts)


def _whole(step: int, key: str, values: Array, errors: Sequence[float], finite: bool, reason: str) -> Reading:
    """One number of the model: mean over heads, then over layers. Nothing that is not finite is averaged away."""
    heard = [np.nanmean(row) for row in values if not np.isnan(row).all()]
    if not heard or not finite:
        return number(step, key, math.nan, reason=reason)
    # Layers draw for themselves, so their errors are independent.
    error = float(np.sqrt(np.nansum(np.square(errors)))) / len(heard) if np.isfinite(errors).any() else None
    return number(step, key, float(np.mean(heard)), reason=reason, error=error)
