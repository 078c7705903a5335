"""The coherence of per-example gradients, where it is known."""

import itertools
import math

import pytest
import torch

from thermo_monitor.physics.coherence import gradient_coherence


def norms(g):
    """Mean squared norm, and squared norm of the mean."""
    return g.square().sum(1).mean().item(), g.mean(0).square().sum().item()


def test_it_is_the_sum_over_pairs():
    g = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).double()
    gram = g @ g.T
    slow = (gram.sum() / gram.trace()).item()
    others = ((gram.sum() - gram.trace()) / gram.trace()).item()
    found = gradient_coherence(*norms(g), batch=7)
    assert found == pytest.approx(slow, rel=1e-12)
    assert found == pytest.approx(1.0 + others, rel=1e-12)


@pytest.mark.parametrize(
    ("gradients", "known"),
    [
        (torch.eye(5), 1.0),  # orthogonal: each for itself
        (torch.ones(5, 3), 5.0),  # all the same
        (torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), 0.0),  # each undoes the other
        (torch.eye(2).repeat_interleave(3, 0), 3.0),  # two groups of three
    ],
)
def test_closed_forms(gradients, known):
    assert gradient_coherence(*norms(gradients), batch=len(gradients)) == pytest.approx(known, abs=1e-6)


def test_batches_tell_without_bias_what_the_data_would():
    # mean_i |g_i|^2 is the same for all gradients here, so that the quotient has no bias: all 210 batches of four.
    g = torch.nn.functional.normalize(torch.randn(10, 3, generator=torch.Generator().manual_seed(1)).double(), dim=1)
    whole = gradient_coherence(*norms(g), batch=10)
    parts = [
        gradient_coherence(*norms(g[list(rows)]), batch=4, examples=10) for rows in itertools.combinations(range(10), 4)
    ]
    assert sum(parts) / len(parts) == pytest.approx(whole, rel=1e-12)
    assert gradient_coherence(*norms(g), batch=10, examples=10) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize(
    ("mean", "gradient", "batch"), [(0.0, 0.0, 4), (1.0, 1.0, 1), (math.nan, 1.0, 4), (1.0, math.nan, 4)]
)
def test_where_nothing_is_known_it_is_no_number(mean, gradient, batch):
    assert math.isnan(gradient_coherence(mean, gradient, batch=batch))
