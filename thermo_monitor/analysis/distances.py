"""How far models, or checkpoints of a run, lie apart as what they predict: distances on a set of prompts, and a map.

A language model is a point: its next-token distributions over all prompts. Total variation, the sup distance and the
distance of Fisher and Rao are metrics between such points once a prompt set and a way to sum it up are chosen; the
maximum over prompts is a metric, and so is the mean. (The moduli space of Yang 2024, arXiv:2407.21092: a
reconstruction.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thermo_monitor.analysis.language import Model, adapt
from thermo_monitor.analysis.prompts import Encoded, Given, encode, windows
from thermo_monitor.physics.information import fisher_rao_distance

Array = NDArray[np.float64]
METRICS = ("tv", "sup", "fisher_rao")


@dataclass(frozen=True)
class ModelDistances:
    """Pairwise distances of K models.

    Attributes:
        names: of the models.
        mean: metric in ``METRICS`` -> [K, K], mean over prompts.
        largest: metric -> [K, K], maximum over prompts.
        prompts: how many prompts it was taken over.
        unread: reason -> prompts that could not be read.
    """

    names: tuple[str, ...]
    mean: dict[str, Array]
    largest: dict[str, Array]
    prompts: int
    unread: dict[str, int]


def distribution_distances(p: Tensor, q: Tensor) -> dict[str, Tensor]:
    """Distances of distributions.

    Args:
        p: [..., V] probabilities.
        q: the same.

    Returns:
        Name in ``METRICS`` -> [...] float64: ``tv = |p - q|_1 / 2``, ``sup = max |p - q|``, ``fisher_rao`` in [0, pi];
        sup <= tv <= sin(fisher_rao / 2).

    Example:
        >>> p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])
        >>> {name: round(d.item(), 6) for name, d in distribution_distances(p, q).items()}
        {'tv': 0.5, 'sup': 0.5, 'fisher_rao': 1.570796}
    """
    p, q = p.double(), q.double()
    difference = (p - q).abs()
    return {"tv": difference.sum(-1) / 2, "sup": difference.amax(-1), "fisher_rao": fisher_rao_distance(p, q)}


def predictions(model: Model, batch: Sequence[Encoded]) -> Tensor:
    """[B, V] next-token probabilities after prompts, float64, on the host."""
    face = adapt(model)
    with face.reading():
        logits = face.open([one.ids for one in batch]).logits
    return torch.softmax(logits.double().cpu(), -1)


def model_distances(
    models: Iterable[Model] | Sequence[Model],
    prompts: Iterable[Given],
    *,
    names: Sequence[str] = (),
    tokenizer: Any = None,
    batch: int = 64,
    chunk: int = 128,
) -> ModelDistances:
    """Distances between all pairs of models on a prompt set.

    Args:
        models: at least 2, in an iterable that can be gone through again for each chunk of prompts (a list, or an
            object whose ``__iter__`` loads one checkpoint after the other).
        prompts: texts, for which a tokenizer is needed, or ids.
        names: of the models; 0, 1, ... unless given.
        tokenizer: of all the models.
        batch: prompts of one pass.
        chunk: prompts whose predictions are held at a time, for all models.

    Returns:
        The distances; NaN without a prompt that could be read.

    Raises:
        ValueError: fewer than 2 models, vocabularies of different size, tokens that a model does not have, or a pass
            through ``models`` that gave another number of them.

    Example:
        >>> certain = lambda ids: torch.tensor([50.0, -50.0]).expand(*ids.shape, 2)
        >>> found = model_distances([certain, lambda ids: torch.zeros(*ids.shape, 2)], [[0], [1, 1]])
        >>> found.mean["tv"].round(6).tolist(), found.prompts
        ([[0.0, 0.5], [0.5, 0.0]], 2)
    """
    given = [one if isinstance(one, str) else tuple(one) for one in prompts]
    sums: dict[str, Array] = {}
    largest: dict[str, Array] = {}
    unread: dict[str, int] = {}
    count, size = 0, len(names)
    for start in range(0, len(given), chunk):
        held: list[Tensor] = []
        read: list[list[bool]] = []
        for model in models:
            p, usable = _all_predictions(model, given[start : start + chunk], tokenizer, batch, start)
            held.append(p)
            read.append([reason is None for reason in usable])
            if len(held) == 1:
                for reason in filter(None, usable):
                    unread[reason] = unread.get(reason, 0) + 1
        size = _check(held, size)
        both = torch.tensor(read).all(0)
        count += int(both.sum())
        for metric in METRICS:
            sums.setdefault(metric, np.zeros((size, size)))
            largest.setdefault(metric, np.zeros((size, size)))
        if not both.any():
            continue
        for i in range(size):
            for j in range(i):
                for metric, d in distribution_distances(held[i][both], held[j][both]).items():
                    sums[metric][i, j] = sums[metric][j, i] = sums[metric][i, j] + float(d.sum())
                    largest[metric][i, j] = largest[metric][j, i] = max(largest[metric][i, j], float(d.max()))
    if not count:
        nothing = np.full((max(size, 2), max(size, 2)), math.nan)
        sums, largest = {m: nothing for m in METRICS}, {m: nothing for m in METRICS}
    mean = {metric: value / max(count, 1) for metric, value in sums.items()}
    return ModelDistances(tuple(names) or tuple(map(str, range(size))), mean, largest, count, unread)


def _all_predictions(
    model: Model, prompts: Sequence[Given], tokenizer: Any, batch: int, start: int
) -> tuple[Tensor, list[str | None]]:
    """[N, V], zero where a prompt could not be read, and the reasons."""
    face = adapt(model)
    encoded = list(encode(prompts, face, tokenizer))
    out: Tensor | None = None
    for _, batches in windows(encoded, batch, face.pads):
        for some in batches:
            p = predictions(face, some)
            if out is None:
                out = p.new_zeros(len(encoded), p.shape[-1])
            out[[one.index for one in some]] = p
    return (torch.zeros(len(encoded), 1) if out is None else out), [one.reason for one in encoded]


def _check(held: Sequence[Tensor], size: int) -> int:
    if len(held) < 2:
        raise ValueError(f"{len(held)} model: distances need at least 2")
    if size and len(held) != size:
        raise ValueError(f"{len(held)} models and {size} names, or models that can be gone through only once")
    widths = {p.shape[-1] for p in held}
    if len(widths - {1}) > 1:
        raise ValueError(f"vocabularies of {', '.join(map(str, sorted(widths)))} tokens have no distance")
    return len(held)


class Checkpoints:
    """The states of one model along a run, one after the other in the same model; can be gone through again.

    Args:
        model: whose weights are replaced; they are what the last checkpoint says after each pass.
        states: state dictionaries, or functions that load one.

    Example:
        >>> model = torch.nn.Linear(1, 2, bias=False)
        >>> states = [{"weight": torch.full((2, 1), float(k))} for k in range(3)]
        >>> [one.weight[0, 0].item() for one in Checkpoints(model, states)]
        [0.0, 1.0, 2.0]
    """

    def __init__(
        self, model: torch.nn.Module, states: Sequence[dict[str, Tensor] | Callable[[], dict[str, Tensor]]]
    ) -> None:
        self._model, self._states = model, states

    def __iter__(self) -> Iterator[torch.nn.Module]:
        """The model with the weights of each checkpoint in turn."""
        for state in self._states:
            self._model.load_state_dict(state() if callable(state) else state)
            yield self._model


@dataclass(frozen=True, slots=True)
class Embedding:
    """Points whose distances are as given, as well as a plane can.

    Attributes:
        points: [K, dims], centred; the first axis has the most variance, its sign makes the last point positive.
        kept: share of the positive eigenvalues that the axes hold.
        negative: sum of the negative eigenvalues over that of the positive: how far from any flat space.
        stress: root mean square error of the distances over their root mean square.
    """

    points: Array
    kept: float
    negative: float
    stress: float


def embed(distances: Array, dims: int = 2) -> Embedding:
    """Classical multidimensional scaling (Torgerson 1952): eigenvectors of the doubly centred squared distances.

    Args:
        distances: [K, K] symmetric, zero diagonal, K >= 2.
        dims: of the map.

    Returns:
        The map. Equal points all lie at 0, with ``kept``, ``negative`` and ``stress`` NaN.

    Raises:
        ValueError: the matrix is not square, symmetric and finite.

    Example:
        >>> found = embed(np.abs(np.subtract.outer([0.0, 1.0, 3.0], [0.0, 1.0, 3.0])), dims=1)
        >>> found.points[:, 0].round(6).tolist(), round(found.stress, 9)
        ([-1.333333, -0.333333, 1.666667], 0.0)
    """
    d = np.asarray(distances, dtype=np.float64)
    if d.ndim != 2 or d.shape[0] != d.shape[1] or len(d) < 2 or not np.isfinite(d).all() or not np.allclose(d, d.T):
        raise ValueError("give a finite, symmetric matrix of distances between at least 2 points")
    centre = np.eye(len(d)) - 1 / len(d)
    lam, vectors = np.linalg.eigh(-centre @ (d**2) @ centre / 2)
    lam, vectors = lam[::-1], vectors[:, ::-1]
    points = np.zeros((len(d), dims))
    held = min(dims, len(d))
    points[:, :held] = vectors[:, :held] * np.sqrt(lam[:held].clip(min=0))
    points *= np.where(points[-1] < 0, -1.0, 1.0)
    positive = lam[lam > 0].sum()
    if d.max() == 0:
        return Embedding(np.zeros_like(points), math.nan, math.nan, math.nan)
    found = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))
    stress = math.sqrt(((found - d) ** 2).mean() / (d**2).mean())
    return Embedding(points, lam[:held].clip(min=0).sum() / positive, -lam[lam < 0].sum() / positive, stress)
