"""Numbers from CSV files and JSON lines of any program, and from our own ``thermo.jsonl``."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from typing import Any

from thermo_monitor.eventlog.curves import Column, Columns
from thermo_monitor.eventlog.vectors import parse
from thermo_monitor.records import Event

STEPS = ("step", "global_step", "_step", "trainer/global_step", "iteration", "iter", "it", "batch", "epoch")
_PREFIX = "thermo/"  # so that a reading has one name in every log


def read_csv(data: bytes) -> tuple[Columns, list[str]]:
    r"""Columns of numbers by name, and what could not be read, in words.

    The steps are the first of ``step``, ``global_step``, ``iteration`` and the like that there is, or the rows.

    Example:
        >>> columns, _ = read_csv(b"epoch,step,loss\n0,10,1.5\n0,20,\n1,30,nan\n")
        >>> columns["loss"].steps.tolist(), columns["loss"].values.tolist()
        ([10.0, 30.0], [1.5, nan])
    """
    columns: Columns = {}
    text = data.decode("utf-8-sig", "replace").replace("\0", "")
    rows = csv.reader(io.StringIO(text, newline=""))
    unread = 0
    try:
        header = [name.strip() for name in next(rows, [])]
        at = next((header.index(name) for name in STEPS if name in header), None)
        for number, row in enumerate(rows):
            step = float(number) if at is None else _float(row[at] if at < len(row) else "")
            if step is None or not math.isfinite(step):
                unread += 1
                continue
            for name, cell in zip(header, row, strict=False):
                value = _float(cell)
                if name and name not in STEPS and value is not None:
                    columns.setdefault(name, Column()).add(step, number, value)
    except csv.Error as error:
        return columns, [f"line {rows.line_num}: {error}"]
    return columns, [f"{unread} rows without a step"] if unread else []


def read_jsonl(data: bytes) -> tuple[Columns, list[Event], list[str]]:
    r"""Numbers by name, our events, and what could not be read; ours and any with an object of numbers per line.

    Example:
        >>> columns, _, _ = read_jsonl(b'{"step": 5, "train": {"loss": 2.0}}\n{"step": 6, "lo')
        >>> {name: column.values.tolist() for name, column in columns.items()}
        {'train/loss': [2.0]}
    """
    columns: Columns = {}
    events: dict[str, Event] = {}
    unread, resumed = 0, False
    lines = data.split(b"\n")
    for number, raw in enumerate(lines):
        if not raw.strip():
            continue
        try:
            row = json.loads(raw)
        except (ValueError, RecursionError):
            unread += number < len(lines) - 1  # the last line may be half written
            continue
        if not isinstance(row, dict):
            unread += 1
            continue
        kind = row.get("type")
        if kind == "run":
            resumed = bool(row.get("resumed"))
        elif kind == "event":
            event = parse(raw)
            if event is not None:
                events[event.id or raw.decode("utf-8", "replace")] = event
        elif kind != "frame":
            step = next((s for name in STEPS if (s := _number(row.get(name))) is not None), float(number))
            if resumed and kind == "tick":  # what comes after the checkpoint is told again
                events = {key: e for key, e in events.items() if e.step < step}
                resumed = False
            source: Mapping[str, Any] = row
            if kind == "tick":  # a null of ours is a number that is none
                values = _dict(row.get("values")).items()
                source = {_PREFIX + k: math.nan if v is None else v for k, v in values}
            for name, value in _flat(source):
                if name not in STEPS:
                    columns.setdefault(name, Column()).add(step, number, value)
    problems = [f"{unread} lines could not be read"] if unread else []
    return columns, sorted(events.values(), key=lambda e: (e.onset, e.step)), problems


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _flat(row: Mapping[str, Any], before: str = "", depth: int = 0) -> list[tuple[str, float]]:
    found = []
    for name, value in row.items():
        number = _number(value)
        if number is not None:
            found.append((before + str(name), number))
        elif isinstance(value, Mapping) and depth < 4:
            found += _flat(value, f"{before}{name}/", depth + 1)
    return found


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        return float(value) if value in ("NaN", "Infinity", "-Infinity") else None
    try:
        return float(value)
    except OverflowError:
        return None


def _float(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
