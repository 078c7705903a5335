"""What to look at after an event, and the events as a table for people."""

from __future__ import annotations

import math
from collections.abc import Iterable

from thermo_monitor.records import Event

_URGENT = {
    "collapse": "Open the heads at the onset: which layer lost its entropy or rank first? "
    "Lower the learning rate or normalise queries and keys.",
    "divergence": "Stop and go back to a checkpoint from before the onset; look at the gradient norm, "
    "the largest logit and the batches just before it.",
}
_BY_PHASE = {
    "memorization": "Compare training with validation loss: a gap that opens here asks for more data or weight decay.",
    "generalization": "Compare validation with training accuracy around the onset; keep the checkpoints on both sides.",
    "reorganization": "Open the heads at the onset: which layers moved first? Compare checkpoints on both sides.",
    "instability": "Look at gradient norm and largest logit before the onset; clip, or lower the learning rate.",
    "scheduled": "Expected: a change was declared here. Look only if the response is not the one you planned.",
}
_BY_KIND = {
    "shift": "Compare the readings before and after the onset; what else changed in the run at that step?",
    "excursion": "Look at the batch and the gradient norm of that step; harmless if every reading came back.",
    "variance": "The noise changed, not the level: look at batch size, data order and learning rate.",
    "drift": "The end is not in sight: zoom out, and look again when the trend has settled.",
}


def advice(event: Event) -> str:
    """One or two sentences about what to look at.

    Example:
        >>> advice(Event("shift", 3, 2, phase="scheduled")).startswith("Expected")
        True
    """
    return (
        _URGENT.get(event.kind) or _BY_PHASE.get(event.phase) or _BY_KIND.get(event.kind, "Compare before and after.")
    )


def is_noteworthy(event: Event) -> bool:
    """Whether it belongs into a table for people: warnings, errors, and what was declared beforehand."""
    return event.level != "info" or event.phase == "scheduled"


def markdown(events: Iterable[Event]) -> str:
    """A table of the noteworthy events, newest first; scheduled ones in italics, since they are no news.

    Args:
        events: in the order in which they were found.
    """
    rows = [_row(e) for e in reversed(list(events)) if is_noteworthy(e)]
    head = ["step", "onset [low, high]", "kind", "phase", "quantity", "direction", "evidence", "what to look at"]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *rows])


def interval(event: Event) -> str:
    """Onset with its interval, as far as it is known: ``2100 [2050, 2160]``."""
    low, high = event.onset_low, event.onset_high
    if (low is None and high is None) or low == high == event.onset:
        return str(event.onset)
    return f"{event.onset} [{'?' if low is None else low}, {'?' if high is None else high}]"


def _row(event: Event) -> str:
    evidence = "-" if math.isnan(event.evidence) else f"{event.evidence:.1f}"
    direction = "-" if event.direction == "none" else event.direction
    cells = [str(event.step), interval(event), event.kind, event.phase, event.quantity or "-", direction, evidence]
    cells = [" ".join(cell.replace("|", "\\|").split()) for cell in [*cells, advice(event)]]
    if event.phase == "scheduled":
        cells = [f"*{cell}*" for cell in cells]
    return "| " + " | ".join(cells) + " |"
