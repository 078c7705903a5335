"""Binary operations learned from a part of their table: arithmetic modulo p, and composition of permutations.

A commutative operation is split over unordered pairs, so that no held-out example has its mirror image in training.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thermo_monitor.demo.modular import Transformer
from transitions.networks import Perceptron, Recurrent
from transitions.problem import Problem, share_correct

Table = tuple[Tensor, Tensor, Tensor, int]  # a [N], b [N], answers [N], number of elements


def arithmetic(operation: str, p: int) -> Table:
    """The table of ``add``, ``subtract``, ``multiply`` or ``divide`` modulo a prime p."""
    a, b = torch.arange(p).repeat_interleave(p), torch.arange(p).repeat(p)
    if operation in ("multiply", "divide"):  # zero has no inverse, and its products are no matter of learning
        a, b = a[(a > 0) & (b > 0)], torch.arange(1, p).repeat(p - 1)
    inverse = torch.tensor([0, *(pow(i, -1, p) for i in range(1, p))])
    answers = {"add": a + b, "subtract": a - b, "multiply": a * b, "divide": a * inverse[b]}[operation] % p
    return a, b, answers, p


def permutations(n: int) -> Table:
    """The table of the symmetric group of n things: first b, then a."""
    elements = list(itertools.permutations(range(n)))
    index = {element: i for i, element in enumerate(elements)}
    pairs = list(itertools.product(range(len(elements)), repeat=2))
    composed = [index[tuple(elements[i][k] for k in elements[j])] for i, j in pairs]
    a, b = torch.tensor(pairs).unbind(1)
    return a, b, torch.tensor(composed), len(elements)


def split(table: Table, share: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [N, 3], answers [N], and which of them are trained on."""
    a, b, answers, size = table
    mirrored = torch.full((size, size), -1)
    mirrored[a, b] = answers
    commutes = bool((mirrored == mirrored.T).all())
    key = torch.minimum(a, b) * size + torch.maximum(a, b) if commutes else a * size + b
    keys = key.unique()
    chosen = keys[torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed))[: int(share * len(keys))]]
    tokens = torch.stack([a, b, torch.full_like(a, size)], dim=1)
    return tokens, answers, torch.isin(key, chosen)


def problem(
    seed: int,
    *,
    table: Callable[[], Table],
    share: float,
    shuffled: bool = False,
    network: str = "transformer",
    layers: int = 1,
    width: int = 64,
    hidden: int = 256,
) -> Problem:
    """Full-batch training on a share of the table."""
    operation = table()
    tokens, answers, trained = split(operation, share, seed)
    size = operation[3]
    if shuffled:
        answers = answers.clone()
        order = torch.randperm(int(trained.sum()), generator=torch.Generator().manual_seed(seed + 1))
        answers[trained] = answers[trained][order]
    chance = 1.0 / size
    inside, outside = (tokens[trained], answers[trained]), (tokens[~trained], answers[~trained])
    networks: dict[str, Callable[[], nn.Module]] = {
        "transformer": partial(Transformer, size, width, 4, hidden, layers),
        "perceptron": partial(Perceptron, size + 1, 3, size),
        "recurrent": partial(Recurrent, size + 1, size),
    }

    def orders(model: nn.Module) -> dict[str, float]:
        found = {"train": share_correct(model(inside[0]), inside[1], chance)}
        return found | ({"held_out": share_correct(model(outside[0]), outside[1], chance)} if len(outside[1]) else {})

    return Problem(networks[network](), lambda step: inside, F.cross_entropy, orders)


def modular(operation: str, p: int, share: float, **options: object) -> Callable[[int], Problem]:
    """Of a seed: arithmetic modulo p."""
    return partial(problem, table=partial(arithmetic, operation, p), share=share, **options)  # type: ignore[arg-type]


def composition(n: int, share: float, **options: object) -> Callable[[int], Problem]:
    """Of a seed: composition of permutations."""
    return partial(problem, table=partial(permutations, n), share=share, **options)  # type: ignore[arg-type]
