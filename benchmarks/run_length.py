"""Mean number of readings to a false alarm, by simulation.

    python benchmarks/run_length.py [--arl 10000] [--burn-in 200] [--runs 40] [--length 30000] [--families iid ar.5 ...]

Each run feeds noise without a change and ends at the first ``shift`` or ``variance`` event, or after ``length``
readings. The estimate is total readings after the burn-in divided by the number of alarms, which is unbiased when run
lengths are exponential, and its 90 % interval comes from the Poisson distribution of that number.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from thermo_monitor.detect import OnlineDetector

FAMILIES = {
    "iid": (0.0, "normal"),
    "ar.5": (0.5, "normal"),
    "ar.9": (0.9, "normal"),
    "t3": (0.0, "t3"),
    "ar.9-t3": (0.9, "t3"),
}


def noise(n: int, rng: np.random.Generator, phi: float, tail: str) -> np.ndarray:
    out = rng.standard_normal(n + 200) if tail == "normal" else rng.standard_t(3, n + 200) / math.sqrt(3)
    level, scale = 0.0, math.sqrt(1 - phi * phi)
    for i, e in enumerate(out):
        level = phi * level + scale * e
        out[i] = level
    return out[200:]


def run_length(detector: OnlineDetector, values: np.ndarray) -> tuple[int, bool]:
    state = detector.init()
    for step, value in enumerate(values.tolist()):
        state, decision = detector.update(state, value, step)
        if decision.event is not None and decision.event.kind in ("shift", "variance"):
            return step + 1 - detector.burn_in, True
    return len(values) - detector.burn_in, False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arl", type=float, default=10_000)
    parser.add_argument("--burn-in", type=int, default=200)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--length", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=list(FAMILIES))
    options = parser.parse_args()
    detector = OnlineDetector(arl=options.arl, burn_in=options.burn_in)
    for family in options.families:
        phi, tail = FAMILIES[family]
        lengths, alarms = [], 0
        for run in range(options.runs):
            rng = np.random.default_rng([options.seed, run, sum(map(ord, family))])
            length, alarmed = run_length(detector, noise(options.length, rng, phi, tail))
            lengths.append(length)
            alarms += alarmed
        total, half = sum(lengths), 1.645 * math.sqrt(alarms)
        low, high = total / (alarms + half + 1.35), total / (alarms - half) if alarms > half else math.inf
        median = float(np.median(lengths))
        mean = total / max(alarms, 1)
        print(f"{family:8s} {alarms:3d} alarms in {total}: mean {mean:.0f} [{low:.0f}, {high:.0f}] {median=:.0f}")


if __name__ == "__main__":
    main()
