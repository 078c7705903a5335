"""How good is ``segment`` on series of a given length? False changes by length, and the share of changes found.

    python benchmarks/segment_lengths.py [--lengths 300 480 1000] [--seeds 60] [--first 0] [--json FILE]

*All* are the changes that ``segment`` returns, *sure* those without a ``doubt``: up to 500 readings cannot tell a
random walk from levels, and what such noise explains as well is marked. A change is found within 25 readings, 10 below
600, or half its width. Noise has unit marginal variance.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import Any

import numpy as np
from families import NULLS as LONG
from families import Make

from thermo_monitor.detect import evaluate, segment
from thermo_monitor.detect.correlated import FEW
from thermo_monitor.detect.synthetic import Series, flat, moved, noise
from thermo_monitor.detect.voting import Change


def line(n: int, seed: int) -> Series:
    return Series(6.0 * np.arange(n) / n + noise(n, seed, 0.9))


def season(n: int, seed: int) -> Series:
    return Series(np.sin(2.0 * np.pi * np.arange(n) / 50.0) + noise(n, seed, 0.5))


def quiet(n: int, seed: int) -> Series:
    """An exponential decay, a power law or a line of 10 to a million standard deviations."""
    t, size = np.arange(n) / n, 10.0 ** np.random.default_rng([seed, 5]).uniform(1, 6)
    curve = (np.exp(-8.0 * t), (1.0 + 50.0 * t) ** -0.5, -t)[seed % 3]
    return Series(size * curve + noise(n, seed))


def step(n: int, seed: int, share: float, **options: Any) -> Series:
    return moved(n, seed, width=max(1, round(share * n)), **options)


NULLS: dict[str, Make] = {
    "independent": LONG["independent, normal"],
    "AR .5": LONG["AR .5"],
    "independent, t3": LONG["independent, t3"],
    "AR .9": LONG["AR .9"],
    "AR .9, t3": LONG["AR .9, t3"],
    "AR .97": partial(flat, phi=0.97),
    "power-law decay, AR .9, t3": LONG["power-law decay, AR .9, t3"],
    "exponential decay, AR .9, t3": LONG["exponential decay, AR .9, t3"],
    "linear trend of six deviations, AR .9": line,
    "spikes, AR .9": LONG["spikes, AR .9"],
    "slingshots, AR .5": LONG["slingshots, AR .5"],
    "season of 50 readings, AR .5": season,
    "nearly noiseless decays and lines": quiet,
}
CHANGES: dict[str, Make] = {
    "step of 1, independent": partial(step, phi=0.0, tail="normal", amplitude=1.0, share=0.0),
    "step of 3, AR .5": partial(step, phi=0.5, tail="normal", amplitude=3.0, share=0.0),
    "step of 4, AR .9": partial(step, phi=0.9, tail="normal", amplitude=4.0, share=0.0),
    "sigmoid of 4, AR .9, t3": partial(step, phi=0.9, tail="t3", amplitude=4.0, share=0.03),
    "sigmoid of 4 on a power-law decay": partial(step, phi=0.9, tail="t3", amplitude=4.0, share=0.02, curve="power"),
    "sigmoid of 8 on an exponential decay": partial(
        step, phi=0.9, tail="t3", amplitude=8.0, share=0.02, curve="exponential"
    ),
}


def score(make: Make, n: int, seeds: range) -> dict[str, float]:
    """False changes per 10,000 readings, how many they are, and the share of changes found; of all and of the sure."""
    false, hits, total = np.zeros(2), np.zeros(2), 0
    for seed in seeds:
        series = make(n, seed)
        if n <= FEW:
            found = segment(series.values, confidence=True)
        else:  # nothing is in doubt there, and the vote takes its time
            found = [Change(at, at, at, ()) for at in segment(series.values)]
        truth, total = [change.middle for change in series.changes], total + len(series.changes)
        margin = max([25 if n >= 600 else 10, *(change.width // 2 for change in series.changes)])
        for which, dates in enumerate(([c.index for c in found], [c.index for c in found if not c.doubt])):
            right = evaluate.pairs(truth, dates, margin)
            hits[which] += right
            false[which] += len(dates) - right
    rates = 1e4 * false / (n * len(seeds))
    share = hits / total if total else np.full(2, np.nan)
    return {
        "false": rates[0], "false_sure": rates[1], "count": false[0], "count_sure": false[1],
        "found": share[0], "found_sure": share[1],
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[300, 480, 1000])
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args(arguments)
    seeds = range(options.first, options.first + options.seeds)
    out: dict[str, Any] = {"seeds": [seeds.start, seeds.stop]}
    head = [f"{n}: {what}" for n in options.lengths for what in ("all", "sure")]
    for title, families in (
        ("no change: false changes per 10,000 readings", NULLS),
        ("change: share found", CHANGES),
    ):
        print(f"| {title} | " + " | ".join(head) + " |\n|" + "---|" * (len(head) + 1))
        for name, make in families.items():
            rows = out[name] = {str(n): score(make, n, seeds) for n in options.lengths}
            key, form = ("false", "{:.1f}") if families is NULLS else ("found", "{:.2f}")
            print(
                f"| {name} | " + " | ".join(form.format(r[k]) for r in rows.values() for k in (key, f"{key}_sure")),
                "|",
                flush=True,
            )
        print()
    if options.json:
        with open(options.json, "w") as file:
            json.dump(out, file, indent=1)
    return out


if __name__ == "__main__":
    main()
