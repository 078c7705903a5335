"""Thermodynamics from three log partition functions, against exact rows in float64."""

import math

import pytest
import torch

from thermo_monitor.physics.attention import EvenRows, attention_rows
from thermo_monitor.physics.lse import attention_rows_from_log_partition


def tensors(dtype=torch.float32, queries=128, keys=128, gain=1.6, key_heads=2):
    q, k = gain * torch.randn(2, 4, queries, 32), torch.randn(2, key_heads, keys, 32)
    return q.to(dtype), k.to(dtype)


def relative(ours, theirs):
    """Error of the mean over rows of each head, as the readings have it."""
    ours, theirs = ours.double().nanmean((0, 2)), theirs.double().nanmean((0, 2))
    return ((ours - theirs) / theirs).abs().max().item()


MASKS = {
    "none": lambda: {},
    "causal": lambda: {"causal": True},
    "causal, rows": lambda: {"causal": True, "rows": EvenRows(128, 32)},
    "bool": lambda: {"mask": torch.rand(2, 1, 128, 128) > 0.4},
    "padding, causal": lambda: {"mask": torch.arange(128) < 100, "causal": True},
    "slopes": lambda: {"bias": -0.05 * (torch.arange(128)[:, None] - torch.arange(128)).abs().float()},
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gain", [0.7, 1.6, 3.0])
def test_means_over_rows_are_those_of_the_exact_rows(mask, dtype, gain):
    q, k = tensors(dtype, gain=gain)
    given = MASKS[mask]()
    got = attention_rows_from_log_partition(q, k, scale=32**-0.5, **given)
    exact = attention_rows(q.double(), k.double(), scale=32**-0.5, **given)
    assert torch.equal(got.n, exact.n.expand(got.n.shape))
    assert relative(got.log_partition, exact.log_partition) < 1e-3
    slack = 1.5e-3 if "rows" in given and gain == 3.0 else 1e-3  # few sharp rows: what the step cuts off
    assert relative(got.entropy, exact.entropy) < slack
    assert relative(got.specific_heat, exact.specific_heat) < slack


def test_the_error_falls_with_the_square_of_the_step():
    q, k = (x.double() for x in tensors(gain=3.0))
    exact = attention_rows(q, k, scale=32**-0.5)
    errors = [
        relative(attention_rows_from_log_partition(q, k, scale=32**-0.5, epsilon=e).specific_heat, exact.specific_heat)
        for e in (0.2, 0.1)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.3)


def test_rows_that_have_no_or_one_key_are_nan():
    q, k = tensors(queries=3, keys=4)
    mask = torch.tensor([[False] * 4, [True, False, False, False], [True] * 4])
    got = attention_rows_from_log_partition(q, k, scale=1.0, mask=mask)
    assert got.n[0, 0].tolist() == [0, 1, 4]
    assert got.log_partition[0, 0].isnan().tolist() == [True, False, False]
    assert got.entropy[0, 0].isnan().tolist() == [True, True, False]
    assert got.max_logit.isnan().all()  # not to be had from ln Z


@pytest.mark.parametrize("epsilon", [0.0, 1.0, -0.1, math.nan])
def test_a_wrong_step_says_what_is_right(epsilon):
    with pytest.raises(ValueError, match="between 0 and 1"):
        attention_rows_from_log_partition(*tensors(), scale=1.0, epsilon=epsilon)
