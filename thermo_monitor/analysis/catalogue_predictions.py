"""Analyses of what a model predicts, as ``catalogue`` has them by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from thermo_monitor.analysis import convexity, distances, entropy_scan, parallel
from thermo_monitor.analysis import prompt_entropy as prompts
from thermo_monitor.analysis.material import Material
from thermo_monitor.analysis.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _DARK = "#56A5DC", "#1A1A1A"


def entropy(material: Material) -> Result:
    """Entropy function of every prompt."""
    records = list(
        prompts.prompt_entropy(
            material.face,
            [one.ids for one in material.encoded],
            tokenizer=material.loaded.tokenizer,
            seed=material.seed,
        )
    )
    found = entropy_scan.summary(records)
    names = ("entropy", "error", "surprisal", "next_entropy", "length", "truncated", "status", "reason")
    rows = [
        (given.index, _words(given.given), *(getattr(record, name) for name in names))
        for given, record in zip(material.encoded, records, strict=True)
    ]
    values = [record.entropy for record in records if math.isfinite(record.entropy)]

    def draw(axes: Axes) -> None:
        axes.hist(values, bins=30, color=_BLUE)
        axes.set(xlabel="entropy function S_L [nats]", ylabel="prompts")

    summary = {
        "prompts": found.prompts, "read": found.read, "undefined": found.undefined, "mean": found.mean,
        "error": found.error, "truncated": found.truncated, "lower_bounds": found.lower_bounds,
        "shares_below": found.shares,
    }  # fmt: skip
    return Result(summary, ("index", "prompt", *names), rows, draw if values else None)


def ensemble(material: Material) -> Result:
    """Entropies of parallel generations from the first prompt."""
    first = material.readable[0]
    found = parallel.ensemble_entropy(material.face, first.ids, runs=30, tokens=64, seed=material.seed)
    names = ("conditional", "marginal", "gap", "jackknife", "error", "logit_variance")
    rows = [(t, *(float(getattr(found, name)[t]) for name in names)) for t in range(len(found.marginal))]

    def draw(axes: Axes) -> None:
        axes.plot(found.marginal, color=_DARK, label="marginal")
        axes.plot(found.conditional, color=_BLUE, label="conditional")
        axes.set(xlabel="position", ylabel="entropy [nats]")
        axes.legend(frameon=False)

    summary = {
        "prompt": _words(first.given), "runs": found.runs, "reason": found.reason,
        "marginal": float(found.marginal.mean()) if rows else math.nan,
        "gap": float(found.gap.mean()) if rows else math.nan, "events": [event.message for event in found.events],
    }  # fmt: skip
    return Result(summary, ("position", *names), rows, draw)


def mixtures(material: Material) -> Result:
    """The sign of the entropy gap of mixed prompts."""
    found = convexity.convexity_probe(material.loaded.model, material.ids, seed=material.seed)

    def draw(axes: Axes) -> None:
        axes.hist(found.gaps, bins=30, color=_BLUE)
        axes.axvline(0, color=_DARK, lw=1)
        axes.set(xlabel="g = S(mixture) - mean S [nats]", ylabel="pairs of prompts")

    summary = {
        "mean": found.mean, "positive": found.positive, "negative": found.negative, "quantiles": found.quantiles,
        "entropy": "of the next token", "note": "neither sign is claimed",
    }  # fmt: skip
    return Result(summary, ("pair", "gap"), list(enumerate(found.gaps.tolist())), draw)


def models(material: Material) -> Result:
    """Distances from other models or checkpoints."""
    if not material.others:
        return Result(undefined="distances of models need others: give them with --against")
    everyone = (material.loaded, *material.others)
    found = distances.model_distances(
        [one.model for one in everyone],
        [one.ids for one in material.encoded],
        names=[one.name for one in everyone],
    )
    rows = [
        (found.names[j], found.names[i], *(x[m][i, j] for m in distances.METRICS for x in (found.mean, found.largest)))
        for i in range(len(everyone))
        for j in range(i)
    ]
    columns = ("model", "other", *(f"{m}_{kind}" for m in distances.METRICS for kind in ("mean", "largest")))
    mapped = distances.embed(found.mean["fisher_rao"])

    def draw(axes: Axes) -> None:
        axes.plot(*mapped.points.T, "o-", color=_DARK, ms=4, lw=0.8)
        for name, point in zip(found.names, mapped.points, strict=True):
            axes.annotate(name[-24:], point, fontsize=7, xytext=(4, 4), textcoords="offset points")
        axes.set(
            xlabel=f"map of Fisher-Rao distances, stress {mapped.stress:.2f}", aspect="equal", adjustable="datalim"
        )

    summary = {"models": found.names, "prompts": found.prompts, "unread": found.unread, "map": mapped}
    return Result(summary, columns, rows, draw)


def _words(given: str | Sequence[int]) -> str:
    return given if isinstance(given, str) else " ".join(map(str, given))
