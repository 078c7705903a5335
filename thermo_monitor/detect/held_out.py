"""What held-out metrics say about a run: they confirm and label what the readings show, and are never needed.

Evaluations are few, so they are no matter for statistics: a metric counts as better or worse when it has moved by a
minimum effect, .05 of the scale of a share (accuracy, error rate) and a factor of 1.25 for a loss.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from thermo_monitor.detect.curve import Curve
from thermo_monitor.records import Direction, Event, Kind, Phase, Reading

Better = Literal["higher", "lower"]
FAMILY, LOSS = "val/", "loss/train"
SHARE, FACTOR = 0.05, 1.25  # minimum effects
AGAIN = 2  # better evaluations in a row that show what was learned to hold beyond the training set
WORSE = 3  # evaluations in a row, worse than the best one, that show overfitting
_PREFIX = re.compile(r"^(val|valid|validation|eval|dev|held_?out)[/_.-](?=.)", re.IGNORECASE)
_LOWER = re.compile(r"loss|nll|ppl|perplexity|entropy|mse|mae|error|(^|[_/.-])(err|wer|cer|bpc|bpb|rate)([_/.-]|$)")
_HIGHER = re.compile(r"acc|f1|auc|auroc|precision|recall|score|bleu|rouge|iou|dice|map|(^|[_/.-])(r2|em)([_/.-]|$)")
_RATE = re.compile(r"error|(^|[_/.-])(err|wer|cer|rate)([_/.-]|$)")

State = dict[str, Any]


def is_held_out(name: str) -> bool:
    """Whether a name that somebody logged is that of a held-out metric.

    Example:
        >>> [is_held_out(name) for name in ("val_loss", "valid/acc", "eval_accuracy", "train_loss", "value")]
        [True, True, True, False, False]
    """
    return _PREFIX.match(name) is not None


def key(name: str) -> str:
    """Key of the readings of a metric.

    Example:
        >>> key("val_loss"), key("accuracy"), key("eval/f1/dataloader_idx_0")
        ('val/loss', 'val/accuracy', 'val/f1_dataloader_idx_0')
    """
    return FAMILY + _PREFIX.sub("", name).replace("/", "_")


def better(name: str) -> Better | None:
    """Which direction of a metric is better, from the words in its name; None where they do not say.

    Example:
        >>> better("val/top5_accuracy"), better("val/loss"), better("val/temperature")
        ('higher', 'lower', None)
    """
    low = name.lower()
    return "lower" if _LOWER.search(low) else "higher" if _HIGHER.search(low) else None


def fresh() -> State:
    """The state that has seen nothing; plain JSON."""
    return {"better": {}, "improved": False, "overfitted": -1}


def declare(state: State, quantity: str, direction: Better | None) -> None:
    """Say which direction of a metric is better, in place of its name.

    Raises:
        ValueError: the direction is none.
    """
    if direction not in (None, "higher", "lower"):
        raise ValueError(f"better is 'higher', 'lower' or None (what the name says); got {direction!r}")
    if direction is not None:
        state["better"][quantity] = direction


@dataclass(frozen=True, slots=True)
class Metric:
    """The evaluations of one metric on a scale on which up is better and one is the minimum effect.

    Attributes:
        quantity: its key.
        values: as they were logged.
        steps: of the evaluations, rising.
        merits: on that scale.
        best: merit of a perfect model, infinite for a loss.
    """

    quantity: str
    values: list[float]
    steps: list[int]
    merits: list[float]
    best: float

    def around(self, low: int, high: int) -> tuple[int, int] | None:
        """Index of the last evaluation up to ``low``, or else of the first one, and of the last up to ``high``.

        None where there are no two.
        """
        first, last = max(bisect_right(self.steps, low) - 1, 0), bisect_right(self.steps, high) - 1
        return (first, last) if last > first else None


def metrics(state: State, curves: Mapping[str, Curve]) -> list[Metric]:
    """The metrics of which it is known what is better and how much matters; others are only recorded.

    A metric of which higher is better is a share, of 1 or of 100; one of which lower is better is a loss, and its
    logarithm counts, unless its name says that it is a rate.
    """
    found = []
    for quantity, curve in curves.items():
        direction = state["better"].get(quantity) or better(quantity)
        if not quantity.startswith(FAMILY) or direction is None or min(curve.values, default=-1.0) < 0.0:
            continue
        higher, top = direction == "higher", max(curve.values)
        if not higher and not _RATE.search(quantity.lower()):
            merits = [-math.log(max(v, 1e-12)) / math.log(FACTOR) for v in curve.values]
            found.append(Metric(quantity, curve.values, curve.steps, merits, math.inf))
        elif top <= 100.0:
            unit = (1.0 if higher else -1.0) * SHARE * (1.0 if top <= 1.0 else 100.0)
            merits = [v / unit for v in curve.values]
            best = 1.0 / SHARE if higher else 0.0
            found.append(Metric(quantity, curve.values, curve.steps, merits, best))
    return found


def read(state: State, curves: dict[str, Curve], reading: Reading, memorized: int | None) -> list[Event]:
    """Events that one evaluation of a metric completes.

    Args:
        state: changed in place.
        curves: of the run; the reading is added to that of the metric.
        reading: of the metric; one that is not finite or not newer than the last one is passed over.
        memorized: step at which the training set was fitted, None before.
    """
    curve = curves.setdefault(reading.quantity, Curve())
    if not math.isfinite(reading.value) or (curve.steps and reading.step <= curve.steps[-1]):
        return []
    curve.add(reading.step, reading.value)
    if curve.steps[-1] != reading.step:  # thinned out
        return []
    known, loss = metrics(state, {reading.quantity: curve}), curves.get(LOSS)
    return [event for m in known for event in _improved(state, m, memorized) + _overfitted(state, m, loss)]


def _improved(state: State, metric: Metric, memorized: int | None) -> list[Event]:
    """Better than at the first evaluation after the training set was fitted, by the minimum effect."""
    if memorized is None or state["improved"]:
        return []
    base = bisect_left(metric.steps, memorized)
    now = len(metric.merits)
    since = now
    while since > base + 1 and metric.merits[since - 1] >= metric.merits[base] + 1.0:
        since -= 1
    if now - since < AGAIN:
        return []
    state["improved"] = True
    rule = f"better than when the training set was fitted, {AGAIN} evaluations in a row"
    return [_event("shift", metric, base, since, {"held_out": "improved", "rule": rule})]


def _overfitted(state: State, metric: Metric, loss: Curve | None) -> list[Event]:
    """Worse by the minimum effect than two evaluations in a row have been, while the training loss went on falling."""
    merits = metric.merits
    level, best = max(((min(merits[i - 1 : i + 1]), i) for i in range(1, len(merits))), default=(0.0, 0))
    since = len(merits)
    while since > best + 1 and merits[since - 1] <= level - 1.0:
        since -= 1
    if loss is None or len(merits) - since < WORSE or metric.steps[best] <= state["overfitted"]:
        return []
    if not loss.at(metric.steps[-1]) <= loss.at(metric.steps[best]) - math.log(FACTOR):
        return []
    state["overfitted"] = metric.steps[best]
    rule = f"worse than its best for {WORSE} evaluations in a row while the training loss fell"
    return [_event("drift", metric, best, since, {"held_out": "overfitting", "rule": rule})]


def _event(kind: Kind, metric: Metric, start: int, since: int, details: dict[str, Any]) -> Event:
    low, high = metric.steps[since - 1], metric.steps[since]
    before, after = metric.values[start], metric.values[-1]
    details = {**details, "before": before, "after": after}
    direction: Direction = "up" if after > before else "down"
    return Event(
        kind, metric.steps[-1], high, direction, metric.quantity, math.nan,
        onset_low=low, onset_high=high, details=details,
    )  # fmt: skip


def followed(metric: Metric, event: Event, loss: Curve | None) -> bool | None:
    """Whether the metric went half of the way that the training loss did, or half of the way to perfection.

    None where it was not evaluated around the event.
    """
    pair = metric.around(_start(event), event.step)
    if pair is None:
        return None
    gained = metric.merits[pair[1]] - metric.merits[0]
    way = metric.best - metric.merits[0]
    if math.isinf(way):
        if loss is None:
            return None
        way = (loss.values[0] - loss.at(event.step)) / math.log(FACTOR)
    return gained >= 0.5 * way


def changed(metric: Metric, event: Event) -> float | None:
    """By how many minimum effects the metric became better from the onset to the confirmation; None: not evaluated."""
    pair = metric.around(_start(event), event.step)
    return None if pair is None else metric.merits[pair[1]] - metric.merits[pair[0]]


def verdict(event: Event, phase: Phase, known: list[Metric], loss: Curve | None) -> dict[str, Any] | None:
    """What held-out metrics say about an event: ``confirms``, and each metric before and after.

    Memorization is confirmed when they have not followed, generalization when one has become better. ``confirms`` is
    None where none was evaluated around the event, and there is no verdict at all where none is known, or for phases
    that say nothing about them.
    """
    if not known or phase not in ("memorization", "generalization"):
        return None
    pairs = {m.quantity: (m.values, m.around(_start(event), event.step)) for m in known}
    seen = {quantity: [values[i] for i in pair] for quantity, (values, pair) in pairs.items() if pair}
    return {"confirms": _confirms(event, phase, known, loss), "metrics": seen}


def _confirms(event: Event, phase: Phase, known: list[Metric], loss: Curve | None) -> bool | None:
    if "held_out" in event.details:
        return True
    if phase == "memorization":
        went = [went for m in known if (went := followed(m, event, loss)) is not None]
        return not any(went) if went else None
    moves = [move for m in known if (move := changed(m, event)) is not None]
    return max(moves) >= 1.0 if moves else None


def _start(event: Event) -> int:
    return event.onset if event.onset_low is None else event.onset_low
