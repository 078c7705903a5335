"""One text file per run, a JSON object per line: for ``tail -f``, scripts, and reading back after a crash.

Lines have a ``type``:

* ``run``: first line of the file, and again where the run was taken up after a stop;
* ``tick``: model-wide readings of one step: ``values`` by quantity, and where there are any ``errors`` (standard
  errors) and ``reasons`` (of a value that is ``null``); readings of layers, heads or earlier steps are whole records
  in ``others``;
* ``frame``: one quantity over layers and heads, seven significant digits;
* ``event``: the event itself.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from thermo_monitor.guard import tell
from thermo_monitor.records import SCHEMA, Event, Reading
from thermo_monitor.sinks.base import Frame, Tick
from thermo_monitor.sinks.thinning import Thinning

# json.dumps makes a new encoder for anything but its defaults, which takes longer than a short line does.
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


class JsonlSink:
    """Appends lines to a file; those of a tick are one write, so that a reader never sees half of one for long.

    A file that is deleted during the run, or whose directory is, is made again.

    Args:
        path: the file; its directory is made. An existing file is continued, also after a torn last line.
        max_frames: frames of a quantity on the present grid, see :class:`~thermo_monitor.sinks.thinning.Thinning`;
            ``None`` writes them all.

    Raises:
        ValueError: the file cannot be made or written.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_frames: int | None = 500) -> None:
        self.path = Path(path)
        self._max_frames = max_frames
        self._thinning: dict[str, Thinning] = {}
        self._torn = False
        self._begun = False
        if max_frames is not None:
            Thinning(max_frames)  # refuses a capacity that makes no sense
        self._fd: int | None = _open(self.path)

    def write(self, tick: Tick) -> None:
        """One line for the readings, one for each frame; an empty tick leaves nothing."""
        lines = [_encode(_pack(tick))] if tick.readings else []
        lines += [_frame_line(frame) for frame in tick.frames if self._admit(frame.quantity)]
        if lines:
            self._write("\n".join(lines))

    def event(self, event: Event) -> None:
        """One line."""
        self._write(event.to_json())

    def close(self) -> None:
        """Close the file; nothing was held back."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _admit(self, quantity: str) -> bool:
        if self._max_frames is None:
            return True
        if quantity not in self._thinning:
            self._thinning[quantity] = Thinning(self._max_frames)
        return self._thinning[quantity].admit()

    def _write(self, lines: str) -> None:
        if self._fd is None:
            raise ValueError(f"{self.path} is closed")
        if os.fstat(self._fd).st_nlink == 0:  # deleted: what goes on into it is seen by nobody
            os.close(self._fd)
            self._fd, self._begun, self._torn = None, False, False
            self._fd = _open(self.path)
            tell(f"{self.path} was deleted, and is written anew from here on")
        if not self._begun:  # not before: a process of another rank may hold a sink and never use it
            self._begun = True
            self._begin(self._fd)
        data = (("\n" if self._torn else "") + lines + "\n").encode()
        written = os.write(self._fd, data)
        self._torn = written < len(data)
        if self._torn:  # a full disk takes a part and says nothing
            raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes were written", str(self.path))

    def _begin(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        if size:
            with self.path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                self._torn = file.read(1) != b"\n"
        self._write(_encode({"type": "run", "schema": SCHEMA, "wall": time.time(), "resumed": size > 0}))


@dataclass(slots=True)
class Run:
    """What a file held.

    Attributes:
        readings: in the order of the file, which is that of the steps.
        frames: the same; layers without a name have none.
        events: the same.
        skipped: number of lines that could not be read: torn, corrupt, or of a type that is not known here.
    """

    readings: list[Reading] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    skipped: int = 0

    def _forget(self, step: int) -> None:
        """Drop what a resumed run has seen again from `step` on."""
        self.readings = [r for r in self.readings if r.step < step]
        self.frames = [f for f in self.frames if f.step < step]
        self.events = [e for e in self.events if e.step < step]


def read_jsonl(path: str | os.PathLike[str]) -> Run:
    """Read the file of a :class:`JsonlSink`, also while it is written or after it was damaged.

    A run that was taken up from a checkpoint repeats some steps: the later account of them counts.
    """
    run, resumed = Run(), False
    for raw in Path(path).read_bytes().splitlines():
        if not raw.strip():
            continue
        try:
            data = json.loads(raw)
            kind = data["type"]
            if kind == "run":
                resumed = bool(data.get("resumed"))
                continue
            if resumed and kind in ("tick", "frame", "event"):
                run._forget(int(data["step"]))
                resumed = False
            if kind == "tick":
                run.readings += _unpack(data)
            elif kind == "frame":
                run.frames.append(_frame(data))
            elif kind == "event":
                run.events.append(Event.from_json(raw.decode()))
            else:
                run.skipped += 1
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            run.skipped += 1
    return run


def _open(path: Path) -> int:
    if path.is_dir():
        raise ValueError(f"cannot write to {path}: it is a directory; give the path of a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise ValueError(
            f"cannot write to {path}: {error.strerror}; give a path in a directory that can be made and written"
        ) from error


def _pack(tick: Tick) -> dict[str, Any]:
    values: dict[str, Any] = {}
    errors: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    others: list[dict[str, Any]] = []
    for r in tick.readings:
        if r.layer is not None or r.head is not None or r.step != tick.step or r.quantity in values:
            others.append(json.loads(r.to_json()))
            continue
        values[r.quantity] = _number(r.value)
        if r.error is not None:
            errors[r.quantity] = _number(r.error)
        if r.reason is not None:
            reasons[r.quantity] = r.reason
    data = {"type": "tick", "step": tick.step, "wall": tick.wall, "values": values}
    optional = {"errors": errors, "reasons": reasons, "others": others}
    return data | {k: v for k, v in optional.items() if v}


def _unpack(data: Mapping[str, Any]) -> list[Reading]:
    step, errors, reasons = int(data["step"]), data.get("errors", {}), data.get("reasons", {})
    plain = [
        Reading(step, q, _float(v), error=_float(errors[q]) if q in errors else None, reason=reasons.get(q))
        for q, v in data["values"].items()
    ]
    return plain + [Reading.from_json(json.dumps(other)) for other in data.get("others", [])]


def _frame_line(frame: Frame) -> str:
    head = _encode({"type": "frame", "step": frame.step, "quantity": frame.quantity, "layers": list(frame.layers)})
    rows = ("[" + ",".join(map(_digits, row)) + "]" for row in np.asarray(frame.values, np.float64).tolist())
    return f'{head[:-1]},"values":[{",".join(rows)}]}}'


def _digits(value: float) -> str:
    return f"{value:.7g}" if math.isfinite(value) else json.dumps(_number(value))


def _frame(data: Mapping[str, Any]) -> Frame:
    values = np.array([[_float(v) for v in row] for row in data["values"]], np.float64)
    return Frame(int(data["step"]), str(data["quantity"]), values, tuple(data["layers"]))


def _number(value: float) -> float | str | None:
    """A number as strict JSON has it, the convention of the records."""
    value = float(value)
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _float(value: float | str | None) -> float:
    return math.nan if value is None else float(value)
