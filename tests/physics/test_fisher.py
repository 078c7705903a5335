"""The Fisher information against closed forms and full matrices."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from tests.reference.fisher import softmax_fisher
from thermo_monitor.physics import fisher

INPUTS = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
WEIGHT = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def regression(w):
    return INPUTS @ w.view(3, 4).T


def network(w):
    return torch.tanh(INPUTS @ w[:20].view(5, 4).T) @ w[20:].view(3, 5).T


def test_softmax_regression_has_its_closed_form():
    exact = softmax_fisher(regression, WEIGHT.flatten(), 7).trace()
    assert fisher.softmax_fisher_trace(regression(WEIGHT), INPUTS).item() == pytest.approx(exact.item(), rel=1e-12)


@pytest.mark.parametrize(
    ("logits", "true", "empirical"),
    [
        ([1.0, 0.0], 0.393223866, []),
        ([2.0, 1.0, 0.0, -1.0], 0.520639070, [0.191532410, 1.005595294, 1.305072292, 1.415243723]),
    ],
)
def test_empirical_and_true_are_two_things(logits, true, empirical):
    y = torch.tensor([logits], dtype=torch.float64)
    assert fisher.softmax_fisher_trace(y, torch.ones(1, 1).double()).item() == pytest.approx(true, abs=1e-9)
    for label, value in enumerate(empirical):
        residual = y.softmax(-1) - F.one_hot(torch.tensor([label]), len(logits))
        assert residual.square().sum().item() == pytest.approx(value, abs=1e-8)


def test_labels_are_drawn_from_the_model():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).expand(40_000, 4)
    residual = fisher.sampled_residual(logits, torch.Generator().manual_seed(0))
    p = logits[0].softmax(-1)
    drawn = (p - residual).mean(0)  # how often each label came
    assert (drawn - p).abs().max() < 5 * (p * (1 - p) / 40_000).sqrt().max()
    assert residual.square().sum(1).mean().item() == pytest.approx(0.520639, rel=0.02)


def test_both_kinds_of_draws_have_the_metric_for_covariance():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).double().expand(100_000, 4)
    p = logits[0].softmax(-1)
    exact = torch.diag(p) - torch.outer(p, p)
    for draws in (
        fisher.sampled_residual(logits, torch.Generator().manual_seed(0)),
        fisher.ggn_residual(logits, "cross_entropy", torch.Generator().manual_seed(1)),
    ):
        found = draws.T @ draws / len(draws)
        # Of a product of two entries of order one the mean over 100,000 draws scatters by 0.003 at most.
        torch.testing.assert_close(found, exact, rtol=0, atol=0.005)
    squared = fisher.ggn_residual(logits, "squared_error", torch.Generator().manual_seed(2))
    torch.testing.assert_close(squared.T @ squared / len(squared), 2 * torch.eye(4).double(), rtol=0, atol=0.03)


def test_the_divergence_is_half_the_metric_to_third_order():
    generator = torch.Generator().manual_seed(3)
    w = torch.randn(35, generator=generator, dtype=torch.float64)
    direction = torch.randn(35, generator=generator, dtype=torch.float64)
    matrix = softmax_fisher(network, w, 7)
    before = network(w)
    remainders, spread = [], []
    for size in (0.01, 0.005, 0.0025):
        dw = size * direction
        after = network(w + dw)
        divergence = F.kl_div(after.log_softmax(-1), before.log_softmax(-1), log_target=True, reduction="batchmean")
        metric = dw @ matrix @ dw
        remainders.append((divergence - metric / 2).abs().item())
        spread.append((fisher.fisher_rao_distance(before, after).square().mean() / metric - 1).abs().item())
    for larger, smaller in pairwise(remainders):
        assert 6 < larger / smaller < 10  # eight for the third order
    for larger, smaller in pairwise(spread):
        assert larger / smaller > 1.6  # the distance squared is the metric to second order


def test_one_backward_estimates_the_diagonal():
    w = WEIGHT.flatten().clone().requires_grad_(True)
    outputs = regression(w)
    generator = torch.Generator().manual_seed(0)
    draws = []
    for _ in range(4000):
        residual = fisher.sampled_residual(outputs.detach(), generator)
        (g,) = torch.autograd.grad(outputs, w, residual / 7, retain_graph=True)
        draws.append(fisher.one_backward_diagonal([g], 7)[0])
    draws = torch.stack(draws)
    exact = softmax_fisher(regression, WEIGHT.flatten(), 7).diagonal()
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - exact).abs() < 5 * error).all()


def test_linear_regression_and_its_top_eigenvalue():
    # Loss |y - t|^2 per row: the GGN is 2 X^T X / N, whatever the weights.
    matrix = 2 * INPUTS.T @ INPUTS / 7
    exact = torch.linalg.eigvalsh(matrix)[-1].item()
    start = [torch.randn(4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)]
    matrices = [fisher.lanczos(lambda v: [matrix @ v[0]], start, steps) for steps in (1, 2, 4, 9)]
    found = [fisher.largest_eigenvalue(tridiagonal).item() for tridiagonal in matrices]
    assert found == sorted(found)
    assert found[0] < exact
    assert found[2:] == pytest.approx([exact, exact], rel=1e-9)  # and more steps than dimensions do no harm


def test_effective_dimension_and_participation_between_their_limits():
    diagonal = [torch.tensor([4.0, 1.0]), torch.tensor([[0.0]])]
    assert fisher.effective_dimension(diagonal, 1e-9).item() == pytest.approx(2, abs=1e-6)
    assert fisher.effective_dimension(diagonal, 1e9).item() == pytest.approx(5e-9, rel=1e-6)
    assert fisher.participation([torch.ones(2, 3)]).item() == pytest.approx(6)


def test_the_distance_on_the_sphere():
    p, q = torch.tensor([[0.5, 0.5]]).double(), torch.tensor([[1.0, 1e-300]]).double()
    assert fisher.fisher_rao_distance(p.log(), q.log()).item() == pytest.approx(torch.pi / 2)
    half = fisher.fisher_rao_distance(torch.zeros(1, 3), torch.full((1, 3), 7.0))
    assert half.item() == 0
