"""What a scan found, as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from thermo_monitor.scan import Scanned
from thermo_monitor.sinks.advice import interval
from thermo_monitor.terminal import printable


def show(found: Sequence[Scanned], console: Console | None = None) -> None:
    """Print the events, what could not be read, and a line that sums up."""
    console = console or Console()
    table = Table(title=None, box=None, pad_edge=False)
    for name in ("run", "onset [low, high]", "event", "what happened"):
        table.add_column(Text(name), overflow="fold")
    for one in found:
        for event in one.events:
            name = event.kind if event.phase == "unexplained" else event.phase
            cells = (one.run, interval(event), name, event.message.partition("; looks like")[0])
            table.add_row(*(Text(printable(cell)) for cell in cells))
    if table.row_count:
        console.print(table)
    for one in found:
        for problem in one.problems:
            console.print(Text(f"{printable(one.run)}: {printable(problem)}", style="yellow"))
    points, events = sum(one.points for one in found), sum(len(one.events) for one in found)
    runs = f"{len(found)} run{'s' * (len(found) != 1)}"
    console.print(f"{events} event{'s' * (events != 1)} in {runs}, {points:,} points", style="dim", highlight=False)
