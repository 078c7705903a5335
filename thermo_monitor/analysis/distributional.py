"""The distributional hypothesis as a number: do prompts that lie close have close continuations?

Over all pairs of prompts, the rank correlation (Spearman) of the distance of their next-token distributions with the
distance of their embeddings. That a correlation exists is no surprise for the last block, which the predictions are a
function of; the earlier a block, the more it says. (The generalised hypothesis of Yang 2024, arXiv:2407.21092, as a
rank correlation: a reconstruction.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from thermo_monitor.analysis.capture import hearing
from thermo_monitor.analysis.intervals import Interval, percentile_interval
from thermo_monitor.physics.information import fisher_rao_distance

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """One block.

    Attributes:
        layer: ``input`` or a block.
        correlation: Spearman's, with its interval over prompts.
        by_chance: the 95 % quantile of the absolute correlation when prompts are permuted (Mantel 1967).
    """

    layer: str
    correlation: Interval
    by_chance: float


def rank_correlation(
    a: Array, b: Array, *, layer: str = "", resamples: int = 500, seed: int = 0, level: float = 0.95
) -> RankCorrelation:
    """Spearman correlation of two matrices of distances over pairs.

    The pairs of one prompt depend on each other, so prompts are resampled, not pairs; a pair of a prompt with itself,
    which a resample may hold, is left out.

    Args:
        a: [N, N] distances, N >= 4.
        b: the same of another kind.
        layer: name that is passed on.
        resamples: of the interval, and of the permutations.
        seed: of both.
        level: confidence.

    Returns:
        The correlation; NaN where all distances of a kind are equal.

    Raises:
        ValueError: the matrices differ in shape or are too small.

    Example:
        >>> d = np.abs(np.subtract.outer(np.arange(6.0) ** 2, np.arange(6.0) ** 2))
        >>> rank_correlation(d, d**3).correlation.value.__round__(9)
        1.0
    """
    if a.shape != b.shape or a.ndim != 2 or len(a) < 4:
        raise ValueError(f"matrices of shapes {a.shape} and {b.shape}: give two [N, N], N at least 4")
    n = len(a)
    above = np.triu_indices(n, 1)
    rng = np.random.default_rng(seed)
    value = _spearman(a[above], b[above])
    resampled, permuted = [], []
    ranks = np.zeros((n, n))  # a permutation of the prompts permutes the ranks
    ranks[above] = stats.rankdata(b[above])
    ranks += ranks.T
    first = stats.rankdata(a[above])
    for _ in range(resamples):
        pick = rng.integers(n, size=n)
        i, j = pick[above[0]], pick[above[1]]
        other = i != j
        resampled.append(_spearman(a[i[other], j[other]], b[i[other], j[other]]))
        order = rng.permutation(n)
        permuted.append(abs(_pearson(first, ranks[np.ix_(order, order)][above])))
    chance = float(np.nanquantile(permuted, level)) if np.isfinite(permuted).any() else math.nan
    return RankCorrelation(layer, percentile_interval(value, resampled, n, level), chance)


def distributional_hypothesis(
    model: nn.Module, ids: Tensor, *, pool: str = "mean", resamples: int = 500, seed: int = 0, batch: int = 32
) -> list[RankCorrelation]:
    """The check for what enters the first block and what leaves each.

    Args:
        model: a causal language model whose blocks can be heard.
        ids: [N, T] different prompts of one length, N >= 4.
        pool: the embedding of a prompt: the ``mean`` over its tokens, or the ``last`` token.
        resamples: see ``rank_correlation``.
        seed: the same.
        batch: prompts of one pass.

    Returns:
        One entry per layer: Fisher-Rao distance of next-token distributions against Euclidean distance of embeddings.

    Raises:
        ValueError: too few prompts, or an unknown pool.
    """
    if pool not in ("mean", "last"):
        raise ValueError(f"pool={pool!r}: give 'mean' or 'last'")
    ids = torch.unique(ids, dim=0)  # the same prompt twice has distance 0 in every sense
    if ids.dim() != 2 or len(ids) < 4:
        raise ValueError(f"{len(ids)} different prompts: a correlation over pairs needs at least 4")
    outputs: list[Tensor] = []
    points: dict[str, list[Tensor]] = {}
    with hearing(model) as hear:
        for part in (ids[at : at + batch] for at in range(0, len(ids), batch)):
            heard = hear(part)
            logits = getattr(heard.output, "logits", heard.output)
            outputs.append(torch.softmax((logits[:, -1] if logits.dim() == 3 else logits).double().cpu(), -1))
            for layer, hidden in heard.hidden.items():
                z = hidden.double()
                points.setdefault(layer, []).append(z.mean(1) if pool == "mean" else z[:, -1])
    p = torch.cat(outputs)
    apart = torch.stack([fisher_rao_distance(one.expand_as(p), p) for one in p]).numpy()
    return [
        rank_correlation(torch.cdist(z, z).numpy(), apart, layer=layer, resamples=resamples, seed=seed)
        for layer, z in ((layer, torch.cat(parts)) for layer, parts in points.items())
    ]


def _spearman(x: Array, y: Array) -> float:
    return _pearson(stats.rankdata(x), stats.rankdata(y))


def _pearson(x: Array, y: Array) -> float:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])
