"""Values of all layers and heads: every frame as a tensor for the tab, some as pictures for stock TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.summary_pb2 import Summary

from thermo_monitor.sinks import summaries
from thermo_monitor.sinks.base import Frame
from thermo_monitor.sinks.tag_steps import TagSteps
from thermo_monitor.sinks.thinning import Thinning


class Frames:
    """The frames of one event file, thinned out, and the colours of their pictures.

    Args:
        namespace: first part of the pictures' tags.
        max_frames: of each quantity, at most.
        steps: those that the tags of the file have reached.

    Raises:
        ValueError: ``max_frames`` makes no sense.
    """

    def __init__(self, namespace: str, max_frames: int, steps: TagSteps) -> None:
        Thinning(max_frames)  # refuses a capacity that makes no sense
        self._namespace, self._max_frames, self._steps = namespace, max_frames, steps
        self._thinning: dict[str, Thinning] = {}
        self._limits: dict[str, tuple[float, float]] = {}  # by quantity: least and largest value of all frames
        self._newest: dict[str, NDArray[np.float16]] = {}  # by quantity: frame that no picture shows yet
        self._described: set[str] = set()

    def forget(self) -> None:
        """A new file knows nothing of what was described before."""
        self._described = set()

    def add(self, frame: Frame, step: int) -> list[Summary.Value]:
        """What is written of a frame: nothing where it is thinned out."""
        quantity, tag = frame.quantity, f"heads/{frame.quantity}"
        if not frame.values.size:
            return []
        values = summaries.stored(quantity, frame.values)
        self._newest[quantity] = values
        least, most = float(np.fmin.reduce(values, axis=None)), float(np.fmax.reduce(values, axis=None))
        if not math.isnan(least):  # some were measured
            low, high = self._limits.get(quantity, (math.inf, -math.inf))
            self._limits[quantity] = (min(low, least), max(high, most))
        if quantity not in self._thinning:
            self._thinning[quantity] = Thinning(self._max_frames)
        if not self._thinning[quantity].admit() or not self._steps.rises(tag, step):
            return []
        # A loader keeps the metadata of a tag's first value; with every frame they would be most of its bytes, and the
        # checksum of a byte is not free.
        first = quantity not in self._described
        self._described.add(quantity)
        return [summaries.grid(tag, values, summaries.heads_metadata(quantity, frame.layers) if first else None)]

    def tags(self) -> list[str]:
        """Tags of the pictures that are due."""
        return [f"{self._namespace}/heads/{quantity}" for quantity in self._newest]

    def pictures(self, step: int) -> list[Summary.Value]:
        """Frames that came since the last pictures; colours mean the same as before until a frame exceeds them."""
        newest, self._newest = self._newest, {}
        values = []
        for quantity, grid in newest.items():
            tag = f"{self._namespace}/heads/{quantity}"
            if grid.size and self._steps.rises(tag, step):
                values.append(summaries.picture(tag, quantity, grid, self._limits.get(quantity, (0.0, 0.0))))
        return values

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know, as plain JSON."""
        return {
            "thinning": {q: t.state_dict() for q, t in self._thinning.items()},
            "limits": {q: list(limits) for q, limits in self._limits.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self._limits = {q: (float(low), float(high)) for q, (low, high) in state["limits"].items()}
        self._newest = {}
        self._thinning = {q: Thinning(self._max_frames) for q in state["thinning"]}
        for quantity, thinning in self._thinning.items():
            thinning.load_state_dict(state["thinning"][quantity])
