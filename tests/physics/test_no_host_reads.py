"""Nothing on the way to a reading may wait for the device, or the monitor slows every training step it looks at."""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from thermo_monitor import physics

CASES = ("attention", "output", "representation", "generations", "geometry")


def every_formula(device, case):
    generator = torch.Generator(device).manual_seed(0) if device == "cuda" else torch.Generator().manual_seed(0)

    def tensors():
        q, k = torch.randn(2, 4, 40, 8, device=device), torch.randn(2, 2, 40, 8, device=device)
        mask = torch.arange(40, device=device) < 30
        return q, k, mask, torch.zeros(2, 1, 1, 40, device=device)

    q, k, mask, additive = tensors()
    if case == "attention":
        for rows in (None, physics.EvenRows(40, 8), physics.random_rows(40, 8, generator)):
            for chosen in (None, mask, additive):
                row = physics.attention_rows(q, k, scale=0.3, mask=chosen, causal=True, rows=rows, bias=additive)
                index = rows.index(device) if isinstance(rows, physics.EvenRows) else rows
                valid = physics.valid_rows(index, 40, 40, mask=chosen, bias=additive)
                sums = physics.head_sums(row, valid, sampled_from=40)
                sums.merge(sums).standard_error("entropy")
                sums.reduced_temperature()
                physics.pooled_moments(row, valid).pooled(0).variance()
                physics.specific_heat_bound(row.n)
    elif case == "output":
        sums = physics.output_sums(q.flatten(0, 2), torch.zeros(320, dtype=torch.int64, device=device))
        sums.merge(sums).calibration_gap(), sums.loss_variance(), sums.training_free_energy(0.1)
    elif case == "generations":
        for formula in (
            physics.conditional_entropy, physics.marginal_entropy, physics.ensemble_gap, physics.logit_variance,
            physics.marginal_entropy_slope, physics.jackknife_marginal_entropy, physics.next_token,
        ):  # fmt: skip
            formula(q)
    elif case == "geometry":
        z, other, angle = q @ q.mT, k.repeat_interleave(2, 1) @ q.mT, torch.zeros(4, device=device)
        for chosen in (None, mask):
            p = physics.weights(z, chosen)
            physics.kinetic_depth(p, physics.weights(other, chosen))
            physics.lagrangian(z, other, chosen, steps=10)
            physics.first_law(z, other, chosen), physics.work_split(z, other, other, z, chosen)
            physics.rope_mass(p, q, k, scale=0.3), physics.rope_shift_response(p, q, k, angle, scale=0.3)
        physics.rope_flat_residual(q, k, angle, scale=0.3)
        row = physics.row_statistics(z, mask)
        for candidate in physics.CANDIDATES.values():
            physics.octave_sums(candidate(row), row.n)
    else:
        for present in (None, mask):
            physics.normalised_gram(q, present), physics.centred_gram(q, present)


@pytest.mark.parametrize("case", CASES)
def test_no_formula_reads_a_value_or_lets_one_decide_a_shape(case):
    every_formula("cpu", case)  # makes the table of bounds, once per process
    with FakeTensorMode(allow_non_fake_inputs=True):
        every_formula("cpu", case)


def test_the_check_can_fail():
    with FakeTensorMode():
        x = torch.zeros(3)
        with pytest.raises(DataDependentOutputException):
            x.sum().item()
        with pytest.raises(DynamicOutputShapeException):
            x[x > 0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_no_formula_waits_for_the_device(case):
    every_formula("cuda", case)
    torch.cuda.set_sync_debug_mode("error")
    try:
        every_formula("cuda", case)
    finally:
        torch.cuda.set_sync_debug_mode("default")
