import math

import pytest
import torch
from torch.testing import assert_close

from tests.reference import representation as reference
from thermo_monitor.physics import (
    binder_cumulant,
    centred_gram,
    effective_rank,
    head_tail_contrast,
    normalised_gram,
    participation_ratio,
    representation_entropy,
    representation_entropy_cap,
    representation_entropy_from_gram,
    spectral_entropy,
    spectrum,
    spectrum_from_gram,
)

F64 = torch.float64
SHAPES = [(1, 5), (2, 5), (5, 5), (12, 5), (5, 12), (40, 3), (3, 1), (64, 48)]


def frame(copies, r, d=64):
    """Rows along r of d axes, equally often."""
    return torch.eye(d, dtype=F64)[:r].repeat(copies, 1)


@pytest.mark.parametrize(
    ("rows", "value"),
    [
        (frame(3, 64), 1),
        (frame(9, 1), 0.0296722),
        (frame(16, 8), 0.1810858),
        (frame(4, 32), 0.5745576),
        (frame(1, 8), 0.1810858),
    ],
)
def test_known_representation_entropies(rows, value):
    assert_close(representation_entropy(rows), torch.tensor(value, dtype=F64), rtol=0, atol=6e-8, check_dtype=False)


def test_known_spectrum():
    lam = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=F64)
    rows = torch.cat([torch.diag((4 * lam).sqrt()), -torch.diag((4 * lam).sqrt())])
    assert_close(spectrum(rows), lam)
    assert spectral_entropy(lam, 4).item() == pytest.approx(0.875, abs=1e-12)
    assert effective_rank(lam).item() == pytest.approx(3.363586, abs=6e-7)
    assert participation_ratio(lam).item() == pytest.approx(2.909091, abs=6e-7)
    one = torch.tensor([1.0, 0, 0], dtype=F64)
    assert (spectral_entropy(one, 3).item(), effective_rank(one).item(), participation_ratio(one).item()) == (0, 1, 1)


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("eps", [0.1, 0.5])
def test_equals_the_slow_version(n, d, eps):
    z = torch.randn(n, d, dtype=F64) + 1
    assert representation_entropy(z, eps).item() == pytest.approx(
        reference.representation_entropy(z.numpy(), eps), rel=1e-10
    )
    if n >= 2:
        lam = spectrum(z)
        assert lam.shape == (min(n, d),)
        expected = torch.tensor(reference.spectrum(z.numpy()).copy())
        assert_close(lam, expected[: min(n, d)], rtol=1e-10, atol=1e-12)
        if d > 1:
            assert spectral_entropy(lam, d).item() == pytest.approx(reference.spectral_entropy(z.numpy()), rel=1e-10)


@pytest.mark.parametrize(("n", "d"), SHAPES[1:])
def test_both_sides_of_the_matrix_give_the_same(n, d):
    z = torch.randn(n, d, dtype=F64)
    unit, centred = z / z.norm(dim=-1, keepdim=True), z - z.mean(0)
    for gram in (unit @ unit.T, unit.T @ unit):
        assert_close(representation_entropy_from_gram(gram, n, d), representation_entropy(z), rtol=1e-10, atol=0)
    for gram in (centred @ centred.T, centred.T @ centred):
        assert_close(effective_rank(spectrum_from_gram(gram)), effective_rank(spectrum(z)), rtol=1e-9, atol=0)


def test_scale_and_rotation_change_nothing():
    z = torch.randn(30, 8, dtype=F64) @ torch.diag(torch.arange(1.0, 9.0, dtype=F64))
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=F64)).Q
    for other in (z * 1e-200, z * 1e150, z @ rotation, z[torch.randperm(30)]):
        assert_close(representation_entropy(other), representation_entropy(z), rtol=1e-10, atol=0)
    for other in (z * 1e3, z @ rotation, z + 100, z.repeat(3, 1)):
        assert_close(spectrum(other), spectrum(z), rtol=1e-9, atol=1e-12)
    each_its_own = z * torch.rand(30, 1, dtype=F64)
    assert_close(representation_entropy(each_its_own), representation_entropy(z), rtol=1e-10, atol=0)


@pytest.mark.parametrize("n", [4, 20])
def test_zero_rows_are_not_there_for_the_entropy(n):
    z = torch.randn(n, 8, dtype=F64)
    padded = torch.cat([torch.zeros(2, 8, dtype=F64), z, torch.zeros(7, 8, dtype=F64)])
    assert_close(representation_entropy(padded), representation_entropy(z), rtol=1e-10, atol=0)


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("n", [4, 20])
def test_absent_rows_do_not_matter_whatever_they_hold(n, dtype):
    z = torch.randn(n, 8, dtype=dtype) + 3
    present = torch.rand(n) > 0.4
    present[0], present[1:3] = False, True
    spoilt = z.masked_fill(~present.unsqueeze(-1), math.nan)
    tolerance = {"rtol": 1e-9 if dtype == F64 else 1e-4, "atol": 0}
    kept = z[present]
    assert_close(
        representation_entropy_from_gram(normalised_gram(spoilt, present), None, 8),
        representation_entropy(kept),
        **tolerance,
    )
    assert_close(
        effective_rank(spectrum_from_gram(centred_gram(spoilt, present))), effective_rank(spectrum(kept)), **tolerance
    )


@pytest.mark.parametrize("dtype", [F64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("n", "d"), [(1, 4), (7, 4), (7, 20)])
def test_constant_representation_has_no_spectrum(n, d, dtype):
    z = (torch.randn(1, d) * 1234.567).to(dtype).repeat(n, 1)
    lam = spectrum(z)
    for value in (lam, spectral_entropy(lam, d), effective_rank(lam), participation_ratio(lam)):
        assert value.isnan().all()
    assert representation_entropy(z).isfinite()
    assert spectrum_from_gram(centred_gram(z, torch.ones(n, dtype=torch.bool))).isnan().all()


def test_nothing_to_look_at_is_nan():
    assert representation_entropy(torch.zeros(3, 4)).isnan()
    assert spectral_entropy(torch.ones(1), 1).isnan()
    for bad in (math.nan, math.inf):
        z = torch.randn(5, 4)
        z[2, 1] = bad
        assert representation_entropy(z).isnan()
        assert spectrum(z).isnan().all()
    absent = torch.zeros(5, dtype=torch.bool)
    assert spectrum_from_gram(centred_gram(torch.randn(5, 4), absent)).isnan().all()
    assert representation_entropy_from_gram(normalised_gram(torch.randn(5, 4), absent), None, 4).isnan()


def test_few_rows_cap_the_entropy():
    n, d = 6, 64
    cap = n / d * math.log(1 + d / (n * 0.01)) / math.log(101)
    assert representation_entropy(torch.randn(n, d, dtype=F64)).item() < cap
    assert representation_entropy(frame(1, n, d)).item() == pytest.approx(cap)


def test_batches_are_taken_one_by_one():
    z = torch.randn(3, 10, 4, dtype=F64)
    for f in (representation_entropy, spectrum):
        assert_close(f(z), torch.stack([f(x) for x in z]), rtol=1e-10, atol=1e-12)
    present = torch.rand(3, 10) > 0.3
    assert_close(centred_gram(z, present), torch.stack([centred_gram(x, p) for x, p in zip(z, present, strict=True)]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_costs_its_rounding(dtype):
    z = torch.randn(128, 32, dtype=F64)
    low = z.to(dtype)
    assert centred_gram(low).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        entropy, lam = representation_entropy(low), spectrum(low)
    # float32 sums of the rounded numbers; conditioned by a = d / (n eps^2) = 25
    assert_close(entropy, representation_entropy(low.double()), rtol=1e-5, atol=0)
    assert_close(lam, spectrum(low.double()), rtol=1e-4, atol=1e-6)
    assert_close(effective_rank(lam), effective_rank(spectrum(z)), rtol=1e-2, atol=0)


def test_head_against_tail():
    lam = torch.tensor([4.0, 3, 2, 2, 1, 0.5, 0.5], dtype=F64)
    assert head_tail_contrast(lam).item() == pytest.approx(math.log(12), rel=1e-14)
    assert head_tail_contrast(lam / lam.sum(), top=1).item() == pytest.approx(math.log(4 / 9), rel=1e-14)
    for nothing in (lam[:5], torch.tensor([1.0, 1, 1, 1, 1, 0, 0]), torch.full((7,), math.nan)):
        assert head_tail_contrast(nothing).isnan()


def test_binder_cumulant():
    assert binder_cumulant(torch.tensor([2e-200, -2e-200], dtype=F64)).item() == pytest.approx(2 / 3, rel=1e-14)
    gaussian = torch.randn(4, 200_000, dtype=F64)  # the standard error of <m^4> is sqrt(96 / N)
    assert binder_cumulant(gaussian).abs().max() < 5 * math.sqrt(96 / 200_000) / 3
    two_kinds = torch.cat([torch.zeros(90, dtype=F64), torch.ones(10, dtype=F64)])
    assert binder_cumulant(two_kinds).item() == pytest.approx(1 - 10 / 3, rel=1e-12)
    for nothing in (torch.zeros(5), torch.ones(1), torch.ones(0)):
        assert binder_cumulant(nothing).isnan()


@pytest.mark.parametrize(("n", "d"), [(8, 64), (100, 64), (64, 64), (1, 3)])
def test_the_cap_is_reached_by_equal_directions(n, d):
    rows = torch.eye(d, dtype=F64)[: min(n, d)]
    assert representation_entropy(rows).item() == pytest.approx(representation_entropy_cap(n, d), rel=1e-12)
    assert math.isnan(representation_entropy_cap(0, d))
