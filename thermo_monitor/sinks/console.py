"""One line per event in the terminal, and silence otherwise."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from thermo_monitor.records import Event
from thermo_monitor.sinks.advice import interval
from thermo_monitor.sinks.base import Tick

if TYPE_CHECKING:
    from rich.text import Text

_COLOUR = {"info": "dim", "warning": "bold yellow", "error": "bold red"}


class ConsoleSink:
    """Prints events; readings and frames are left to the other sinks.

    A line goes out whole and in one piece. Where a tqdm bar is running it is lifted for the moment, and a live display
    of rich places the line above itself.

    Args:
        stream: where to print; the standard error as it is at that moment where none is given.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def write(self, tick: Tick) -> None:
        """Say nothing: progress is somebody else's business."""

    def event(self, event: Event) -> None:
        """Print one line: level, step, onset, phase, what happened; nothing for a side of an event told before."""
        if "part_of" in event.details:
            return
        stream = sys.stderr if self._stream is None else self._stream
        line = _render(_text(event), stream)
        tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
        if tqdm is not None:  # the user has it loaded, so a bar may be on this line
            tqdm.write(line, file=stream)
        else:
            stream.write(line + "\n")
        stream.flush()

    def close(self) -> None:
        """Nothing is held back."""


def _text(event: Event) -> Text:
    from rich.text import Text

    message = " ".join(event.message.split()) or f"{event.kind} {event.direction} {event.quantity}"
    colour = "dim" if event.phase == "scheduled" else _COLOUR.get(event.level, "")
    return Text.assemble(
        "thermo ",
        (f"{event.level.upper():<7}", colour),
        f"  step {event.step}  onset {interval(event)}  ",
        (event.phase, colour),
        f"  {message}",
    )


def _render(text: Text, stream: TextIO) -> str:
    """The line with the colours that the stream can show, not wrapped, without its line end.

    It is not printed by rich itself: that would go past a live display, which catches only what is written to the
    standard streams.
    """
    from rich.console import Console

    console = Console(file=stream, soft_wrap=True, force_jupyter=False)
    with console.capture() as captured:
        console.print(text, end="")
    line = captured.get()
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return line.encode(encoding, "replace").decode(encoding)  # a C locale must not lose the event
