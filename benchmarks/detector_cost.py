"""What the online detector costs: microseconds an update, milliseconds a tick of many series, bytes of state.

    python benchmarks/detector_cost.py [--series 500] [--ticks 100]

Updates of white noise after the burn-in: one series, many one after the other, and the same ones together
(``ManyDetectors``). The fastest of all ticks is what the machine can do, the median what it did beside everything else
that ran on it.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from thermo_monitor.detect import ManyDetectors, OnlineDetector


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


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=500)
    parser.add_argument("--ticks", type=int, default=100)
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
    return {"one": one, "many": many, "together": joint}


if __name__ == "__main__":
    main()
