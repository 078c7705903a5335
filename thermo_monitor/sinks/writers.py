"""Where a summary goes: into an event file of our own, or through the writer that the user already has.

A second event file in a run directory freezes the first one for TensorBoard's Python loader: the user's loss would
stop. So whoever has a writer should hand it over.
"""

from __future__ import annotations

import mmap
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

# Takes a fifth of a second: when a sink is made, and not in the middle of a training.
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from thermo_monitor.guard import tell

_FILES = "events.out.tfevents.*"
_QUEUE = 10_000  # the default of 10 makes training wait for the disk
_LONG = 2**28  # bytes of an event file that are not searched: a quarter of a second
_WAITING = 1_000  # summaries kept for a writer that does not exist yet


class Writer(Protocol):
    """Takes summaries."""

    def add(self, summary: Any, step: int, wall: float) -> None:
        """Hand over one summary; a wall time of 0 is now."""

    def holds(self, tag: str) -> bool:
        """Whether somebody wrote a tag to the run already."""

    def flush(self) -> None:
        """Everything handed over is in the file when this returns."""

    def close(self) -> None:
        """Flush, and release what is ours."""

    @property
    def is_open(self) -> bool:
        """Whether a summary would still go where the former ones went."""

    def renew(self) -> bool:
        """Go on in a new file where the former one was deleted; whether that was so."""


class OwnWriter:
    """An event file in `log_dir`, made with the first summary: a process that never writes leaves no empty file.

    Raises:
        ValueError: the directory cannot be made or written.
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self._log_dir = Path(log_dir)
        self._file: Any = None
        self._path = self._log_dir  # of the file
        self.is_open = True
        advice = "give a directory that can be made and written"
        try:
            self._log_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"cannot write to {self._log_dir}: {error.strerror}; {advice}") from error
        if not os.access(self._log_dir, os.W_OK | os.X_OK):
            raise ValueError(f"cannot write to {self._log_dir}: permission denied; {advice}")

    def add(self, summary: Any, step: int, wall: float) -> None:
        """Queue one event; a thread writes it."""
        if not self.is_open:
            raise ValueError(f"the event file in {self._log_dir} is closed")
        if self._file is None:
            before = set(self._log_dir.glob(_FILES))
            self._file = EventFileWriter(str(self._log_dir), max_queue_size=_QUEUE, flush_secs=10)
            self._path = next(iter(set(self._log_dir.glob(_FILES)) - before), self._log_dir)
        self._file.add_event(Event(summary=summary, step=step, wall_time=wall or time.time()))

    def holds(self, tag: str) -> bool:
        """Never asked of what we did not write: nobody else writes to this file."""
        return False

    def renew(self) -> bool:
        """The directory was deleted, say: what goes on into its file is seen by nobody."""
        if self._file is None or os.path.exists(self._path):
            return False
        file, self._file = self._file, None
        file.close()
        self._log_dir.mkdir(parents=True, exist_ok=True)
        tell(f"the event file in {self._log_dir} was deleted, and is written anew from here on")
        return True

    def flush(self) -> None:
        """Wait until the thread has written everything."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Flush and close the file."""
        file, self._file, self.is_open = self._file, None, False
        if file is not None:
            file.close()


class GivenWriter:
    """The user's own ``SummaryWriter`` of torch or tensorboardX, or a function that returns it once it exists.

    It is flushed but never closed. While the function still returns ``None`` the last 1000 summaries wait.

    Raises:
        ValueError: it is neither.
    """

    def __init__(self, writer: Any) -> None:
        if not (hasattr(writer, "_get_file_writer") or callable(writer)):
            raise ValueError(
                f"writer is {type(writer).__name__!r}; give a SummaryWriter of torch.utils.tensorboard or "
                "tensorboardX, or a function without arguments that returns one"
            )
        self._find: Callable[[], Any] = (lambda: writer) if hasattr(writer, "_get_file_writer") else writer
        self._waiting: deque[tuple[Any, int, float]] = deque(maxlen=_WAITING)

    def add(self, summary: Any, step: int, wall: float) -> None:
        """Hand the summary over, after those that waited."""
        self._waiting.append((summary, step, wall))
        writer = self._find()
        if writer is not None and not self.is_open:
            raise ValueError("the writer that was given is closed: it would open a second file beside its first one")
        while writer is not None and self._waiting:
            summary, step, wall = self._waiting.popleft()
            writer._get_file_writer().add_summary(_translated(summary, writer), step, wall or None)

    def holds(self, tag: str) -> bool:
        """Looked up in the event files of the writer's directory; true where they cannot be read or are very long."""
        writer = self._find()
        directory = getattr(writer, "log_dir", None) or getattr(writer, "logdir", None)
        if not directory or not os.path.isdir(directory):
            return True
        self.flush()
        return any(_mentions(path, tag.encode()) for path in Path(directory).glob("events.out.tfevents.*"))

    def flush(self) -> None:
        """Flush the user's writer."""
        writer = self._find()
        if writer is not None:
            writer.flush()

    def close(self) -> None:
        """Flush; the writer stays open, since it is not ours."""
        if self.is_open:
            self.flush()

    def renew(self) -> bool:
        """Never: its files are its owner's."""
        return False

    @property
    def is_open(self) -> bool:
        """False once its owner has closed it: it would open a second file."""
        writer = self._find()
        return writer is not None and getattr(writer, "all_writers", True) is not None


def _mentions(path: Path, word: bytes) -> bool:
    """Whether a file has a word in it."""
    try:
        size = path.stat().st_size
        if not size:
            return False
        with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
            return size > _LONG or data.find(word) >= 0
    except (OSError, ValueError):
        return True


def _translated(summary: Any, writer: Any) -> Any:
    """The same summary in the classes of the writer: tensorboardX has its own and refuses those of TensorBoard."""
    if not any(c.__module__.partition(".")[0] == "tensorboardX" for c in type(writer).__mro__):
        return summary
    from importlib import import_module

    theirs = import_module("tensorboardX.proto.summary_pb2")
    return theirs.Summary.FromString(summary.SerializeToString())
