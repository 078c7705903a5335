import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.reference import canonical as reference
from thermo_monitor import quantities
from thermo_monitor.physics import canonical as c
from thermo_monitor.physics import rows as rows_of

F64 = torch.float64
FOR_TWO = {
    "entropy", "specific_heat", "specific_heat_norm", "specific_heat_row", "energy_gap", "free_energy_gap",
    "entropy_fraction", "n_eff", "logit_std", "freezing_ratio",
}  # fmt: skip


def everything(z, mask=None):
    row = c.row_statistics(z, mask)
    return {name: f(row) for name, f in c.ROW_QUANTITIES.items()}


def tensor(values):
    return torch.tensor(values, dtype=F64)


@st.composite
def rows(draw):
    """Random rows, n in 2..64, spread 0.1-5, offset up to 100."""
    n = draw(st.integers(2, 64))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return torch.randn(3, n, dtype=F64, generator=generator) * draw(st.floats(0.1, 5)) + draw(st.floats(-100, 100))


# ln Z, U, S, C, B_row, free_energy_gap
VECTORS = [
    ([0, 0, 0, 0], 1.386294361, 0, 1.386294361, 0, 0, 0),
    ([1, 0], 1.313261688, -0.731058579, 0.582203109, 0.196611933, 0.25, 0.120114507),
    ([math.log(3), 0], 1.386294361, -0.823959217, 0.562335145, 0.226302930, 0.301737240, 0.143841036),
    ([2.399357280515, 0], 2.486246905, -2.199678640, 0.286568265, 0.439228840, 1.439228840, 0.593421084),
    ([2, 1, 0, -1], 2.440189699, -1.492652735, 0.947536964, 0.616586275, 1.25, 0.553895337),
    ([1, 1, -1, -1], 1.820075192, -0.761594156, 1.058481036, 0.419974342, 1, 0.433780830),
    ([10, 0, 0, 0], 10.000136191, -9.998638188, 0.001498003, 0.013616270, 18.75, 6.113841829),
]


@pytest.mark.parametrize(("z", "log_z", "u", "s", "heat", "b_row", "gap"), VECTORS)
def test_known_rows(z, log_z, u, s, heat, b_row, gap):
    got = everything(tensor(z))
    expected = {
        "log_partition": log_z, "internal_energy": u, "entropy": s, "specific_heat": heat, "specific_heat_row": b_row,
        "free_energy_gap": gap, "free_energy": -log_z,
    }  # fmt: skip
    for name, value in expected.items():  # printed with nine decimals
        assert_close(got[name], tensor(value), rtol=0, atol=6e-10, msg=name)


def test_a_known_row_with_a_masked_key():
    got = everything(tensor([0.0, 0.0, 7.0]), torch.tensor([True, True, False]))
    for name in ("log_partition", "entropy"):
        assert_close(got[name], tensor(math.log(2)))
    for name in ("internal_energy", "specific_heat", "specific_heat_row", "free_energy_gap", "max_logit"):
        assert got[name].item() == 0


def test_known_ratios():
    z = tensor([2.0, 1, 0, -1])
    assert_close(c.specific_heat_norm(z), tensor(0.616586275 / 1.0234905543865), rtol=0, atol=1e-9)
    assert_close(c.entropy_fraction(z), tensor(0.683503439), rtol=0, atol=6e-10)
    assert_close(c.n_eff(z), tensor(2.579348800), rtol=0, atol=6e-10)
    assert c.logit_std(tensor([1.0, 1, -1, -1])).item() == 1
    for n, freezing in ((3, 1.4823), (4, 1.6651), (16, 2.3548), (1024, 3.7233)):
        z = torch.cat([torch.ones(n // 2, dtype=F64), -torch.ones(n // 2, dtype=F64)])
        z = tensor([math.sqrt(1.5), 0, -math.sqrt(1.5)]) if n == 3 else z  # spread 1
        assert_close(1 / c.freezing_ratio(z), tensor(freezing), rtol=0, atol=6e-5)


BOUND = {
    2: 0.439229,
    3: 0.761802, 4: 1.023491, 5: 1.246447, 6: 1.442131, 8: 1.776574, 16: 2.718725, 32: 3.865914, 64: 5.229931,
    128: 6.819013, 256: 8.638670, 512: 10.692465, 1024: 12.982648, 2048: 15.510622, 4096: 18.277251, 8192: 21.283073,
    32768: 28.013508, 50257: 30.283600, 131072: 35.703401,
}  # fmt: skip


@pytest.mark.parametrize("largest", [None, 8192, 1 << 18])
def test_bound_has_the_published_values(largest):
    n = tensor(list(BOUND))
    n = n[n <= largest] if largest else n
    values = c.specific_heat_bound(n, largest)
    assert_close(values, tensor(list(BOUND.values()))[: len(n)], rtol=0, atol=6e-7)
    assert_close(values, tensor([reference.bound(x)[0] for x in list(BOUND)[: len(n)]]), rtol=1e-12, atol=0)


def test_bound_of_few_states_and_other_types():
    assert_close(
        c.specific_heat_bound(torch.tensor([0, 1, 2])),
        torch.tensor([math.nan, 0, 0.439229]),
        equal_nan=True,
        rtol=0,
        atol=1e-6,
    )
    assert c.specific_heat_bound(torch.tensor(4, dtype=torch.float64)).dtype == F64


def test_bound_is_reached_by_one_state_above_equal_ones():
    for n in (2, 5, 64, 5000):
        best, gap = reference.bound(n)
        z = torch.zeros(n, dtype=F64)
        z[0] = gap
        assert_close(c.specific_heat(z), tensor(best), rtol=1e-12, atol=0)
        assert_close(c.specific_heat_norm(z), tensor(1.0), rtol=1e-12, atol=0)
        for other in (gap - 0.01, gap + 0.01):
            assert c.specific_heat(z.clamp(max=0) + (torch.arange(n) == 0) * other).item() < best


MASKS = {
    "none": lambda shape: None,
    "full": lambda shape: torch.rand(shape) > 0.4,
    "keys": lambda shape: torch.rand(shape[0], 1, 1, shape[3]) > 0.4,
    "causal": lambda shape: torch.ones(shape[2:], dtype=torch.bool).tril(),
    "one row of keys": lambda shape: torch.rand(shape[3]) > 0.4,
    "whole rows": lambda shape: torch.rand(*shape[:3], 1) > 0.4,
    "scalar": lambda shape: torch.tensor(True),
}


@pytest.mark.parametrize("block", [None, 50])  # 50: every row on its own, or nearly
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("keys", [1, 2, 3, 16, 17, 40])  # 16 and 17: both sides of the change of layout
def test_equals_the_slow_version(keys, mask, block, monkeypatch):
    if block:
        monkeypatch.setattr(rows_of, "CPU_BLOCK", block)
    z = torch.randn(2, 2, 5, keys, dtype=F64) * 3 + 10
    mask = MASKS[mask](z.shape)
    got = everything(z, mask)
    n = c.row_statistics(z, mask).n
    full = torch.ones_like(z, dtype=torch.bool) if mask is None else mask.expand(z.shape)
    for index in torch.cartesian_prod(*(torch.arange(s) for s in z.shape[:-1])).tolist():
        row = reference.row(z[tuple(index)].tolist(), full[tuple(index)].tolist())
        assert n[tuple(index)].item() == row["n"]
        for name, values in got.items():
            assert_close(
                values[tuple(index)], tensor(row[name]), rtol=1e-10, atol=1e-10, equal_nan=True, msg=f"{name} {row}"
            )


def test_functions_agree_with_the_table_of_quantities():
    z, mask = torch.randn(4, 9, dtype=F64), torch.rand(4, 9) > 0.3
    for name, values in everything(z, mask).items():
        assert f"attn/{name}" in quantities.REGISTRY
        if name not in ("specific_heat_row", "max_logit"):
            assert_close(getattr(c, name)(z, mask), values, equal_nan=True)


@given(rows())
def test_thermodynamic_identities(z):
    got = everything(z)
    p = torch.softmax(z, -1)
    # The energies are of order 100, so their sum carries about 1e-14 of it.
    assert_close(got["entropy"], got["log_partition"] + got["internal_energy"], rtol=0, atol=1e-12)
    assert_close(got["free_energy"], got["internal_energy"] - got["entropy"], rtol=0, atol=1e-12)
    surprise = -torch.log_softmax(z, -1)
    from_weights = (p * (surprise - (p * surprise).sum(-1, keepdim=True)) ** 2).sum(-1)
    assert_close(got["specific_heat"], from_weights, rtol=1e-12, atol=1e-12)
    metric = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
    centred = z - z.mean(-1, keepdim=True)
    assert_close(got["specific_heat"], torch.einsum("ri,rij,rj->r", centred, metric, centred), rtol=1e-11, atol=1e-11)


@given(rows())
def test_specific_heat_is_the_response_of_entropy_and_energy_to_temperature(z):
    z = z - z.amax(-1, keepdim=True)
    h = 1e-4  # fourth-order differences: truncation h^4 times a fifth derivative, rounding 1e-16 |U| / h

    def slope(f):
        return (8 * (f(1 + h) - f(1 - h)) - (f(1 + 2 * h) - f(1 - 2 * h))) / (12 * h)

    heat = c.specific_heat(z)
    assert_close(slope(lambda t: c.entropy(z / t)), heat, rtol=1e-8, atol=1e-9)
    assert_close(slope(lambda t: t * c.internal_energy(z / t)), heat, rtol=1e-8, atol=1e-9)


def test_derivatives_of_the_log_partition_are_its_moments():
    z = torch.randn(5, 33, dtype=F64) * 2
    beta = torch.ones(5, 1, dtype=F64, requires_grad=True)
    (first,) = torch.autograd.grad(c.log_partition(beta * z).sum(), beta, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), beta)
    assert_close(first.squeeze(-1).detach(), -c.internal_energy(z))
    assert_close(second.squeeze(-1), c.specific_heat(z))


@given(rows(), st.integers(0, 1000), st.floats(-50, 50))
def test_shift_and_order_change_nothing_but_the_gauge(z, seed, shift):
    order = torch.randperm(z.shape[-1], generator=torch.Generator().manual_seed(seed))
    got, moved, shuffled = everything(z), everything(z + shift), everything(z[:, order])
    for name in got:
        change = {"log_partition": shift, "max_logit": shift, "internal_energy": -shift, "free_energy": -shift}.get(
            name, 0
        )
        # rounding of logits of order 150, times the slope of the quantity
        assert_close(moved[name], got[name] + change, rtol=1e-10, atol=1e-11, msg=name)
        assert_close(shuffled[name], got[name], rtol=1e-10, atol=1e-11, msg=name)


@pytest.mark.parametrize("rubbish", [0.0, math.inf, -math.inf, math.nan, 1e30, -1e30])
@pytest.mark.parametrize("keys", [7, 40])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_masked_keys_do_not_matter_whatever_they_hold(rubbish, keys, dtype):
    z = torch.randn(6, keys, dtype=F64).to(dtype)
    mask = torch.arange(keys) < keys - 3
    spoilt = z.masked_fill(
        ~mask, rubbish if dtype != torch.float16 or abs(rubbish) != 1e30 else math.copysign(6e4, rubbish)
    )
    for name, values in everything(spoilt, mask).items():
        assert_close(
            values,
            everything(z[:, : keys - 3])[name],
            rtol=1e-5 if dtype != F64 else 1e-12,
            atol=1e-6 if dtype != F64 else 1e-12,
        )


@given(rows())
def test_bounds(z):
    n = z.shape[-1]
    row = c.row_statistics(z)
    assert (row.specific_heat >= 0).all()
    assert (row.specific_heat <= c.specific_heat_bound(row.n) * (1 + 1e-12)).all()
    assert (row.entropy >= 0).all()
    assert (row.entropy <= math.log(n) + 1e-12).all()
    # before they are cut off at 0
    assert (row.mean_logit - row.plain_mean >= -1e-12).all()
    assert (row.log_partition - row.plain_mean - math.log(n) >= -1e-12).all()
    p = torch.softmax(z, -1)
    divergence = -(p.log().mean(-1)) - math.log(n)
    assert_close(c.free_energy_gap(z), divergence, rtol=1e-9, atol=1e-11)


@given(rows(), st.integers(0, 1000))
def test_softmax_minimises_the_free_energy(z, seed):
    other = torch.softmax(torch.randn(z.shape, dtype=F64, generator=torch.Generator().manual_seed(seed)) * 2, -1)
    free = -(other * z).sum(-1) + (other * other.log()).sum(-1)
    divergence = (other * (other.log() - torch.log_softmax(z, -1))).sum(-1)
    assert (divergence >= 0).all()
    assert_close(free - c.free_energy(z), divergence, rtol=0, atol=1e-12 * 100)


def test_independent_parts_add_up():
    a, b = torch.randn(4, 6, dtype=F64), torch.randn(4, 7, dtype=F64)
    both = (a.unsqueeze(-1) + b.unsqueeze(-2)).flatten(1)
    for f in (
        c.log_partition,
        c.internal_energy,
        c.entropy,
        c.free_energy,
        c.specific_heat,
        c.energy_gap,
        c.free_energy_gap,
    ):
        assert_close(f(both), f(a) + f(b))


def test_frozen_row_keeps_the_entropy_of_its_ground_states():
    z = tensor([1.0, 1.0, 1.0, 0.0, -1.0]) * 1e4
    assert_close(c.entropy(z), tensor(math.log(3)))
    assert c.specific_heat(z).item() == 0


def test_streaming_over_blocks_gives_the_same_moments():
    states = reference.streaming([[2.0, 1.0], [0.0, -1.0]])
    assert states[0] == pytest.approx((2, 1.367879441, -0.367879441, 0.367879441), abs=6e-10)
    assert states[1] == pytest.approx((2, 1.553001793, -0.787911213, 1.357304189), abs=6e-10)
    assert reference.streaming([[0.0, -1.0], [2.0, 1.0]])[-1] == pytest.approx(states[1], abs=1e-12)
    z = torch.randn(48, dtype=F64) * 3 + 3000
    row = c.row_statistics(z)
    for block in (1, 5, 16, 48):
        m, m0, m1, m2 = reference.streaming([x.tolist() for x in z.split(block)])[-1]
        assert_close(row.log_partition, tensor(m + math.log(m0)), rtol=1e-13, atol=0)
        assert_close(row.entropy, tensor(math.log(m0) - m1 / m0), rtol=1e-11, atol=0)
        assert_close(row.specific_heat, tensor(m2 / m0 - (m1 / m0) ** 2), rtol=1e-10, atol=0)


@pytest.mark.parametrize("keys", [4, 20])
def test_row_without_keys_is_nan_everywhere_and_its_neighbours_are_not(keys):
    z = torch.randn(3, keys)
    mask = torch.ones(3, keys, dtype=torch.bool)
    mask[1] = False
    row = c.row_statistics(z, mask)
    assert row.n.tolist() == [keys, 0, keys]
    for name, values in everything(z, mask).items():
        assert values.isnan().tolist() == [False, True, False], name


@pytest.mark.parametrize("masked", [False, True])
def test_row_with_one_key_has_an_energy_but_no_distribution(masked):
    z = torch.tensor([[3.0, 9.0]]) if masked else torch.tensor([[3.0]])
    mask = torch.tensor([True, False]) if masked else None
    for name, values in everything(z, mask).items():
        assert values.isnan().item() == (name in FOR_TWO), name
    assert c.log_partition(z, mask).item() == 3
    assert c.p_max(z, mask).item() == 1


def test_no_keys_at_all():
    assert c.entropy(torch.zeros(2, 0)).isnan().tolist() == [True, True]
    assert c.row_statistics(torch.zeros(0, 5)).entropy.shape == (0,)


@pytest.mark.parametrize("keys", [3, 40])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("masked", [False, True])
def test_an_allowed_logit_that_is_not_finite_makes_its_row_nan(keys, bad, masked):
    z = torch.zeros(2, keys)
    z[0, 1] = bad
    mask = (torch.arange(keys) > 0) if masked else None
    for name in ("entropy", "specific_heat", "logit_std", "energy_gap", "free_energy_gap", "entropy_fraction"):
        assert everything(z, mask)[name].isnan().tolist() == [True, False], name


@pytest.mark.parametrize("shape", [(3, 4), (3, 40), (4000, 80)])  # across rows, along them, in blocks
def test_plain_moments_may_be_left_out(shape):
    z = torch.randn(shape)
    all_of_them, fewer = c.row_statistics(z), c.row_statistics(z, plain=False)
    for name in ("n", "log_partition", "mean_logit", "entropy", "specific_heat", "max_logit"):
        assert torch.equal(getattr(fewer, name), getattr(all_of_them, name)), name
    assert fewer.plain_mean.isnan().all()
    assert fewer.plain_variance.isnan().all()
    assert fewer.plain_mean.shape == fewer.plain_variance.shape == z.shape[:-1]


def test_a_row_of_allowed_minus_infinities_has_no_partition_function():
    z = torch.full((1, 20), -math.inf)
    assert c.log_partition(z).isnan().all()
    assert c.log_partition(z, torch.arange(20) < 5).isnan().all()


@pytest.mark.parametrize("keys", [4, 64])
@pytest.mark.parametrize("sign", [1, -1])
def test_large_logits_stay_finite(keys, sign):
    z = torch.randn(8, keys) * 1e4 * sign
    for name, values in everything(z).items():
        assert values.isfinite().all(), name


def test_a_large_constant_costs_only_the_digits_the_logits_lost():
    z = torch.randn(16, 256).round(decimals=1).mul(8).round().div(8)  # multiples of 1/8 survive an offset of 3000
    got, moved = everything(z), everything(z + 3000)
    assert_close(moved["specific_heat"], got["specific_heat"], rtol=2e-6, atol=0)
    assert_close(moved["entropy"], got["entropy"], rtol=2e-6, atol=0)


def test_float32_moments_of_long_rows():
    z = torch.randn(64, 2048) * 2
    exact = everything(z.double())
    for name, values in everything(z).items():  # a few hundred roundings of 6e-8, in blocked sums
        assert_close(values.double(), exact[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(("dtype", "epsilon"), [(torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)])
def test_half_precision_input_costs_its_own_rounding_and_no_more(dtype, epsilon):
    z = torch.randn(64, 50, dtype=F64)
    low = z.to(dtype)
    assert c.entropy(low).dtype == torch.float32
    for name, values in everything(low).items():  # the sums are those of the rounded logits in float32
        assert_close(values.double(), everything(low.double())[name], rtol=1e-5, atol=1e-6, msg=name)
    # |dS| <= sqrt(C) |dz|, with |dz| at most epsilon times the largest logit
    slack = epsilon * z.abs().amax(-1)
    assert (
        (c.entropy(low).double() - c.entropy(z)).abs() <= 2 * slack * c.specific_heat_bound(tensor(50.0)).sqrt()
    ).all()


def test_gaussian_rows_follow_the_random_energy_model():
    # Measured values for n = 1024: s/s_c = 0.5 and 1; 2,000 rows, standard errors below 1 %.
    freezing = math.sqrt(2 * math.log(1024))
    for ratio, entropy, heat in ((0.5, 5.258, 3.08), (1.0, 2.59, 3.53)):
        row = c.row_statistics(torch.randn(2000, 1024) * ratio * freezing)
        assert row.entropy.mean().item() == pytest.approx(entropy, rel=0.03)
        assert row.specific_heat.mean().item() == pytest.approx(heat, rel=0.04)
