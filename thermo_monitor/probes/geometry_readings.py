"""Readings of the geometry of attention, from what arrived on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from thermo_monitor import physics
from thermo_monitor.physics.kappa import OctaveSums
from thermo_monitor.probes.base import Array, Map, Measured, number
from thermo_monitor.probes.paths import ROWS, mean
from thermo_monitor.records import Reading

OF_ROWS = {
    "geom/fisher_rao_distance": "distance",
    "geom/kinetic_time": "square",
    "geom/lagrangian": "gap",
    "geom/thermo_length": "length",
    "geom/thermo_length_coarse": "coarse",
    "geom/thermo_divergence": "divergence",
    "geom/path_efficiency": "efficiency",
    "geom/heat": "heat",
    "geom/work": "work",
    "geom/dissipation": "dissipation",
    "geom/work_inference": "inference",
    "geom/work_learning": "learning",
}
DEPTH = "geom/kinetic_depth"
KAPPA = tuple(f"geom/kappa_{name}{end}" for name in physics.CANDIDATES for end in ("", "_spread"))
FLAT, MASS, SPECTRUM, SHIFT = (
    "geom/rope_flat_residual", "geom/rope_mass", "geom/rope_mass_spectrum", "geom/rope_shift_response",
)  # fmt: skip
ROTARY = (FLAT, MASS, SPECTRUM, SHIFT)
ALL_GEOMETRY: tuple[str, ...] = (*OF_ROWS, DEPTH, *KAPPA, *ROTARY)
_TIMED = ("geom/kinetic_time", "geom/lagrangian")


class Facts(NamedTuple):
    """What is known on the host of a measurement.

    Attributes:
        number: of the measurement, from 0.
        moved: layers that have a reading before this one.
        depth: layers that a comparable one follows.
        rotary: layers whose rotary planes were read.
        counted: whether context lengths were.
    """

    number: int
    moved: tuple[str, ...]
    depth: tuple[str, ...]
    rotary: tuple[str, ...]
    counted: bool


def readings(
    quantities: Sequence[str],
    step: int,
    before: int | None,
    layers: tuple[str, ...],
    facts: Facts,
    arrays: Sequence[Array],
) -> Measured:
    """What a measurement says.

    Args:
        quantities: keys asked for.
        step: of the measurement.
        before: step of the measurement before it, if there was one.
        layers: rows of the maps.
        facts: what was sent.
        arrays: that.
    """
    given = iter(arrays)
    moved = {name: _from(next(given)) for name in facts.moved}
    depth = {name: _from(next(given)) for name in facts.depth}
    turned = {name: [_from(next(given)) for _ in range(3)] for name in facts.rotary}
    octaves = _from(next(given)) if facts.counted else None
    out = Measured()
    for key in quantities:
        if key in OF_ROWS:
            per_head = {name: _of_rows(key, sums, before, step) for name, sums in moved.items()}
            _put(out, step, key, layers, per_head, _why(key, moved, before))
        elif key == DEPTH:
            per_layer = {name: mean(sums.unsqueeze(-1)) for name, sums in depth.items()}
            _put(out, step, key, layers, per_layer, "non_finite" if depth else "one_layer")
        elif key in KAPPA:
            out.readings.append(_kappa(step, key, octaves))
        else:
            _put_turned(out, step, key, layers, turned, "non_finite" if turned else "no_rotary")
    if not layers:
        out.readings = [number(step, key, math.nan, reason="no_attention") for key in quantities]
    return out


def _why(key: str, moved: dict[str, Tensor], before: int | None) -> str:
    """Why a reading of the path may be absent."""
    if not moved or (before is None and key in _TIMED):
        return "too_early"
    rows = sum(float(sums[ROWS.index(OF_ROWS[key]), 0].sum()) for sums in moved.values())
    if rows:
        return "non_finite"
    if not sum(float(sums[0, 0].sum()) for sums in moved.values()):
        return "n_lt_2"
    return {"efficiency": "degenerate", "coarse": "too_early"}.get(OF_ROWS[key], "one_input")


def _from(array: Array) -> Tensor:
    return torch.from_numpy(array.copy())


def _of_rows(key: str, sums: Tensor, before: int | None, step: int) -> Tensor:
    """[H] mean over rows of a quantity, in its own unit of time."""
    value = mean(sums[ROWS.index(OF_ROWS[key])])
    if key not in _TIMED:
        return value
    if before is None or step <= before:
        return torch.full_like(value, math.nan)
    kinetic = mean(sums[ROWS.index("square")]) / (2 * (step - before) ** 2)
    return kinetic if key == "geom/kinetic_time" else kinetic + value


def _put(out: Measured, step: int, key: str, layers: tuple[str, ...], per_head: dict[str, Tensor], reason: str) -> None:
    """A map, and one number: the mean over heads, then over layers. Nothing that is not finite is averaged away."""
    values = np.full((len(layers), max((len(x) for x in per_head.values()), default=1)), np.nan)
    for name, x in per_head.items():
        values[layers.index(name), : len(x)] = x.numpy()
    if per_head:
        out.maps.append(Map(key, values, layers))
    heard = [float(x.mean()) for x in per_head.values()]
    out.readings.append(number(step, key, float(np.mean(heard)) if heard else math.nan, reason=reason))


def _kappa(step: int, key: str, octaves: Tensor | None) -> Reading:
    if octaves is None:
        return number(step, key, math.nan, reason="no_attention")
    name = key.removeprefix("geom/kappa_").removesuffix("_spread")
    sums = OctaveSums(*octaves[list(physics.CANDIDATES).index(name)])
    found = physics.kappa_surrogate(sums)
    finite = bool(octaves.isfinite().all())
    reason = "non_finite" if not finite else "few_octaves"
    if key.endswith("_spread"):
        return number(step, key, float(found.spread_ratio), reason=reason)
    error = float(found.slope_error)
    return number(step, key, float(found.slope), reason=reason, error=error if math.isfinite(error) else None)


def _put_turned(
    out: Measured, step: int, key: str, layers: tuple[str, ...], turned: dict[str, list[Tensor]], reason: str
) -> None:
    if key == FLAT:
        largest = max((float(flat) for *_, flat in turned.values()), default=math.nan)
        out.readings.append(number(step, key, largest, reason=reason))
    elif key == SPECTRUM:
        rows = {f"{name} head {h}": mass[h].numpy() for name, (mass, *_) in turned.items() for h in range(len(mass))}
        if rows:
            out.maps.append(Map(key, np.stack(list(rows.values())), tuple(rows)))
        least = min((float(row.min()) for row in rows.values()), default=math.nan)
        out.readings.append(number(step, key, least, reason=reason))
    else:
        at = 0 if key == MASS else 1
        per_head = {name: parts[at].mean(-1) if key == MASS else parts[at] for name, parts in turned.items()}
        _put(out, step, key, layers, per_head, reason)
