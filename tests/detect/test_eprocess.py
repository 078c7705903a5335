import math

import numpy as np

from thermo_monitor.detect import eprocess


def test_every_component_equals_the_recurrence():
    logs, direct = eprocess.init(), np.zeros(len(eprocess.SHIFTS))
    shifts = np.array(eprocess.SHIFTS)
    for z in np.random.default_rng(0).standard_normal(200):
        eprocess.update(logs, z - 0.1, 1.2)
        direct = (1.0 + direct) * np.exp(shifts * (z - 0.1) - 0.6 * shifts**2)
        np.testing.assert_allclose(np.exp(logs), direct, rtol=1e-9)


def test_without_dead_band_the_mean_grows_by_one_per_step_under_the_null():
    steps, runs = 8, 40_000
    z = np.random.default_rng(1).standard_normal((runs, steps))
    totals = np.zeros((runs, 2))
    for run in range(0, runs):
        logs = eprocess.init()
        for t in range(steps):
            eprocess.update(logs, z[run, t], 1.0)
        totals[run] = np.exp(logs[1:3])
    # E SR_t = t exactly; the standard error is estimated from the runs, whose variance is finite for these shifts.
    error = totals.std(axis=0) / math.sqrt(runs)
    assert np.all(np.abs(totals.mean(axis=0) - steps) < 5.0 * error)
    assert np.all(error < 0.1)


def test_it_neither_overflows_nor_dies():
    logs = eprocess.init()
    for _ in range(10_000):
        eprocess.update(logs, 3.0, 1.0)
    assert math.isfinite(eprocess.total(logs))
    assert eprocess.total(logs) > 1000.0
    for _ in range(20_000):
        eprocess.update(logs, -3.0, 1.0)
    assert -10.0 < eprocess.total(logs) < 10.0


def test_the_total_is_the_sum():
    groups = [[0.1, -2.0], [3.0, eprocess.NOTHING]]
    assert math.isclose(
        eprocess.total(*groups), math.log(math.exp(0.1) + math.exp(-2.0) + math.exp(3.0)), rel_tol=1e-12
    )
    assert eprocess.total(eprocess.init()) == eprocess.NOTHING
