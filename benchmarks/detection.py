"""How good is the detection? Three tables and a picture.

    python benchmarks/detection.py [--seeds 10] [--quick] [--long] [--only PART ...] [--json FILE] [--figure FILE]

1. Online: false alarms per 10,000 readings on series without a change, and false alarms / clean rate / median delay on
   series with one, ours at ``arl=100_000`` beside textbook detectors (``river`` joins in where it is installed).
   Clean: found, with no false alarm before. The delay counts from the middle of the change.
2. Offline: false changes per 10,000 readings, F1 within a margin of 25 readings or half the width (finding nothing
   scores .67, as the start of a series counts), and milliseconds, ours beside ``ruptures``.
3. Run lengths: mean readings to a false alarm at ``arl=10_000`` with 90 % intervals, and the rate of confirmed events,
   of one series and of nine together; ``--long`` adds 100,000.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from baselines import Baseline, available
from families import CHANGES, NULLS, Make
from run_length import FAMILIES, HEAD, TOGETHER, cells, measure

from thermo_monitor.detect import OnlineDetector, evaluate, segment
from thermo_monitor.detect.synthetic import Series

OURS = "this package"
ARL, HORIZON = 100_000, 1500
PARTS = ("online", "offline", "lengths")


def alarms_of_ours(series: Series) -> list[int]:
    detector, found, declared = OnlineDetector(arl=ARL), [], set(series.declared)
    state = detector.init()
    for i, value in enumerate(series.values.tolist()):
        step = i * series.every
        if i in declared:
            state = detector.declare(state, step, "learning rate")
        state, decision = detector.update(state, value, step)
        event = decision.event
        if event is not None and event.kind in ("shift", "variance") and event.phase != "scheduled":
            found.append(i)
    return found


def alarms_of(make: Callable[[], Baseline], series: Series) -> list[int]:
    detector, found, declared = make(), [], set(series.declared)
    for i, value in enumerate(series.values.tolist()):
        if i in declared:
            detector = make()
        if math.isfinite(value) and detector.feed(value):
            found.append(i)
            detector = make()
    return found


def online(find: Callable[[Series], list[int]], make: Make, n: int, seeds: int) -> dict[str, float]:
    """False alarms per 10,000 readings before any change; with a change also the clean rate and the median delay."""
    false = quiet = clean = 0
    delays = []
    for seed in range(seeds):
        series = make(n, seed)
        alarms = find(series)
        first = series.changes[0].onset if series.changes else len(series.values)
        early = sum(alarm < first for alarm in alarms)
        false, quiet = false + early, quiet + first
        for change in series.changes:
            end = change.middle + change.width + HORIZON
            hit = next((alarm for alarm in alarms if change.onset <= alarm <= end), None)
            if hit is not None:
                clean += early == 0
                delays.append((hit - change.middle) * series.every)
    delay = float(np.median(delays)) if delays else math.nan
    return {"false": evaluate.false_alarms(false, quiet), "clean": clean / seeds, "delay": delay}


def offline_methods() -> dict[str, Callable[[np.ndarray], list[int]]]:
    import ruptures

    def scaled(x: np.ndarray) -> np.ndarray:
        return np.asarray((x - x.mean()) / x.std())

    return {
        OURS: segment,
        "Pelt (l2), 3 log n on z-scores": lambda x: (
            ruptures.Pelt(model="l2").fit(scaled(x)).predict(pen=3 * math.log(len(x)))[:-1]
        ),
        # The exact optimum of Pelt(model="rbf").predict(pen=10), the first example of its documentation, but fast.
        "KernelCPD (rbf), pen=10": lambda x: ruptures.KernelCPD(kernel="rbf").fit(x).predict(pen=10)[:-1],
    }


def offline(find: Callable[[np.ndarray], list[int]], make: Make, n: int, seeds: int) -> dict[str, float]:
    false, seconds, scores = 0, 0.0, []
    for seed in range(seeds):
        series = make(n, seed)
        index = np.flatnonzero(np.isfinite(series.values))
        started = time.perf_counter()
        found = index[list(find(series.values[index]))].tolist()
        seconds += time.perf_counter() - started
        false += len(found)
        if series.changes:
            change = series.changes[0]
            scores.append(evaluate.f1([[change.middle]], found, margin=max(25, change.width // 2)))
    score = float(np.mean(scores)) if scores else math.nan
    return {"false": evaluate.false_alarms(false, n * seeds), "f1": score, "ms": 1e3 * seconds / seeds}


def table(head: list[str], rows: list[list[str]]) -> None:
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def rate(x: float) -> str:
    return "-" if math.isnan(x) else f"{x:.1f}" if x < 10 else f"{x:.0f}"


def online_tables(nulls: dict[str, Make], changes: dict[str, Make], n: int, seeds: int) -> dict[str, Any]:
    detectors = {OURS: alarms_of_ours} | {
        name: (lambda series, make=make: alarms_of(make, series)) for name, make in available().items()
    }
    print(f"Online, {seeds} series of {n} readings each; ours at arl={ARL}\n\nFalse alarms per 10,000 readings\n")
    out = {
        family: {name: online(find, make, n, seeds) for name, find in detectors.items()}
        for family, make in (nulls | changes).items()
    }
    table(["no change", *detectors], [[f, *(rate(out[f][name]["false"]) for name in detectors)] for f in nulls])
    print("False alarms per 10,000 / clean rate / median delay in steps\n")

    def cell(row: dict[str, float]) -> str:
        delay = "-" if math.isnan(row["delay"]) else f"{row['delay']:.0f}"
        return f"{rate(row['false'])} / {row['clean']:.2f} / {delay}"

    table(["change", *detectors], [[f, *(cell(out[f][name]) for name in detectors)] for f in changes])
    return out


def offline_table(nulls: dict[str, Make], changes: dict[str, Make], n: int, seeds: int) -> dict[str, Any]:
    quiet = [f for f in nulls if "declared" not in f]
    moved = [f for f in changes if not any(word in f for word in ("spread", "every", "1000"))]
    methods = offline_methods()
    print(f"Offline, {seeds} series of {n} readings each: false changes per 10,000, then F1\n")
    out = {
        family: {name: offline(find, (nulls | changes)[family], n, seeds) for name, find in methods.items()}
        for family in (*quiet, *moved)
    }
    rows = [[f, *(rate(out[f][m]["false"]) for m in methods)] for f in quiet]
    rows += [[f, *(f"F1 {out[f][m]['f1']:.2f}" for m in methods)] for f in moved]
    spent = [np.mean([out[f][m]["ms"] for f in out]) for m in methods]
    table(["series", *methods], [*rows, ["milliseconds a series", *(f"{ms:.0f}" for ms in spent)]])
    return out


def lengths_table(plan: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
    print("Mean readings to a false alarm\n")
    out = []
    for arl, runs, length in plan:
        for family in (*FAMILIES, *TOGETHER):
            size = (-(-runs // 6), -(-length * 3 // 5)) if family in TOGETHER else (runs, length)
            out.append(measure(family, OnlineDetector(arl=arl), *size, seed=1))
    table(HEAD, [cells(row) for row in out])
    return out


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="a third of the series, and short, to see that it works")
    parser.add_argument("--long", action="store_true", help="run lengths at 100,000 as well: half an hour more")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these tables and no others")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--figure", help="draw the picture into this file")
    options = parser.parse_args(arguments)
    n, seeds = (1500, 1) if options.quick else (10_000, options.seeds)
    third = slice(1, None, 3) if options.quick else slice(None)
    nulls, changes = dict([*NULLS.items()][third]), dict([*CHANGES.items()][third])
    out: dict[str, Any] = {"seeds": seeds, "readings": n}
    if "online" in options.only:
        out["online"] = online_tables(nulls, changes, n, seeds)
    if "offline" in options.only:
        out["offline"] = offline_table(nulls, changes, *((600, 1) if options.quick else (2000, seeds)))
    if "lengths" in options.only:
        plan = [(10_000, 1, 2000)] if options.quick else [(10_000, 10 * seeds, 20_000)]
        plan += [(100_000, 6 * seeds, 100_000)] if options.long else []
        out["lengths"] = lengths_table(plan)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(out, file, indent=1)
    if options.figure:
        from detection_figure import draw

        draw(out["online"], options.figure)
    return out


if __name__ == "__main__":
    main()
