"""The outcome of an analysis, and its three files: JSON for programs, CSV for spreadsheets, PNG for people."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thermo_monitor import spreadsheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Draw = Callable[["Axes"], None]


@dataclass(frozen=True)
class Result:
    """What one analysis found.

    Attributes:
        summary: a few numbers, and what they stand on.
        columns: of the table.
        rows: of the table.
        draw: draws the picture.
        undefined: why there is nothing, if there is nothing.
    """

    summary: Mapping[str, Any] = field(default_factory=dict)
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    draw: Draw | None = None
    undefined: str | None = None


def plain(value: Any) -> Any:
    """A value as JSON has it; what is not finite becomes null.

    Example:
        >>> plain({"a": np.array([1.0, np.nan]), 0.5: (True, None)})
        {'a': [1.0, None], '0.5': [True, None]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(result: Result, name: str, about: Mapping[str, Any], out: Path) -> list[Path]:
    """Write the files of a result; one that is undefined has its reason in the JSON, and no others.

    Raises:
        ValueError: the place cannot be written to.
    """
    said = {"analysis": name, **about, "undefined": result.undefined, "summary": result.summary}
    said["table"] = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    written = [out / f"{name}.json"]
    try:
        out.mkdir(parents=True, exist_ok=True)
        written[0].write_text(json.dumps(plain(said), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if result.rows:
            written.append(out / f"{name}.csv")
            rows = [[plain(value) for value in row] for row in result.rows]
            written[-1].write_text(spreadsheet.csv(result.columns, rows), encoding="utf-8", newline="")
        if result.draw is not None:
            written.append(out / f"{name}.png")
            _picture(result.draw, name, written[-1])
    except OSError as error:
        raise ValueError(f"cannot write to {out}: {error.strerror}") from None
    return written


def _picture(draw: Draw, name: str, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, and no state of pyplot
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(name, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    figure.savefig(path, dpi=110)
