import pytest

from thermo_monitor.records import KINDS, PHASES, Event
from thermo_monitor.sinks.advice import advice, interval, is_noteworthy, markdown


def event(**kw):
    return Event(**{"kind": "shift", "step": 20, "onset": 10, **kw})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phase", PHASES)
def test_every_event_gets_a_short_advice(kind, phase):
    text = advice(event(kind=kind, phase=phase))
    assert 20 < len(text) < 160
    assert text.endswith((".", "?"))


def test_advice_depends_on_phase_and_on_kind_where_there_is_none():
    assert len({advice(event(phase=p)) for p in PHASES}) == len(PHASES)
    assert len({advice(event(kind=k)) for k in KINDS}) == len(KINDS)
    assert advice(event(kind="divergence", phase="memorization")) == advice(event(kind="divergence"))


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(None, None, "10"), (8, 12, "10 [8, 12]"), (None, 12, "10 [?, 12]"), (0, None, "10 [0, ?]"), (10, 10, "10")],
)
def test_interval(low, high, text):
    assert interval(event(onset_low=low, onset_high=high)) == text


def test_noteworthy_are_warnings_errors_and_what_was_scheduled():
    assert is_noteworthy(event(level="warning"))
    assert is_noteworthy(event(level="error"))
    assert is_noteworthy(event(level="info", phase="scheduled"))
    assert not is_noteworthy(event(level="info", kind="excursion"))


def test_a_row_stays_one_row_and_the_newest_is_first():
    table = markdown([event(step=1, quantity="a|b\nc"), event(step=2)]).splitlines()
    assert len(table) == 4
    assert table[2].startswith("| 2 |")
    assert "a\\|b c" in table[3]


def test_no_events_leave_a_heading():
    assert len(markdown([]).splitlines()) == 2
