"""The next token after prompts as an ensemble, and how far from equilibrium a model is on each token of texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thermo_monitor.analysis.language import Model, adapt
from thermo_monitor.analysis.prompts import Given, encode, shown, windows
from thermo_monitor.physics.ensemble import NextToken, next_token, token_statistics

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NextTokenState:
    """The prediction after one prompt at one temperature, in reduced units (energies over the temperature).

    Attributes:
        index: place of the prompt among those given.
        prompt: as it was given.
        temperature: tau; 1 is that of the model.
        log_partition: ln Z, nats; gauge dependent, as are U and F.
        internal_energy: U.
        entropy: S, nats.
        free_energy: F = U - S = -ln Z.
        free_energy_gap: KL(uniform || p), nats.
        specific_heat: C = dS/d ln tau.
        reason: why the values are NaN, a key of ``quantities.REASONS``.
    """

    index: int
    prompt: str | tuple[int, ...]
    temperature: float
    log_partition: float = math.nan
    internal_energy: float = math.nan
    entropy: float = math.nan
    free_energy: float = math.nan
    free_energy_gap: float = math.nan
    specific_heat: float = math.nan
    reason: str | None = None


def next_token_states(
    model: Model,
    prompts: Iterable[Given],
    *,
    temperatures: Sequence[float] = (1.0,),
    tokenizer: Any = None,
    begin: int | None = None,
    batch: int = 64,
    progress: bool = False,
) -> Iterator[NextTokenState]:
    """Z, U, S, F and C of the next token after every prompt, at the model's temperature and others; one pass for all.

    Args:
        model: see ``prompt_entropy.prompt_entropy``.
        prompts: texts or ids, any iterable; memory does not grow with their number.
        temperatures: positive.
        tokenizer: for texts.
        begin: symbol that stands for an empty prompt.
        batch: most prompts at once.
        progress: show a progress bar.

    Yields:
        For each prompt, in their order, a record for each temperature.

    Raises:
        ValueError: for a temperature that is not positive, and tokens that the model does not have.

    Example:
        >>> model = lambda ids: torch.tensor([2.0, 1.0, 0.0, -1.0]).expand(*ids.shape, 4)
        >>> [round(state.entropy, 3) for state in next_token_states(model, [[0]], temperatures=(1.0, 1.711715))]
        [0.948, 1.2]
    """
    if batch < 1 or not temperatures or not all(0 < t < math.inf for t in temperatures):
        raise ValueError(f"temperatures={tuple(temperatures)}, batch={batch}: give positive numbers")
    face = adapt(model)
    encoded = encode(shown(prompts, progress, "next token", _length(prompts)), face, tokenizer, begin)

    def records() -> Iterator[NextTokenState]:
        for stretch, batches in windows(encoded, batch, face.pads):
            found: dict[int, list[list[float]]] = {}
            for some in batches:
                with face.reading():
                    logits = face.open([one.ids for one in some]).logits
                    states = torch.stack([torch.stack(list(next_token(logits, t))) for t in temperatures])
                for one, rows in zip(some, states.permute(2, 0, 1).tolist(), strict=True):
                    found[one.index] = rows
            for one in stretch:
                for i, t in enumerate(temperatures):
                    if one.index not in found:
                        yield NextTokenState(one.index, one.given, t, reason=one.reason)
                        continue
                    values = dict(zip(NextToken._fields, found[one.index][i], strict=True))
                    finite = all(map(math.isfinite, values.values()))
                    yield NextTokenState(one.index, one.given, t, **values, reason=None if finite else "non_finite")

    return records()


@dataclass(frozen=True)
class Equilibrium:
    """One text, token by token from the second on.

    Attributes:
        index: place of the text among those given.
        prompt: as it was given.
        loss: [T - 1] -ln p(token), nats.
        entropy: [T - 1] entropy of the prediction of that token, nats.
        mean: mean distance from equilibrium, loss less entropy, nats a token; NaN with a reason.
        error: its standard error, the tokens taken as independent: they are not quite.
        reason: why there is no mean, a key of ``quantities.REASONS``.
    """

    index: int
    prompt: str | tuple[int, ...]
    loss: Array
    entropy: Array
    mean: float
    error: float
    reason: str | None = None

    @property
    def distance(self) -> Array:
        """[T - 1] loss less entropy."""
        return self.loss - self.entropy


def equilibrium(
    model: Model,
    texts: Iterable[Given],
    *,
    tokenizer: Any = None,
    batch: int = 16,
    progress: bool = False,
) -> Iterator[Equilibrium]:
    """Distance from equilibrium of every token of texts: how much more it surprised the model than it expected.

    Where the texts are draws from the model the mean is 0 within its error; above it is overconfident, below
    underconfident.

    Args:
        model: see ``prompt_entropy.prompt_entropy``.
        texts: texts or ids; those of equal length are computed together.
        tokenizer: for texts.
        batch: most texts at once.
        progress: show a progress bar.

    Yields:
        One record for each text, in their order.

    Example:
        >>> model = lambda ids: torch.zeros(*ids.shape, 2)
        >>> [(e.mean, e.reason) for e in equilibrium(model, [[0, 1, 1], [1]])]
        [(0.0, None), (nan, 'n_lt_2')]
    """
    if batch < 1:
        raise ValueError(f"batch={batch}: has to be at least 1")
    face = adapt(model)
    encoded = encode(shown(texts, progress, "equilibrium", _length(texts)), face, tokenizer)

    def records() -> Iterator[Equilibrium]:
        for stretch, batches in windows(encoded, batch, pads=False):
            found: dict[int, tuple[Array, Array]] = {}
            for some in batches:
                if len(some[0].ids) < 2:
                    continue
                with face.reading():
                    logits = face.all_logits([one.ids for one in some])[:, :-1]
                    labels = torch.tensor([one.ids[1:] for one in some], device=logits.device)
                    token = token_statistics(logits.flatten(0, 1), labels.flatten())
                rows = (x.double().cpu().view(labels.shape).numpy() for x in (token.loss, token.entropy))
                for one, loss, entropy in zip(some, *rows, strict=True):
                    found[one.index] = (loss, entropy)
            for one in stretch:
                loss, entropy = found.get(one.index, (np.empty(0), np.empty(0)))
                reason = one.reason or ("n_lt_2" if len(one.ids) < 2 else None)
                gap = loss - entropy
                if reason is None and not np.isfinite(gap).all():
                    reason = "non_finite"
                error = float(gap.std(ddof=1)) / math.sqrt(len(gap)) if len(gap) > 1 else math.nan
                mean = math.nan if reason else float(gap.mean())
                yield Equilibrium(one.index, one.given, loss, entropy, mean, error, reason)

    return records()


def _length(items: Iterable[Given]) -> int | None:
    return len(items) if isinstance(items, Sized) else None
