"""From the sums of every head to readings and maps: on the host, all quantities of all layers at once."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from thermo_monitor.physics.heads import HeadSums
from thermo_monitor.physics.moments import Moments
from thermo_monitor.probes.base import Array, Map, Measured, number

TEMPERATURE, POOLED = "attn/reduced_temperature", "attn/specific_heat_pooled"


def name_of(key: str) -> str:
    """The quantity of a row that a reading is a mean of."""
    return "logit_std" if key == TEMPERATURE else key.removeprefix("attn/")


def attention_readings(
    step: int,
    keys: Sequence[str],
    names: tuple[str, ...],
    sums: Mapping[str, Array],
    errors: Mapping[str, Array],
    moments: Sequence[Array],
    layers: tuple[str, ...],
) -> Measured:
    """Means over rows for each head, then over heads, then over layers. Nothing that is not finite is averaged away.

    Args:
        step: of the readings.
        keys: of the readings that are wanted.
        names: N quantities of a row.
        sums: by site, [1 + N, H]: the count of rows, and the sums over them.
        errors: by site, [N, H + 1] squared standard errors of these sums; empty where no rows are drawn.
        moments: [3, H] of every site, where all logits are pooled.
        layers: the rows of the maps, all sites among them.
    """
    heads, rows = max(site.shape[1] for site in sums.values()), 0.0
    means = np.full((len(names), len(layers), heads), np.nan)
    finite = np.ones(len(names), bool)
    # A call of numpy takes as long as the arithmetic of a few rows of a few heads, so there are few: [quantity, layer].
    with np.errstate(invalid="ignore", divide="ignore"):
        for name, site in sums.items():
            count, total = site[0], site[1:]
            means[:, layers.index(name), : len(count)] = total / count
            finite &= np.isfinite(total).all(1) & np.isfinite(count).all()
            rows += float(count.sum())
        single = [key for key in keys if key != POOLED]
        values = means[[names.index(name_of(key)) for key in single]]
        if TEMPERATURE in single:
            spread = values[single.index(TEMPERATURE)]
            spread[...] = 1 / np.where(spread > 0, spread, np.nan)
        present = ~np.isnan(values)
        counts = present.sum(2)
        of_layers = np.where(present, values, 0.0).sum(2) / counts
        heard = counts > 0
        wholes = np.where(heard, of_layers, 0.0).sum(1) / heard.sum(1)
    out = Measured()
    for key in keys:
        if key == POOLED:
            pooled = _pooled(moments)
            reason = "non_finite" if float(pooled.count) >= 2 else "n_lt_2"
            out.readings.append(number(step, key, float(pooled.variance()), reason=reason))
            continue
        at = single.index(key)
        usable = bool(finite[names.index(name_of(key))])
        reason = "n_lt_2" if rows == 0 else "non_finite" if not usable else "degenerate"
        error = _error(key, names, sums, errors, int(heard[at].sum())) if errors else None
        whole = float(wholes[at]) if usable else math.nan
        out.maps.append(Map(key, values[at], layers))
        out.readings.append(number(step, key, whole, reason=reason, error=error))
    return out


def _error(
    key: str, names: tuple[str, ...], sums: Mapping[str, Array], errors: Mapping[str, Array], layers: int
) -> float | None:
    """Standard error of a mean over layers, which draw for themselves, so that their errors are independent."""
    found = []
    for name, squared in errors.items():
        site, error = (torch.from_numpy(array.copy()) for array in (sums[name], squared))
        found.append(_error_of_heads(key, HeadSums(names, site[0], site[1:], error)))
    known = [error for error in found if math.isfinite(error)]
    return math.sqrt(sum(e * e for e in known)) / layers if known and layers else None


def _error_of_heads(key: str, sums: HeadSums) -> float:
    """Standard error of the mean of a quantity over the heads of one layer."""
    name = name_of(key)
    error = float(sums.standard_error_of_all(name))
    if key != TEMPERATURE:
        return error
    # Carried over from the spread of the logits, as if the heads were as correlated in the one as in the other.
    mean, single = sums.mean(name).numpy(), sums.standard_error(name).numpy()
    mean = np.where(mean > 0, mean, np.nan)
    if not np.nansum(single) > 0:
        return error
    with np.errstate(invalid="ignore", divide="ignore"):
        return error * float(np.nanmean(single / mean**2) / np.nanmean(single))


def _pooled(arrays: Sequence[Array]) -> Moments:
    """Moments of all logits of all heads and layers."""
    parts = [Moments(*torch.from_numpy(array.copy())).pooled(0) for array in arrays]
    return functools.reduce(Moments.merge, parts)
