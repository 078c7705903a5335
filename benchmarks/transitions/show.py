"""From the figures as they are kept to Markdown, for the terminal and for docs/transitions.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from transitions.tables import Figure


def plain(value: Any) -> Any:
    """Numbers to six digits, and null for what is undefined or infinite, as JSON has no other word."""
    if isinstance(value, dict):
        return {key: plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [plain(own) for own in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash for one that is undefined."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def interval(triple: Sequence[float | None]) -> str:
    """A figure and its interval."""
    value, low, high = triple
    return number(value) if low is None or value is None else f"{number(value)} ({number(low)} to {number(high)})"


def text(result: Mapping[str, Any]) -> str:
    """All tables."""
    arms = result["arms"]
    sizes = ", ".join(f"{name} {arm['runs']} runs and {arm['steps']:,} steps" for name, arm in arms.items())
    parts = [f"Seeds: {result['seeds']}; {sizes}.", _headline(arms), "### Announcers side by side"]
    for name, arm in arms.items():
        parts += [f"{name[0].upper()}{name[1:]}:", _announcers(arm["announcers"])]
    parts += ["### Which number tells runs apart", _ranking(arms)]
    parts += ["### The early-warning score by its threshold", _warning(arms)]
    parts += ["### Labels", _labels(arms["all runs"]["labels"])]
    parts += ["### Each recipe", _records(result["recipes"])]
    return "\n\n".join(parts)


def _headline(arms: Mapping[str, Any]) -> str:
    rows = []
    for k, figure in enumerate(arms["all runs"]["headline"]):
        cells = [arm["headline"][k] for arm in arms.values()]
        rows.append([figure["what"], *(f"{interval((c['value'], c['low'], c['high']))}; {c['of']}" for c in cells)])
    return markdown(["what", *arms], rows)


def _announcers(rows: Sequence[Figure]) -> str:
    keys = ("announced", "lead", "wrong", "rate")
    cells = [[a["name"], number(a["limit"]), *(interval(a[k]) for k in keys), number(a["area"])] for a in rows]
    header = ["announcer", "threshold", "announced before half", "lead", "never, but announced"]
    return markdown([*header, "false in 100,000", "AUROC"], cells)


def _ranking(arms: Mapping[str, Any]) -> str:
    found = {name: {row[0]: row[1:] for row in arm["ranking"]} for name, arm in arms.items()}
    names = [row[0] for row in arms["all runs"]["ranking"]]
    rows = []
    for name in names:
        cells = [found[arm].get(name, (None, None, 0, None, None)) for arm in arms]
        rows.append([name, *(f"{interval((c[1], c[3], c[4]))} [{number(c[0])}]" if c[2] else "-" for c in cells)])
    runs = [f"{name}, {max((row[3] for row in arm['ranking']), default=0)} runs" for name, arm in arms.items()]
    return markdown(["AUROC [on the seeds for development]", *runs], rows)


def _warning(arms: Mapping[str, Any]) -> str:
    rows = [[name, *(number(v) for v in row)] for name, arm in arms.items() for row in arm["early_warning"]]
    return markdown(["runs", "above", "announced", "false positives", "lead", "false in 100,000"], rows)


def _labels(rows: Sequence[Sequence[Any]]) -> str:
    names = sorted({name for _, name, _ in rows})
    counts = {(was, name): count for was, name, count in rows}
    cells = [[was, *(counts.get((was, name), 0) for name in names)] for was in sorted({was for was, _ in counts})]
    return markdown(["what it was / was called", *names], cells)


def _records(rows: Sequence[Figure]) -> str:
    return markdown(list(rows[0]), [list(row.values()) for row in rows]) if rows else ""
