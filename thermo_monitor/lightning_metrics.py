"""The few numbers that ModelCheckpoint, EarlyStopping and the progress bar of Lightning see."""

from __future__ import annotations

import math
from typing import Any

import torch

from thermo_monitor.monitor import Monitor

_METRICS = {"thermo/specific_heat_norm": "attn/specific_heat_norm", "thermo/entropy_fraction": "attn/entropy_fraction"}


def show(trainer: Any, monitor: Monitor) -> None:
    """Put the newest numbers among the metrics of a trainer, and the last notable event on its bar."""
    metrics = trainer.callback_metrics
    for name, key in _METRICS.items():
        value = monitor.latest.get(key, math.nan)
        if math.isfinite(value):  # EarlyStopping would stop the training at a gap
            metrics[name] = torch.tensor(value, device="cpu")
    notable = [e for e in monitor.events if e.level != "info"]
    metrics["thermo/transitions"] = torch.tensor(float(len(notable)), device="cpu")
    if notable:
        trainer.progress_bar_metrics["thermo"] = f"{notable[-1].phase}@{notable[-1].onset}"
