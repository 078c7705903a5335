import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.reference import canonical
from tests.reference import information as reference
from thermo_monitor import physics

F64 = torch.float64
Z = torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=F64)


def tensor(values):
    return torch.tensor(values, dtype=F64)


@st.composite
def moves(draw, points=2):
    """Some points of a path of random rows, n in 2..64."""
    n = draw(st.integers(2, 64))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    start = torch.randn(3, n, dtype=F64, generator=generator) * draw(st.floats(0.1, 5)) + draw(st.floats(-100, 100))
    step = draw(st.floats(1e-3, 3))
    return [start + step * i * torch.randn(3, n, dtype=F64, generator=generator) for i in range(points)]


# ------------------------------------------------------------------------------------------------------- distance
def test_known_distances():
    d = physics.fisher_rao_distance
    half = tensor([0.5, 0.5])
    assert_close(d(half, tensor([0.75, 0.25])), tensor(math.pi / 6), rtol=0, atol=1e-15)
    assert d(half, half).item() == 0
    assert_close(d(tensor([1.0, 0.0]), tensor([0.0, 1.0])), tensor(math.pi), rtol=0, atol=1e-15)
    # In single precision too: rounded weights do not pass beyond pi, and small distances keep their digits.
    assert d(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])).item() <= math.pi
    close = physics.weights(tensor([1e-6, 0.0])), physics.weights(tensor([0.0, 0.0]))
    assert_close(
        d(*close), tensor(0.5e-6), rtol=1e-6, atol=0
    )  # sqrt(C) times the change of ln T, C = 1/4 of its square


@given(moves())
def test_distance_is_the_reference_symmetric_and_close_by_the_root_of_twice_the_divergence(rows):
    p, q = (physics.weights(z) for z in rows)
    d = physics.fisher_rao_distance(p, q)
    assert_close(d, physics.fisher_rao_distance(q, p), rtol=1e-12, atol=1e-14)
    for found, a, b in zip(d.tolist(), p.tolist(), q.tolist(), strict=True):
        if found > 1e-3:  # below, the arccos form has lost its digits
            assert found == pytest.approx(reference.distance(a, b), abs=1e-9)
        divergence = reference.divergence(a, b)
        assert divergence >= -2 * math.log(math.cos(min(found, math.pi - 1e-9) / 2)) - 1e-9  # that of Bhattacharyya
        if max(abs(math.log(x / y)) for x, y in zip(a, b, strict=True)) < 0.05:
            assert found == pytest.approx(math.sqrt(2 * divergence), rel=0.05)
        variation = sum(abs(x - y) for x, y in zip(a, b, strict=True)) / 2
        assert max(abs(x - y) for x, y in zip(a, b, strict=True)) <= variation + 1e-12
        assert variation <= math.sin(min(found, math.pi) / 2) + 1e-12


@given(moves(points=3))
def test_the_triangle_inequality_holds(rows):
    p, q, r = (physics.weights(z) for z in rows)
    d = physics.fisher_rao_distance
    assert bool((d(p, r) <= d(p, q) + d(q, r) + 1e-12).all())


@given(moves(), st.integers(1, 63))
def test_masked_keys_do_not_matter_whatever_is_stored_there(rows, cut):
    z0, z1 = rows
    n = max(2, z0.shape[-1] - cut)
    mask = torch.arange(z0.shape[-1]) < n
    dirty = [torch.where(mask, z, bad) for z, bad in ((z0, math.nan), (z1, math.inf))]
    short = [z[..., :n] for z in rows]
    p = [physics.weights(z, mask) for z in dirty]
    assert_close(
        physics.fisher_rao_distance(*p, mask), physics.fisher_rao_distance(*(physics.weights(z) for z in short))
    )
    for masked, cut_off in zip(physics.first_law(*dirty, mask), physics.first_law(*short), strict=True):
        assert_close(masked, cut_off)
    assert_close(physics.lagrangian(*dirty, mask), physics.lagrangian(*short))
    split = physics.work_split(*dirty, *dirty, mask)
    for masked, cut_off in zip(split, physics.work_split(*short, *short), strict=True):
        assert_close(masked, cut_off)


def test_rows_with_fewer_than_two_states_say_nothing():
    mask = torch.tensor([True, False, False, False])
    for few in (mask, torch.zeros(4, dtype=torch.bool)):
        p = physics.weights(Z, few)
        assert physics.fisher_rao_distance(p, p, few).isnan()
        assert all(x.isnan() for x in physics.first_law(Z, Z, few))
        assert all(x.isnan() for x in physics.work_split(Z, Z, Z, Z, few))
        assert physics.lagrangian(Z, Z, few).isnan()
    one = tensor([1.0])
    assert physics.fisher_rao_distance(one, one).isnan()
    assert physics.first_law(one, one).heat.isnan()


# ----------------------------------------------------------------------------------------------------------- path
def test_a_known_path():
    path = torch.stack([Z + t / 10 * tensor([1.0, -1.0, 0.5, 0.0]) for t in range(11)])
    p = physics.weights(path)
    d = physics.fisher_rao_distance(p[:-1], p[1:])
    length, cost = physics.thermodynamic_length(d), physics.thermodynamic_divergence(d)
    assert_close(length, tensor(0.630063697), rtol=0, atol=6e-10)
    assert_close(cost, tensor(0.411068440), rtol=0, atol=6e-10)
    assert_close(physics.fisher_rao_distance(p[0], p[-1]), tensor(0.629088869), rtol=0, atol=6e-10)
    assert_close(physics.path_efficiency(length, cost), tensor(0.965727903), rtol=0, atol=6e-10)


@given(moves(points=5))
def test_a_path_is_no_shorter_than_the_way_and_no_cheaper_than_its_length(rows):
    p = physics.weights(torch.stack(rows))
    d = physics.fisher_rao_distance(p[:-1], p[1:])
    length, cost = physics.thermodynamic_length(d), physics.thermodynamic_divergence(d)
    assert bool((length >= physics.fisher_rao_distance(p[0], p[-1]) - 1e-12).all())
    assert bool((length.square() <= cost * (1 + 1e-12)).all())


def test_constant_speed_is_efficient_and_a_path_that_never_moved_has_no_efficiency():
    d = torch.full((7,), 0.25, dtype=F64)
    assert physics.path_efficiency(physics.thermodynamic_length(d), physics.thermodynamic_divergence(d)).item() == 1
    still = torch.zeros(7, dtype=F64)
    assert physics.path_efficiency(physics.thermodynamic_length(still), physics.thermodynamic_divergence(still)).isnan()


def test_kinetic_term_over_time_is_half_the_specific_heat_times_the_rate_of_ln_t():
    # ds^2 = C (d ln T)^2: a row that is only heated, slowly.
    step = 1e-5
    d = physics.fisher_rao_distance(physics.weights(Z), physics.weights(Z * (1 + step)))
    assert_close(physics.kinetic(d, steps=4) * 16, physics.specific_heat(Z) * step**2 / 2, rtol=1e-4, atol=0)


def test_kinetic_term_in_depth_is_that_of_the_mean_over_heads():
    p = physics.weights(torch.randn(2, 3, 5, 7, dtype=F64))
    q = physics.weights(torch.randn(2, 4, 5, 7, dtype=F64))  # heads need not be as many
    found = physics.kinetic_depth(p, q)
    for b in range(2):
        for i in range(5):
            a = [sum(p[b, h, i, k].item() for h in range(3)) / 3 for k in range(7)]
            c = [sum(q[b, h, i, k].item() for h in range(4)) / 4 for k in range(7)]
            assert found[b, i].item() == pytest.approx(reference.distance(a, c) ** 2 / 2, rel=1e-9)
    assert bool((physics.kinetic_depth(p, p[:, [2, 0, 1]]) < 1e-25).all())  # the same map, heads renamed


@given(moves())
def test_the_free_energy_is_stationary_and_least_at_the_softmax(rows):
    z, other = rows[0][0], rows[1][0]
    p, q = physics.weights(z), physics.weights(other)

    def functional(weights):  # U - S, whatever the weights
        return -(weights * z).sum() - torch.special.entr(weights).sum()

    assert (functional(q) - functional(p)).item() == pytest.approx(
        reference.divergence(q.tolist(), p.tolist()), rel=1e-6, abs=1e-9
    )
    assert functional(p).item() == pytest.approx(-z.logsumexp(-1).item(), rel=1e-9, abs=1e-9)


@given(moves())
def test_the_lagrangian_is_kinetic_term_and_gap_and_knows_no_gauge(rows):
    z0, z1 = rows
    d = physics.fisher_rao_distance(physics.weights(z0), physics.weights(z1))
    expected = 3 * d.square() / (2 * 25) + physics.free_energy_gap(z1)
    assert_close(physics.lagrangian(z0, z1, steps=5, mass=3), expected)
    assert_close(physics.lagrangian(z0 + 7, z1 - 3, steps=5, mass=3), expected, rtol=1e-7, atol=1e-9)


# ------------------------------------------------------------------------------------------------------ first law
def test_a_known_change():
    law = physics.first_law(Z, Z + tensor([-0.05, 0.05, 0.0, 0.0]))
    for got, value in zip(law, (0.040877515, 0.021436233, 0.019441282, 0.021430820, 0.000904878), strict=True):
        assert_close(got, tensor(value), rtol=0, atol=6e-10)


@given(moves())
def test_the_first_law_holds_exactly_and_nothing_is_ever_gained(rows):
    z0, z1 = rows
    law = physics.first_law(z0, z1)
    size = 1 + z0.abs().amax(-1) + z1.abs().amax(-1)
    assert bool(((law.energy_change - law.heat - law.work).abs() <= 1e-12 * size).all())
    assert bool((law.dissipation >= 0).all())
    for i in range(len(z0)):
        for got, value in zip(law, reference.first_law(z0[i].tolist(), z1[i].tolist()), strict=True):
            assert got[i].item() == pytest.approx(value, abs=1e-11 * size[i].item())
    assert_close(physics.heat(z0, z0 + 3), torch.zeros(3, dtype=F64), rtol=0, atol=1e-11)
    assert_close(physics.work(z0, z0 + 3), torch.full((3,), -3.0, dtype=F64), rtol=1e-11, atol=0)
    assert_close(physics.dissipation(z0, z1), law.dissipation)


def test_heat_is_the_change_of_entropy_up_to_the_third_order():
    direction = tensor([-1.0, 1.0, 0.3, 0.0])

    def rest(step):
        law = physics.first_law(Z, Z + step * direction)
        return abs((law.heat - law.entropy_change).item())

    assert rest(0.1) / rest(0.05) == pytest.approx(8, rel=0.1)


@given(moves(points=4))
def test_the_parts_of_the_work_add_up_and_each_is_zero_without_its_cause(rows):
    start, new_input, new_parameters, end = rows
    split = physics.work_split(start, new_input, new_parameters, end)
    whole = physics.work(start, end)
    size = 1 + max(z.abs().max().item() for z in rows)
    assert_close(split.inference + split.learning, whole, rtol=0, atol=1e-12 * size)
    assert_close(split.inference, physics.work_split(start, new_parameters, new_input, end).learning)  # same rule
    same_input = physics.work_split(start, start, end, end)
    assert_close(same_input.learning, whole, rtol=0, atol=1e-12 * size)
    assert bool((same_input.inference == 0).all())
    frozen = physics.work_split(start, end, start, end)
    assert bool((frozen.learning == 0).all())


def test_the_mean_over_four_corners_by_hand():
    start, new_input, new_parameters, end = (tensor(z) for z in ([1.0, 0], [3.0, 1], [0.0, 0.5], [2.5, -1]))
    p = [
        (a + b) / 2 for a, b in zip(canonical.probabilities([1.0, 0]), canonical.probabilities([2.5, -1]), strict=True)
    ]
    # Energies are minus the logits; each cause in both orders.
    inference = sum(
        x * -((b - a) + (d - c)) / 2 for x, a, b, c, d in zip(p, start, new_input, new_parameters, end, strict=True)
    )
    assert physics.work_split(start, new_input, new_parameters, end).inference.item() == pytest.approx(inference.item())
