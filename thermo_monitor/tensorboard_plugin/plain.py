"""Events of runs that the monitor never watched, found in the numbers that are there."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from thermo_monitor.tensorboard_plugin.curves import Array, columns
from thermo_monitor.tensorboard_plugin.events import told
from thermo_monitor.tensorboard_plugin.listing import Found, Log, token

TAGS = 24  # of a run that are looked at, losses and metrics first
POINTS = 20_000  # of a tag
RUNS = 256  # whose events are remembered
LEAST = 5.0  # seconds from one look at a growing run to the next
_FIRST = ("loss", "acc", "error", "perplexity", "reward", "norm")
_NEVER = ("epoch", "lr", "learning_rate", "hp_metric", "step", "time", "speed", "samples_per_second", "runtime")


class Looked(NamedTuple):
    """What was found in a run, in which state of it, and when it may be looked at again if it has grown."""

    events: list[dict[str, Any]]
    token: str
    again: float


class Plain:
    """Detects, and remembers what was found.

    A run that grows is looked at again, but not at once: looking takes at most a twentieth of the time.

    Args:
        clock: seconds, for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._known: OrderedDict[str, Looked] = OrderedDict()
        self._clock = clock
        self._lock = threading.Lock()  # TensorBoard answers in threads; one detection at a time leaves it responsive

    def events(self, log: Log, runs: dict[str, Found]) -> dict[str, list[dict[str, Any]]]:
        """Events by run, as the page takes them."""
        out = {}
        for run, found in runs.items():
            now = token({run: found})
            with self._lock:
                known = self._known.get(run)
                if known is None or (known.token != now and self._clock() >= known.again):
                    began = self._clock()
                    events = _detect(log, run, chosen(found.scalars))
                    ended = self._clock()
                    known = self._known[run] = Looked(events, now, ended + max(LEAST, 20 * (ended - began)))
                    while len(self._known) > RUNS:
                        self._known.popitem(last=False)
                self._known.move_to_end(run)
                out[run] = known.events
        return out


def chosen(tags: Iterable[str]) -> list[str]:
    """Tags that tell something about the training, what is usually looked at first.

    Example:
        >>> chosen(["epoch", "grad_norm", "train/loss", "a"])
        ['train/loss', 'grad_norm', 'a']
    """

    def rank(tag: str) -> tuple[int, str]:
        low = tag.lower()
        return next((n for n, word in enumerate(_FIRST) if word in low), len(_FIRST)), tag

    telling = [tag for tag in tags if tag.lower().rpartition("/")[2] not in _NEVER]
    return sorted(telling, key=rank)[:TAGS]


def _detect(log: Log, run: str, tags: list[str]) -> list[dict[str, Any]]:
    from thermo_monitor.detect import finished

    data = log.read("scalars", "scalars", [run], tags, POINTS).get(run, {}) if tags else {}
    curves: dict[str, tuple[Array, Array]] = {}
    for tag, points in data.items():
        steps, _, values = columns(points)
        curves[tag] = (steps, values)
    return [told(replace(event, id=f"{run}:{n}")) for n, event in enumerate(finished.find(curves))]
