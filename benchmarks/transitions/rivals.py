"""The detector beside what else could have announced a generalization, all on the same runs and by the same rules.

Runs that generalize after they memorized are to be announced, before half of their held-out answers are right; runs
that memorize and never generalize are not. An alarm in a control is false if its step is in the window of nothing that
happened there. Thresholds are chosen on the seeds for development alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from thermo_monitor.detect.evaluate import auroc
from transitions import announcers
from transitions.follow import SCORES
from transitions.intervals import bootstrap, rate, share
from transitions.recording import Curve
from transitions.run import Run
from transitions.suite import development

DETECTOR = "the detector: a told generalization"


@dataclass(frozen=True)
class Row:
    """What one announcer is worth on the reported runs.

    Attributes:
        name: of it.
        limit: threshold, chosen on the seeds for development; NaN where there is none to choose.
        announced: share of grokking runs announced before half, its interval.
        lead: median lead as a share of that step over the runs announced before it, its interval.
        wrong: share of the runs that never generalize of which it speaks after their fit, its interval.
        rate: false alarms per 100,000 steps of the controls, its interval.
        area: AUROC over runs of its having spoken before the step of comparison.
        runs: grokking runs, and runs that never generalize.
    """

    name: str
    limit: float
    announced: tuple[float, float, float]
    lead: tuple[float, float, float]
    wrong: tuple[float, float, float]
    rate: tuple[float, float, float]
    area: float
    runs: tuple[int, int]

    def figures(self) -> dict[str, Any]:
        """As it is kept."""
        return asdict(self)


def grokking(run: Run) -> bool:
    """Whether it memorized and generalized later."""
    return bool(run.truth.rise("memorization") and run.truth.rise("generalization"))


def stuck(run: Run) -> bool:
    """Whether it memorized and never generalized."""
    return bool(run.truth.rise("memorization")) and run.truth.outcome == "never"


def claims(run: Run) -> list[int]:
    """Steps at which the detector told of a generalization."""
    return [e.step for e in run.events if e.phase == "generalization" and e.level != "info"]


def _score(name: str) -> Callable[[Run], Curve]:
    def curve(run: Run) -> Curve:
        start = announcers.fitted(run.recording)
        steps, values = run.scores[name]
        keep = np.isfinite(values) & (steps >= (math.inf if start is None else start))
        return steps[keep], values[keep]

    return curve


def _change(quantity: str) -> Callable[[Run], Curve]:
    return lambda run: announcers.since(announcers.course(run.recording, quantity))


def _learned(curve: Callable[[Run], Curve], signs: tuple[float, ...], runs: Sequence[Run]) -> tuple[float, float]:
    own = [r for r in runs if development(r.seed) and (grokking(r) or stuck(r))]
    return announcers.learn([curve(r) for r in own], [r.outcome.half if grokking(r) else math.nan for r in own], signs)


def table(everything: Sequence[Run], reported: Sequence[Run], steps: dict[tuple[str, int], float]) -> list[Row]:
    """All announcers; ``steps`` are the steps of comparison of runs."""
    rows = [
        _row(
            DETECTOR,
            math.nan,
            claims,
            reported,
            steps,
            [e for r in reported if r.recipe.control for e in r.outcome.false],
        )
    ]
    learned = {f"{name}, above": (_score(name), (1.0,)) for name in SCORES}
    learned |= {q: (_change(q), (1.0, -1.0)) for q in announcers.LEARNED}
    for name, (curve, signs) in learned.items():
        limit, sign = _learned(curve, signs, everything)

        def said(
            run: Run, curve: Callable[[Run], Curve] = curve, limit: float = limit, sign: float = sign
        ) -> list[int]:
            return announcers.threshold(curve(run), limit, sign)

        rows.append(_row(name, sign * limit, said, reported, steps))
    for name, fixed in announcers.FIXED.items():
        rows.append(_row(name, math.nan, lambda run, fixed=fixed: fixed(run.recording), reported, steps))
    return rows


def _row(
    name: str,
    limit: float,
    said: Callable[[Run], list[int]],
    runs: Sequence[Run],
    steps: dict[tuple[str, int], float],
    false: Sequence[object] | None = None,
) -> Row:
    spoken = {(r.recipe.name, r.seed): said(r) for r in runs}
    leads, wrong, right_scores, wrong_scores = [], [], [], []
    for run in runs:
        fit = run.truth.rise("memorization")
        if fit is None or not (grokking(run) or stuck(run)):
            continue
        key = (run.recipe.name, run.seed)
        after = [step for step in spoken[key] if step > fit.end]
        if grokking(run):
            leads.append((run.outcome.half - after[0]) / run.outcome.half if after else -math.inf)
        else:
            wrong.append(bool(after))
        if key in steps:
            early = float(bool(after) and after[0] < steps[key])
            (right_scores if grokking(run) else wrong_scores).append(early)
    controls = [r for r in runs if r.recipe.control]
    if false is None:
        false = [
            step
            for r in controls
            for step in spoken[r.recipe.name, r.seed]
            if not any(c.low <= step <= c.high for c in r.truth.changes)
        ]
    early_leads = [v for v in leads if v > 0]
    return Row(
        name,
        limit,
        share(len(early_leads), len(leads)),
        bootstrap(early_leads),
        share(sum(wrong), len(wrong)),
        rate(len(false), sum(r.outcome.steps for r in controls) / 1e5),
        auroc(right_scores, wrong_scores),
        (len(leads), len(wrong)),
    )


def early_warning(runs: Sequence[Run], limits: Sequence[float]) -> list[tuple[float, ...]]:
    """Threshold, true- and false-positive rate and median lead of the early-warning score, for each threshold."""
    curve = _score("detect/early_warning")
    out = []
    for limit in limits:
        row = _row("", limit, lambda run, limit=limit: announcers.threshold(curve(run), limit, 1.0), runs, {})
        out.append((limit, row.announced[0], row.wrong[0], row.lead[0], row.rate[0]))
    return out
