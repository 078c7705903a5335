"""Trains the demo's runs with Lightning and the monitor, and keeps what the report needs."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from torch import Tensor

from thermo_monitor.demo.modular import Split, Transformer, modular_addition
from thermo_monitor.lightning import ThermoMonitor
from thermo_monitor.records import Event, Reading
from thermo_monitor.sinks.defaults import JSONL
from thermo_monitor.sinks.jsonl import read_jsonl

Series = tuple[NDArray[np.int64], NDArray[np.float64]]


@dataclass
class DemoRun:
    """One run and what was found in it.

    Attributes:
        name: title and folder.
        readings: model-wide readings.
        events: in the order in which they were found.
        curves: train and held-out accuracy, measured by the training itself; the monitor never sees them.
    """

    name: str
    readings: list[Reading] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    curves: dict[str, Series] = field(default_factory=dict)

    def accuracy(self, name: str, step: int) -> float:
        """Accuracy at the last measurement at or before a step."""
        steps, values = self.curves[name]
        return float(values[max(0, int(np.searchsorted(steps, step, side="right")) - 1)])


class ModularAdditionModule(L.LightningModule):
    """Full-batch training on modular addition; accuracies are logged every ten steps."""

    def __init__(self, train: Split, held_out: Split, p: int, weight_decay: float, lr: float = 3e-3) -> None:
        super().__init__()
        self.model = Transformer(p)
        self.weight_decay, self.lr = weight_decay, lr
        # Buffers, so that they follow the model to its device; not in its checkpoints.
        self.tokens: Tensor
        self.answers: Tensor
        self.held_out_tokens: Tensor
        self.held_out_answers: Tensor
        self.register_buffer("tokens", train.tokens, persistent=False)
        self.register_buffer("answers", train.answers, persistent=False)
        self.register_buffer("held_out_tokens", held_out.tokens, persistent=False)
        self.register_buffer("held_out_answers", held_out.answers, persistent=False)
        self.accuracies: dict[str, list[tuple[int, Tensor]]] = {"train": [], "held_out": []}

    def training_step(self, batch: Any, index: int) -> Tensor:
        """The whole training set, every step."""
        logits = self.model(self.tokens)
        if index % 10 == 0:
            self._accuracy("train", logits.detach(), self.answers)
        return F.cross_entropy(logits, self.answers)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """The held-out accuracy, outside of the forward pass that the monitor listens to."""
        if batch_idx % 10 == 0:
            with torch.no_grad():
                self._accuracy("held_out", self.model(self.held_out_tokens), self.held_out_answers)

    def _accuracy(self, name: str, logits: Tensor, answers: Tensor) -> None:
        accuracy = (logits.argmax(-1) == answers).float().mean()
        self.accuracies[name].append((len(self.accuracies[name]) * 10, accuracy))
        self.log(f"accuracy/{name}", accuracy, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=self.lr, betas=(0.9, 0.98), weight_decay=self.weight_decay)

    def curves(self) -> dict[str, Series]:
        """Accuracies by step."""
        return {
            f"{name.replace('_', '-')} accuracy": (
                np.array([step for step, _ in points], dtype=np.int64),
                np.array([float(value) for _, value in points]),
            )
            for name, points in self.accuracies.items()
        }


def train(
    name: str, directory: Path, *, weight_decay: float, steps: int, seed: int = 0, p: int = 37, progress: bool = True
) -> DemoRun:
    """Train one run under ``directory / name``.

    Args:
        name: of the run.
        directory: TensorBoard's log directory.
        weight_decay: 3 groks; 0 memorises and never generalises.
        steps: optimizer steps.
        seed: of the model and the split.
        p: modulus.
        progress: whether to show a progress bar.
    """
    torch.manual_seed(seed)
    module = ModularAdditionModule(*modular_addition(p, seed=seed), p=p, weight_decay=weight_decay)
    logger = TensorBoardLogger(directory, name=name, version="", default_hp_metric=False)
    monitor = ThermoMonitor(every=5, preset="grokking")
    quiet = logging.getLogger("lightning.pytorch")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # A loader without workers is right for a batch that is on the device already.
            warnings.simplefilter("ignore")
            trainer = L.Trainer(
                max_steps=steps,
                max_epochs=-1,
                logger=logger,
                callbacks=[monitor],
                log_every_n_steps=10,
                enable_progress_bar=progress,
                enable_model_summary=False,
                enable_checkpointing=False,
                devices=1,
            )
            # The module holds its data; the loader only counts.
            trainer.fit(module, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.arange(steps))))
    finally:
        quiet.setLevel(level)
    run = read_jsonl(Path(logger.log_dir) / JSONL)
    return DemoRun(name, run.readings, run.events, module.curves())
