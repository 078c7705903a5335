"""Trains all runs of a cell as one model with a leading dimension: what is added up over runs has gradients of its own.

AdamW works element by element, so a stack of runs is trained exactly as each would be alone, but for the order of
additions. Weight decay is applied here and not by the optimizer, because it differs between runs of a stack.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from specific_heat import signals
from specific_heat.grid import Cell
from specific_heat.model import Reading, Study
from thermo_monitor.demo.modular import Split, modular_addition

PROBE = 512  # examples of each side that are read at a measurement, at most
SIZE = 3.0  # root mean square of the centred logits of runs of fixed scale: enough for a sure answer among a hundred


@dataclass
class Side:
    """Examples of S runs, padded: tokens [S, N, 3], answers [S, N], which of them are there [S, N]."""

    tokens: Tensor
    answers: Tensor
    present: Tensor

    @classmethod
    def of(cls, splits: list[Split], device: str) -> Side:
        """The splits of all runs, padded."""
        longest = max(len(s.answers) for s in splits)
        tokens = torch.stack([F.pad(s.tokens, (0, 0, 0, longest - len(s.tokens))) for s in splits])
        answers = torch.stack([F.pad(s.answers, (0, longest - len(s.answers))) for s in splits])
        present = torch.stack([torch.arange(longest) < len(s.answers) for s in splits])
        return cls(tokens.to(device), answers.to(device), present.to(device))

    def probe(self, runs: slice) -> Side:
        """Evenly spaced examples of each of some runs, as many of each, the same at every measurement."""
        sizes = self.present[runs].sum(1).tolist()
        count = min(PROBE, *sizes)
        chosen = torch.stack([torch.linspace(0, size - 1, count).long() for size in sizes]).to(self.answers.device)
        return Side(
            self.tokens[runs].gather(1, chosen[..., None].expand(-1, -1, 3)),
            self.answers[runs].gather(1, chosen),
            torch.ones_like(chosen, dtype=torch.bool),
        )


def splits(cell: Cell) -> tuple[list[Split], list[Split]]:
    """Training and held-out examples of every run, condition after condition."""
    inside, outside = [], []
    for condition, (model, split) in cell.runs():
        train, held_out = modular_addition(cell.p, cell.shares()[condition], seed=split)
        if condition == "shuffled":
            train = Split(train.tokens, _shuffled(train, cell.p, seed=1000 + model))
        inside.append(train)
        outside.append(held_out)
    return inside, outside


def _shuffled(split: Split, p: int, seed: int) -> Tensor:
    """Answers of other pairs; both orders of a pair keep the same one, as they do in the true task."""
    low, high = split.tokens[:, :2].sort(1).values.unbind(1)
    pairs, of = torch.unique(low * p + high, return_inverse=True)
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    return ((pairs // p + pairs % p) % p)[order][of]


def _sized(logits: Tensor, fixed: Tensor, present: Tensor) -> Tensor:
    """Those of the runs of fixed scale divided by their size over the examples that are present."""
    centred = logits - logits.mean(-1, keepdim=True)
    size = centred.square().mean(2).where(present, 0.0).sum(1) / present.sum(1)
    return torch.where(fixed[:, None, None], SIZE * centred / size.sqrt()[:, None, None], logits)


class Stack:
    """The runs of a cell while they are trained."""

    def __init__(self, cell: Cell, device: str = "cpu") -> None:
        models = []
        for _, (model, _) in cell.runs():
            torch.manual_seed(model)
            models.append(Study(cell.p, cell.width, layers=cell.layers).to(device))
        self.cell, self.device = cell, device
        self.base = copy.deepcopy(models[0]).to("meta")
        self.reading = Reading(self.base)
        state, _ = stack_module_state(models)  # type: ignore[arg-type]
        self.parameters: dict[str, Tensor] = {name: value.detach().requires_grad_() for name, value in state.items()}
        of = [condition for condition, _ in cell.runs()]
        decays = [cell.decays()[condition] for condition in of]
        self.shrink = 1.0 - cell.lr * torch.tensor(decays, device=device)
        self.fixed = torch.tensor([condition == "fixed scale" for condition in of], device=device)
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=cell.lr, betas=(0.9, 0.98), weight_decay=0.0)
        inside, outside = splits(cell)
        self.train, self.held_out = Side.of(inside, device), Side.of(outside, device)
        # Conditions differ in how many examples there are.
        slices = [slice(of.index(c), of.index(c) + of.count(c)) for c in dict.fromkeys(of)]
        self.probes = [(runs, (self.train.probe(runs), self.held_out.probe(runs))) for runs in slices]
        self.step = 0

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [S, N, p]."""
        logits: Tensor = vmap(lambda own, x: functional_call(self.base, own, (x,)))(self.parameters, tokens)
        return _sized(logits, self.fixed, self.train.present)

    def read(self, own: dict[str, Tensor], tokens: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [S, N, p], representations [S, N, d], attention logits [S, L, N, H, 3, 3] of some runs."""
        named = {f"model.{name}": value for name, value in own.items()}
        logits, hidden, rows = vmap(lambda one, x: functional_call(self.reading, one, (x,)))(named, tokens)
        return _sized(logits, fixed, torch.ones_like(tokens[..., 0], dtype=torch.bool)), hidden, rows

    def advance(self) -> None:
        """One optimizer step of every run."""
        logits = self.forward(self.train.tokens)
        loss = F.cross_entropy(logits.flatten(0, 1), self.train.answers.flatten(), reduction="none")
        loss = loss.view_as(self.train.answers) * self.train.present
        (loss.sum(1) / self.train.present.sum(1)).sum().backward()
        self.gradient = torch.stack([p.grad.flatten(1).square().sum(1) for p in self.parameters.values()]).sum(0).sqrt()
        with torch.no_grad():
            for parameter in self.parameters.values():
                parameter.mul_(self.shrink.view(-1, *[1] * (parameter.dim() - 1)))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1

    @torch.no_grad()
    def measure(self) -> dict[str, Tensor]:
        """What there is to read: ``train/A answer`` [S, L, H], ``held-out/loss`` [S], ``weight norm`` [S]."""
        found: dict[str, list[Tensor]] = {}
        for runs, sides in self.probes:
            own = {name: value[runs] for name, value in self.parameters.items()}
            for side, probe in zip(signals.SIDES, sides, strict=True):
                logits, hidden, rows = self.read(own, probe.tokens, self.fixed[runs])
                values = signals.of_heads(rows) | signals.of_outputs(logits, hidden, probe.answers)
                for name, value in (values | {"B of the run": signals.pooled_over_all(rows)}).items():
                    found.setdefault(f"{side}/{name}", []).append(value)
        out = {name: torch.cat(values) for name, values in found.items()}
        squares = [p.flatten(1).square().sum(1) for p in self.parameters.values()]
        out["weight norm"] = torch.stack(squares).sum(0).sqrt()
        out["gradient norm"] = self.gradient if self.step else torch.full_like(out["weight norm"], torch.nan)
        return out


def train(cell: Cell, device: str = "cpu") -> Iterator[tuple[int, dict[str, NDArray[np.float32]]]]:
    """Steps and what was measured there."""
    stack = Stack(cell, device)
    for step in range(cell.steps + 1):
        if step % cell.every == 0:
            yield step, {name: value.cpu().numpy().astype(np.float32) for name, value in stack.measure().items()}
        stack.advance()
