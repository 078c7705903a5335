"""The table of runs: tasks in which something happens, and controls in which nothing does, or something else."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch

from transitions.problem import Batch, Recipe
from transitions.tasks import induction, markov, parity, regression
from transitions.tasks.table import composition, modular

SEEDS = 5
DEVELOPMENT = 2  # the first ones were looked at while things were built; the others are reported


def development(seed: int) -> bool:
    """Whether a seed may be looked at while something is built."""
    return seed < DEVELOPMENT


def _drops(*steps: int) -> Callable[[int], float]:
    return lambda step: 0.1 ** sum(step >= at for at in steps)


def _restarts(period: int) -> Callable[[int], float]:
    return lambda step: 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step % period) / period))


def _runaway(start: int) -> Callable[[int], float]:
    return lambda step: 1.01 ** max(step - start, 0)


def _noisy_labels(first: int, last: int, classes: int, share: float) -> Callable[[int, Batch, torch.Generator], Batch]:
    """A share of the labels is drawn at random between two steps."""

    def disturb(step: int, batch: Batch, generator: torch.Generator) -> Batch:
        inputs, targets = batch
        if not first <= step <= last:
            return batch
        random = torch.randint(0, classes, targets.shape, generator=generator)
        wrong = torch.rand(targets.shape, generator=generator) < share
        return inputs, torch.where(wrong, random, targets)

    return disturb


_TASKS = (
    Recipe("add 31", modular("add", 31, 0.7), 1100, weight_decay=3.0),
    Recipe("add 29", modular("add", 29, 0.75), 900, weight_decay=3.0),
    Recipe("add 31, two layers", modular("add", 31, 0.7, layers=2), 800, weight_decay=3.0),
    Recipe("subtract 29", modular("subtract", 29, 0.75), 1400, weight_decay=2.5),
    Recipe("subtract 31", modular("subtract", 31, 0.8), 1400, weight_decay=2.5),
    Recipe("multiply 31", modular("multiply", 31, 0.8), 900, weight_decay=2.0),
    Recipe("multiply 37", modular("multiply", 37, 0.75), 700, weight_decay=3.0),
    Recipe("divide 31", modular("divide", 31, 0.8), 900, weight_decay=2.0),
    Recipe("divide 29", modular("divide", 29, 0.8), 900, weight_decay=2.0),
    Recipe("compose S4", composition(4, 0.9), 2000, weight_decay=2.0),
    Recipe("induction heads", induction.problem, 2500, lr=3e-3),
    Recipe("regression in context", regression.problem, 2500, lr=3e-3),
    Recipe(
        "add 31, perceptron", modular("add", 31, 0.75, network="perceptron"), 1500, weight_decay=3.0, arm="perceptron"
    ),
    Recipe(
        "multiply 31, recurrent", modular("multiply", 31, 0.75, network="recurrent"), 1000, weight_decay=2.0,
        arm="recurrent",
    ),
    Recipe("sparse parity", parity.problem, 3000, lr=3e-3, arm="perceptron"),
)  # fmt: skip

_TABLE = {recipe.name: recipe for recipe in _TASKS}


def _without(task: str, why: str, **changes: object) -> Recipe:
    """A control that differs from a task only in what prevents generalization."""
    values = {name: getattr(_TABLE[task], name) for name in ("problem", "steps", "lr", "weight_decay", "arm")}
    return Recipe(f"{task}: {why}", control=True, control_of=task, why=why, **(values | changes))  # type: ignore[arg-type]


_MATCHED = (
    _without("add 31", "no weight decay", weight_decay=0.0),
    _without("add 29", "too little data", problem=modular("add", 29, 0.3)),
    _without("add 31, two layers", "shuffled labels", problem=modular("add", 31, 0.7, layers=2, shuffled=True)),
    _without("subtract 29", "too little data", problem=modular("subtract", 29, 0.3)),
    _without("subtract 31", "weak weight decay", weight_decay=0.1),
    _without("multiply 31", "shuffled labels", problem=modular("multiply", 31, 0.8, shuffled=True)),
    _without("multiply 37", "no weight decay", weight_decay=0.0),
    _without("divide 31", "too little data", problem=modular("divide", 31, 0.3)),
    _without("divide 29", "weak weight decay", weight_decay=0.1),
    _without("compose S4", "shuffled labels", problem=composition(4, 0.9, shuffled=True)),
    _without("add 31, perceptron", "no weight decay", weight_decay=0.0),
    _without("multiply 31, recurrent", "too little data", problem=modular("multiply", 31, 0.3, network="recurrent")),
)

_EVENTS = (
    Recipe("all data in training", modular("add", 31, 1.0), 1000, weight_decay=3.0, control=True),
    Recipe("slow improvement", markov.problem, 3000, lr=2e-4, control=True, smooth=True),
    Recipe(
        "learning-rate drops", markov.problem, 3000, schedule=_drops(1200, 2100), control=True,
        declared=(1200, 2100), smooth=True,
    ),
    Recipe(
        "warm restarts", markov.problem, 3000, schedule=_restarts(1000), control=True,
        declared=(1000, 2000), smooth=True,
    ),
    Recipe(
        "batch size", partial(markov.problem, larger=(1500, 64)), 2500, control=True, declared=(1500,), smooth=True
    ),
    Recipe(
        "noisy labels", markov.problem, 2500, disturb=_noisy_labels(1500, 1599, 32, 0.5), control=True,
        disturbed=((1500, 1599),), smooth=True,
    ),
    Recipe(
        "one bad batch", modular("add", 23, 0.5), 1200, disturb=_noisy_labels(800, 800, 23, 1.0), control=True,
        disturbed=((800, 800),),
    ),
    Recipe("slingshots", modular("add", 23, 0.5), 2000, lr=1e-2, control=True),
    Recipe(
        "divergence", markov.problem, 2000, lr=3e-3, schedule=_runaway(1000), control=True,
        disturbed=((1000, 2000),), smooth=True,
    ),
)  # fmt: skip

RECIPES = (*_TASKS, *_MATCHED, *_EVENTS)
