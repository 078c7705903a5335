"""Curves, heads and events for TensorBoard, with or without our own tab."""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary

from thermo_monitor.records import Event, Reading
from thermo_monitor.sinks import summaries
from thermo_monitor.sinks.advice import is_noteworthy, markdown
from thermo_monitor.sinks.base import Tick
from thermo_monitor.sinks.chunks import LEAST, Chunk, Chunks
from thermo_monitor.sinks.frames import Frames
from thermo_monitor.sinks.tag_steps import TagSteps
from thermo_monitor.sinks.writers import GivenWriter, OwnWriter, Writer

_RECENT = 32  # events that each vector and each table repeat: a loader may drop all samples of a tag but the last


class TensorBoardSink:
    """Writes to an event file, in one process: the caller sees to it that other ranks do not.

    Tags, for S scalar quantities and F quantities with frames: ``2 S + 2 F + 4``, plus S per layer asked for, plus one
    for 32 events. Stock dashboards list all but the S series.

    ====================================  ========================================================  ===================
    tag                                   holds                                                     written
    ====================================  ========================================================  ===================
    ``thermo/<family>/<key>``             a number of the whole model                               each tick
    ``thermo/<family>/<key>/L<ll>``       a number of a layer that was asked for                    each tick
    ``thermo/detect/regime``              number of shifts so far that nobody had scheduled         each tick, at close
    ``series/<family>/<key>``             float64 [k, 3]: step, wall time and value of k <= 100     chunks, event,
                                          readings that followed one another                        close
    ``heads/<family>/<key>``              float16 [L, H], the decimal logarithm on a log scale      ticks, thinned
    ``thermo/heads/<family>/<key>``       the same as a picture                                     event, close
    ``events``                            the last 32 events as JSON                                event
    ``events/0000`` and so on             32 events that followed one another                       once each
    ``thermo/events``                     the noteworthy ones of them as a table with advice        event
    ``custom_scalars__config__``          which curves the custom scalars dashboard draws together  once
    ====================================  ========================================================  ===================

    The steps of a tag always rise, since a loader takes a lower step for a restart and drops what came after it. What
    is late gets the step of its writing, and what has no room any more (a second number for a tag at a step) is left
    out. A NaN is left out too: its place in the curve is a gap.

    Args:
        log_dir: directory of the run, for an event file of our own.
        writer: instead, a ``SummaryWriter`` of torch or tensorboardX, or a function that returns it. Take this one
            where the run has a writer already: two event files in a directory can hide one another. Its queue is its
            own: the ten places that torch gives it make training wait for a slow disk, ``max_queue=10_000`` does not.
        layers: layers that get scalars of their own, by index. Where a layer has no reading of its own, its value is
            the mean over the heads that were measured.
        namespace: first part of the tags.
        layout: whether to write a layout for the stock dashboard of custom scalars. By default where the run has none
            yet: a loader keeps one of a run, the last, and the user's writer may have been given one.
        max_frames: frames of a quantity on the present grid, see :class:`~thermo_monitor.sinks.thinning.Thinning`.

    Raises:
        ValueError: neither or both of `log_dir` and `writer`, or a place that cannot be written.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        writer: Any = None,
        layers: Iterable[int] = (),
        namespace: str = "thermo",
        *,
        layout: bool | None = None,
        max_frames: int = 500,
    ) -> None:
        if (log_dir is None) == (writer is None):
            raise ValueError("give exactly one of log_dir and writer: a run has one event file at a time")
        if not namespace.strip("/"):
            raise ValueError(f"namespace is {namespace!r}; give a word such as 'thermo', so that tags do not collide")
        self._namespace = namespace.strip("/")
        self._steps = TagSteps()
        self._frames = Frames(self._namespace, max_frames, self._steps)  # refuses a capacity that makes no sense
        self._writer: Writer = OwnWriter(log_dir) if log_dir is not None else GivenWriter(writer)
        self._layers = tuple(sorted({int(n) for n in layers}))
        self._regime_tag = f"{self._namespace}/detect/regime"
        self._layout = self._laid_out = layout
        self._chunks = Chunks()
        self._step = 0  # of the last tick
        self._recent: deque[Event] = deque(maxlen=_RECENT)
        self._noteworthy: deque[Event] = deque(maxlen=_RECENT)
        self._told = 0  # events so far
        self._shifts = 0
        self._shown = 0  # number of shifts that the curve ends with
        self._described: set[str] = set()
        self._closed = False

    def write(self, tick: Tick) -> None:
        """All numbers and frames of a step, as one record; a step that is not full is left to the files."""
        self._step = max(self._step, tick.step)
        if tick.full and self._writer.renew():  # the new file knows nothing of what was described before
            self._layout, self._described = self._laid_out, set()
            self._frames.forget()
        self._chunks.add(tick.readings, tick.wall)
        values = self._series(self._chunks.full())
        if tick.full:  # a record costs a tenth of a millisecond, and TensorBoard shows a thousand points of a curve
            values += self._scalars(tick) + [v for f in tick.frames for v in self._frames.add(f, tick.step)]
            values += [*self._charts(), *self._regime(tick.step)] if values else []
        self._send(values, tick.step, tick.wall)

    def event(self, event: Event) -> None:
        """The events again with the new one; a noteworthy one in words too, with pictures, and on the disk."""
        self._recent.append(event)
        self._told += 1
        self._shifts += event.kind == "shift" and event.phase != "scheduled"
        step = self._steps.free(max(event.step, self._step), ["events", *self._frames.tags()])
        self._steps.last["events"] = step
        texts = [e.to_json() for e in self._recent]
        values = [summaries.strings("events", texts, summaries.events_metadata())]
        if self._told % _RECENT == 0:
            # A loader keeps a few tensors of a tag, but always its last one: under a tag of their own none gets lost.
            tag = f"events/{self._told // _RECENT - 1:04d}"
            values.append(summaries.strings(tag, texts, summaries.events_metadata()))
        if is_noteworthy(event):
            self._noteworthy.append(event)
            table = markdown(self._noteworthy)
            values.append(summaries.strings(f"{self._namespace}/events", [table], summaries.text_metadata()))
            values += self._frames.pictures(step) + self._series(self._chunks.rest(LEAST))
        self._send(values, step, event.wall)
        if is_noteworthy(event):
            self._writer.flush()

    def close(self) -> None:
        """The last frames as pictures, and everything into the file; a writer that was given stays open."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._writer.is_open:
                changed = self._shifts != self._shown
                step = self._steps.free(self._step, [*self._frames.tags(), *([self._regime_tag] if changed else [])])
                values = self._frames.pictures(step) + self._series(self._chunks.rest(1))
                self._send((self._regime(step) if changed else []) + values, step, 0.0)
        finally:
            self._writer.close()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know, as plain JSON: events to repeat, counts, steps."""
        return {
            "schema": 1,
            "step": self._step,
            "recent": [json.loads(e.to_json()) for e in self._recent],
            "noteworthy": [json.loads(e.to_json()) for e in self._noteworthy],
            "told": self._told,
            "shifts": self._shifts,
            "last": dict(self._steps.last),
            **self._frames.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; steps written after it will be written again."""
        self._step = int(state["step"])
        self._recent = deque((Event.from_json(json.dumps(e)) for e in state["recent"]), _RECENT)
        self._noteworthy = deque((Event.from_json(json.dumps(e)) for e in state["noteworthy"]), _RECENT)
        self._told = int(state.get("told", len(self._recent)))
        self._shifts = self._shown = int(state["shifts"])
        self._steps.last = {str(tag): int(step) for tag, step in state["last"].items()}
        self._frames.load_state_dict(state)

    def _scalars(self, tick: Tick) -> list[Summary.Value]:
        freshest: dict[tuple[str, int | None], Reading] = {}
        for r in tick.readings:
            if r.head is None and (r.layer is None or r.layer in self._layers):
                known = freshest.get((r.quantity, r.layer))
                if known is None or known.step <= r.step:
                    freshest[r.quantity, r.layer] = r
        numbers = {key: float(r.value) for key, r in freshest.items()}
        for frame in tick.frames:
            for index in self._layers:
                if (frame.quantity, index) not in numbers and 0 <= index < len(frame.values):
                    row = np.atleast_1d(frame.values[index])
                    row = row[np.isfinite(row)]
                    numbers[frame.quantity, index] = float(row.mean()) if row.size else float("nan")
        values: list[Summary.Value] = []
        for (quantity, layer), number in numbers.items():
            tag = f"{self._namespace}/{quantity}" + ("" if layer is None else f"/L{layer:02d}")
            values += self._scalar(tag, quantity, number, tick.step)
        return values

    def _scalar(self, tag: str, quantity: str, value: float, step: int) -> list[Summary.Value]:
        if math.isnan(value) or not self._steps.rises(tag, step):
            return []
        description = "" if tag in self._described else summaries.describe(quantity)
        self._described.add(tag)
        return [summaries.scalar(tag, value, description)]

    def _series(self, chunks: Iterable[tuple[str, Chunk]]) -> list[Summary.Value]:
        """Points that no loader will thin out; what an aborted run leaves here unwritten, its scalars have."""
        return [summaries.series(f"series/{quantity}", chunk, quantity) for quantity, chunk in chunks]

    def _charts(self) -> list[Summary.Value]:
        """The layout, with the first numbers."""
        if self._layout is None and not self._writer.is_open:
            return []  # nobody knows yet where these numbers will go
        wanted, self._layout = self._layout, False
        if wanted is None:
            wanted = not self._writer.holds(summaries.LAYOUT)
        return [summaries.layout(self._namespace)] if wanted else []

    def _regime(self, step: int) -> list[Summary.Value]:
        self._shown = self._shifts
        return self._scalar(self._regime_tag, "", self._shifts, step)

    def _send(self, values: list[Summary.Value], step: int, wall: float) -> None:
        if values:
            self._writer.add(Summary(value=values), step, wall)
