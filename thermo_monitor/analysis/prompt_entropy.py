"""The entropy function of a prompt: how many ways the model has of going on, all of them to their end.

    P_L(s'|s) = prod_t P(w_t | s w_<t)  P(stop | s s'),    S_L(s) = -sum_s' P_L ln P_L >= 0

(Yang 2024, arXiv:2407.21092, known to us second-hand; the chain rule is standard). The sum over all texts is
estimated from sampled continuations, in two ways without bias: the mean of ``-ln P_L`` and, by the chain rule, the mean
of the entropies of the predictions on the way. Neither has less variance always; both are given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from thermo_monitor.analysis.language import LanguageModel, Model, adapt
from thermo_monitor.analysis.prompts import Encoded, Given, encode, shown, stop_symbols, windows
from thermo_monitor.analysis.sampling import draw, sampling_logits

Array = NDArray[np.float64]
Status = Literal["estimate", "lower_bound", "undefined"]

_THIN = 0.75  # of the rows that still go on, below which the finished ones are dropped


@dataclass(frozen=True, slots=True)
class PromptEntropy:
    """The entropy function at one prompt.

    Attributes:
        index: place of the prompt among those given.
        prompt: as it was given.
        entropy: S_L by the chain rule, nats: mean over continuations of the summed entropies of the predictions, the
            step that draws the stop symbol included.
        error: its standard error over the continuations; NaN with one.
        surprisal: S_L by the mean of ``-ln P_L(s'|s)``, nats.
        surprisal_error: its standard error.
        next_entropy: entropy of the first prediction alone, nats; exact.
        length: mean number of tokens of a continuation, the stop symbol included.
        truncated: share of the continuations that had not stopped.
        samples: number of continuations.
        status: ``estimate``; ``lower_bound`` where some continuations were cut off, since what they would have gone
            on to say is missing; ``undefined``.
        reason: why it is not an estimate, a key of ``quantities.REASONS``.
    """

    index: int
    prompt: str | tuple[int, ...]
    entropy: float
    error: float
    surprisal: float
    surprisal_error: float
    next_entropy: float
    length: float
    truncated: float
    samples: int
    status: Status = "estimate"
    reason: str | None = None


def prompt_entropy(
    model: Model,
    prompts: Iterable[Given],
    *,
    tokenizer: Any = None,
    samples: int = 16,
    tokens: int = 64,
    stop: int | Sequence[int] | None = None,
    begin: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    batch: int = 256,
    progress: bool = False,
) -> Iterator[PromptEntropy]:
    """Estimate S_L of prompts, one record after the other in their order; memory does not grow with their number.

    A continuation is drawn and scored with the same temperature and the same truncation of the distribution. The random
    numbers of a prompt follow from the seed and its index: what else is in a batch does not matter (but for rounding).
    A prompt whose estimate is exactly 0 within its error may still have rare continuations that were not drawn.

    Args:
        model: a causal model of transformers, any callable ids -> logits, or one from ``language.adapt``.
        prompts: texts or sequences of ids, any iterable.
        tokenizer: for texts; of transformers or a callable text -> ids.
        samples: continuations of a prompt, R.
        tokens: most tokens of a continuation, M.
        stop: symbol (or symbols) that end a text. None: that of the tokenizer, or of the model. An empty sequence, or
            none to be found: nothing ever stops, and the result is the entropy of the next M tokens, a lower bound
            (``no_stop_symbol``).
        begin: symbol that stands for an empty prompt; that of the tokenizer unless given.
        temperature: of the distribution that is sampled and scored.
        top_k: see ``sampling.sampling_logits``.
        top_p: see ``sampling.sampling_logits``.
        seed: of the continuations; the global generators are left alone.
        batch: most continuations that are computed together.
        progress: show a progress bar.

    Yields:
        One record for each prompt.

    Raises:
        ValueError: for options out of range, and for tokens that the model does not have.

    Example:
        >>> def fair(ids):  # 0 stops; every step with probability one half
        ...     return torch.zeros(*ids.shape, 2, dtype=torch.float64)
        >>> found = next(prompt_entropy(fair, [[1]], stop=0, samples=4000))
        >>> abs(found.entropy - 2 * math.log(2)) < 4 * found.error, found.status
        (True, 'estimate')
    """
    if samples < 1 or tokens < 1 or batch < 1:
        raise ValueError(f"samples={samples}, tokens={tokens}, batch={batch}: each has to be at least 1")
    sampling_logits(torch.zeros(1), temperature, top_k, top_p)  # refuses now what it would refuse later
    face = adapt(model)
    stops = stop_symbols(stop, face, tokenizer)
    total = len(prompts) if isinstance(prompts, Sized) else None
    encoded = encode(shown(prompts, progress, "prompt entropy", total), face, tokenizer, begin)

    def records() -> Iterator[PromptEntropy]:
        for stretch, batches in windows(encoded, max(1, batch // samples), face.pads):
            found: dict[int, PromptEntropy] = {}
            for some in batches:
                with face.reading():
                    sums = [
                        _continue(face, some, part, tokens, stops, (temperature, top_k, top_p), seed)
                        for part in _parts(samples, batch)
                    ]
                joined = [np.concatenate(x, 1) for x in zip(*sums, strict=True)]
                for one, *rows in zip(some, *joined, strict=True):
                    found[one.index] = _record(one, rows, bool(stops))
            for one in stretch:
                yield found.get(one.index) or _undefined(one)

    return records()


def _parts(samples: int, batch: int) -> list[range]:
    """The continuations of one prompt, as many at once as a batch holds."""
    return [range(at, min(at + batch, samples)) for at in range(0, samples, batch)]


def _uniform(seed: int, index: int, runs: range, tokens: int) -> torch.Tensor:
    """[runs, tokens] numbers of one prompt, the same whatever it is computed together with."""
    rows = [np.random.default_rng((seed, index, run)).random(tokens) for run in runs]
    return torch.from_numpy(np.stack(rows))


def _continue(
    model: LanguageModel,
    prompts: list[Encoded],
    runs: range,
    tokens: int,
    stops: tuple[int, ...],
    how: tuple[float, int | None, float | None],
    seed: int,
) -> tuple[Array, Array, Array, Array, Array]:
    """Entropies and surprisals summed over each continuation [prompts, runs]; first entropy, length, ended."""
    device, count = model.device, len(prompts) * len(runs)
    wide = torch.float32 if device.type == "mps" else torch.float64
    uniform = torch.cat([_uniform(seed, p.index, runs, tokens) for p in prompts]).to(device=device, dtype=wide)
    room = [tokens if model.context is None else min(tokens, model.context - len(p.ids) + 1) for p in prompts]
    limit = torch.tensor(room, device=device).repeat_interleave(len(runs))
    chain, surprisal, first = (torch.zeros(count, dtype=wide, device=device) for _ in range(3))
    length = torch.zeros(count, dtype=torch.int64, device=device)
    ended = torch.zeros(count, dtype=torch.bool, device=device)
    ends = torch.tensor(stops, dtype=torch.int64, device=device)

    session = model.open([p.ids for p in prompts])
    session.repeat(len(runs))
    rows = torch.arange(count, device=device)  # of each row of the session
    going = torch.ones_like(ended)
    for t in range(max(room)):
        log_p = sampling_logits(session.logits, *how).log_softmax(-1)
        p = log_p.exp()
        if t == 0 and stops and max(stops) >= p.shape[-1]:
            raise ValueError(f"stop={max(stops)} is no token of the model, which has {p.shape[-1]}")
        entropy = torch.special.entr(p).sum(-1, dtype=wide)
        token = draw(p, uniform[rows, t])
        live = going[rows]
        chain[rows] += torch.where(live, entropy, 0.0)
        surprisal[rows] -= torch.where(live, log_p.gather(-1, token.unsqueeze(-1)).squeeze(-1).to(wide), 0.0)
        length[rows] += live.to(torch.int64)
        if t == 0:
            first = chain.clone()
        stopped = torch.isin(token, ends) & live
        ended[rows] |= stopped
        going[rows] &= ~stopped & (t + 1 < limit[rows])
        live = going[rows]
        alive = int(live.sum())
        if alive == 0:
            break
        if alive < _THIN * len(rows):
            chosen = live.nonzero().squeeze(-1)
            session.keep(chosen)
            rows, token = rows[chosen], token[chosen]
        session.feed(token)
    shape = (len(prompts), len(runs))
    out = (x.to("cpu", torch.float64).view(shape).numpy() for x in (chain, surprisal, first, length, ended))
    return tuple(out)  # type: ignore[return-value]


def _record(one: Encoded, rows: list[Array], stops: bool) -> PromptEntropy:
    chain, surprisal, first, length, ended = rows
    truncated = 1.0 - float(ended.mean())
    values = (float(chain.mean()), _error(chain), float(surprisal.mean()), _error(surprisal))
    if not all(map(math.isfinite, values[::2])):
        return _undefined(one, "non_finite")
    reason = None if truncated == 0.0 else "truncated" if stops else "no_stop_symbol"
    status: Status = "lower_bound" if reason else "estimate"
    return PromptEntropy(
        one.index, one.given, *values, float(first[0]), float(length.mean()), truncated,
        samples=len(chain), status=status, reason=reason,
    )  # fmt: skip


def _error(row: Array) -> float:
    return float(row.std(ddof=1)) / math.sqrt(len(row)) if len(row) > 1 else math.nan


def _undefined(one: Encoded, reason: str | None = None) -> PromptEntropy:
    nan = math.nan
    return PromptEntropy(
        one.index, one.given, nan, nan, nan, nan, nan, nan, nan,
        samples=0, status="undefined", reason=reason or one.reason,
    )  # fmt: skip
