import pytest

from thermo_monitor.schedule import every, log_spaced, resolve


def test_every_n_steps():
    assert [s for s in range(25) if every(10)(s)] == [0, 10, 20]
    assert all(every(1)(s) for s in range(5))


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "10", None])
def test_what_is_no_cadence_is_refused_with_the_value(bad):
    with pytest.raises(ValueError, match=repr(bad)):
        every(bad)
    with pytest.raises(ValueError, match="per_decade"):
        log_spaced(bad)


def test_log_spacing_has_as_many_steps_in_every_decade():
    steps = [s for s in range(100_000) if log_spaced(10)(s)]
    for low in (100, 1_000, 10_000):
        assert sum(low <= s < 10 * low for s in steps) == 10
    assert steps[:2] == [0, 1]


def test_a_function_is_a_schedule_already():
    def odd(step):
        return step % 2 == 1

    assert resolve(odd) is odd
    assert resolve(3)(6)
    assert not resolve(3)(7)
