"""What is read at a measurement, of every run of a stack at once: the definitions side by side, and null signals."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from thermo_monitor.physics import specific_heat_pooled, spectral_entropy, spectrum
from thermo_monitor.physics.canonical import ROW_QUANTITIES, row_statistics
from thermo_monitor.physics.specific_heats import energy_variance, specific_heat_batchmean

HEADS = ("A answer", "A all", "B", "B_row answer", "B_row all", "D answer", "V answer", "freezing_ratio answer")
"""Of each layer and head. Query sets: ``answer`` is the last row, ``all`` every row with two keys or more."""
RUNS = ("B", "weight norm", "gradient norm", "logit rms", "spectral entropy", "held-out loss", "train loss")
ORDERS = ("train accuracy", "held-out accuracy")


def of_heads(z: Tensor) -> dict[str, Tensor]:
    """Each definition from the attention logits of one run.

    Args:
        z: [L, N, H, 3, 3] scaled logits, of N probe examples.

    Returns:
        [L, H] for each name in :data:`HEADS`.
    """
    causal = torch.ones(3, 3, dtype=torch.bool, device=z.device).tril()
    rows = row_statistics(z, causal)
    valid = causal.sum(-1) >= 2
    of = {name: ROW_QUANTITIES[name](rows) for name in ("specific_heat", "specific_heat_row", "freezing_ratio")}

    def answer(name: str) -> Tensor:
        return of[name][..., -1].mean(1)

    def every(name: str) -> Tensor:
        return of[name][..., valid].mean((1, 3))

    pooled = torch.stack([specific_heat_pooled(layer, causal) for layer in z])
    last, keys = z[..., -1, :], causal[-1]
    return {
        "A answer": answer("specific_heat"),
        "A all": every("specific_heat"),
        "B": pooled,
        "B_row answer": answer("specific_heat_row"),
        "B_row all": every("specific_heat_row"),
        "D answer": specific_heat_batchmean(last.transpose(0, 1), keys),
        "V answer": energy_variance(last.transpose(0, 1), keys),
        "freezing_ratio answer": answer("freezing_ratio"),
    }


def of_outputs(logits: Tensor, hidden: Tensor, answers: Tensor, present: Tensor) -> dict[str, Tensor]:
    """Accuracy, loss, size of the logits and spectral entropy of one run on the examples that are present."""
    y, labels = logits[present], answers[present]
    centred = y - y.mean(-1, keepdim=True)
    return {
        "accuracy": (y.argmax(-1) == labels).double().mean(),
        "loss": F.cross_entropy(y.double(), labels),
        "logit rms": centred.square().mean().sqrt(),
        "spectral entropy": spectral_entropy(spectrum(hidden[present]), hidden.shape[-1]),
    }


def pooled_over_all(z: Tensor) -> Tensor:
    """Definition B as one number of a run: all layers, heads, examples, queries and keys."""
    causal = torch.ones(3, 3, dtype=torch.bool, device=z.device).tril()
    return specific_heat_pooled(z.flatten(0, 2)[:, None], causal)[0]
