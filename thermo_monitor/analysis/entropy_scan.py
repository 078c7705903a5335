"""A whole set of prompts: where the entropy function is zero or nearly so, which is where a model has memorised."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.analysis.language import Model
from thermo_monitor.analysis.prompt_entropy import PromptEntropy, prompt_entropy
from thermo_monitor.analysis.prompts import Given

ZERO = 1e-5
"""Nats below which an entropy is 0 as far as logits in single precision can tell; exactly 0 takes an infinite one."""

EDGES = np.concatenate([[0.0], np.logspace(-6, 4, 41)])
"""Edges of the bins in which a scan counts entropies, nats; what lies above is in the last bin."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share of the prompts, with what is not known of it.

    Attributes:
        value: share of the prompts that could be read; NaN of none.
        low: end of the 95 % interval (Wilson) for the population that the prompts are a sample of.
        high: other end.
        undecided: prompts whose estimate is within two standard errors of the limit, or below it but cut off.
    """

    value: float
    low: float
    high: float
    undecided: int


@dataclass(frozen=True)
class EntropyScan:
    """The entropy function over a set of prompts.

    Attributes:
        prompts: how many were given.
        read: how many could be read.
        mean: mean entropy of a prompt, nats.
        error: its standard error over prompts, the scatter of the estimates included.
        variance: variance of the entropy over prompts (ddof 1), less the mean variance of the estimates; 0 at least.
        mean_next: mean entropy of the first prediction, nats.
        truncated: share of all continuations that had not stopped.
        lower_bounds: prompts of which only a lower bound is known.
        shares: share of prompts below each limit; ``shares[ZERO]`` are the zeros.
        lowest: the prompts below the largest limit by rising entropy, at most ``keep`` of them.
        counts: [41] prompts in each bin of ``EDGES``.
        undefined: how many prompts could not be read, by reason.
    """

    prompts: int
    read: int
    mean: float
    error: float
    variance: float
    mean_next: float
    truncated: float
    lower_bounds: int
    shares: dict[float, Share]
    lowest: tuple[PromptEntropy, ...]
    counts: NDArray[np.int64]
    undefined: dict[str, int]


def entropy_scan(
    model: Model,
    prompts: Iterable[Given],
    *,
    below: Sequence[float] = (0.01, 0.1),
    keep: int = 100,
    **options: Any,
) -> EntropyScan:
    """Estimate S_L of every prompt and add up; only the lowest ``keep`` prompts are remembered.

    Args:
        model: see ``prompt_entropy.prompt_entropy``.
        prompts: any iterable of texts or ids.
        below: limits of "near zero", nats.
        keep: most prompts that are named.
        options: of ``prompt_entropy.prompt_entropy``: tokenizer, samples, tokens, stop, temperature, seed, ...

    Returns:
        The scan; shares and means are NaN if no prompt could be read.

    Example:
        >>> import torch
        >>> def knows(ids):  # after token 1 it always stops (0), after 2 half of the time
        ...     table = torch.tensor([[50.0, 0, 0], [50.0, 0, 0], [30.0, 0, 30.0]])
        ...     return table[ids]
        >>> found = entropy_scan(knows, [[1], [2], [2, 1]], stop=0)
        >>> found.shares[0.1].value.__round__(3), [p.prompt for p in found.lowest]
        (0.667, [(1,), (2, 1)])
    """
    return summary(prompt_entropy(model, prompts, **options), below=below, keep=keep)


def summary(records: Iterable[PromptEntropy], *, below: Sequence[float] = (0.01, 0.1), keep: int = 100) -> EntropyScan:
    """The scan of records that are there already, or that come one by one.

    Args:
        records: of ``prompt_entropy``.
        below: limits of "near zero", nats.
        keep: most prompts that are named.
    """
    limits = sorted({ZERO, *below})
    if not all(limit > 0 for limit in limits):
        raise ValueError(f"below={tuple(below)}: limits are positive entropies in nats")
    total = read = bounds = 0
    mean = squares = scatter = first = truncated = 0.0
    hits: Counter[float] = Counter()
    undecided: Counter[float] = Counter()
    undefined: Counter[str] = Counter()
    counts = np.zeros(len(EDGES) - 1, np.int64)
    lowest: list[tuple[float, int, PromptEntropy]] = []
    for record in records:
        total += 1
        if record.status == "undefined":
            undefined[str(record.reason)] += 1
            continue
        read += 1
        s = record.entropy
        step = s - mean
        mean += step / read
        squares += step * (s - mean)
        scatter += 0.0 if math.isnan(record.error) else record.error**2
        first += record.next_entropy
        truncated += record.truncated
        bounds += record.status == "lower_bound"
        counts[min(int(np.searchsorted(EDGES, s, side="right")) - 1, len(counts) - 1)] += 1
        for limit in limits:
            hits[limit] += s < limit
            near = not math.isnan(record.error) and abs(s - limit) < 2 * record.error
            undecided[limit] += near or (s < limit and record.status == "lower_bound")
        if s < limits[-1]:
            item = (-s, -record.index, record)  # the heap's first is the largest entropy
            if len(lowest) < keep:
                heapq.heappush(lowest, item)
            else:
                heapq.heappushpop(lowest, item)
    variance = squares / (read - 1) if read > 1 else math.nan
    nothing = math.nan
    return EntropyScan(
        prompts=total,
        read=read,
        mean=mean if read else nothing,
        error=math.sqrt(variance / read) if read > 1 else nothing,
        variance=max(variance - scatter / read, 0.0) if read > 1 else nothing,
        mean_next=first / read if read else nothing,
        truncated=truncated / read if read else nothing,
        lower_bounds=bounds,
        shares={limit: share(hits[limit], read, undecided[limit]) for limit in limits},
        lowest=tuple(record for _, _, record in sorted(lowest, key=lambda x: (-x[0], -x[1]))),
        counts=counts,
        undefined=dict(undefined),
    )


def share(hits: int, of: int, undecided: int = 0) -> Share:
    """A share with its 95 % interval (Wilson 1927).

    Example:
        >>> share(0, 10).low, round(share(0, 10).high, 3)
        (0.0, 0.278)
    """
    if of == 0:
        return Share(math.nan, math.nan, math.nan, undecided)
    z2 = 1.959963984540054**2
    p = hits / of
    centre = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = math.sqrt(z2 * (p * (1 - p) / of + z2 / (4 * of * of))) / (1 + z2 / of)
    return Share(p, max(0.0, centre - half) if hits else 0.0, min(1.0, centre + half) if hits < of else 1.0, undecided)
