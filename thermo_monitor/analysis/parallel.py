"""B generations side by side from one prompt: entropies by position, and where they explode or collapse.

``conditional`` is what one run knows of its next token, ``marginal`` what is known of it without knowing the run. A
long generation that degrades does so in the marginal first: it collapses when all runs say the same, and explodes when
they say anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thermo_monitor.analysis.generations import Step as Step
from thermo_monitor.analysis.generations import Temperature as Temperature
from thermo_monitor.analysis.generations import generations as generations
from thermo_monitor.analysis.language import Model
from thermo_monitor.analysis.prompts import Given, shown
from thermo_monitor.detect import OnlineDetector
from thermo_monitor.physics import parallel
from thermo_monitor.records import Event

Array = NDArray[np.float64]

_RUNS = (10, 20, 30, 60)


@dataclass(frozen=True)
class EnsembleEntropy:
    """Entropies of parallel generations; arrays [T], one number for each position, nats.

    Attributes:
        runs: B.
        temperature: that was applied.
        conditional: mean entropy of a run's prediction.
        marginal: entropy of the mean prediction.
        gap: marginal less conditional, in [0, ln B].
        jackknife: marginal without its bias of order 1/B; NaN for B = 1.
        error: standard error of ``jackknife`` over the runs.
        extrapolated: marginal at B -> infinity by a straight line in 1/B through ``by_runs``; NaN with less than two
            numbers of runs.
        by_runs: marginal for smaller B, each the mean over disjoint groups of the runs.
        logit_variance: variance of the logits of the model (before the temperature), the cheap companion.
        tokens: [B, T] what was generated.
        events: changes of level: ``details["what"]`` is ``explosion`` or ``collapse``.
        reason: why values are NaN, or what limits them, a key of ``quantities.REASONS``; None: nothing does.
    """

    runs: int
    temperature: Array
    conditional: Array
    marginal: Array
    gap: Array
    jackknife: Array
    error: Array
    extrapolated: Array
    by_runs: dict[int, Array]
    logit_variance: Array
    tokens: NDArray[np.int64]
    events: tuple[Event, ...]
    reason: str | None = None

    @property
    def saturated(self) -> Array:
        """The gap over its limit ln B: near 1, the runs are too few to say how large it is. NaN for B = 1."""
        return self.gap / math.log(self.runs) if self.runs > 1 else np.full_like(self.gap, math.nan)

    @property
    def proxy_correlation(self) -> float:
        """Rank correlation (Spearman) of ``logit_variance`` and ``marginal`` over positions; NaN if one is constant."""
        return spearman(self.logit_variance, self.marginal)


def ensemble_entropy(
    model: Model,
    prompt: Given,
    *,
    tokenizer: Any = None,
    begin: int | None = None,
    runs: int = 60,
    tokens: int = 256,
    temperature: Temperature = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    suppress: Sequence[int] = (),
    seed: int = 0,
    report: Sequence[int] = _RUNS,
    progress: bool = False,
) -> EnsembleEntropy:
    """Generate B runs from a prompt and take the entropies of their predictions at every position.

    No run stops: a stop symbol is a token like others unless it is suppressed. The random numbers of run and position
    follow from the seed alone, so that two temperatures are compared under the same noise.

    Args:
        model: a causal model of transformers, any callable ids -> logits, or one from ``language.adapt``.
        prompt: a text or ids.
        tokenizer: for a text.
        begin: symbol that stands for an empty prompt.
        runs: B; 1 gives the conditional entropy, and a gap of 0.
        tokens: positions that are generated, T; fewer where the model's context ends (``context_exceeded``).
        temperature: one number; one for each position (the last holds on); or a function of position and logits [B, V].
        top_k: see ``sampling.sampling_logits``; what is cut off is no state of the entropies.
        top_p: the same.
        suppress: tokens that are never generated, such as the stop symbol.
        seed: of the noise.
        report: numbers of runs at which the marginal is reported beside B.
        progress: show a progress bar.

    Returns:
        The entropies.

    Raises:
        ValueError: for options out of range and tokens that the model does not have.

    Example:
        >>> def coin(ids):
        ...     return torch.zeros(*ids.shape, 2)
        >>> found = ensemble_entropy(coin, [0], runs=4, tokens=3)
        >>> found.marginal.round(6).tolist(), found.gap.tolist()
        ([0.693147, 0.693147, 0.693147], [0.0, 0.0, 0.0])
    """
    sizes = tuple(sorted({r for r in report if 1 < r < runs} | {runs}))
    rows: list[list[float]] = []
    said: list[Tensor] = []
    steps = generations(
        model, prompt, tokenizer=tokenizer, begin=begin, runs=runs, tokens=tokens, temperature=temperature,
        top_k=top_k, top_p=top_p, suppress=suppress, seed=seed,
    )  # fmt: skip
    for step in shown(steps, progress, "parallel generations", tokens):
        z = step.scaled.double() if step.scaled.device.type != "mps" else step.scaled
        jackknife, error = parallel.jackknife_marginal_entropy(z)
        scalars = [
            parallel.conditional_entropy(z), parallel.marginal_entropy(z), jackknife, error,
            parallel.logit_variance(step.logits), *(_grouped(z, size) for size in sizes),
        ]  # fmt: skip
        rows.append([step.temperature, *torch.stack([s.to(z.dtype) for s in scalars]).tolist()])
        said.append(step.token)
    table = np.array(rows, np.float64).reshape(len(rows), 6 + len(sizes)).T
    conditional, marginal = table[1], table[2]
    by_runs = dict(zip(sizes, table[6:], strict=True))
    reason = "context_exceeded" if len(rows) < tokens else "n_lt_2" if runs < 2 else None
    if not np.isfinite(table[1:3]).all():
        reason = "non_finite"
    words = torch.stack(said, 1).cpu().numpy() if said else np.zeros((runs, 0), np.int64)
    return EnsembleEntropy(
        runs, table[0], conditional, marginal, np.maximum(marginal - conditional, 0.0), table[3], table[4],
        _extrapolated(by_runs), by_runs, table[5], words, changes(marginal, conditional), reason,
    )  # fmt: skip


def _grouped(z: Tensor, size: int) -> Tensor:
    """Marginal entropy of ``size`` runs, the mean over disjoint groups of the runs."""
    groups = len(z) // size
    return parallel.marginal_entropy(z[: groups * size].view(groups, size, -1)).mean()


def _extrapolated(by_runs: dict[int, Array]) -> Array:
    """Intercept of a straight line in 1/B, every number of runs counted as often as there are runs in it."""
    values = np.stack(list(by_runs.values()))
    if len(by_runs) < 2:
        return np.full(values.shape[1], math.nan)
    sizes = np.array(list(by_runs), np.float64)
    design = np.stack([np.ones_like(sizes), 1.0 / sizes], 1) * np.sqrt(sizes)[:, None]
    solution = np.linalg.lstsq(design, values * np.sqrt(sizes)[:, None], rcond=None)[0]
    return np.asarray(solution[0])


def changes(
    marginal: Array, conditional: Array, minimum_effect: float = 0.1, arl: float = 10_000.0
) -> tuple[Event, ...]:
    """Changes of level of the two entropies along the positions, by the detector of training curves.

    The first readings are the baseline: a tenth of the positions, at least 30; what changed within them is dated
    afterwards. With fewer than 60 positions nothing is said.

    Args:
        marginal: [T] nats.
        conditional: [T] nats.
        minimum_effect: smallest change of level, nats.
        arl: mean number of positions to a false alarm, at least.

    Returns:
        Events in order of their onset. ``details["what"]``: ``explosion`` of entropy, or ``collapse``.

    Example:
        >>> noise = np.random.default_rng(0).normal(0, 0.05, 300)
        >>> found = changes(2.0 + noise - 1.5 * (np.arange(300) >= 200), np.full(300, 0.5))
        >>> [(e.quantity, e.details["what"], e.onset) for e in found]
        [('out/marginal_entropy', 'collapse', 200)]
    """
    found: list[Event] = []
    for key, values in (("out/marginal_entropy", marginal), ("out/conditional_entropy", conditional)):
        if len(values) < 60:
            continue
        detector = OnlineDetector(arl=arl, minimum_effect=minimum_effect, burn_in=max(30, len(values) // 10))
        state = detector.init()
        for position, value in enumerate(values.tolist()):
            state, decision = detector.update(state, value, position)
            if decision.event is not None:
                found.append(_named(decision.event, key))
        found += [_named(event, key) for event in detector.late(state)]
    return tuple(sorted(found, key=lambda e: (e.onset, e.quantity)))


def _named(event: Event, key: str) -> Event:
    what = {"up": "explosion", "down": "collapse"}.get(str(event.direction), "change")
    return replace(event, quantity=key, details={**event.details, "what": what})


def spearman(a: Array, b: Array) -> float:
    """Rank correlation of two series; NaN if one is constant or fewer than three pairs are finite.

    Example:
        >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 8.0, 27.0]))
        1.0
    """
    from scipy.stats import rankdata

    good = np.isfinite(a) & np.isfinite(b)
    if good.sum() < 3 or np.ptp(a[good]) == 0 or np.ptp(b[good]) == 0:
        return math.nan
    return float(round(np.corrcoef(rankdata(a[good]), rankdata(b[good]))[0, 1], 12))
