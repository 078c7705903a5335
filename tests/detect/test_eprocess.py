import math

import numpy as np

from thermo_monitor.detect import eprocess


def test_every_component_equals_the_recurrence():
    terms, direct = eprocess.init(), np.zeros(len(eprocess.SHIFTS))
    shifts = np.array(eprocess.SHIFTS)
    for z in np.random.default_rng(0).standard_normal(200):
        total = eprocess.update(terms, z - 0.1, eprocess.penalties(1.2))
        direct = (1.0 + direct) * np.exp(shifts * (z - 0.1) - 0.6 * shifts**2)
        np.testing.assert_allclose(terms, direct, rtol=1e-12)
        assert math.isclose(total, direct.sum(), rel_tol=1e-12)


def test_without_dead_band_the_mean_grows_by_one_per_step_under_the_null():
    steps, runs = 8, 40_000
    z = np.random.default_rng(1).standard_normal((runs, steps))
    factors = eprocess.penalties(1.0)
    found = np.zeros((runs, 2))
    for run in range(0, runs):
        terms = eprocess.init()
        for t in range(steps):
            eprocess.update(terms, z[run, t], factors)
        found[run] = terms[1:3]
    # E SR_t = t exactly; the standard error is estimated from the runs, whose variance is finite for these shifts.
    error = found.std(axis=0) / math.sqrt(runs)
    assert np.all(np.abs(found.mean(axis=0) - steps) < 5.0 * error)
    assert np.all(error < 0.1)


def test_it_neither_overflows_nor_dies():
    terms, factors = eprocess.init(), eprocess.penalties(1.0)
    for _ in range(10_000):
        total = eprocess.update(terms, 6.0, factors)
    assert 1e300 <= total < math.inf
    for _ in range(20_000):
        total = eprocess.update(terms, -3.0, factors)
    assert -10.0 < math.log(total) < 10.0
