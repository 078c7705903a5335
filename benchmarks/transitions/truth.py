"""What happened in a run, by rules on its order parameters, its loss and its plan; judged readings are not used.

Order parameters are 0 at chance and 1 at perfection, measured every ten steps.

* *rise*: the order parameter is at .9 or more in three measurements in a row, the first of them the end of the change;
  its beginning is the last measurement before at .1 or less. The window is widened by its own width, 20 steps at
  least, on both sides. Of the training set alone: ``memorization``; of held-out data, with it or later:
  ``generalization``.
* *smooth*: a rise that takes more than a third of the run is no transition and is not listed.
* *start*: the climb with which a run begins that its recipe calls smooth, a language whose order parameter is its loss:
  listed, so that an event in it is no false alarm, and not counted, as nothing changes there.
* *fall*: a held-out order parameter that was at .9 is at .5 or less: ``instability``.
* *throw*: the training loss is ten times what it was at most 20 steps earlier (its smallest value there): a spike, a
  slingshot or a divergence, ``instability``, from 20 steps before until it has come back to twice that value, and 40
  more.
* *declared*: a setting that changed by plan: ``scheduled``, until 200 steps later.
* *disturbed*: what was done to the run on purpose: ``instability``, until 100 steps after its end.

A run *generalizes* if a held-out rise is listed, *never* if its held-out order parameter stays at .3 or less (or has
none), is *smooth* if its recipe is, and *partial* otherwise: its climb is listed, and the run is in no share.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transitions.problem import Recipe
from transitions.recording import Curve, Recording

LOW, HALF, HIGH = 0.1, 0.5, 0.9
LASTING = 3
NARROWEST = 20
SMOOTH = 1 / 3
NEVER = 0.3
TENFOLD, WITHIN = 10.0, 20
SETTLED, AFTER_THROW = 2.0, 40
ROUNDING = 1e-7  # a loss below is rounding, in single precision
AFTER_DECLARED, AFTER_DISTURBED = 200, 100


@dataclass(frozen=True)
class Change:
    """One thing that happened.

    Attributes:
        kind: ``shift`` or ``excursion``.
        phase: what it is.
        begin: first step of it.
        half: step at which the order parameter passes .5, of a rise.
        end: last step of it.
        low: first step of the widened window.
        high: last step of the widened window.
        rule: which of the rules lists it.
        counted: whether it has to be found.
    """

    kind: str
    phase: str
    begin: int
    half: int | None
    end: int
    low: int
    high: int
    rule: str
    counted: bool = False


@dataclass(frozen=True)
class Truth:
    """All that happened in a run.

    Attributes:
        outcome: ``generalizes``, ``never``, ``smooth`` or ``partial``.
        changes: in order.
        steps: length of the run.
    """

    outcome: str
    changes: tuple[Change, ...]
    steps: int

    def rise(self, phase: str) -> Change | None:
        """The counted rise of a phase."""
        return next((c for c in self.changes if c.phase == phase and c.rule == "rise"), None)

    def save(self, path: Path) -> None:
        """A small JSON file, to be read by people."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def rise(curve: Curve) -> tuple[int, int, int] | None:
    """Beginning, middle and end of the first lasting rise from .1 to .9."""
    steps, values = curve
    high = values >= HIGH
    lasting = [i for i in range(len(values) - LASTING + 1) if high[i : i + LASTING].all()]
    if not lasting:
        return None
    end = lasting[0]
    before = [i for i in range(end) if values[i] <= LOW]
    begin = before[-1] if before else 0
    half = next(i for i in range(begin, end + 1) if values[i] >= HALF)
    return int(steps[begin]), int(steps[half]), int(steps[end])


def throws(steps: NDArray[np.int64], loss: NDArray[np.float64]) -> list[tuple[int, int]]:
    """First and last step of each time that the training loss was thrown up tenfold within twenty steps."""
    found: list[tuple[int, int]] = []
    at = WITHIN
    while at < len(loss):
        floor = max(float(np.nanmin(loss[max(0, at - WITHIN) : at])), ROUNDING)
        if loss[at] < TENFOLD * floor:
            at += 1
            continue
        first = at
        while at < len(loss) and not loss[at] <= SETTLED * floor:
            at += 1
        found.append((int(steps[first]), int(steps[min(at, len(loss) - 1)])))
    return found


def truth(recipe: Recipe, recording: Recording) -> Truth:
    """What happened in a run of a recipe."""
    changes: list[Change] = []
    rises: dict[str, tuple[int, int, int]] = {}
    for name, curve in recording.orders.items():
        found = rise(curve)
        if found is not None and found[2] - found[0] <= SMOOTH * recipe.steps:
            rises[name] = found
    if recipe.smooth:
        changes += [replace(_rise(found, "generalization"), rule="start", counted=False) for found in rises.values()]
        rises = {}
    if "train" in rises:
        with_it = "held_out" in rises and rises["held_out"][1] <= rises["train"][2] + NARROWEST
        changes.append(_rise(rises["train"], "generalization" if with_it else "memorization"))
        if with_it:
            rises.pop("held_out")
    if "held_out" in rises:
        changes.append(_rise(rises["held_out"], "generalization"))
    outcome = "generalizes" if any(c.phase == "generalization" for c in changes) else "never"
    outcome = "smooth" if recipe.smooth else outcome
    held_out = recording.orders.get("held_out")
    if held_out is not None:
        steps, values = held_out
        if outcome == "never" and values.max() > NEVER:
            outcome = "partial"
            begin, end = int(steps[np.flatnonzero(values <= LOW)[0]]), int(steps[values.argmax()])
            changes.append(Change("drift", "generalization", begin, None, end, begin, end, "climb"))
        changes += _falls(steps, values)
    loss_steps, loss = recording.curve("loss/train")
    changes += [
        Change("excursion", "instability", first, None, last, first - WITHIN, last + AFTER_THROW, "throw")
        for first, last in throws(loss_steps, loss)
    ]
    changes += [
        Change("shift", "scheduled", step, None, step, step - NARROWEST, step + AFTER_DECLARED, "declared")
        for step in recipe.declared
    ]
    changes += [
        Change("excursion", "instability", first, None, last, first - NARROWEST, last + AFTER_DISTURBED, "disturbed")
        for first, last in recipe.disturbed
    ]
    return Truth(outcome, tuple(sorted(changes, key=lambda c: c.begin)), recipe.steps)


def _rise(found: tuple[int, int, int], phase: str) -> Change:
    begin, half, end = found
    width = max(end - begin, NARROWEST)
    return Change("shift", phase, begin, half, end, begin - width, end + width, "rise", counted=True)


def _falls(steps: NDArray[np.int64], values: NDArray[np.float64]) -> list[Change]:
    """Each time that what was at .9 has fallen to .5, until it is back or the run ends."""
    found: list[Change] = []
    good = False
    top = 0
    for i, value in enumerate(values):
        if value >= HIGH:
            good, top = True, i
        elif good and value <= HALF:
            back = next((j for j in range(i, len(values)) if values[j] >= HIGH), len(values) - 1)
            begin, end = int(steps[top]), int(steps[back])
            found.append(
                Change("excursion", "instability", begin, None, end, begin - NARROWEST, end + NARROWEST, "fall")
            )
            good = False
    return found
