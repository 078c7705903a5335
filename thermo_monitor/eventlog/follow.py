"""One event file, read from where the last look ended."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from thermo_monitor.eventlog.curves import Column, Columns
from thermo_monitor.eventlog.framing import checksum, records
from thermo_monitor.eventlog.shortcut import Shortcut
from thermo_monitor.eventlog.vectors import Vector, holds

_MOST_PROBLEMS = 20  # that are told one by one


class EventFile:
    """Scalars and our events of an event file of TensorBoard, read further with every :meth:`read`.

    A record that is half written is waited for. One that is corrupt is left out and told, and nothing behind it is lost
    as long as a later header is intact.

    Args:
        path: the file.
        fetch: for a file that is not on this machine: its bytes from an offset on. It is mapped otherwise.

    Attributes:
        columns: numbers by tag.
        vectors: of events.
        problems: what could not be read, in words.
        torn: bytes at the end that make no record yet.
    """

    def __init__(self, path: str | os.PathLike[str], fetch: Callable[[int], bytes] | None = None) -> None:
        self.path = Path(path)
        self._fetch = fetch
        self._restart()

    def _restart(self) -> None:
        self.columns: Columns = {}
        self.vectors: list[Vector] = []
        self.problems: list[str] = []
        self.torn = 0
        self._at = 0
        self._node: tuple[int, int] | None = None
        self._unread = 0
        self._shortcut = Shortcut()

    def read(self) -> bool:
        """Read what was added since; whether there was anything.

        A file that shrank or was replaced is read anew, and that is told.

        Raises:
            OSError: the file cannot be opened.
        """
        if self._fetch is not None:
            fetched = self._fetch(self._at)
            return bool(fetched) and self._take(fetched, 0, self._at)
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            node = (status.st_dev, status.st_ino)
            if status.st_size < self._at or self._node not in (None, node):
                self._restart()
                self.problems.append(f"{self.path.name} was replaced by a shorter or another file; it is read anew")
            self._node = node
            if status.st_size <= self._at:
                return False
            with mmap.mmap(file.fileno(), status.st_size, access=mmap.ACCESS_READ) as data:
                return self._take(data, self._at, 0)

    def _take(self, data: Any, start: int, offset: int) -> bool:
        """Fold the records of a buffer from `start` on; its first byte is at `offset` in the file."""
        from tensorboard.compat.proto.event_pb2 import Event

        parse, columns, before, take = Event.FromString, self.columns, self._at, self._shortcut.take
        self.torn = 0
        for kind, low, high, after in records(data, start):
            if kind == "payload":
                payload = data[low:high]
                if take(payload):
                    self._at = after + offset
                    continue
                try:
                    event = parse(payload)
                except Exception:  # protobuf's own error, by whatever name this version has
                    self._problem(f"a record of {high - low} bytes at byte {low + offset}", payload, after, data)
                    self._at = after + offset
                    continue
                step, wall, values = event.step, event.wall_time, event.summary.value
                for value in values:
                    tag, number = value.tag, value.simple_value
                    if number == 0.0 and value.WhichOneof("value") != "simple_value":  # asked only where it is in doubt
                        if value.HasField("tensor"):
                            self._tensor(value, step, wall)
                        continue
                    column = columns.get(tag)
                    if column is None:
                        column = columns[tag] = Column()
                    column.steps.append(step)
                    column.walls.append(wall)
                    column.values.append(number)
                    if len(values) == 1:
                        self._shortcut.learn(payload, step, wall, number, column)
            elif kind == "corrupt":
                self._count(f"{high - low} bytes at byte {low + offset} belong to no record")
            else:
                self.torn = high - low
                break
            self._at = after + offset
        return self._at != before

    def _problem(self, what: str, payload: bytes, after: int, data: Any) -> None:
        stored = int.from_bytes(data[after - 4 : after], "little")
        why = "its checksum is wrong" if checksum(payload) != stored else "it is no event"
        self._count(f"{what} could not be read: {why}")

    def _count(self, words: str) -> None:
        self._unread += 1
        if self._unread <= _MOST_PROBLEMS:
            self.problems.append(f"{self.path.name}: {words}")
        elif self._unread == _MOST_PROBLEMS + 1:
            self.problems.append(f"{self.path.name}: and more")

    def _tensor(self, value: Any, step: int, wall: float) -> None:
        """A number that was written as a tensor, or a vector of our events."""
        tensor = value.tensor
        if tensor.dtype == 7:  # strings
            if holds(value.tag):
                self.vectors.append((wall, step, list(tensor.string_val)))
            return
        known = value.tag in self.columns
        if not known and value.metadata.plugin_data.plugin_name != "scalars":
            return
        number = _number(tensor)
        if number is not None:
            self.columns.setdefault(value.tag, Column()).add(step, wall, number)


def _number(tensor: Any) -> float | None:
    """The one number of a tensor of floats, None where it holds anything else."""
    for values in (tensor.float_val, tensor.double_val):
        if len(values) == 1:
            return float(values[0])
    kind = {1: "<f4", 2: "<f8"}.get(tensor.dtype)
    if kind is None or len(tensor.tensor_content) != np.dtype(kind).itemsize:
        return None
    return float(np.frombuffer(tensor.tensor_content, kind)[0])
