"""Mean number of readings to a false alarm, by simulation.

    python benchmarks/run_length.py [--arl 10000] [--burn-in 200] [--runs 40] [--length 30000] [--families iid ar.5 ...]

Each run feeds ``length`` readings of noise without a change. An *alarm* is the first time that the statistic, which
level and spread share, crosses ``arl``; the estimate is the readings up to then divided by the number of alarms, which
is unbiased when run lengths are exponential, with the exact 90 % interval of the Poisson distribution of that number.
*Confirmed* are the ``shift`` and ``variance`` events of whole runs, also after a first alarm, for each 10,000 readings:
an alarm that may be a spike is followed, and confirmed only if its level has stayed away.

The families ``nine`` and ``nine-dependent`` are nine series of four kinds of noise, weighed as in a monitored run,
their innovations independent or correlated at .8: one run length for all of them together.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
from scipy.stats import chi2

from thermo_monitor.detect import OnlineDetector, fusion

FAMILIES = {
    "iid": (0.0, "normal"),
    "ar.5": (0.5, "normal"),
    "ar.9": (0.9, "normal"),
    "t3": (0.0, "t3"),
    "ar.9-t3": (0.9, "t3"),
}
TOGETHER = {"nine": 0.0, "nine-dependent": 0.8}  # correlation of the innovations
ALARMS = ("shift", "variance")


def noise(n: int, rng: np.random.Generator, phi: float, tail: str) -> np.ndarray:
    out = rng.standard_normal(n + 200) if tail == "normal" else rng.standard_t(3, n + 200) / math.sqrt(3)
    level, scale = 0.0, math.sqrt(1 - phi * phi)
    for i, e in enumerate(out.tolist()):
        out[i] = level = phi * level + scale * e
    return out[200:]


def one(detector: OnlineDetector, values: np.ndarray) -> tuple[int, bool, int]:
    """Readings to the first alarm or to the end, whether there was one, and confirmed events in the whole run."""
    state = detector.init()
    first, confirmed = len(values), 0
    for step, value in enumerate(values.tolist()):
        state, decision = detector.update(state, value, step)
        if decision.statistic >= decision.threshold:
            first = min(first, step + 1)
        confirmed += decision.event is not None and decision.event.kind in ALARMS
    return first - detector.burn_in, first < len(values), confirmed


def together(detector: OnlineDetector, values: np.ndarray, groups: dict[str, str]) -> tuple[int, bool, int]:
    """The same for one column for each of ``groups``, of which the weighted average decides."""
    weights, threshold = fusion.weights(groups), math.log(detector.arl)
    part = OnlineDetector(arl=detector.arl * len(groups), burn_in=detector.burn_in)
    states = {key: part.init() for key in groups}
    first, confirmed = len(values), 0
    for step, row in enumerate(values.tolist()):
        for state, value in zip(states.values(), row, strict=True):
            event = part.update(state, value, step, alone=False)[1].event
            confirmed += event is not None and event.kind in ALARMS
        fused = fusion.combine({key: fusion.evidence(state) for key, state in states.items()}, weights)
        if fused.log >= threshold:
            first = min(first, step + 1)
            event = part.sound(states[fused.leader], step)[1].event
            confirmed += event is not None and event.kind in ALARMS
    return first - detector.burn_in, first < len(values), confirmed


def interval(total: float, alarms: int) -> tuple[float, float, float]:
    """Mean run length with its 90 % interval when ``alarms`` were counted in ``total`` readings.

    Twice the expected number is a chi-square quantile with 2 k degrees of freedom at its upper end and 2 k + 2 at its
    lower one (Garwood 1936).
    """
    low = 2.0 * total / float(chi2.ppf(0.95, 2 * alarms + 2))
    high = 2.0 * total / float(chi2.ppf(0.05, 2 * alarms)) if alarms else math.inf
    return (total / alarms if alarms else math.inf), low, high


def measure(family: str, detector: OnlineDetector, runs: int, length: int, seed: int = 0) -> dict[str, Any]:
    """One row of the table."""
    from fusion import GROUPS
    from fusion import noise as columns

    total = alarms = confirmed = 0
    for run in range(runs):
        rng = np.random.default_rng([seed, run, sum(map(ord, family))])
        if family in TOGETHER:
            found = together(detector, columns(length, rng, TOGETHER[family]), GROUPS)
        else:
            found = one(detector, noise(length, rng, *FAMILIES[family]))
        total, alarms, confirmed = total + found[0], alarms + found[1], confirmed + found[2]
    mean, low, high = interval(total, alarms)
    rate = 1e4 * confirmed / (runs * (length - detector.burn_in))
    return {
        "family": family, "arl": detector.arl, "alarms": alarms, "readings": total,
        "mean": mean, "low": low, "high": high, "confirmed": rate,
    }  # fmt: skip


HEAD = ["noise", "promised", "alarms", "in readings", "mean run", "90 % interval", "confirmed per 10,000"]


def cells(row: dict[str, Any]) -> list[str]:
    high = "" if math.isinf(row["high"]) else f" to {row['high']:,.0f}"
    return [
        row["family"], f"{row['arl']:,.0f}", str(row["alarms"]), f"{row['readings']:,}",
        f"{row['mean']:,.0f}" if row["alarms"] else "-", f"{row['low']:,.0f}{high}" if high else f"> {row['low']:,.0f}",
        f"{row['confirmed']:.3f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arl", type=float, default=10_000)
    parser.add_argument("--burn-in", type=int, default=200)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--length", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=0)
    known = [*FAMILIES, *TOGETHER]
    parser.add_argument("--families", nargs="*", default=known, choices=known)
    options = parser.parse_args()
    detector = OnlineDetector(arl=options.arl, burn_in=options.burn_in)
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    for family in options.families:
        row = measure(family, detector, options.runs, options.length, options.seed)
        print("| " + " | ".join(cells(row)) + " |", flush=True)


if __name__ == "__main__":
    main()
