"""Output readings, one token at a time."""

import math

import numpy as np

from tests.reference import canonical


def readings(y, labels, ignore_index=-100):
    losses, entropies, heats = [], [], []
    for logits, label in zip(y.tolist(), labels.tolist(), strict=True):
        if label == ignore_index:
            continue
        row = canonical.row(logits)
        losses.append(row["log_partition"] - logits[label])
        entropies.append(row["entropy"])
        heats.append(row["specific_heat"])
    return {
        "count": len(losses),
        "mean_loss": math.fsum(losses) / len(losses),
        "loss_variance": float(np.var(losses, ddof=1)),
        "predictive_entropy": math.fsum(entropies) / len(losses),
        "output_specific_heat": math.fsum(heats) / len(losses),
        "calibration_gap": (math.fsum(losses) - math.fsum(entropies)) / len(losses),
    }
