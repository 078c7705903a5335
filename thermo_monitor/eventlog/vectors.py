"""Events from the vectors that a log repeats: each once, those of an abandoned branch left out.

The sink writes its last 32 events again with every new one (tag ``events``), and every full 32 once more under a tag of
their own (``events/0000`` and so on). TensorBoard's loaders drop tensors at random but never the newest of a tag, so no
event depends on how many they keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from thermo_monitor.records import Event

Vector = tuple[float, int, Sequence[Any]]  # wall time, step, texts


def holds(tag: str) -> bool:
    """Whether a tag is one of those with events."""
    return tag == "events" or tag.startswith("events/")


def collect(vectors: Iterable[Vector]) -> list[Event]:
    """Events of one run, as they were told last, by onset.

    Args:
        vectors: of all tags together.
    """
    known: dict[str, Event] = {}
    newest: int | None = None
    for _, _, texts in sorted(vectors, key=lambda v: (v[0], v[1])):
        found = [event for event in map(parse, texts) if event is not None]
        known |= {event.id or event.to_json(): event for event in found}
        newest = max((n for n in map(number, found) if n is not None), default=None)
    # Numbers only rise: one above the newest was given in a branch that the run went back behind.
    kept = (e for e in known.values() if newest is None or (number(e) or 0) <= newest)
    return sorted(kept, key=lambda e: (e.onset, e.step))


def parse(text: Any) -> Event | None:
    """An event from a log, which anybody may have written: None unless its fields have the types readers rely on."""
    try:
        event = Event.from_json(text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text))
        numbers = (event.step, event.onset, event.onset_low or 0, event.onset_high or 0)
        words = (event.kind, event.phase, event.quantity, event.message, event.direction, event.level, event.id)
        right = all(type(n) is int for n in numbers) and all(type(w) is str for w in words)
        right = right and isinstance(event.evidence, int | float) and isinstance(event.wall, int | float)
        right = right and isinstance(event.details, Mapping)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return event if right else None


def number(event: Event) -> int | None:
    """The number of an event in its run, None for an id of another form."""
    tail = event.id.rpartition(":")[2]
    return int(tail) if tail.isascii() and tail.isdigit() else None


def incomplete(events: Sequence[Event]) -> bool:
    """Whether numbers are missing."""
    numbers = {n for e in events if (n := number(e)) is not None}
    return bool(numbers) and len(numbers) <= max(numbers)
