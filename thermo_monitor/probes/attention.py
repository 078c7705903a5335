"""The thermodynamics of attention: statistics of sampled query rows, per layer and head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from thermo_monitor.physics.attention import (
    attention_logits,
    evenly_spaced_rows,
    pooled_moments,
    random_rows,
    valid_rows,
)
from thermo_monitor.physics.canonical import ROW_QUANTITIES, row_statistics
from thermo_monitor.physics.moments import Moments
from thermo_monitor.physics.precision import accumulator
from thermo_monitor.probes.base import Array, Listener, Map, Measured, Surroundings, check_quantities, number
from thermo_monitor.probes.hub import AttentionCall

_TEMPERATURE, _POOLED = "attn/reduced_temperature", "attn/specific_heat_pooled"
ALL_QUANTITIES: tuple[str, ...] = (*(f"attn/{name}" for name in ROW_QUANTITIES), _TEMPERATURE, _POOLED)
_LARGEST = 2**24  # logits held at one time (64 MB in single precision)


@dataclass(frozen=True, slots=True)
class AttentionProbe:
    """Exact logits of a sample of query rows, one layer at a time; the whole attention matrix is never made.

    Attributes:
        rows: query rows read of each sequence.
        sampling: ``even``: fixed, evenly spaced rows, so that successive readings compare and nothing is drawn;
            ``random``: a new simple random sample at every measured step, unbiased, with a standard error.
        quantities: keys to measure.
    """

    rows: int = 64
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
    """Sums of one attention module over the micro-batches of a step."""

    sums: Tensor  # [N + 1, H] or [2 N + 1, H]: count, sums of each quantity, squared errors of these sums
    pooled: Moments | None


class _AttentionListener(Listener):
    def __init__(self, options: AttentionProbe, run: Surroundings) -> None:
        self._options = options
        self._order = {name: k for k, name in enumerate(run.hub.names.values())}
        self._seed = run.seed
        self._generator: torch.Generator | None = None
        names = [key.removeprefix("attn/") for key in options.quantities if key not in (_TEMPERATURE, _POOLED)]
        if _TEMPERATURE in options.quantities and "logit_std" not in names:
            names.append("logit_std")
        self._names = tuple(names)
        self._pool = _POOLED in options.quantities
        self._sites: dict[str, _Site] = {}
        self._layers: list[str] = []  # row of each site in the maps; grows, never reordered
        run.hub.on_attention.append(self._hear)

    # ---------------------------------------------------------------------------------------------- on the device
    def _hear(self, call: AttentionCall) -> None:
        query, key = call.query.detach(), call.key.detach()
        batch, heads, queries, _ = query.shape
        if not (batch and heads and queries and key.shape[2]):
            return  # an empty batch holds no rows
        rows = self._rows(queries, query.device)
        share = max(1, _LARGEST // max(1, heads * len(rows) * key.shape[2]))
        with torch.autocast(query.device.type, enabled=False):
            for at in range(0, batch, share):
                part = slice(at, at + share)
                self._add(call, query[part], key[part], _examples(call.mask, part, batch), _examples(call.bias, part, batch), rows)

    def _rows(self, queries: int, device: torch.device) -> Tensor:
        if self._options.sampling == "even":
            return evenly_spaced_rows(queries, self._options.rows, device)
        if self._generator is None:
            self._generator = torch.Generator(device).manual_seed(self._seed)
        return random_rows(queries, self._options.rows, self._generator)

    def _add(
        self, call: AttentionCall, query: Tensor, key: Tensor, mask: Tensor | None, bias: Tensor | None, rows: Tensor
    ) -> None:
        queries, keys = query.shape[2], key.shape[2]
        every = len(rows) == queries
        z, allowed = attention_logits(
            query, key, scale=call.scale, mask=mask, bias=bias, causal=call.causal, rows=None if every else rows
        )
        valid = valid_rows(allowed, None if every else rows, queries, keys)
        stats = row_statistics(z, allowed)
        keep = stats.n >= 2 if valid is None else (stats.n >= 2) & valid
        wide = accumulator(z.device)
        count = keep.sum(0).to(wide)  # [H, R]
        # Rows with one key are dropped; a row that is not finite is kept, so that it shows.
        values = [torch.where(keep, ROW_QUANTITIES[name](stats), 0.0).sum(0, dtype=wide) for name in self._names]
        by_row = torch.stack([count, *values])  # [N + 1, H, R]
        sums = by_row.sum(-1)
        if self._options.sampling == "random":
            sums = torch.cat([sums, _squared_errors(by_row, queries)])
        pooled = pooled_moments(stats, valid) if self._pool else None
        site = self._sites.get(call.name)
        if site is None:
            self._sites[call.name] = _Site(sums, pooled)
        else:
            site.sums = site.sums + sums
            if site.pooled is not None and pooled is not None:
                site.pooled = site.pooled.merge(pooled)

    def collect(self) -> tuple[Any, list[Tensor]]:
        """Sums of every site, in the order of the model's modules."""
        sites, self._sites = self._sites, {}
        fresh = [name for name in sites if name not in self._layers]
        self._layers += sorted(fresh, key=self._position)
        tensors = []
        for site in sites.values():
            tensors.append(site.sums)
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
        width = 2 if self._pool else 1
        sums = {name: arrays[k * width] for k, name in enumerate(label)}
        layers = tuple(self._layers)
        heads = max(array.shape[1] for array in sums.values())
        out = Measured()
        with np.errstate(invalid="ignore", divide="ignore"):
            for key in self._options.quantities:
                if key == _POOLED:
                    parts = [Moments(*torch.from_numpy(a.copy())).pooled(0) for a in arrays[1::2]]
                    value = float(Moments(*(torch.stack(x) for x in zip(*((p.count, p.mean, p.m2) for p in parts), strict=True))).pooled(0).variance())
                    out.readings.append(number(step, key, value, reason="n_lt_2"))
                    continue
                values = np.full((len(layers), heads), np.nan)
                errors = np.full((len(layers), heads), np.nan)
                for name, array in sums.items():
                    row = layers.index(name)
                    mean, error = self._mean(key, array)
                    values[row, : len(mean)] = mean
                    errors[row, : len(mean)] = error
                out.maps.append(Map(key, values, layers))
                out.readings.append(_whole(step, key, values, errors, sums))
        return out

    def _mean(self, key: str, sums: Array) -> tuple[Array, Array]:
        name = "logit_std" if key == _TEMPERATURE else key.removeprefix("attn/")
        at = 1 + self._names.index(name)
        count = sums[0]
        mean = sums[at] / count
        error = np.full_like(mean, np.nan)
        if self._options.sampling == "random":
            error = np.sqrt(sums[len(self._names) + at]) / count
        if key == _TEMPERATURE:
            mean = np.where(mean > 0, mean, np.nan)
            return 1 / mean, error / mean**2
        return mean, error


def _examples(x: Tensor | None, part: slice, batch: int) -> Tensor | None:
    """The examples of a mask or bias that has a batch dimension of its own."""
    return x[part] if x is not None and x.dim() == 4 and x.shape[0] == batch and batch > 1 else x


def _squared_errors(by_row: Tensor, queries: int) -> Tensor:
    """Variance of the sums [N, H] when the rows are a simple random sample, as for a ratio of two sums.

    All examples share the rows, so the row positions are what was sampled: with y_r and c_r the sum and the count of
    position r, m of M positions and the mean y / c, the variance is m / (m - 1) sum_r (y_r - (y / c) c_r)^2 (1 - m / M)
    (Cochran 1977, section 6).
    """
    count, values = by_row[0], by_row[1:]
    m = by_row.shape[-1]
    if m >= queries:
        return torch.zeros_like(values[..., 0])
    ratio = values.sum(-1, keepdim=True) / count.sum(-1, keepdim=True).clamp(min=1)
    residual = values - ratio * count
    if m < 2:
        return torch.full_like(values[..., 0], math.nan)
    return residual.square().sum(-1) * (m / (m - 1) * (1 - m / queries))


def _whole(step: int, key: str, values: Array, errors: Array, sums: dict[str, Array]) -> Any:
    """One number of the model: mean over heads, then over layers, with the reason when there is none."""
    heard = [np.nanmean(row) for row in values if not np.isnan(row).all()]
    if not heard:
        rows = sum(float(array[0].sum()) for array in sums.values())
        finite = all(np.isfinite(array).all() for array in sums.values())
        reason = "n_lt_2" if rows == 0 else "non_finite" if not finite else "degenerate"
        return number(step, key, math.nan, reason=reason)
    error = None
    if np.isfinite(errors).any():
        # Heads of a layer share their rows, so their errors do not average out; layers draw for themselves.
        of_layers = [np.nanmean(row) for row in errors if np.isfinite(row).any()]
        error = float(np.sqrt(np.sum(np.square(of_layers))) / len(of_layers))
    return number(step, key, float(np.mean(heard)), reason="non_finite", error=error)
