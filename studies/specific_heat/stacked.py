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
from specific_heat.grid import CONDITIONS, Cell
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

    def probe(self) -> Side:
        """Evenly spaced examples of each run, the same at every measurement."""
        sizes = self.present.sum(1).tolist()
        count = min(PROBE, *sizes)
        chosen = torch.stack([torch.linspace(0, size - 1, count).long() for size in sizes]).to(self.answers.device)
        return Side(
            self.tokens.gather(1, chosen[..., None].expand(-1, -1, 3)),
            self.answers.gather(1, chosen),
            torch.ones_like(chosen, dtype=torch.bool),
        )


def splits(cell: Cell) -> tuple[list[Split], list[Split]]:
    """Training and held-out examples of every run, condition after condition."""
    inside, outside = [], []
    for condition in CONDITIONS:
        for model, split in cell.seeds:
            train, held_out = modular_addition(cell.p, cell.share, seed=split)
            if condition == "shuffled":
                order = torch.randperm(len(train.answers), generator=torch.Generator().manual_seed(1000 + model))
                train = Split(train.tokens, train.answers[order])
            inside.append(train)
            outside.append(held_out)
    return inside, outside


class Stack:
    """The runs of a cell while they are trained."""

    def __init__(self, cell: Cell, device: str = "cpu") -> None:
        models = []
        for _ in CONDITIONS:
            for model, _split in cell.seeds:
                torch.manual_seed(model)
                models.append(Study(cell.p, cell.width, layers=cell.layers).to(device))
        self.cell, self.device = cell, device
        self.base = copy.deepcopy(models[0]).to("meta")
        self.reading = Reading(self.base)
        state, _ = stack_module_state(models)  # type: ignore[arg-type]
        self.parameters: dict[str, Tensor] = {name: value.detach().requires_grad_() for name, value in state.items()}
        decays = [cell.decays()[condition] for condition in CONDITIONS for _ in cell.seeds]
        self.shrink = 1.0 - cell.lr * torch.tensor(decays, device=device)
        self.fixed = torch.tensor([c == "fixed scale" for c in CONDITIONS for _ in cell.seeds], device=device)
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=cell.lr, betas=(0.9, 0.98), weight_decay=0.0)
        inside, outside = splits(cell)
        self.train, self.held_out = Side.of(inside, device), Side.of(outside, device)
        self.probes = (self.train.probe(), self.held_out.probe())
        self.step = 0

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [S, N, p]."""
        logits: Tensor = vmap(lambda own, x: functional_call(self.base, own, (x,)))(self.parameters, tokens)
        return self._sized(logits)

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [S, N, p], representations [S, N, d], attention logits [S, L, N, H, 3, 3]."""
        named = {f"model.{name}": value for name, value in self.parameters.items()}
        logits, hidden, rows = vmap(lambda own, x: functional_call(self.reading, own, (x,)))(named, tokens)
        return self._sized(logits), hidden, rows

    def _sized(self, logits: Tensor) -> Tensor:
        centred = logits - logits.mean(-1, keepdim=True)
        size = centred.square().mean((1, 2), keepdim=True).sqrt()
        return torch.where(self.fixed[:, None, None], SIZE * centred / size, logits)

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
    def measure(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Signals of heads [S, L, H] and of runs [S]."""
        heads: dict[str, list[Tensor]] = {name: [] for name in signals.HEADS}
        runs: dict[str, list[Tensor]] = {name: [] for name in (*signals.RUNS, *signals.ORDERS)}
        seen = [self.read(probe.tokens) for probe in self.probes]
        for run in range(len(self.shrink)):
            (inside, held_out) = (
                signals.of_outputs(logits[run], hidden[run], probe.answers[run], probe.present[run])
                for (logits, hidden, _), probe in zip(seen, self.probes, strict=True)
            )
            rows = torch.cat([rows[run] for _, _, rows in seen], dim=1)
            for name, value in signals.of_heads(rows).items():
                heads[name].append(value)
            of_run = {
                "B": signals.pooled_over_all(rows),
                "logit rms": held_out["logit rms"],
                "spectral entropy": held_out["spectral entropy"],
                "held-out loss": held_out["loss"],
                "train loss": inside["loss"],
                "train accuracy": inside["accuracy"],
                "held-out accuracy": held_out["accuracy"],
            }
            for name, value in of_run.items():
                runs[name].append(value)
        out = {name: torch.stack(values) for name, values in runs.items() if values}
        squares = [p.flatten(1).square().sum(1) for p in self.parameters.values()]
        out["weight norm"] = torch.stack(squares).sum(0).sqrt()
        out["gradient norm"] = self.gradient if self.step else torch.full_like(out["weight norm"], torch.nan)
        return {name: torch.stack(values) for name, values in heads.items()}, out


def train(cell: Cell, device: str = "cpu") -> Iterator[tuple[int, dict[str, NDArray[np.float32]]]]:
    """Steps and what was measured there: ``head:<name>`` [S, L, H] and ``run:<name>`` [S]."""
    stack = Stack(cell, device)
    for step in range(cell.steps + 1):
        if step % cell.every == 0:
            heads, runs = stack.measure()
            found = {f"head:{name}": value for name, value in heads.items()}
            found |= {f"run:{name}": value for name, value in runs.items()}
            yield step, {name: value.cpu().numpy().astype(np.float32) for name, value in found.items()}
        stack.advance()
