"""The options of the online detector, checked, and what its stages need to know of them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """What the stages of the detector need to know of its options.

    Attributes:
        minimum_effect: smallest change of level worth an event.
        burn_in: readings from which the baseline is learned.
        wait: readings that a sharp change must persist.
        patience: non-finite readings in a row that make a divergence.
        threshold: logarithm of the alarm threshold.
        freeze: logarithm of the statistic above which the baseline learns no more.
    """

    minimum_effect: float
    burn_in: int
    wait: int
    patience: int
    threshold: float
    freeze: float


def resolve(arl: float, minimum_effect: float, burn_in: int, persistence: int | None, patience: int | None) -> Settings:
    """Settings from the options of :class:`~thermo_monitor.detect.OnlineDetector`.

    Raises:
        ValueError: if an option is out of its range.

    Example:
        >>> resolve(10_000.0, 0.0, 50, None, None).wait
        30
    """
    if not 1 < arl < math.inf:
        raise ValueError(f"arl is a finite number of readings above 1, such as 10_000; got {arl!r}")
    if not 0 <= minimum_effect < math.inf:
        raise ValueError(
            f"minimum_effect is a finite size in units of the readings, 0 or larger; got {minimum_effect!r}"
        )
    for name, value, least in (("burn_in", burn_in, 10), ("persistence", persistence, 4), ("patience", patience, 2)):
        optional = name != "burn_in" and value is None
        if not optional and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ValueError(f"{name} is a whole number of readings, {least} or more; got {value!r}")
    wait = min(max(20, int(0.6 * burn_in)), 120) if persistence is None else persistence
    threshold = math.log(arl)
    # With a minimum effect the evidence grows slowly, and the trend must not have eaten the change by then.
    freeze = (0.5 if minimum_effect == 0 else 0.3) * threshold
    longest = max(10, burn_in // 4) if patience is None else patience
    return Settings(float(minimum_effect), burn_in, wait, longest, threshold, freeze)
