"""What a task has to give, and what a run does with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


@dataclass
class Problem:
    """A model and what it is trained on.

    Attributes:
        model: freshly initialised.
        batch: inputs and targets of a step; full-batch tasks give the same ones at each.
        loss: of the model's outputs and the targets.
        orders: order parameters of the model, 0 at chance and 1 at perfection: ``held_out`` (of data that training
            never sees, in its mirrored form neither), and ``train`` where the training set is finite.
        preset: name of the probes that suit it.
    """

    model: nn.Module
    batch: Callable[[int], Batch]
    loss: Callable[[Tensor, Tensor], Tensor]
    orders: Callable[[nn.Module], dict[str, float]]
    preset: str = "grokking"


@dataclass(frozen=True)
class Recipe:
    """How one run of a problem goes.

    Attributes:
        name: of the task or control.
        problem: makes the problem of a seed.
        steps: optimizer steps.
        lr: learning rate.
        weight_decay: decoupled.
        schedule: factor of the learning rate at a step.
        disturb: what is done to the batch of a step, given a generator that is the run's own.
        control_of: name of the task from which this control differs only in what prevents generalization.
        declared: steps at which a setting changes that the monitor can notice.
        disturbed: first and last step of what is done to the run on purpose.
        arm: ``attention`` or the architecture without it.
        why: one line for the table.
        beta: decay of AdamW's second moment.
        smooth: whether its held-out order parameter climbs slowly all along, so that no height of it is a part of a
            change.
    """

    name: str
    problem: Callable[[int], Problem]
    steps: int
    lr: float = 3e-3
    weight_decay: float = 0.0
    schedule: Callable[[int], float] | None = None
    disturb: Callable[[int, Batch, torch.Generator], Batch] | None = None
    control_of: str | None = None
    control: bool = False
    declared: tuple[int, ...] = ()
    disturbed: tuple[tuple[int, int], ...] = ()
    arm: str = "attention"
    why: str = ""
    beta: float = 0.98
    smooth: bool = False


def share_correct(logits: Tensor, targets: Tensor, chance: float) -> float:
    """Accuracy as an order parameter: 0 at chance, 1 at perfection."""
    if not len(targets):
        return 0.0
    accuracy = (logits.argmax(-1) == targets).double().mean().item()
    return (accuracy - chance) / (1.0 - chance)
