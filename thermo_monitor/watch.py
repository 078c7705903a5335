"""A live view of the runs of a log directory in a terminal, also over ssh."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from thermo_monitor.eventlog.runs import Log, find
from thermo_monitor.quantities import REGISTRY
from thermo_monitor.records import Event
from thermo_monitor.sinks.advice import interval
from thermo_monitor.terminal import printable, short, sparkline

SHOWN = (
    "thermo/loss/train", "thermo/attn/specific_heat_norm", "thermo/attn/reduced_temperature",
    "thermo/attn/entropy_fraction", "thermo/repr/representation_entropy", "thermo/opt/gradient_norm",
    "thermo/detect/score",
)  # fmt: skip
PHASES = {
    "memorization": ("●", "blue"),
    "generalization": ("★", "green"),
    "reorganization": ("◆", "magenta"),
    "instability": ("▲", "red"),
    "scheduled": ("┆", "dim"),
}
_MOST = 8  # runs, the newest ones
_RECENT = 4000  # points of a curve that a sparkline is made of
_EVENTS = 6
_LOOK_AGAIN = 15.0  # seconds between two looks for new runs


class Watch:
    """Runs of a directory, read further with every :meth:`look`."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.logs: dict[str, Log] = {}
        self._changed: dict[str, float] = {}
        self._found = 0.0

    def look(self) -> None:
        """Read what was added, and every few seconds look for new runs."""
        now = time.monotonic()
        if not self.logs or now - self._found > _LOOK_AGAIN:
            self._found = now
            for log in find(self.place):
                known = self.logs.get(log.name)
                if known is None or known.files != log.files:
                    self.logs[log.name] = log
        for name, log in self.logs.items():
            if log.read():
                self._changed[name] = now

    def render(self, width: int) -> RenderableType:
        """What the terminal shows."""
        newest = sorted(self.logs.values(), key=lambda log: -self._changed.get(log.name, 0.0))[:_MOST]
        logs = sorted((log for log in newest if log.columns or log.events), key=lambda log: log.name)
        if not logs:
            return Text(f"no run with numbers in {printable(self.place)} yet; looking again every few seconds")
        panels = [_panel(log, width, few=len(logs) > 3) for log in logs]
        hidden = len(self.logs) - len(newest)
        return Group(*panels, *([Text(f"and {hidden} older runs", style="dim")] if hidden > 0 else []))


def run(place: str, every: float, once: bool, console: Console | None = None) -> None:
    """Show and go on showing until the user ends it.

    Raises:
        ValueError: the place does not exist.
    """
    console = console or Console()
    watch = Watch(place)
    watch.look()
    if once:
        console.print(watch.render(console.width))
        return
    with Live(watch.render(console.width), console=console, auto_refresh=False, screen=console.is_terminal) as live:
        try:
            while True:
                time.sleep(every)
                watch.look()
                live.update(watch.render(console.width), refresh=True)
        except KeyboardInterrupt:
            return


def _panel(log: Log, width: int, few: bool) -> Panel:
    columns = log.columns
    names = [tag for tag in SHOWN if tag in columns] or _own(list(columns))
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    step = max((column.steps[-1] for column in columns.values() if len(column)), default=0.0)
    for tag in names[: 3 if few else len(names)]:
        column = columns[tag]
        known = REGISTRY.get(tag.removeprefix("thermo/"))
        values = list(column.values[-_RECENT:])
        is_log = (known is not None and known.scale == "log") or (known is None and "loss" in tag.lower())
        line = sparkline(values, max(10, min(60, width - 52)), is_log and all(not v <= 0 for v in values))
        name = printable(known.name if known else tag)
        table.add_row(Text(name), Text(short(values[-1]), style="bold"), Text(line, style="cyan"))
    events = [e for e in log.events if "part_of" not in e.details]
    rows: list[RenderableType] = [table]
    if events:
        rows += [Text(), *(_event(e) for e in events[-(2 if few else _EVENTS) :])]
    for problem in log.problems[:2]:
        rows.append(Text(printable(problem), style="yellow"))
    state = _state(events)
    title = Text.assemble((printable(log.name), "bold"), f"  step {step:,.0f}  ", state)
    return Panel(Group(*rows), title=title, title_align="left", border_style="dim")


def _state(events: Sequence[Event]) -> tuple[str, str]:
    named = [e for e in events if e.phase in PHASES and e.phase != "scheduled" and e.kind != "excursion"]
    if not named:
        return "no event so far", "dim"
    sign, style = PHASES[named[-1].phase]
    return f"{sign} {named[-1].phase} since {named[-1].onset:,}", style


def _event(event: Event) -> Text:
    sign, style = PHASES.get(event.phase, ("?", "yellow"))
    text = Text(no_wrap=True, overflow="ellipsis")
    name = event.kind if event.phase == "unexplained" else event.phase
    text.append(f"{sign} {printable(name)} ", style=style)
    text.append(f"step {interval(event)}  ", style="dim")
    text.append(printable(event.message.partition("; looks like")[0]))
    return text


def _own(tags: Sequence[str]) -> list[str]:
    telling = [tag for tag in tags if tag.rpartition("/")[2] not in ("epoch", "hp_metric")]
    return sorted(telling, key=lambda tag: (not any(w in tag.lower() for w in ("loss", "acc")), tag))[:7]
