import math

import numpy as np
import pytest
import torch
from scipy import stats

from thermo_monitor import physics


def rows_of(lengths, copies, value):
    n = torch.tensor(lengths, dtype=torch.float64).repeat(copies)
    return value(n), n


def test_octaves_are_counted_exactly():
    n = torch.tensor([1.0, 2, 3, 4, 7, 8, 1 << 20])
    sums = physics.octave_sums(torch.ones(7), n)
    assert sums.rows[:4].tolist() == [0, 2, 2, 1]
    assert sums.rows[20].item() == 1
    kept = physics.octave_sums(torch.ones(7), n, torch.tensor([True, False, True, True, True, True, True]))
    assert kept.rows[1].item() == 1
    bad = physics.octave_sums(torch.tensor([math.nan, 1.0]), torch.tensor([1.0, 2.0]))
    assert bad.total.sum().item() == 1


def test_slope_and_interval_are_those_of_a_least_squares_line():
    generator = torch.Generator().manual_seed(0)
    n = torch.arange(16, 2048).repeat(8).double()
    values = 0.3 * n.log() + 2 + torch.randn(n.shape, generator=generator, dtype=torch.float64) + (n > 100)
    found = physics.kappa_surrogate(physics.octave_sums(values, n))
    at = n.log2().floor()
    x = [n[at == j].log().mean().item() for j in range(4, 11)]
    y = [values[at == j].mean().item() for j in range(4, 11)]
    line = stats.linregress(x, y)
    assert found.slope.item() == pytest.approx(line.slope, rel=1e-9)
    assert found.slope_error.item() == pytest.approx(line.stderr * stats.t.ppf(0.975, 5), rel=3e-4)  # three decimals
    ratio = values[at == 10].std(correction=0) / values[at == 4].std(correction=0)
    assert found.spread_ratio.item() == pytest.approx(ratio.item(), rel=1e-9)
    assert not found.intensive


def test_independent_logits_of_fixed_variance_give_the_limits_that_theory_says():
    """C tends to the variance and is intensive; C/C_max falls, S/ln n rises: the candidate decides."""
    parts = {name: None for name in physics.CANDIDATES}
    for n in (8, 16, 32, 64, 128, 256, 512):
        z = torch.randn(2000, n) * 0.5
        row = physics.row_statistics(z)
        for name, candidate in physics.CANDIDATES.items():
            sums = physics.octave_sums(candidate(row), row.n)
            parts[name] = sums if parts[name] is None else type(sums)(*map(torch.add, parts[name], sums))
    found = {name: physics.kappa_surrogate(sums) for name, sums in parts.items()}
    assert abs(found["specific_heat"].slope.item()) < 0.02
    assert found["specific_heat_norm"].slope.item() < -0.01
    assert found["entropy_fraction"].slope.item() > 0.003
    assert found["free_energy_gap"].slope.item() < -0.003
    assert not any(found[name].intensive for name in found if name != "specific_heat")
    assert all(kappa.spread_ratio.item() < 1 for kappa in found.values())
    assert found["specific_heat"].octaves.item() == 7


def test_an_intensive_statistic_is_called_one():
    # Means that go up and down around a constant, spread that falls.
    n = torch.cat([torch.full((1000,), float(1 << j)) for j in range(4, 11)])
    sign = torch.tensor([1.0, -1.0]).repeat(len(n) // 2)
    wave = 1 + 0.01 * torch.cos(n.log2() * torch.pi)
    assert physics.kappa_surrogate(physics.octave_sums(wave + sign / n.sqrt(), n)).intensive
    assert not physics.kappa_surrogate(physics.octave_sums(wave + sign * n.sqrt(), n)).intensive
    assert not physics.kappa_surrogate(physics.octave_sums(wave + n.log() + sign / n.sqrt(), n)).intensive


def test_few_octaves_or_rows_say_nothing():
    for lengths, copies in ((range(16, 128), 8), (range(16, 1024), 1)):
        values, n = rows_of(list(lengths), copies, torch.log)
        sums = physics.octave_sums(values, n)
        if copies == 1:
            sums = type(sums)(*(x * 0.05 for x in sums))
        found = physics.kappa_surrogate(sums)
        assert found.slope.isnan()
        assert found.spread_ratio.isnan()
        assert not found.intensive


def test_the_table_of_students_t():
    from thermo_monitor.physics import kappa

    expected = stats.t.ppf(0.975, np.arange(1, len(kappa._T95) + 1))
    np.testing.assert_allclose(kappa._T95, expected, atol=6e-4)
