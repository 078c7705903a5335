"""Short fits with Lightning, quiet and always the same."""

import logging
import warnings

import lightning as L
import torch
from torch.utils.data import DataLoader

from tests.models import Transformer, batches, cross_entropy
from thermo_monitor.lightning import ThermoMonitor as ThermoMonitor

for name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.ERROR)


class Module(L.LightningModule):
    """Trains a small transformer; keeps the loss of every micro-batch."""

    def __init__(self, kind=Transformer):
        super().__init__()
        torch.manual_seed(0)
        self.model = kind()
        self.losses = []

    def training_step(self, tokens, index):
        loss = cross_entropy(self.model(tokens), tokens)
        self.losses.append(loss.detach())
        return loss

    def validation_step(self, tokens, index):
        self.log("val", cross_entropy(self.model(tokens), tokens))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def loader(count=30, size=4, length=6, seed=1):
    """Ready batches, in the same order in every epoch."""
    return DataLoader(batches(count, size, length, seed), batch_size=None)


def trainer(tmp_path, *callbacks, **options):
    """A trainer without bar, summary and checkpoints."""
    given = {
        "max_steps": 30,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "accelerator": "cpu",
        "devices": 1,
        "default_root_dir": tmp_path,
        "callbacks": list(callbacks),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return L.Trainer(**given | options)


def fit(trainer, module, train=None, **options):
    """Fit while Lightning's advice on loaders and loggers is not an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader() if train is None else train, **options)
    return module
