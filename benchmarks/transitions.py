"""Scores the live detector on recorded runs whose transitions are known, and prints the tables.

    make transitions                      # train and record what is missing
    python benchmarks/transitions.py      # replay and score, a minute

The first two seeds are for development; the tables are of the others unless ``--seeds`` says otherwise.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transitions import ranking
from transitions.generate import FOLDER, path
from transitions.intervals import bootstrap, rate, share
from transitions.matching import Outcome, match
from transitions.problem import Recipe
from transitions.recording import Recording, replay
from transitions.suite import RECIPES, SEEDS, development
from transitions.truth import Truth, truth

from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.records import Event

OPTIONS = OnlineDetector(arl=100_000, burn_in=40)


@dataclass
class Run:
    """A recorded run with what happened in it and what was said about it."""

    recipe: Recipe
    seed: int
    recording: Recording
    truth: Truth
    events: Sequence[Event]
    outcome: Outcome


def load(recipe: Recipe, seed: int, folder: Path) -> Run | None:
    """One run, if it is recorded."""
    file = path(folder, recipe.name, seed)
    if not file.exists():
        return None
    recording = Recording.load(file)
    what = truth(recipe, recording)
    events = replay(recording, OPTIONS)
    return Run(recipe, seed, recording, what, events, match(what, events))


def _load(name: str, seed: int, folder: Path) -> Run | None:
    return load(next(r for r in RECIPES if r.name == name), seed, folder)


def headline(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What is asked of the detector, in one table."""
    rows: list[tuple[str, str]] = []
    counted = [(change, event) for run in runs for change, event in run.outcome.found]
    for name, phases in (
        ("rises found with the onset in their window", ("memorization", "generalization")),
        ("of these, memorization", ("memorization",)),
        ("of these, generalization", ("generalization",)),
    ):
        own = [event is not None for change, event in counted if change.phase in phases]
        rows.append((name, _share(sum(own), len(own))))
    right, false = sum(len(r.outcome.labels) for r in runs), sum(len(r.outcome.false) for r in runs)
    rows.append(("told events that match something that happened", _share(right, right + false)))
    controls = [r for r in runs if r.recipe.control]
    steps = sum(r.outcome.steps for r in controls)
    false = sum(len(r.outcome.false) for r in controls)
    rows.append(
        (
            f"false alarms per 100,000 steps of the controls ({steps:,} steps)",
            "{:.2f} ({:.2f} to {:.2f})".format(*rate(false, steps / 1e5)),
        )
    )
    never = [r for r in runs if r.truth.outcome == "never"]
    rows.append(
        ("runs that never generalize and are said to", _share(sum(bool(r.outcome.wrong) for r in never), len(never)))
    )
    delays = [
        float(event.step - change.half)
        for change, event in counted
        if event is not None and change.half is not None and change.phase == "generalization"
    ]
    rows.append(("steps from the middle of a generalization to its confirmation, median", _median(delays)))
    grokked = [r for r in runs if r.truth.rise("memorization") and r.truth.rise("generalization")]
    leads = [(r.outcome.half - r.outcome.announced) / r.outcome.half for r in grokked]
    rows.append(
        (
            "grokking runs announced before half of the held-out answers are right",
            _share(sum(v > 0 for v in leads), len(leads)),
        )
    )
    rows.append(
        ("lead as a share of that step, median of those announced before it", _median([v for v in leads if v > 0], 2))
    )
    for name, field in (("declared changes called scheduled", "scheduled"), ("throws called excursions", "excursions")):
        own = [flag for r in runs for flag in getattr(r.outcome, field)]
        rows.append((name, _share(sum(own), len(own))))
    return rows


def _share(hits: int, of: int) -> str:
    return "{:.2f} ({:.2f} to {:.2f}), {} of {}".format(*share(hits, of), hits, of)


def _median(values: Sequence[float], digits: int = 0) -> str:
    middle, low, high = bootstrap(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f}), {len(values)} runs"


def tasks(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """A row for each recipe."""
    rows = []
    for recipe in RECIPES:
        own = [r for r in runs if r.recipe.name == recipe.name]
        if not own:
            continue
        outcomes = Counter(r.truth.outcome for r in own)
        counted = [event for r in own for _, event in r.outcome.found]
        rows.append(
            (
                recipe.name,
                ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items())),
                f"{sum(e is not None for e in counted)} of {len(counted)}",
                str(sum(len(r.outcome.precursors) for r in own)),
                str(sum(len(r.outcome.false) for r in own)),
                str(sum(len(r.outcome.wrong) for r in own)),
            )
        )
    return rows


def confusion(runs: Sequence[Run]) -> Counter[tuple[str, str]]:
    """(what it was, what it was called) of every told event."""
    counts: Counter[tuple[str, str]] = Counter()
    for run in runs:
        counts.update(run.outcome.labels)
        counts.update(("before a generalization", e.phase) for e in run.outcome.precursors)
        counts.update(("nothing listed", e.phase) for e in run.outcome.false)
    return counts


def samples(runs: Sequence[Run]) -> list[ranking.Sample]:
    """Runs of tasks that generalize after they memorized, and their controls that never do, at comparable steps."""
    halves: dict[str, list[float]] = {}
    for run in runs:
        if run.truth.rise("memorization") and run.truth.rise("generalization"):
            halves.setdefault(run.recipe.name, []).append(run.outcome.half)
    out = []
    for run in runs:
        task = run.recipe.control_of or run.recipe.name
        if task not in halves or run.truth.rise("memorization") is None:
            continue
        generalizes = run.truth.outcome == "generalizes"
        if not generalizes and run.truth.outcome != "never":
            continue
        step = run.outcome.half if generalizes else float(np.median(halves[task]))
        out.append(ranking.Sample(generalizes, development(run.seed), ranking.changes(run.recording, run.truth, step)))
    return out


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def main(argv: list[str] | None = None) -> dict[str, object]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--seeds", choices=("reported", "development", "all"), default="reported")
    parser.add_argument("--only", default="")
    parser.add_argument("--events", action="store_true", help="list what was told of every run")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    wanted = [(r.name, seed) for r in RECIPES if args.only in r.name for seed in range(SEEDS)]
    with ProcessPoolExecutor() as pool:
        loaded = pool.map(_load, *zip(*[(n, s, args.folder) for n, s in wanted], strict=True), chunksize=4)
        everything = [run for run in loaded if run is not None]
    shown = {"reported": lambda s: not development(s), "development": development, "all": lambda s: True}[args.seeds]
    runs = [run for run in everything if shown(run.seed)]
    print(f"{len(runs)} runs, {sum(r.outcome.steps for r in runs):,} steps\n")
    if args.events:
        for run in runs:
            print(f"\n{run.recipe.name}, seed {run.seed}: {run.truth.outcome}")
            for change in run.truth.changes:
                print(f"    {change.phase:15s} {change.begin}-{change.end} ({change.rule})")
            for event in run.events:
                if "part_of" not in event.details:
                    mark = "FALSE" if event in run.outcome.false else "WRONG" if event in run.outcome.wrong else ""
                    print(
                        f"  {event.level:8s}{event.phase:16s} {event.kind:10s} onset {event.onset:5d} "
                        f"told {event.step:5d} {event.direction:5s} {event.quantity} {mark}"
                    )
        print()
    head = headline(runs)
    print(markdown(["what", "measured"], head))
    print()
    print(markdown(["run", "outcome", "rises found", "precursors", "false", "wrongly generalization"], tasks(runs)))
    counts = confusion(runs)
    names = sorted({label for _, label in counts})
    print()
    rows = [[was, *(str(counts[was, name]) for name in names)] for was in sorted({was for was, _ in counts})]
    print(markdown(["what it was", *names], rows))
    print()
    ranked = ranking.table(samples(everything))
    print(markdown(["reading", "AUROC, development", "AUROC, reported", "runs"], [
        [name, f"{a:.2f}", f"{b:.2f}", str(n)] for name, a, b, n in ranked
    ]))  # fmt: skip
    result = {"headline": dict(head), "ranking": ranked, "runs": len(runs)}
    if args.json:
        args.json.write_text(json.dumps(result, indent=1, default=lambda v: None if math.isnan(v) else v) + "\n")
    return result


if __name__ == "__main__":
    main()
