import sys

import pytest
import torch

torch.set_num_threads(1)  # small tensors, and a machine that others use as well


@pytest.fixture
def spoken(monkeypatch):
    """What the monitor says to the user, instead of warnings."""
    said = []
    own = ("guard", "reader", "parts", "assembly", "pooling", "lightning", "probes.ear")
    for module in (*own, "lightning_sinks", "sinks.jsonl", "sinks.writers"):
        monkeypatch.setattr(f"thermo_monitor.{module}.tell", said.append)
    for module in ("huggingface", "sinks.trainer"):  # not loaded for the sake of those that have no use for them
        if f"thermo_monitor.{module}" in sys.modules:
            monkeypatch.setattr(f"thermo_monitor.{module}.tell", said.append)
    return said
