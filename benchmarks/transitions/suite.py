"""The table of runs: tasks in which something happens, and controls in which nothing does, or something else."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch

from transitions.problem import Batch, Recipe
from transitions.tasks import induction, markov, parity, regression
from transitions.tasks.table import composition, modular

DEVELOPMENT = (0, 1, 2)  # looked at while things were built
REPORTED = (5, 6, 7)  # not looked at before they were scored; 3 and 4 were reported for an earlier detector
SEEDS = (*DEVELOPMENT, *REPORTED)


def development(seed: int) -> bool:
    """Whether a seed may be looked at while something is built."""
    return seed in DEVELOPMENT


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


_SMALL = {"width": 48, "hidden": 128}
_PERCEPTRON: dict[str, object] = {"network": "perceptron"}
_RECURRENT: dict[str, object] = {"network": "recurrent"}

_TASKS = (
    Recipe("add 31", modular("add", 31, 0.8), 1200, weight_decay=3.0),
    Recipe("add 29", modular("add", 29, 0.8), 1000, weight_decay=3.0),
    Recipe("add 37", modular("add", 37, 0.7), 1000, weight_decay=3.0),
    Recipe("multiply 31", modular("multiply", 31, 0.8), 1000, weight_decay=2.5),
    Recipe("multiply 23", modular("multiply", 23, 0.85, **_SMALL), 1200, weight_decay=2.5),
    Recipe("multiply 29", modular("multiply", 29, 0.75), 900, weight_decay=3.0),
    Recipe("induction heads", induction.problem, 1000, lr=2e-3),
    Recipe("regression in context", regression.problem, 1100, lr=2e-3),
    Recipe(
        "add 31, perceptron", modular("add", 31, 0.75, **_PERCEPTRON), 1200, weight_decay=3.0, arm="perceptron"
    ),
    Recipe(
        "subtract 29, perceptron", modular("subtract", 29, 0.7, **_PERCEPTRON), 1300, weight_decay=2.0,
        arm="perceptron",
    ),
    Recipe(
        "divide 31, perceptron", modular("divide", 31, 0.6, **_PERCEPTRON), 1400, weight_decay=2.0,
        arm="perceptron",
    ),
    Recipe(
        "compose S4, perceptron", composition(4, 0.85, **_PERCEPTRON), 1500, lr=5e-3, weight_decay=2.0, arm="perceptron"
    ),
    Recipe(
        "multiply 31, recurrent", modular("multiply", 31, 0.75, **_RECURRENT), 1000, weight_decay=2.0,
        arm="recurrent",
    ),
    Recipe("sparse parity", parity.problem, 800, lr=3e-3, arm="perceptron"),
)  # fmt: skip

_TABLE = {recipe.name: recipe for recipe in _TASKS}


def _without(task: str, why: str, **changes: object) -> Recipe:
    """A control that differs from a task only in what prevents generalization."""
    values = {name: getattr(_TABLE[task], name) for name in ("problem", "steps", "lr", "weight_decay", "arm")}
    return Recipe(f"{task}: {why}", control=True, control_of=task, why=why, **(values | changes))  # type: ignore[arg-type]


_MATCHED = (
    _without("add 31", "no weight decay", weight_decay=0.0),
    _without("add 29", "too little data", problem=modular("add", 29, 0.3)),
    _without("add 37", "shuffled labels", problem=modular("add", 37, 0.7, shuffled=True)),
    _without("multiply 31", "weak weight decay", weight_decay=0.1),
    _without("multiply 23", "too little data", problem=modular("multiply", 23, 0.3, **_SMALL)),
    _without("multiply 29", "shuffled labels", problem=modular("multiply", 29, 0.75, shuffled=True)),
    _without("add 31, perceptron", "too little data", problem=modular("add", 31, 0.3, **_PERCEPTRON)),
    _without("subtract 29, perceptron", "no weight decay", weight_decay=0.0),
    _without("divide 31, perceptron", "too little data", problem=modular("divide", 31, 0.25, **_PERCEPTRON)),
    _without("compose S4, perceptron", "shuffled labels", problem=composition(4, 0.85, shuffled=True, **_PERCEPTRON)),
    _without("multiply 31, recurrent", "too little data", problem=modular("multiply", 31, 0.3, **_RECURRENT)),
)

_EVENTS = (
    Recipe("all data in training", modular("add", 23, 1.0, **_SMALL), 800, lr=2e-3, weight_decay=2.5, control=True),
    Recipe("slow improvement", markov.problem, 1500, lr=2e-4, control=True, smooth=True),
    Recipe(
        "learning-rate drops", markov.problem, 1500, schedule=_drops(600, 1050), control=True,
        declared=(600, 1050), smooth=True,
    ),
    Recipe(
        "warm restarts", markov.problem, 1500, schedule=_restarts(500), control=True,
        declared=(500, 1000), smooth=True,
    ),
    Recipe(
        "batch size", partial(markov.problem, larger=(700, 64)), 1200, control=True, declared=(700,), smooth=True
    ),
    Recipe(
        "noisy labels", markov.problem, 1300, disturb=_noisy_labels(700, 799, 32, 0.5), control=True,
        disturbed=((700, 799),), smooth=True,
    ),
    Recipe(
        "one bad batch", modular("add", 23, 0.5, **_SMALL), 900, disturb=_noisy_labels(600, 600, 23, 1.0),
        control=True, disturbed=((600, 600),),
    ),
    Recipe("slingshots", modular("add", 23, 0.5, **_SMALL), 1800, lr=1e-2, control=True),
    Recipe(
        "divergence", markov.problem, 1400, lr=3e-3, schedule=_runaway(600), control=True,
        disturbed=((600, 1400),), smooth=True,
    ),
)  # fmt: skip

RECIPES = (*_TASKS, *_MATCHED, *_EVENTS)
