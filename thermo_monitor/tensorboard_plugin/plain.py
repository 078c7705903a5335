"""Events of runs that the monitor never watched, found in the numbers that are there."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from thermo_monitor.tensorboard_plugin.curves import Array, columns
from thermo_monitor.tensorboard_plugin.events import told
from thermo_monitor.tensorboard_plugin.listing import Found, Log, token

TAGS = 24  # of a run that are looked at, losses and metrics first
POINTS = 20_000  # of a tag
RUNS = 256  # whose events are remembered
_FIRST = ("loss", "acc", "error", "perplexity", "reward", "norm")
_NEVER = ("epoch", "lr", "learning_rate", "hp_metric", "step", "time", "speed", "samples_per_second", "runtime")


class Plain:
    """Detects, and remembers what was found as long as a run does not grow."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], list[dict[str, Any]]] = OrderedDict()
        self._lock = threading.Lock()  # TensorBoard answers in threads; one detection at a time leaves it responsive

    def events(self, log: Log, runs: dict[str, Found]) -> dict[str, list[dict[str, Any]]]:
        """Events by run, as the page takes them."""
        out = {}
        for run, found in runs.items():
            key = (run, token({run: found}))
            with self._lock:
                if key not in self._known:
                    self._known[key] = _detect(log, run, chosen(found.scalars))
                    while len(self._known) > RUNS:
                        self._known.popitem(last=False)
                self._known.move_to_end(key)
                out[run] = self._known[key]
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
