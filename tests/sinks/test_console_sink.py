import io
import sys

import pytest

from thermo_monitor.records import Event, Reading
from thermo_monitor.sinks import ConsoleSink, Tick

EVENT = Event(
    "shift", 2140, 2100, "up", phase="generalization", message="größer,\n [sharper]", onset_low=2050, onset_high=2160
)
LINE = "thermo WARNING  step 2140  onset 2100 [2050, 2160]  generalization  größer, [sharper]\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_an_event_is_one_plain_line_where_nobody_sees_colours():
    stream = io.StringIO()
    sink = ConsoleSink(stream)
    sink.write(Tick(0, 0.0, [Reading(0, "loss/train", 1.0)]))
    assert stream.getvalue() == ""
    sink.event(EVENT)
    sink.close()
    assert stream.getvalue() == LINE


def test_the_line_is_coloured_in_a_terminal_and_still_one_line():
    stream = Terminal()
    ConsoleSink(stream).event(EVENT)
    assert "\x1b[1;33mWARNING" in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


def test_a_long_message_is_not_wrapped():
    stream = Terminal()
    ConsoleSink(stream).event(Event("drift", 1, 0, message="word " * 200))
    assert stream.getvalue().count("\n") == 1


def test_the_standard_error_of_the_moment_is_used(capsys):
    ConsoleSink().event(EVENT)
    captured = capsys.readouterr()
    assert captured.err == LINE
    assert captured.out == ""


def test_a_terminal_without_unicode_still_gets_the_event():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    ConsoleSink(stream).event(EVENT)
    assert b"gr??er" in raw.getvalue() or b"gr?" in raw.getvalue()


def test_a_tqdm_bar_is_lifted_for_the_line():
    tqdm = pytest.importorskip("tqdm", reason="needs tqdm")
    stream = Terminal()
    with tqdm.tqdm(total=10, file=stream, ncols=40, mininterval=0) as bar:
        bar.update(3)
        ConsoleSink(stream).event(Event("shift", 1, 0, message="here"))
        text = stream.getvalue()
    before, _, after = text.partition("thermo ")
    assert before.endswith("\r")  # the bar was wiped, so that the line starts at the margin
    assert "here" in after.splitlines()[0]
    assert "30%" in after  # and drawn again below


def test_without_tqdm_nothing_imports_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "tqdm", raising=False)
    stream = io.StringIO()
    ConsoleSink(stream).event(EVENT)
    assert stream.getvalue() == LINE
    assert "tqdm" not in sys.modules


def test_a_live_display_places_the_line_above_itself(monkeypatch):
    from rich.console import Console
    from rich.live import Live

    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    console = Console(stderr=True, width=60)
    with Live("still running", console=console, auto_refresh=False) as live:
        live.refresh()
        ConsoleSink().event(Event("shift", 1, 0, message="here"))
    lines = stream.getvalue().split("\n")
    row = next(i for i, line in enumerate(lines) if "here" in line)
    assert any("still running" in line for line in lines[row + 1 :])
    assert "still running" not in lines[row].rpartition("here")[2]


@pytest.mark.parametrize(("level", "word"), [("info", "INFO"), ("warning", "WARNING"), ("error", "ERROR")])
def test_the_level_is_a_word(level, word):
    stream = io.StringIO()
    ConsoleSink(stream).event(Event("shift", 1, 0, level=level))
    assert f" {word} " in stream.getvalue()
