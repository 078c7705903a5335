import math

import pytest

from thermo_monitor.sinks.thinning import Thinning


@pytest.mark.parametrize("capacity", [2, 4, 50, 500])
def test_the_present_grid_is_complete_and_never_overfull(capacity):
    thin, kept = Thinning(capacity), []
    for n in range(capacity * 20):
        if thin.admit():
            kept.append(n)
        grid = range(0, n + 1, thin.interval)
        assert len(grid) <= capacity
        if n >= capacity:
            assert len(grid) >= capacity // 2
    assert set(range(0, capacity * 20, thin.interval)) <= set(kept)


def test_everything_passes_until_it_is_full():
    thin = Thinning(50)
    assert all(thin.admit() for _ in range(50))
    assert thin.interval == 1
    thin.admit()
    assert thin.interval == 2


def test_the_log_grows_with_the_logarithm_of_the_run():
    thin, n = Thinning(500), 10_000
    written = sum(thin.admit() for _ in range(n))
    assert written == pytest.approx(500 * (1 + math.log2(n / 500) / 2), rel=0.03)


def test_the_state_continues():
    straight, first = Thinning(4), Thinning(4)
    expected = [straight.admit() for _ in range(30)]
    before = [first.admit() for _ in range(11)]
    second = Thinning(4)
    second.load_state_dict(first.state_dict())
    assert before + [second.admit() for _ in range(19)] == expected


def test_a_capacity_without_room_is_refused():
    with pytest.raises(ValueError, match="at least 2 frames, got 1"):
        Thinning(1)
