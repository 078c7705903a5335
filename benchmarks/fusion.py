"""Several series at once: the average of their evidence against one threshold for each.

    python benchmarks/fusion.py [--arl 10000] [--runs 20] [--length 20000] [--quick] [--json FILE]

Nine watched series in their five groups, noise of four kinds (AR .5 and .9, normal and t3) in turn, independent or
driven by a common noise of correlation .8. *Average*: ``sum_k w_k SR^k >= A``. *Union*: one ``SR^k >= 9 A``.

First table: mean readings to a false alarm, with a 90 % interval. Second: median delay when 1, 3 or 9 of the nine
shift by three standard deviations over 100 readings, at the nominal threshold, and at thresholds at which both
rules have the same rate of false alarms (the same quantile of the largest statistic of a null run).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from thermo_monitor import quantities
from thermo_monitor.detect import OnlineDetector, fusion
from thermo_monitor.detect.synthetic import sigmoid

GROUPS = {key: q.group for key, q in quantities.REGISTRY.items() if q.watched}
KINDS = ((0.5, "normal"), (0.9, "normal"), (0.5, "t3"), (0.9, "t3"))
COMMON = 0.8  # correlation of the innovations in the dependent family
AMPLITUDE, WIDTH = 3.0, 100


def noise(n: int, rng: np.random.Generator, correlation: float) -> np.ndarray:
    """One column for each series, unit variance; ``correlation`` of the normal scores of all innovations."""
    common = rng.standard_normal(n + 200)
    out = np.empty((n, len(GROUPS)))
    for k in range(len(GROUPS)):
        phi, tail = KINDS[k % len(KINDS)]
        score = math.sqrt(correlation) * common + math.sqrt(1.0 - correlation) * rng.standard_normal(n + 200)
        if tail == "t3":
            score = score / np.sqrt(rng.chisquare(3, n + 200) / 3.0) / math.sqrt(3.0)
        level = 0.0
        for i, e in enumerate((score * math.sqrt(1.0 - phi * phi)).tolist()):
            level = phi * level + e
            if i >= 200:
                out[i - 200, k] = level
    return out


def statistics(values: np.ndarray, arl: float, burn_in: int) -> Iterator[tuple[float, float]]:
    """Logarithms of the average and of the union's largest ``SR^k / 9`` after every reading."""
    weight = fusion.weights(GROUPS)
    detector = OnlineDetector(arl=arl * len(GROUPS), burn_in=burn_in)
    states = {key: detector.init() for key in GROUPS}
    for step, row in enumerate(values.tolist()):
        logs = {}
        for (key, state), value in zip(states.items(), row, strict=True):
            detector.update(state, value, step, alone=False)
            logs[key] = fusion.evidence(state)
        yield fusion.combine(logs, weight).log, max(logs.values()) - math.log(len(GROUPS))


def crossing(path: np.ndarray, threshold: float) -> int | None:
    above = np.flatnonzero(path >= threshold)
    return int(above[0]) if above.size else None


def poisson(total: float, alarms: int) -> tuple[float, float, float]:
    """Mean run length and its 90 % interval from the number of alarms in ``total`` readings."""
    half = 1.645 * math.sqrt(alarms)
    return (
        total / max(alarms, 1),
        total / (alarms + half + 1.35),
        total / (alarms - half) if alarms > half else math.inf,
    )


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arl", type=float, default=10_000)
    parser.add_argument("--burn-in", type=int, default=200)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--length", type=int, default=20_000)
    parser.add_argument("--quick", action="store_true", help="a few short runs, to see that it works")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args(arguments)
    if options.quick:
        options.runs, options.length = 1, 600
    rules, threshold, out = ("average", "union"), math.log(options.arl), {"arl": options.arl, "null": [], "delay": []}
    print(f"{len(GROUPS)} series, A = {options.arl:.0f}, {options.runs} runs\n")
    print("| null series | rule | alarms | mean run length | 90 % interval |\n|---|---|---|---|---|")
    for family, correlation in (("independent", 0.0), ("dependent", COMMON)):
        peaks = []
        totals = {rule: [0, 0] for rule in rules}
        for run in range(options.runs):
            rng = np.random.default_rng([run, int(100 * correlation)])
            path = np.array(list(statistics(noise(options.length, rng, correlation), options.arl, options.burn_in)))
            path = path[options.burn_in :]
            peaks.append([np.max(path[i : i + 2000], axis=0) for i in range(0, len(path), 2000)])
            for k, rule in enumerate(rules):
                alarm = crossing(path[:, k], threshold)
                totals[rule][0] += len(path) if alarm is None else alarm + 1
                totals[rule][1] += alarm is not None
        for rule in rules:
            mean, low, high = poisson(*totals[rule])
            print(f"| {family} | {rule} | {totals[rule][1]} | {mean:,.0f} | {low:,.0f} to {high:,.0f} |")
            out["null"].append({"family": family, "rule": rule, "mean": mean, "low": low, "high": high})
        quantile = np.quantile(np.concatenate(peaks), 0.9, axis=0)
        out["delay"] += [{"family": family, "fair": (quantile - quantile[0] + threshold).tolist()}]
    print("\n| series that change | family | average | union | union at the average's false alarms |")
    print("|---|---|---|---|---|")
    start = 300 if options.quick else 1500
    for entry, correlation in zip(list(out["delay"]), (0.0, COMMON), strict=True):
        for changed in (1, 3, 9):
            delays = np.full((options.runs, 3), math.nan)
            for run in range(options.runs):
                rng = np.random.default_rng([run, changed, 7])
                values = noise(start + (200 if options.quick else 1000), rng, correlation)
                which = rng.permutation(len(GROUPS))[:changed]
                values[:, which] += (AMPLITUDE * sigmoid(len(values), start, WIDTH))[:, None]
                path = np.array(list(statistics(values, options.arl, options.burn_in)))
                for k, (column, bar) in enumerate(((0, threshold), (1, threshold), (1, entry["fair"][1]))):
                    alarm = crossing(path[:, column], bar)
                    delays[run, k] = math.inf if alarm is None else alarm - start
            found = np.median(delays, axis=0)
            print(f"| {changed} | {entry['family']} | {found[0]:.0f} | {found[1]:.0f} | {found[2]:.0f} |")
            out["delay"].append({"changed": changed, "family": entry["family"], "median": found.tolist()})
    lower = [round(entry["fair"][1] - threshold, 2) for entry in out["delay"][:2]]
    print(f"\nUnion's log threshold at equal false alarms, independent and dependent: log A {lower[0]:+}, {lower[1]:+}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(out, file, indent=1)
    return out


if __name__ == "__main__":
    main()
