"""What is read at a measurement, of every run of a stack at once: the definitions side by side, and null signals."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from thermo_monitor.physics import specific_heat_pooled, spectral_entropy, spectrum
from thermo_monitor.physics.canonical import ROW_QUANTITIES, row_statistics
from thermo_monitor.physics.specific_heats import energy_variance, specific_heat_batchmean

HEADS = ("A answer", "A all", "B", "B_row answer", "B_row all", "D answer", "V answer", "freezing_ratio answer")
"""Of each layer and head. Query sets: ``answer`` is the last row, ``all`` every row with two keys or more."""
OF_OUTPUTS = ("accuracy", "loss", "logit rms", "spectral entropy")
OF_RUNS = ("weight norm", "gradient norm")
SIDES = ("train", "held-out")
"""Of the probe examples. The same quantity on either side is two signals: nobody has the second one in a real run."""


def of_heads(z: Tensor) -> dict[str, Tensor]:
    """Each definition from the attention logits of a probe.

    Args:
        z: [..., N, H, 3, 3] scaled logits, of N probe examples.

    Returns:
        [..., H] for each name in :data:`HEADS`.
    """
    causal = torch.ones(3, 3, dtype=torch.bool, device=z.device).tril()
    z = z.movedim(-4, 0)
    rows = row_statistics(z, causal)
    valid = causal.sum(-1) >= 2
    of = {name: ROW_QUANTITIES[name](rows) for name in ("specific_heat", "specific_heat_row", "freezing_ratio")}
    last, keys = z[..., -1, :], causal[-1]
    return {
        "A answer": of["specific_heat"][..., -1].mean(0),
        "A all": of["specific_heat"][..., valid].mean((0, -1)),
        "B": specific_heat_pooled(z.flatten(1, -3), causal).view(z.shape[1:-2]),
        "B_row answer": of["specific_heat_row"][..., -1].mean(0),
        "B_row all": of["specific_heat_row"][..., valid].mean((0, -1)),
        "D answer": specific_heat_batchmean(last, keys),
        "V answer": energy_variance(last, keys),
        "freezing_ratio answer": of["freezing_ratio"][..., -1].mean(0),
    }


def pooled_over_all(z: Tensor) -> Tensor:
    """Definition B as one number of a run, as its source has it: all layers, examples, heads, queries and keys.

    Args:
        z: [S, L, N, H, 3, 3] scaled logits.

    Returns:
        [S].
    """
    causal = torch.ones(3, 3, dtype=torch.bool, device=z.device).tril()
    return specific_heat_pooled(z.flatten(1, 3).transpose(0, 1), causal)


def of_outputs(logits: Tensor, hidden: Tensor, answers: Tensor) -> dict[str, Tensor]:
    """Accuracy, loss, size of the logits and spectral entropy of the representations at the answer.

    Args:
        logits: [S, N, p].
        hidden: [S, N, d].
        answers: [S, N].

    Returns:
        [S] for each.
    """
    centred = logits - logits.mean(-1, keepdim=True)
    surprise = F.cross_entropy(logits.double().flatten(0, 1), answers.flatten(), reduction="none")
    return {
        "accuracy": (logits.argmax(-1) == answers).double().mean(1),
        "loss": surprise.view_as(answers).mean(1),
        "logit rms": centred.square().mean((1, 2)).sqrt(),
        "spectral entropy": spectral_entropy(spectrum(hidden), hidden.shape[-1]),
    }


def of_random_rows(frozen: NDArray[np.floating]) -> NDArray[np.float64]:
    """Definition A of rows of three keys that differ from random ones in nothing: what sharpening alone makes of it.

    Rows are Gaussian, centred, and scaled to the standard deviation that belongs to a freezing ratio. As that grows, A
    rises to a maximum and falls.

    Args:
        frozen: [...] freezing ratios, of rows of three keys.

    Example:
        >>> of_random_rows(np.array([0.0, 0.2, 1.0, 5.0])).round(2)
        array([0.  , 0.08, 0.55, 0.09])
    """
    return np.interp(frozen, *_sharpened())


@functools.cache
def _sharpened() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Freezing ratios, and the mean of A over the same 4096 rows at each."""
    z = np.random.default_rng(0).standard_normal((4096, 3))
    z -= z.mean(1, keepdims=True)
    z /= z.std(1, keepdims=True)
    grid = np.linspace(0.0, 4.0, 401) ** 3
    scaled = torch.from_numpy(grid[:, None, None] * math.sqrt(2 * math.log(3)) * z)
    return grid, row_statistics(scaled).specific_heat.mean(1).numpy()
