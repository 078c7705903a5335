import numpy as np
import pytest

from thermo_monitor.detect import focus


def brute(sums, t):
    scores = [(sums[t] - sums[tau]) ** 2 / (2.0 * (t - tau)) if sums[t] > sums[tau] else 0.0 for tau in range(t)]
    return max(scores), int(np.argmax(scores))


@pytest.mark.parametrize("seed", range(4))
def test_the_list_holds_the_maximum_on_every_prefix(seed):
    z = np.random.default_rng(seed).standard_normal(300)
    z[150:] += 0.4 * seed
    sums = np.concatenate([[0.0], np.cumsum(z)])
    candidates = []
    longest = 0
    for t in range(1, len(sums)):
        focus.push(candidates, t - 1, sums[t - 1], 7 * (t - 1))
        longest = max(longest, len(candidates))
        best, tau = brute(sums, t)
        found = focus.date(candidates, t, sums[t])
        if found is None:
            assert best == 0.0
        else:
            assert found.evidence == pytest.approx(best, rel=1e-12)
            assert found.onset == 7 * tau
            assert found.low <= found.onset <= found.high
    assert longest < 40  # of order log(300), not 300


def test_a_drop_below_everything_clears_the_list():
    candidates = []
    for t, total in enumerate([0.0, 1.0, 3.0, -5.0]):
        focus.push(candidates, t, total, t)
    assert [c[0] for c in candidates] == [3]
