"""A budget is kept by measuring less often, at steps that the schedule names; without one the cadence is exact."""

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.models import build, train
from thermo_monitor import Monitor
from thermo_monitor.budget import LARGEST, Budget
from thermo_monitor.presets import LossProbe
from thermo_monitor.probes.base import Listener, Measured
from thermo_monitor.schedule import Stretched, every
from thermo_monitor.sinks import MemorySink


def simulated(share, full, cheap, own=0.1, n=10, steps=30_000):
    """A run with known costs; the budget, its factors at every step, and the share that was taken at the end."""
    budget, spent = Budget(share), 0.0
    slow, fast, factors = Stretched(n), Stretched(1), []
    half = 0.0
    for step in range(steps):
        if slow(step):
            spent += full
            stretch = budget.ended(step, True, spent, step * own + spent)
        elif fast(step):
            spent += cheap
            stretch = budget.ended(step, False, spent, step * own + spent)
        slow.factor, fast.factor = stretch
        factors.append(stretch)
        half = spent if step == steps // 2 else half
    return factors, (spent - half) / (steps / 2 * own + spent - half)


@given(
    share=st.floats(0.002, 0.3),
    full=st.floats(1e-4, 0.5),
    cheap=st.floats(1e-6, 1e-3),
)
def test_the_share_is_kept_and_no_more_than_needed_is_given_up(share, full, cheap):
    factors, taken = simulated(share, full, cheap, steps=6_000)
    last = factors[-1]
    if last.full < LARGEST and last.cheap < LARGEST:
        assert taken <= share * 1.05 + full / (3_000 * 0.1)  # half a run holds a whole number of measurements
    if full / 10 + cheap < 0.69 * share * 0.1 and cheap < 0.3 * share * 0.1:
        assert last == (1, 1)
    if last.full > 1:
        assert taken > share / 6  # powers of two, and a margin before it measures more often again


def test_the_factors_settle():
    factors, _ = simulated(0.01, full=0.05, cheap=1e-5)
    assert len(set(factors[1000:])) == 1
    assert factors[-1].full in (4, 8)


def test_a_stretched_cadence_is_a_part_of_the_cadence():
    for cadence in (7, every(7), lambda step: step in (1, 2, 3, 5, 8, 13, 21)):
        stretched = Stretched(cadence)
        assert stretched(0) == bool(every(7)(0)) or callable(cadence)
        stretched.factor = 4
        for step in range(1, 100):
            if stretched(step):
                assert cadence % 7 == 0 if isinstance(cadence, int) else cadence(step)
    stretched = Stretched(5)
    stretched.factor = 4
    assert [step for step in range(13, 70) if stretched(step)] == [20, 40, 60]  # whichever step it begins at


class Slow:
    """A costly probe."""

    quantities, fast = (), False

    def listen(self, run):
        class Sleeps(Listener):
            def before_step(self):
                time.sleep(0.03)

            def collect(self):
                return None, []

            def read(self, step, label, arrays):
                return Measured()

        return Sleeps()


def measured(budget):
    model, sink = build(), MemorySink()
    probes = [LossProbe(), Slow()]
    with Monitor(model, every=2, budget=budget, preset=probes, sinks=[sink], strict=True) as monitor:
        train(model, monitor, steps=120, optimizer=torch.optim.SGD(model.parameters(), 0.01))
    return sink


def test_a_run_measures_less_often_under_a_budget(spoken):
    exact, stretched = measured(None), measured(0.02)
    assert exact.series("monitor/overhead")[0].tolist() == list(range(2, 120, 2))
    assert len(exact.series("monitor/stretch")[0]) == 0
    steps, factors = stretched.series("monitor/stretch")
    assert len(steps) < 30
    assert factors[0] == 1
    assert factors.max() >= 8
    assert all(step % 2 == 0 for step in steps)


def test_bytes_are_those_that_were_moved(spoken):
    model, sink = build(), MemorySink()
    with Monitor(model, every=5, preset=[LossProbe()], sinks=[sink], strict=True) as monitor:
        train(model, monitor, steps=20)
    # One number of eight bytes in each of five steps; the first reading comes with the second measurement.
    assert sink.series("monitor/bytes")[1].tolist() == [48.0, 40.0, 40.0, 32.0]


@pytest.mark.parametrize("share", [0, 1, -0.1, "0.01", True, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="give the share of the time"):
        Monitor(build(), budget=share, sinks=[])
