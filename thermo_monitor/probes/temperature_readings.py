"""From the sums of many steps to the temperatures of the optimizer, with their errors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from thermo_monitor.physics import temperature as physics
from thermo_monitor.probes.base import Array, number
from thermo_monitor.probes.window import standard_error
from thermo_monitor.records import Reading

CONFIGURATIONAL, KINETIC = "opt/configurational_temperature", "opt/kinetic_temperature"
FDR, BALANCE, LOGITS = "opt/fdr1_ratio", "opt/norm_balance", "opt/logit_temperature_proxy"
# Weights can be carried along while the loss stands still: the mean force then does what is taken for heat. Their ratio
# is the test of that, so it stays; the temperature goes where it is over twice that of the motion, beyond its error.
DRIFTING = 2.0


def averages(step: int, columns: Array, count: int) -> list[Reading]:
    """Averages over a window, of ``count`` parameters.

    Args:
        step: of the readings.
        columns: [6, window] the loss and the five sums of each step.
        count: parameters that were summed over.
    """
    _, by_gradient, square, by_update, energy, _ = columns
    mean = columns.mean(1)
    configurational = physics.configurational_temperature(mean[1], count)
    kinetic = mean[4] / count
    ratio = physics.fluctuation_dissipation_ratio(configurational, kinetic)
    balance = physics.norm_balance(mean[3], mean[2])
    ratio_error = standard_error(by_gradient - ratio * energy) / mean[4] if mean[4] > 0 else None
    balance_error = standard_error(-2 * by_update - balance * square) / mean[2] if mean[2] > 0 else None
    heat, why = configurational, "degenerate"
    if ratio_error is not None and abs(ratio) - 4 * ratio_error > DRIFTING:
        heat, why = math.nan, "not_stationary"
    return [
        number(step, CONFIGURATIONAL, heat, reason=why, error=standard_error(by_gradient) / count),
        number(step, KINETIC, kinetic, reason="degenerate", error=standard_error(energy) / count),
        number(step, FDR, ratio, reason="degenerate", error=ratio_error),
        number(step, BALANCE, balance, reason="degenerate", error=balance_error),
    ]


def logit_temperature(step: int, variances: Sequence[Array]) -> Reading:
    """The proxy, from the variance of the logits of each micro-batch."""
    if not variances:
        return number(step, LOGITS, math.nan, reason="no_logits")
    variance = float(np.mean([float(v) for v in variances]))
    value = 1 / math.sqrt(variance) if variance > 0 else math.nan
    return number(step, LOGITS, value, reason="degenerate" if variance == 0 else "non_finite")
