"""Analyses of the representations inside a model, as ``catalogue`` has them by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from thermo_monitor.analysis import distributional, token_selection
from thermo_monitor.analysis.capture import hearing
from thermo_monitor.analysis.intervals import Interval, mean_interval
from thermo_monitor.analysis.material import Material
from thermo_monitor.analysis.results import Result
from thermo_monitor.analysis.scaling_law import random_tokens
from thermo_monitor.physics import representation as geometry
from thermo_monitor.physics.covariance_distances import DISTANCES, sentence_distances
from thermo_monitor.physics.information_gain import information_gains

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _DARK, _OLIVE = "#56A5DC", "#1A1A1A", "#B5A000"
_BATCH, _PAIRED = 32, 40  # prompts of a pass; prompts whose pairs are all looked at


def layers(material: Material) -> Result:
    """Geometry of the representations of every block, beside its null and its cap."""
    hidden = _hidden(material)
    n = material.ids.shape[1]
    names = (
        "representation_entropy",
        "spectral_entropy",
        "effective_rank",
        "participation_ratio",
        "head_tail_contrast",
    )
    rows: list[tuple[Any, ...]] = []
    found = {}
    for layer, z in hidden.items():
        lam, d = geometry.spectrum(z), z.shape[-1]
        each = (
            geometry.representation_entropy(z), geometry.spectral_entropy(lam, d), geometry.effective_rank(lam),
            geometry.participation_ratio(lam), geometry.head_tail_contrast(lam),
        )  # fmt: skip
        found[layer] = [mean_interval(values.numpy(), seed=material.seed) for values in each]
        null = float(random_tokens(d, n, seed=material.seed).mean())
        cap = geometry.representation_entropy_cap(n, d)
        intervals = [x for one in found[layer] for x in (one.value, one.low, one.high)]
        rows.append((layer, d, n, len(z), null, cap, *intervals))
    ends = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    columns = ("layer", "width", "tokens", "prompts", "random_tokens", "cap", *ends)

    def draw(axes: Axes) -> None:
        _errorbars(axes, [one[0] for one in found.values()])
        axes.plot([row[4] for row in rows], ls=":", color=_OLIVE, label="random tokens")
        axes.plot([row[5] for row in rows], ls="--", color="0.6", label=f"cap of {n} tokens")
        axes.set(ylabel="representation entropy H_norm", ylim=(0, None))
        axes.set_xticks(range(len(rows)), [row[0] for row in rows], rotation=30, ha="right", fontsize=8)
        axes.legend(frameon=False)

    last = {name: one for name, one in zip(names, found[rows[-1][0]], strict=True)}
    note = "compares at equal width and length only"
    return Result({"tokens": n, "prompts": len(material.ids), "last_block": last, "note": note}, columns, rows, draw)


def gain(material: Material) -> Result:
    """What a token adds to those before it, position by position, in the last block."""
    gains = information_gains(_unit(list(_hidden(material).values())[-1])).numpy()
    found = [mean_interval(column, seed=material.seed) for column in gains.T]
    rows = [(t, one.value, one.low, one.high, one.count) for t, one in enumerate(found)]

    def draw(axes: Axes) -> None:
        _errorbars(axes, found)
        axes.set(xlabel="position", ylabel="information gain [nats]", ylim=(0, None))

    total = mean_interval(gains.sum(1), seed=material.seed)
    return Result({"sum_over_positions": total}, ("position", "gain", "low", "high", "prompts"), rows, draw)


def selection(material: Material) -> Result:
    """Selected against attended tokens."""
    found = token_selection.token_selection(material.loaded.model, material.ids)
    columns = (
        "layer", "method", "jaccard", "jaccard_low", "jaccard_high", "by_chance", "jaccard_mismatched", "gain",
        "gain_low", "gain_high", "spearman", "spearman_low", "spearman_high", "spearman_mismatched", "support",
        "unexplained", "converged",
    )  # fmt: skip
    rows = [
        (
            one.layer, one.method, *_ends(one.jaccard), one.by_chance, one.jaccard_mismatched.value, *_ends(one.gain),
            *_ends(one.spearman), one.spearman_mismatched.value, one.support, one.unexplained, one.converged,
        )
        for one in found
    ]  # fmt: skip
    lasso = [one for one in found if one.method == "lasso"]

    def draw(axes: Axes) -> None:
        _errorbars(axes, [one.jaccard for one in lasso], "Lasso")
        axes.plot([one.jaccard_mismatched.value for one in lasso], "_", ms=14, color=_BLUE, label="another sentence")
        axes.plot([one.by_chance for one in lasso], ls=":", color="0.6", label="random tokens")
        axes.set(ylabel="top-5 Jaccard index with attention", ylim=(0, 1))
        axes.set_xticks(range(len(lasso)), [one.layer for one in lasso], rotation=30, ha="right", fontsize=8)
        axes.legend(frameon=False)

    summary = {"sentences": len(material.ids), "k": 5, "lambda": 1e-4, "loss": "|x - X^T a|^2/(2d) + lambda |a|_1"}
    return Result(summary, columns, rows, draw)


def sentences(material: Material) -> Result:
    """Distances of sentences in the last block."""
    if len(material.readable) < 2:
        return Result(undefined="distances of sentences need 2 prompts")
    some = material.readable[:_PAIRED]
    clouds = []
    with hearing(material.loaded.model) as hear:
        for one in some:
            clouds.append(_unit(list(hear(torch.tensor([one.ids])).hidden.values())[-1])[0])
    rows = []
    matrix = np.zeros((len(some), len(some)))
    for i in range(len(some)):
        for j in range(i):
            d = {name: float(value) for name, value in sentence_distances(clouds[i], clouds[j]).items()}
            matrix[i, j] = matrix[j, i] = d["jensen_shannon"]
            rows.append((some[j].index, some[i].index, *(d[name] for name in DISTANCES)))
    means = {name: float(np.nanmean([row[2 + k] for row in rows] or [math.nan])) for k, name in enumerate(DISTANCES)}

    def draw(axes: Axes) -> None:
        axes.figure.colorbar(axes.imshow(matrix, vmin=0), ax=axes, label="matrix Jensen-Shannon divergence [nats]")
        axes.set(xlabel="prompt", ylabel="prompt")

    summary = {"prompts": len(some), "of": len(material.readable), "mean": means, "ridge": 1e-6}
    return Result(summary, ("prompt", "other", *DISTANCES), rows, draw)


def neighbours(material: Material) -> Result:
    """Whether prompts that lie close are continued alike."""
    found = distributional.distributional_hypothesis(material.loaded.model, material.ids, seed=material.seed)
    rows = [(one.layer, *_ends(one.correlation), one.by_chance, one.correlation.count) for one in found]

    def draw(axes: Axes) -> None:
        _errorbars(axes, [one.correlation for one in found])
        axes.plot([one.by_chance for one in found], ls=":", color="0.6", label="95 % of permutations")
        axes.axhline(0, color="0.8", lw=0.8)
        axes.set(ylabel="rank correlation of distances")
        axes.set_xticks(range(len(found)), [one.layer for one in found], rotation=30, ha="right", fontsize=8)
        axes.legend(frameon=False)

    return Result({"pool": "mean"}, ("layer", "correlation", "low", "high", "by_chance", "prompts"), rows, draw)


def _hidden(material: Material) -> dict[str, torch.Tensor]:
    """Layer -> [N, n, d] of the prompts of equal length."""
    parts: dict[str, list[torch.Tensor]] = {}
    with hearing(material.loaded.model) as hear:
        for at in range(0, len(material.ids), _BATCH):
            for layer, z in hear(material.ids[at : at + _BATCH]).hidden.items():
                parts.setdefault(layer, []).append(z)
    return {layer: torch.cat(some) for layer, some in parts.items()}


def _unit(z: torch.Tensor) -> torch.Tensor:
    length = torch.linalg.vector_norm(z.double(), dim=-1, keepdim=True)
    return z.double() / torch.where(length > 0, length, 1.0)


def _ends(one: Interval) -> tuple[float, float, float]:
    return one.value, one.low, one.high


def _errorbars(axes: Any, found: Sequence[Interval], label: str | None = None) -> None:
    y = np.array([one.value for one in found])
    ends = np.array([[one.value - one.low, one.high - one.value] for one in found]).T
    axes.errorbar(range(len(y)), y, np.nan_to_num(ends).clip(min=0), fmt="o", ms=4, color=_DARK, label=label)
