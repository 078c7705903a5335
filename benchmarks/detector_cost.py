"""What the detectors cost: microseconds an update, bytes of state, seconds for the segmentation of a finished series.

    python benchmarks/detector_cost.py [--series 500] [--ticks 100] [--readings 100000 1000000] [--json FILE]

Updates of white noise after the burn-in: one series, many one after the other, and the same ones together
(``ManyDetectors``). The fastest of all ticks is what the machine can do, the median what it did beside everything else
that ran on it. Of ``segment``, medians and quartiles of five rounds over all kinds of series.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

from thermo_monitor.detect import ManyDetectors, OnlineDetector, segment

ROUNDS = 5


def cost(series: int, ticks: int, together: bool = False) -> dict[str, float]:
    detector = OnlineDetector()
    many = ManyDetectors(detector, series)
    states = [detector.init() for _ in range(series)]
    values = np.random.default_rng(0).standard_normal((detector.burn_in + ticks, series))
    seconds = []
    for step, row in enumerate(values if together else values.tolist()):
        started = time.perf_counter()
        if together:
            many.update(row, step)
            seconds.append(time.perf_counter() - started)
            continue
        for state, value in zip(states, row, strict=True):
            detector.update(state, value, step)
        seconds.append(time.perf_counter() - started)
    after = np.array(seconds[detector.burn_in :])
    size = max(len(json.dumps(state)) for state in (many.states() if together else states))
    return {"fastest": float(after.min()), "median": float(np.median(after)), "bytes": size}


def kinds(n: int) -> dict[str, np.ndarray]:
    """Finished series, some of them nearly noiseless, in which a piecewise constant fit has hundreds of cuts."""
    t, e = np.arange(n) / n, np.random.default_rng(0).standard_normal(n)
    return {
        "noise": e,
        "one step": e + 3.0 * (t > 0.4),
        "40 steps": e + 5.0 * (np.arange(n) * 40 // n % 2),
        "exponential decay, hardly any noise": 1e6 * np.exp(-8.0 * t) + e,
        "power law, hardly any noise": 1e6 * (1.0 + 50.0 * t) ** -0.5 + e,
        "line, hardly any noise": 1e6 * t + e,
        "exponential decay, no noise": np.exp(-8.0 * t),
        "random walk": np.cumsum(e),
    }


def finished(n: int) -> dict[str, list[float]]:
    """Quartiles of the seconds that ``segment`` takes for each kind."""
    series, seconds = kinds(n), {name: [] for name in kinds(8)}
    segment(series["one step"][:: max(n // 3000, 1)])  # imports ruptures
    for _ in range(ROUNDS):
        for name, values in series.items():
            started = time.perf_counter()
            segment(values)
            seconds[name].append(time.perf_counter() - started)
    return {name: np.quantile(each, [0.25, 0.5, 0.75]).tolist() for name, each in seconds.items()}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=500)
    parser.add_argument("--ticks", type=int, default=100)
    parser.add_argument("--readings", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args(arguments)
    one = cost(1, 100 * options.ticks)
    many = cost(options.series, options.ticks)
    joint = cost(options.series, options.ticks, together=True)
    print("| series | fastest tick | median tick | a series in the fastest | largest state |\n|---|---|---|---|---|")
    for name, count, row in (
        ("one", 1, one),
        ("one by one", options.series, many),
        ("together", options.series, joint),
    ):
        print(
            f"| {count}, {name} | {1e3 * row['fastest']:.3f} ms | {1e3 * row['median']:.3f} ms "
            f"| {1e6 * row['fastest'] / count:.1f} us | {row['bytes'] / 1024:.1f} KB |"
        )
    whole = {str(n): finished(n) for n in options.readings}
    print("\n| segment, seconds: median (quartiles) | " + " | ".join(f"{n:,}" for n in options.readings) + " |")
    print("|" + "---|" * (len(whole) + 1))
    for name in kinds(8):
        each = (
            f"{middle:.3f} ({low:.3f}, {high:.3f})" for low, middle, high in (rows[name] for rows in whole.values())
        )
        print(f"| {name} | " + " | ".join(each) + " |")
    out = {"one": one, "many": many, "together": joint, "segment": whole}
    if options.json:
        with open(options.json, "w") as file:
            json.dump(out, file, indent=1)
    return out


if __name__ == "__main__":
    main()
