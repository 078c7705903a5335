"""Prompt entropy against the size of a model, and against whether the model's answer is right."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thermo_monitor.analysis.entropy_scan import EntropyScan, summary
from thermo_monitor.analysis.language import LanguageModel, Model, adapt
from thermo_monitor.analysis.parallel import spearman
from thermo_monitor.analysis.prompt_entropy import PromptEntropy, prompt_entropy
from thermo_monitor.analysis.prompts import Encoded, Given, encode, stop_symbols, windows

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SizeStudy:
    """Scans of one prompt set by the models of a family, the smallest first.

    Attributes:
        names: of the models.
        parameters: how many each has.
        scans: of each.
        entropy_correlation: rank correlation (Spearman) of size and mean entropy; NaN for fewer than three models.
        share_correlation: for each limit, rank correlation of size and the share of prompts below it.
    """

    names: tuple[str, ...]
    parameters: tuple[int, ...]
    scans: tuple[EntropyScan, ...]
    entropy_correlation: float
    share_correlation: dict[float, float]


def against_size(
    models: Mapping[str, Model | Callable[[], Model]],
    prompts: Sequence[Given],
    *,
    below: Sequence[float] = (0.01, 0.1),
    keep: int = 100,
    **options: Any,
) -> SizeStudy:
    """The same scan for every model of a family.

    Args:
        models: name -> a model, or a function without arguments that loads one: it is called when its turn comes, and
            its model is let go afterwards. The number of parameters has to be countable: modules only.
        prompts: one set for all models.
        below: limits of "near zero", nats.
        keep: most prompts that are named in each scan.
        options: of ``prompt_entropy.prompt_entropy``; the same seed for all models.

    Returns:
        The study, by rising number of parameters.

    Raises:
        ValueError: if a model is no module, so that it has no size.

    Example:
        >>> class Table(torch.nn.Module):
        ...     def __init__(self, width):
        ...         super().__init__()
        ...         self.y = torch.nn.Parameter(torch.eye(4, width) * width)
        ...     def forward(self, ids):
        ...         return (self.y @ self.y.T)[ids]
        >>> study = against_size({"wide": Table(4), "narrow": Table(1)}, [[1], [2]], stop=0, tokens=3)
        >>> study.names, study.parameters
        (('narrow', 'wide'), (4, 16))
    """
    found: list[tuple[int, str, EntropyScan]] = []
    for name, given in models.items():
        model = given if isinstance(given, torch.nn.Module) or hasattr(given, "open") else given()  # type: ignore[call-arg]
        if not isinstance(model, torch.nn.Module):
            raise ValueError(f"{name} is no torch.nn.Module, so that its parameters cannot be counted")
        size = sum(p.numel() for p in model.parameters())
        found.append((size, name, summary(prompt_entropy(model, prompts, **options), below=below, keep=keep)))
    found.sort(key=lambda x: x[:2])
    scans = tuple(scan for _, _, scan in found)
    sizes = np.array([size for size, _, _ in found], np.float64)
    limits = scans[0].shares if scans else {}
    return SizeStudy(
        tuple(name for _, name, _ in found),
        tuple(size for size, _, _ in found),
        scans,
        spearman(sizes, np.array([scan.mean for scan in scans])),
        {limit: spearman(sizes, np.array([scan.shares[limit].value for scan in scans])) for limit in limits},
    )


@dataclass(frozen=True)
class AnswerStudy:
    """Prompt entropy of questions with one answer.

    Attributes:
        records: entropy of each question.
        right: [n] whether greedy decoding gives the answer and stops.
        probability: [n] P_L(answer, stop | question), exact.
        auroc: probability that a question answered right has less entropy than one answered wrong; 0.5 where entropy
            says nothing; NaN if all are right or all wrong.
        low: end of its 95 % interval (bootstrap over questions).
        high: other end.
        mean_right: mean entropy of those answered right, nats.
        mean_wrong: mean entropy of the others.
        reason: why ``auroc`` is NaN, in words; None if it is not.
    """

    records: tuple[PromptEntropy, ...]
    right: NDArray[np.bool_]
    probability: Array
    auroc: float
    low: float
    high: float
    mean_right: float
    mean_wrong: float
    reason: str | None = None


def against_answers(
    model: Model,
    questions: Sequence[Given],
    answers: Sequence[Given],
    *,
    tokenizer: Any = None,
    stop: int | Sequence[int] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    batch: int = 256,
    **options: Any,
) -> AnswerStudy:
    """Whether a low prompt entropy goes with a right answer.

    Args:
        model: see ``prompt_entropy.prompt_entropy``.
        questions: prompts.
        answers: the one right continuation of each, without the stop symbol.
        tokenizer: for texts.
        stop: symbol that ends an answer; needed here.
        resamples: of the bootstrap.
        seed: of continuations and bootstrap.
        batch: most rows at once.
        options: of ``prompt_entropy.prompt_entropy``.

    Returns:
        The study; questions that could not be read are left out of all means.

    Raises:
        ValueError: if there is no stop symbol, or not one answer for each question.

    Example:
        >>> def model(ids):  # says 1, then stops; after 2 it does not know
        ...     table = torch.tensor([[9.0, 0, 0, 0], [9.0, 0, 0, 0], [1.0, 1.2, 0, 0], [0.0, 9, 0, 0]])
        ...     return table[ids]
        >>> found = against_answers(model, [[3], [3, 3], [2]], [[1], [1], [2]], stop=0)
        >>> found.right.tolist(), found.auroc
        ([True, True, False], 1.0)
    """
    if len(questions) != len(answers):
        raise ValueError(f"{len(questions)} questions and {len(answers)} answers: give one answer for each")
    face = adapt(model)
    stops = stop_symbols(stop, face, tokenizer)
    if not stops:
        raise ValueError("no stop symbol is known, so that an answer has no end: give stop=")
    begin = options.get("begin")
    spoken = [e.ids for e in encode(answers, face, tokenizer)]
    right, probability = np.zeros(len(questions), np.bool_), np.full(len(questions), math.nan)
    for _, batches in windows(encode(questions, face, tokenizer, begin), batch, face.pads):
        for some in batches:
            with face.reading():
                log_p, greedy = _forced(face, some, [spoken[e.index] for e in some], stops[0])
            for one, value, hit in zip(some, log_p, greedy, strict=True):
                probability[one.index], right[one.index] = math.exp(value), hit
    records = tuple(prompt_entropy(face, questions, tokenizer=tokenizer, stop=stops, seed=seed, batch=batch, **options))
    entropy = np.array([record.entropy for record in records])
    good = np.isfinite(entropy) & np.isfinite(probability)
    low, high = _interval(entropy[good], right[good], resamples, seed)
    auroc = _auroc(entropy[good], right[good])
    return AnswerStudy(
        records, right, probability, auroc, low, high, _mean(entropy[good & right]), _mean(entropy[good & ~right]),
        None if math.isfinite(auroc) else "all answers are right, or all are wrong",
    )  # fmt: skip


def _forced(
    model: LanguageModel, questions: list[Encoded], answers: Iterable[tuple[int, ...]], stop: int
) -> tuple[list[float], list[bool]]:
    """Log probability of the answers with their stop symbols, and whether each of their tokens is the likeliest."""
    texts = [(*answer, stop) for answer in answers]
    longest = max(map(len, texts))
    ids = torch.tensor([[*text, *[stop] * (longest - len(text))] for text in texts], device=model.device)
    length = torch.tensor([len(text) for text in texts], device=model.device)
    session = model.open([q.ids for q in questions])
    log_p = torch.zeros(len(texts), dtype=torch.float64)
    greedy = torch.ones(len(texts), dtype=torch.bool)
    for t in range(longest):
        rows = session.logits.float().log_softmax(-1)
        inside = (t < length).cpu()
        log_p += torch.where(inside, rows.gather(-1, ids[:, t : t + 1]).squeeze(-1).cpu().double(), 0.0)
        greedy &= ~inside | (rows.argmax(-1) == ids[:, t]).cpu()
        if t + 1 < longest:
            session.feed(ids[:, t])
    return log_p.tolist(), greedy.tolist()


def _auroc(entropy: Array, right: NDArray[np.bool_]) -> float:
    """Mann-Whitney: share of pairs (right, wrong) with less entropy for the right one, ties counted half."""
    n, m = int(right.sum()), int((~right).sum())
    if n == 0 or m == 0:
        return math.nan
    from scipy.stats import rankdata

    ranks = rankdata(-entropy)
    return float((ranks[right].sum() - n * (n + 1) / 2) / (n * m))


def _interval(entropy: Array, right: NDArray[np.bool_], resamples: int, seed: int) -> tuple[float, float]:
    random = np.random.default_rng(seed)
    draws = (random.integers(len(right), size=len(right)) for _ in range(resamples if len(right) else 0))
    values = [v for i in draws if math.isfinite(v := _auroc(entropy[i], right[i]))]
    if len(values) < resamples / 2 or not values:
        return math.nan, math.nan
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else math.nan
