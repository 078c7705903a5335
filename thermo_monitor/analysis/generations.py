"""B generations side by side from one prompt, position by position, under noise that follows from a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thermo_monitor.analysis.language import Model, adapt
from thermo_monitor.analysis.prompts import Given, encode
from thermo_monitor.analysis.sampling import gumbel, sampling_logits

Temperature = float | Sequence[float] | NDArray[np.float64] | Callable[[int, Tensor], float]


@dataclass(frozen=True, slots=True)
class Step:
    """One position of parallel generations.

    Attributes:
        position: from 0.
        logits: [B, V] of the model, what is suppressed at -inf.
        temperature: applied.
        scaled: [B, V] what is sampled from.
        token: [B] drawn.
    """

    position: int
    logits: Tensor
    temperature: float
    scaled: Tensor
    token: Tensor


def generations(
    model: Model,
    prompt: Given,
    *,
    tokenizer: Any = None,
    begin: int | None = None,
    runs: int,
    tokens: int,
    temperature: Temperature = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    suppress: Sequence[int] = (),
    seed: int = 0,
) -> Iterator[Step]:
    """The positions of the generations, one after the other; for the arguments see ``parallel.ensemble_entropy``."""
    if runs < 1 or tokens < 1:
        raise ValueError(f"runs={runs}, tokens={tokens}: each has to be at least 1")
    face = adapt(model)
    (one,) = encode([prompt], face, tokenizer, begin)
    if one.reason == "empty_prompt":
        raise ValueError("the prompt is empty: give begin=, the symbol that begins a text")
    if one.reason is not None:
        raise ValueError(f"the prompt has {len(one.ids)} tokens, the model's context {face.context}")
    room = tokens if face.context is None else min(tokens, face.context - len(one.ids) + 1)
    at = _temperatures(temperature)
    noise = torch.Generator().manual_seed(seed)
    banned = torch.tensor(list(suppress), dtype=torch.int64, device=face.device)

    def steps() -> Iterator[Step]:
        with face.reading():
            session = face.open([one.ids])
            session.repeat(runs)
        for t in range(room):
            logits = session.logits
            if len(banned):
                logits = logits.index_fill(-1, banned, -math.inf)
            value = at(t, logits)
            scaled = sampling_logits(logits, value, top_k, top_p)
            token = (scaled + gumbel(tuple(scaled.shape), noise, face.device)).argmax(-1)
            yield Step(t, logits, value, scaled, token)
            if t + 1 < room:
                with face.reading():
                    session.feed(token)

    return steps()


def _temperatures(given: Temperature) -> Callable[[int, Tensor], float]:
    if callable(given):
        return given
    values = np.atleast_1d(np.asarray(given, np.float64))
    if values.ndim != 1 or not len(values) or not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"temperature={given!r}: give a positive number, or one for each position")
    return lambda t, _: float(values[min(t, len(values) - 1)])
