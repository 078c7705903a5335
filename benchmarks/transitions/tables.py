"""The tables of the scorer: what is asked of the detector, each recipe, labels, and which reading tells runs apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from transitions import ranking
from transitions.intervals import bootstrap, rate, share
from transitions.matching import told
from transitions.rivals import grokking, stuck
from transitions.run import Run
from transitions.suite import RECIPES, development

Figure = dict[str, Any]  # what, value, low, high, of: how many runs, changes or steps stand behind it


def headline(runs: Sequence[Run]) -> list[Figure]:
    """What is asked of the detector: the transition itself, then the announcement before it, then the controls."""
    counted = [(change, event) for run in runs for change, event in run.outcome.found]
    rows = []
    for name, phases in (
        ("rises found, the onset in their window", ("memorization", "generalization")),
        ("memorization found", ("memorization",)),
        ("generalization found", ("generalization",)),
    ):
        rows.append(_share(name, [event is not None for change, event in counted if change.phase in phases]))
    right, false = sum(len(r.outcome.labels) for r in runs), sum(len(r.outcome.false) for r in runs)
    rows.append(_share("told events that match something that happened", [True] * right + [False] * false))
    rises = [(c, e) for c, e in counted if e is not None and c.half is not None and c.phase == "generalization"]
    rows.append(
        _median("steps from the middle of a generalization to its telling", [e.step - c.half for c, e in rises])
    )
    rows.append(_median("steps from the begin of a generalization to its onset", [e.onset - c.begin for c, e in rises]))
    rows.append(_share("onsets inside the window before widening", [c.begin <= e.onset <= c.end for c, e in rises]))
    rows.append(_share("generalizations found that are called so", [e.phase == "generalization" for _, e in rises]))
    grokked = [r for r in runs if grokking(r)]
    leads = [(r.outcome.half - r.outcome.announced) / r.outcome.half for r in grokked]
    early = [lead for lead in leads if lead > 0]
    rows.append(_share("grokking runs announced before half of the held-out answers are right", [v > 0 for v in leads]))
    rows.append(_median("lead as a share of that step, of those announced", early))
    rows.append(_median("lead, of all grokking runs that were told of", [v for v in leads if np.isfinite(v)]))
    begins = [r.truth.rise("generalization") for r in grokked]
    before = [rise is not None and r.outcome.announced < rise.begin for r, rise in zip(grokked, begins, strict=True)]
    rows.append(_share("grokking runs announced before a tenth are", before))
    never = [r for r in runs if r.truth.outcome == "never"]
    rows.append(_share("runs that never generalize and are said to", [bool(r.outcome.wrong) for r in never]))
    rows.append(_rate("announcements in runs that never generalize, in 100,000 steps", never, "wrong"))
    rows.append(_rate("false alarms of the controls, in 100,000 steps", [r for r in runs if r.recipe.control], "false"))
    rows.append(
        _rate("false alarms of the tasks, in 100,000 steps", [r for r in runs if not r.recipe.control], "false")
    )
    for name, field in (
        ("declared changes with an event, called scheduled", "scheduled"),
        ("throws of the loss with an event, called an excursion", "excursions"),
    ):
        rows.append(_share(name, [flag for r in runs for flag in getattr(r.outcome, field)]))
    return rows


def _share(what: str, hits: Sequence[bool]) -> Figure:
    value, low, high = share(sum(hits), len(hits))
    return {"what": what, "value": value, "low": low, "high": high, "of": f"{sum(hits)} of {len(hits)}"}


def _median(what: str, values: Sequence[float]) -> Figure:
    value, low, high = bootstrap(values)
    return {"what": what, "value": value, "low": low, "high": high, "of": f"{len(values)} runs"}


def _rate(what: str, runs: Sequence[Run], field: str) -> Figure:
    steps, events = sum(r.outcome.steps for r in runs), sum(len(getattr(r.outcome, field)) for r in runs)
    value, low, high = rate(events, steps / 1e5)
    return {"what": what, "value": value, "low": low, "high": high, "of": f"{events} in {steps:,} steps"}


def recipes(runs: Sequence[Run]) -> list[Figure]:
    """A row for each recipe."""
    rows = []
    for recipe in RECIPES:
        own = [r for r in runs if r.recipe.name == recipe.name]
        if not own:
            continue
        outcomes = Counter(r.truth.outcome for r in own)
        counted = [event for r in own for _, event in r.outcome.found]
        grokked = [r for r in own if grokking(r)]
        early = sum(r.outcome.announced < r.outcome.half for r in grokked)
        rows.append(
            {
                "run": recipe.name,
                "outcome": ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items())),
                "found": f"{sum(e is not None for e in counted)} of {len(counted)}",
                "announced before half": f"{early} of {len(grokked)}" if grokked else "",
                "false": sum(len(r.outcome.false) for r in own),
                "wrongly generalization": sum(len(r.outcome.wrong) for r in own),
            }
        )
    return rows


def digest(run: Run) -> Figure:
    """What came out of one run, in short."""
    return {
        "run": run.recipe.name,
        "seed": run.seed,
        "outcome": run.truth.outcome,
        "half": run.outcome.half,
        "announced": run.outcome.announced,
        "found": [event is not None for _, event in run.outcome.found],
        "told": [f"{e.phase} {e.onset}" for e in told(run.events)],
        "false": len(run.outcome.false),
    }


def confusion(runs: Sequence[Run]) -> Counter[tuple[str, str]]:
    """(what it was, what it was called) of every told event."""
    counts: Counter[tuple[str, str]] = Counter()
    for run in runs:
        counts.update(run.outcome.labels)
        counts.update(("before a generalization", e.phase) for e in run.outcome.precursors)
        counts.update(("nothing listed", e.phase) for e in run.outcome.false)
    return counts


def comparison(runs: Sequence[Run]) -> dict[tuple[str, int], float]:
    """Step of each run at which readings are compared.

    Of one that groks, where half of the held-out answers are right; of one that never does, the median of that step
    over the runs of the task that it is a control of.
    """
    halves: dict[str, list[float]] = {}
    for run in runs:
        if grokking(run):
            halves.setdefault(run.recipe.name, []).append(run.outcome.half)
    steps = {}
    for run in runs:
        task = run.recipe.control_of or run.recipe.name
        if task in halves and (grokking(run) or stuck(run)):
            steps[run.recipe.name, run.seed] = run.outcome.half if grokking(run) else float(np.median(halves[task]))
    return steps


def samples(runs: Sequence[Run], steps: Mapping[tuple[str, int], float]) -> list[ranking.Sample]:
    """The runs that are compared, with what each reading and each score of the detector did until then."""
    out = []
    for run in runs:
        step = steps.get((run.recipe.name, run.seed))
        if step is not None:
            values = ranking.changes(run.recording, run.truth, step) | ranking.peaks(run.scores, run.truth, step)
            out.append(ranking.Sample(grokking(run), development(run.seed), values))
    return out
