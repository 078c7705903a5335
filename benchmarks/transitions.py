"""Scores the live detector on recorded runs whose transitions are known, and prints the tables.

    make transitions                      # train and record what is missing
    python benchmarks/transitions.py      # replay and score, a minute

The first three seeds are for development; the tables are of the others unless ``--seeds`` says otherwise.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from transitions import ranking, rivals, show, tables
from transitions.generate import FOLDER
from transitions.run import Run, load_all
from transitions.suite import development

RESULTS = Path(__file__).parent / "results" / "transitions.json"
BEGIN, END = "<!-- transitions -->", "<!-- end of transitions -->"
LIMITS = (0.3, 0.5, 0.7, 0.9, 0.99)  # of the early-warning score, beside the one that development chooses


ARMS = {
    "all runs": lambda arm: True,
    "attention": lambda arm: arm == "attention",
    "without attention": lambda arm: arm != "attention",
}


def score(everything: list[Run], seeds: str = "reported") -> dict[str, Any]:
    """All figures of the runs of some seeds, ready for JSON; the others only choose thresholds and signs."""
    shown = {"reported": lambda s: not development(s), "development": development, "all": lambda s: True}[seeds]
    runs = [run for run in everything if shown(run.seed)]
    arms = {}
    for name, belongs in ARMS.items():
        own = [run for run in runs if belongs(run.recipe.arm)]
        theirs = [run for run in everything if belongs(run.recipe.arm)]
        if own:
            arms[name] = of_runs(theirs, own)
    return {
        "seeds": seeds,
        "arms": arms,
        "recipes": tables.recipes(runs),
        "each": [tables.digest(run) for run in runs],
    }


def of_runs(everything: list[Run], runs: list[Run]) -> dict[str, Any]:
    """The figures of some runs, thresholds and signs chosen on those of ``everything`` that are for development."""
    compared = tables.comparison(everything)
    return {
        "runs": len(runs),
        "steps": sum(r.outcome.steps for r in runs),
        "headline": tables.headline(runs),
        "labels": [[was, name, count] for (was, name), count in sorted(tables.confusion(runs).items())],
        "announcers": [row.figures() for row in rivals.table(everything, runs, compared)],
        "ranking": ranking.table(tables.samples(everything, compared)),
        "early_warning": rivals.early_warning(runs, LIMITS),
    }


def print_events(runs: list[Run]) -> None:
    """What happened in each run and what was told of it."""
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


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Print the tables and, for the reported seeds or where asked, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--seeds", choices=("reported", "development", "all"), default="reported")
    parser.add_argument("--only", default="", help="runs whose name contains this")
    parser.add_argument("--events", action="store_true", help="list what was told of every run")
    parser.add_argument("--json", type=Path, help=f"where to keep the figures; {RESULTS.name} is the committed one")
    parser.add_argument("--docs", type=Path, help="page whose tables are written anew")
    args = parser.parse_args(argv)
    everything = load_all(args.folder, args.only)
    if args.seeds == "development":
        everything = [run for run in everything if development(run.seed)]
    if args.events:
        print_events(
            [r for r in everything if args.seeds == "all" or development(r.seed) == (args.seeds != "reported")]
        )
    result: dict[str, Any] = show.plain(score(everything, args.seeds))
    tables_text = show.text(result)
    print(tables_text)
    if args.docs:
        before, rest = args.docs.read_text().split(BEGIN)
        args.docs.write_text(f"{before}{BEGIN}\n{tables_text}\n{END}{rest.split(END)[1]}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
