"""The runs below a directory, and one run followed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from thermo_monitor.eventlog import text, vectors
from thermo_monitor.eventlog.curves import Column, Columns, Series
from thermo_monitor.eventlog.follow import EventFile
from thermo_monitor.records import Event

_EVENT_FILE = ".tfevents."
_TEXTS = (".csv", ".jsonl")
_LARGEST_TEXT = 2**31  # bytes


class Log:
    """One run: its event files, or one text file, read further with every :meth:`read`.

    Args:
        name: as it is shown.
        files: event files in the order in which they were written, and at most one of CSV or JSON lines.
        remote: a file system of fsspec, for files that are not on this machine.
    """

    def __init__(self, name: str, files: Sequence[str], remote: Any = None) -> None:
        self.name = name
        self.files = list(files)
        self._remote = remote
        self._followed = {f: EventFile(f, self._fetch(f)) for f in self.files if _EVENT_FILE in _base(f)}
        self._texts = [f for f in self.files if f not in self._followed]
        self._sizes: dict[str, int] = {}
        self._columns: Columns = {}
        self._events: list[Event] = []
        self._problems: dict[str, list[str]] = {}

    def read(self) -> bool:
        """Read what was added; whether there was anything."""
        changed = False
        for path, followed in self._followed.items():
            self._problems.pop(path, None)
            try:
                changed |= followed.read()
            except OSError as error:
                self._problems[path] = [f"{_base(path)}: {error.strerror or error}"]
        for path in self._texts:
            changed |= self._read_text(path)
        return changed

    @property
    def columns(self) -> Columns:
        """Numbers by name, of all files together."""
        found: Columns = {}
        for source in (*(f.columns for f in self._followed.values()), self._columns):
            for tag, column in source.items():
                known = found.get(tag)
                if known is None:
                    found[tag] = column
                elif source is not self._columns:  # the text beside event files repeats them
                    joined = Column()
                    for part in (known, column):
                        joined.steps.extend(part.steps)
                        joined.walls.extend(part.walls)
                        joined.values.extend(part.values)
                    found[tag] = joined
        return found

    def curves(self) -> dict[str, Series]:
        """Steps and values by name."""
        return {tag: column.series() for tag, column in sorted(self.columns.items())}

    @property
    def events(self) -> list[Event]:
        """Events that the monitor wrote."""
        told = vectors.collect(v for f in self._followed.values() for v in f.vectors)
        return told or self._events

    @property
    def problems(self) -> list[str]:
        """What could not be read, in words."""
        found = [words for f in self._followed.values() for words in f.problems]
        return found + [words for of_file in self._problems.values() for words in of_file]

    @property
    def torn(self) -> int:
        """Bytes at the ends of files that make no record yet."""
        return sum(f.torn for f in self._followed.values())

    def _fetch(self, path: str) -> Callable[[int], bytes] | None:
        if self._remote is None:
            return None
        return lambda start: bytes(self._remote.cat_file(path, start=start)) if self._remote.size(path) > start else b""

    def _read_text(self, path: str) -> bool:
        try:
            size = self._remote.size(path) if self._remote is not None else os.path.getsize(path)
            if size == self._sizes.get(path):
                return False
            if size > _LARGEST_TEXT:
                raise OSError(f"larger than {_LARGEST_TEXT >> 20} MB")
            data = self._remote.cat_file(path) if self._remote is not None else Path(path).read_bytes()
        except OSError as error:
            self._problems[path] = [f"{_base(path)}: {error.strerror or error}"]
            return False
        self._sizes[path] = size
        if path.endswith(".csv"):
            self._columns, problems = text.read_csv(data)
        else:
            self._columns, self._events, problems = text.read_jsonl(data)
        self._problems[path] = [f"{_base(path)}: {words}" for words in problems]
        return True


def find(place: str) -> list[Log]:
    """Runs at a place: directories with event files below a directory, CSV and JSONL files, or one file itself.

    ``thermo.jsonl`` belongs to the event files beside it. Links to directories are not followed. A place such as
    ``s3://bucket/runs`` is read through fsspec.

    Raises:
        ValueError: there is nothing there, or fsspec is needed and not installed.
    """
    if "://" in place:
        return _remote(place)
    root = Path(place)
    if root.is_file():
        return [Log(root.name, [str(root)])]
    if not root.is_dir():
        raise ValueError(f"{place} does not exist; give a log directory, an event file, or a CSV or JSONL file")
    folders = ((folder, sorted(files)) for folder, _, files in os.walk(root))
    return [
        log
        for folder, files in sorted(folders)
        for log in _of_folder(folder, files, os.path.relpath(folder, root), None, os.path.join)
    ]


def _of_folder(folder: str, files: Sequence[str], name: str, remote: Any, join: Callable[[str, str], str]) -> list[Log]:
    events = [f for f in files if _EVENT_FILE in f and not f.endswith(".profile-empty")]
    ours = [f for f in files if f == "thermo.jsonl"]
    logs = []
    if events or ours:
        logs.append(Log(name, [join(folder, f) for f in (*events, *ours)], remote))
    for file in files:
        if file.endswith(_TEXTS) and file not in ours:
            logs.append(Log(file if name == "." else f"{name}/{file}", [join(folder, file)], remote))
    return logs


def _remote(place: str) -> list[Log]:
    try:
        import fsspec
    except ModuleNotFoundError:
        raise ValueError(f"{place} needs fsspec: pip install 'thermo-monitor[scan]'") from None
    try:
        system, root = fsspec.core.url_to_fs(place)
        if system.isfile(root):
            return [Log(_base(root), [root], system)]
        found = sorted((str(folder), sorted(files)) for folder, _, files in system.walk(root))
    except Exception as error:  # of whatever service it is
        raise ValueError(f"{place} cannot be read: {type(error).__name__}: {error}") from error
    if not found:
        raise ValueError(f"{place} does not exist or is empty")
    logs = []
    for folder, files in found:
        name = os.path.relpath(folder, root)
        logs += _of_folder(folder, files, name, system, lambda a, b: str(PurePosixPath(a) / b))
    return logs


def _base(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]
