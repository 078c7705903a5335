"""The state of many detectors that are looking for a change, as columns: from the state of one and back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

_BASE = ("n", "phi", "raw", "rough", "noise", "sigma", "centre", "square", "log_mean", "log_var")


class Table(SimpleNamespace):
    """Columns by name; ``starts`` are stacks of candidates [count, sum, step] with their heights."""


def empty(count: int, kept: int) -> Table:
    """A table without series."""
    table = Table(
        zero=np.zeros(count), unit=np.ones(count), origin=np.zeros(count),
        line=np.zeros((6, count)), pairs=np.zeros((3, count)), terms=np.zeros((count, 4, 4)),
        sums=np.zeros((count, 3)), before=np.zeros((2, count)), frozen=np.zeros((5, count)),
        is_frozen=np.zeros(count, dtype=bool), count=np.zeros(count), sharp=np.zeros(count), log_sr=np.zeros(count),
        starts=np.zeros((count, 4, 16, 3)), height=np.zeros((count, 4), dtype=np.intp),
        values=np.zeros((count, kept + 1)), steps=np.zeros((count, kept + 1), dtype=np.int64),
        length=np.zeros(count, dtype=np.intp), kept=kept,
    )  # fmt: skip
    for name in _BASE:
        setattr(table, name, np.zeros(count))
    return table


def fits(state: dict[str, Any]) -> bool:
    """Whether a detector is looking for a change with nothing else on its mind."""
    return state["mode"] == "watch" and not state["gap"] and not state["queue"] and state["stat"]["before"] is not None


def load(table: Table, row: int, state: dict[str, Any]) -> None:
    """Write the state of a detector into its row."""
    base, stat = state["base"], state["stat"]
    for name in ("zero", "unit", "origin"):
        getattr(table, name)[row] = state[name]
    for name in _BASE:
        getattr(table, name)[row] = base[name]
    table.line[:, row], table.pairs[:, row], table.terms[row] = base["line"], base["pairs"], stat["terms"]
    table.sums[row], table.before[:, row] = stat["sums"], stat["before"]
    table.is_frozen[row] = stat["frozen"] is not None
    if stat["frozen"] is not None:
        table.frozen[:, row] = stat["frozen"]
    table.count[row], table.sharp[row], table.log_sr[row] = stat["count"], stat["sharp"], stat["log_sr"]
    for k, stack in enumerate(stat["starts"]):
        grow(table, len(stack))
        table.height[row, k] = len(stack)
        table.starts[row, k, : len(stack)] = np.array(stack).reshape(-1, 3)
    length = len(state["values"])
    table.length[row] = length
    table.values[row, :length], table.steps[row, :length] = state["values"], state["steps"]


def store(table: Table, row: int, state: dict[str, Any], last_step: int | None) -> None:
    """Write a row back into the state of its detector."""
    base, stat = state["base"], state["stat"]
    for name in _BASE:
        base[name] = float(getattr(table, name)[row])
    base["line"], base["pairs"] = table.line[:, row].tolist(), table.pairs[:, row].tolist()
    stat["terms"], stat["sums"] = table.terms[row].tolist(), table.sums[row].tolist()
    stat["before"] = table.before[:, row].tolist()
    stat["frozen"] = table.frozen[:, row].tolist() if table.is_frozen[row] else None
    stat["count"], stat["sharp"] = int(table.count[row]), int(table.sharp[row])
    stat["log_sr"] = float(table.log_sr[row])
    stat["starts"] = [
        [[int(c), s, int(t)] for c, s, t in table.starts[row, k, : table.height[row, k]].tolist()] for k in range(4)
    ]
    length = table.length[row]
    state["values"], state["steps"] = table.values[row, :length].tolist(), table.steps[row, :length].tolist()
    state["last_step"] = last_step


def grow(t: Table, height: int) -> None:
    """Make room for stacks of this height."""
    room = t.starts.shape[2]
    if height > room:
        t.starts = np.concatenate([t.starts, np.zeros((*t.starts.shape[:2], max(room, height - room), 3))], axis=2)
