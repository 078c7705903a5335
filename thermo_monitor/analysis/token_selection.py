"""Which of the tokens before it explain the last one: sparse regression beside attention, over many sentences.

The representation of the last token is regressed on those of the tokens before it, ``x_T = sum_i a_i x_i`` (unit rows),
by Lasso, ridge and elastic net, and |a| is compared with the head-mean attention of the last query. One sentence shows
anything; the answer is a mean over sentences with its interval, beside what chance gives.

Two baselines are measured along. ``by_chance`` is the Jaccard index of random sets of the same size. ``mismatched`` is
the agreement of |a| with the attention of *another* sentence of the same length: what positions alone explain, since
both recent tokens and the first one are favoured whatever they say.

The method is that of Tan, Li & Huang 2024 (arXiv:2402.03471), known second-hand; the scaling of the loss is ours.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet, Lasso, Ridge
from torch import Tensor, nn

from thermo_monitor.analysis.capture import INPUT, hearing
from thermo_monitor.analysis.intervals import Interval, mean_interval

Array = NDArray[np.float64]
METHODS = ("lasso", "ridge", "elastic_net")
_TOLERANCE, _ROUNDS = 1e-6, 20_000


@dataclass(frozen=True, slots=True)
class Agreement:
    """One method in one layer.

    Attributes:
        layer: the block.
        method: of ``METHODS``.
        jaccard: top-k Jaccard index of selected and attended tokens.
        by_chance: the same for random sets.
        jaccard_mismatched: the same with the attention of another sentence.
        spearman: rank correlation of |a| and attention over the tokens.
        spearman_mismatched: the same with the attention of another sentence.
        gain: jaccard less jaccard_mismatched, sentence by sentence: what is left when positions are taken out.
        support: mean number of tokens with a coefficient.
        unexplained: mean of ``|x_T - sum a_i x_i|^2``, 1 for no explanation.
        converged: share of the fits that reached their tolerance; the others are left out.
    """

    layer: str
    method: str
    jaccard: Interval
    by_chance: float
    jaccard_mismatched: Interval
    spearman: Interval
    spearman_mismatched: Interval
    gain: Interval
    support: float
    unexplained: float
    converged: float


def coefficients(z: Array, x: Array, method: str, lam: float = 1e-4) -> tuple[Array, bool]:
    """Coefficients of a token over others; all three losses are scaled alike.

    ``|x - z^T a|^2 / (2 d) + lam R(a)`` with R = |a|_1 (lasso), |a|^2 / 2 (ridge), or half of each (elastic_net).
    Without the 1/(2 d) the same lam would be another method.

    Args:
        z: [n, d] the tokens.
        x: [d] the one to be explained.
        method: of ``METHODS``.
        lam: weight of the penalty.

    Returns:
        [n] coefficients, and whether the fit reached its tolerance.

    Raises:
        ValueError: for an unknown method.

    Example:
        Orthogonal tokens: the Lasso takes lam d off every product.

        >>> a, converged = coefficients(np.eye(4)[:2], np.array([0.5, 0.1, 0.0, 0.7]), "lasso", lam=0.05)
        >>> a.round(9).tolist(), converged
        ([0.3, 0.0], True)
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}: give one of {', '.join(METHODS)}")
    d = len(x)
    fit: Any
    if method == "ridge":
        fit = Ridge(alpha=d * lam, fit_intercept=False, solver="cholesky")
    elif method == "lasso":
        fit = Lasso(alpha=lam, fit_intercept=False, tol=_TOLERANCE, max_iter=_ROUNDS)
    else:
        fit = ElasticNet(alpha=lam, l1_ratio=0.5, fit_intercept=False, tol=_TOLERANCE, max_iter=_ROUNDS)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ConvergenceWarning)
        fit.fit(z.T, x)
    return np.asarray(fit.coef_, dtype=np.float64), not any(issubclass(w.category, ConvergenceWarning) for w in said)


def top_jaccard(a: Array, weights: Array, k: int) -> float:
    """Jaccard index of the k largest |a| and the k largest weights.

    Where fewer than k coefficients are not 0, k is their number.

    Returns:
        In [0, 1]; NaN if all coefficients are 0.

    Example:
        >>> top_jaccard(np.array([0.0, 3.0, -2.0, 1.0]), np.array([0.1, 0.2, 0.3, 0.4]), k=2)
        0.3333333333333333
    """
    size = np.abs(a)
    k = min(k, int((size > 0).sum()))
    if k == 0:
        return math.nan
    chosen, attended = (set(np.argsort(-x, kind="stable")[:k].tolist()) for x in (size, weights))
    return len(chosen & attended) / len(chosen | attended)


def jaccard_by_chance(n: int, k: int) -> float:
    """Mean Jaccard index of two random sets of k out of n.

    Example:
        >>> jaccard_by_chance(2, 1), jaccard_by_chance(5, 5)
        (0.5, 1.0)
    """
    if not 0 < k <= n:
        return math.nan
    j = np.arange(k + 1)
    return float((stats.hypergeom.pmf(j, n, k, k) * j / (2 * k - j)).sum())


def token_selection(
    model: nn.Module, ids: Tensor, *, k: int = 5, lam: float = 1e-4, layers: tuple[str, ...] = (), batch: int = 32
) -> list[Agreement]:
    """Agreement of selected and attended tokens, for each block and method.

    Args:
        model: whose blocks and attention can be heard.
        ids: [N, T] sentences of one length, at least 2 sentences of at least 3 tokens.
        k: size of the compared sets.
        lam: weight of the penalties, see ``coefficients``.
        layers: names of blocks; empty: all whose attention was heard.
        batch: sentences read at a time.

    Returns:
        One entry per block and method. Attention of a block is the mean over its heads, and over its attentions if
        there are several; the last token's attention to itself is left out.

    Raises:
        ValueError: too few or too short sentences, or no attention was heard.
    """
    if ids.dim() != 2 or ids.shape[0] < 2 or ids.shape[1] < 3:
        raise ValueError(f"ids of shape {tuple(ids.shape)}: give [N, T], at least 2 sentences of at least 3 tokens")
    states: dict[str, list[Array]] = {}
    attention: dict[str, list[Array]] = {}
    with hearing(model) as hear:
        for part in (ids[at : at + batch] for at in range(0, len(ids), batch)):
            heard = hear(part)
            for layer, hidden in heard.hidden.items():
                inside = [w for name, w in heard.attention.items() if f"{name}.".startswith(f"{layer}.")]
                if layer == INPUT or not inside or (layers and layer not in layers):
                    continue
                mean = torch.stack([w.double().mean(1) for w in inside]).mean(0)
                attention.setdefault(layer, []).append(mean[:, :-1].numpy())
                states.setdefault(layer, []).append(hidden.double().numpy())
    if not states:
        raise ValueError("no attention of a block was heard, so there is nothing to compare with")
    out = []
    for layer in states:
        z, weights = np.concatenate(states[layer]), np.concatenate(attention[layer])
        out += [agreement(z, weights, method, layer, k, lam) for method in METHODS]
    return out


def agreement(z: Array, weights: Array, method: str, layer: str = "", k: int = 5, lam: float = 1e-4) -> Agreement:
    """Agreement of one method with given weights.

    Args:
        z: [N, T, d] representations; the last token of each sentence is explained.
        weights: [N, T-1] attention of the last query to the tokens before it.
        method: of ``METHODS``.
        layer: name that is passed on.
        k: size of the compared sets.
        lam: weight of the penalty.
    """
    count, n = len(z), z.shape[1] - 1
    other = np.roll(np.arange(count), 1)  # every sentence gets the attention of another
    rows = np.full((count, 7), math.nan)
    good = 0
    for i, sentence in enumerate(_unit(z)):
        if not np.isfinite(sentence).all():
            continue
        a, converged = coefficients(sentence[:-1], sentence[-1], method, lam)
        good += converged
        if not converged:
            continue
        support = int((np.abs(a) > 0).sum())
        rest = sentence[-1] - sentence[:-1].T @ a
        mine, others = top_jaccard(a, weights[i], k), top_jaccard(a, weights[other[i]], k)
        chance = jaccard_by_chance(n, min(k, support))
        ranks = (_spearman(np.abs(a), weights[i]), _spearman(np.abs(a), weights[other[i]]))
        rows[i] = (mine, others, *ranks, chance, support, rest @ rest)
    return Agreement(
        layer,
        method,
        mean_interval(rows[:, 0]),
        _mean(rows[:, 4]),
        mean_interval(rows[:, 1]),
        mean_interval(rows[:, 2]),
        mean_interval(rows[:, 3]),
        mean_interval(rows[:, 0] - rows[:, 1]),
        _mean(rows[:, 5]),
        _mean(rows[:, 6]),
        good / count,
    )


def _unit(z: Array) -> Array:
    length = np.linalg.norm(z, axis=-1, keepdims=True)
    return z / np.where(length > 0, length, 1.0)


def _mean(x: Array) -> float:
    x = x[np.isfinite(x)]
    return float(x.mean()) if len(x) else math.nan


def _spearman(a: Array, b: Array) -> float:
    """Rank correlation; NaN where one side is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])
