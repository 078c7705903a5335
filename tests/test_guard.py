"""A part that fails is switched off, said once, and never reaches the training unless that is asked for."""

import warnings

import pytest

from thermo_monitor.guard import Guard, tell
from thermo_monitor.meter import Meter


def fails(calls):
    calls.append(1)
    raise ZeroDivisionError("planted")


def test_a_part_that_fails_is_not_asked_again(spoken):
    guard, calls = Guard(), []
    assert guard.run("part", fails, calls) is None
    assert guard.run("part", fails, calls, default=[]) == []
    assert calls == [1]
    assert guard.disabled == {"part": "ZeroDivisionError: planted"}
    assert len(spoken) == 1
    assert "part raised an error and is switched off" in spoken[0]
    assert "in fails" in spoken[0]  # the traceback


def test_other_parts_go_on(spoken):
    guard = Guard()
    guard.run("bad", fails, [])
    assert guard.run("good", lambda x: x + 1, 1) == 2


def test_strict_raises_the_error_itself():
    with pytest.raises(ZeroDivisionError, match="planted"):
        Guard(strict=True).run("part", fails, [])


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_failure(error):
    guard = Guard()

    def interrupted():
        raise error

    with pytest.raises(error):
        guard.run("part", interrupted)
    assert guard.disabled == {}


def test_warnings_that_are_errors_do_not_stop_a_training(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tell("something")
    assert "thermo-monitor: something" in capsys.readouterr().out


def test_a_warning_is_a_warning():
    with pytest.warns(RuntimeWarning, match="thermo-monitor: something"):
        tell("something")


def test_the_meter_counts_nested_use_once_and_shares_are_shares(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    meter = Meter()

    def tick():
        with meter:
            now[0] += 1.0
            with meter:
                now[0] += 1.0
        now[0] += 6.0
        return {r.quantity: r.value for r in meter.readings(0, 3)}

    first, second = tick(), tick()
    assert first == {"monitor/milliseconds": 2000.0, "monitor/bytes": 0.0, "monitor/disabled": 3.0}
    assert second["monitor/overhead"] == pytest.approx(2 / 8)
