"""Squared gradient norms of single examples against autograd, one example at a time."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from thermo_monitor.physics import example_norms as norms

sizes = st.integers(1, 9)


def one_by_one(make, *batches):
    """Squared norm of the gradient that ``make(weight, example...)`` sends into a weight, for each example."""
    found = []
    for rows in zip(*batches, strict=True):
        weight, scalar = make(*rows)
        found.append(torch.autograd.grad(scalar, weight)[0].square().sum())
    return torch.stack(found)


@given(batch=sizes, positions=st.integers(1, 40), width_in=sizes, width_out=sizes)
def test_a_product_in_whichever_form_is_cheaper(batch, positions, width_in, width_out):
    a, g = torch.randn(batch, positions, width_in).double(), torch.randn(batch, positions, width_out).double()

    def make(a, g):
        weight = torch.zeros(width_out, width_in, dtype=torch.float64, requires_grad=True)
        return weight, (F.linear(a, weight) * g).sum()

    torch.testing.assert_close(norms.product_norms(a, g), one_by_one(make, a, g), rtol=1e-12, atol=0)


def test_both_forms_are_taken_and_agree():
    assert norms.gram_is_cheaper(4, 64, 64)
    assert not norms.gram_is_cheaper(40, 64, 64)
    a, g = torch.randn(3, 40, 64).double(), torch.randn(3, 40, 64).double()
    gram = ((a @ a.mT) * (g @ g.mT)).sum((1, 2))
    torch.testing.assert_close(norms.product_norms(a, g), gram, rtol=1e-12, atol=0)
    # In strips from the diagonal on, of which the last is shorter.
    x, y = torch.randn(3, 150, 240).double(), torch.randn(3, 150, 220).double()
    assert norms.gram_is_cheaper(150, 240, 220, 64)
    assert not norms.gram_is_cheaper(150, 240, 220)
    torch.testing.assert_close(norms.product_norms(x, y), ((x @ x.mT) * (y @ y.mT)).sum((1, 2)), rtol=1e-12, atol=0)
    wrong = (a.square().sum(-1) * g.square().sum(-1)).sum(1)
    assert not torch.allclose(wrong, gram, rtol=0.01)


def test_products_larger_than_a_block():
    a, g = torch.randn(3, 2000, 600), torch.randn(3, 2000, 500)
    expected = torch.einsum("bto,bti->boi", g.double(), a.double()).square().sum((1, 2)).float()
    torch.testing.assert_close(norms.product_norms(a, g), expected, rtol=1e-5, atol=0)


@given(batch=sizes, positions=st.integers(1, 12), width=sizes, vocabulary=st.integers(1, 6))
def test_an_embedding_with_repeated_tokens(batch, positions, width, vocabulary):
    ids, e = torch.randint(vocabulary, (batch, positions)), torch.randn(batch, positions, width).double()

    def make(ids, e):
        weight = torch.zeros(vocabulary, width, dtype=torch.float64, requires_grad=True)
        return weight, (F.embedding(ids, weight) * e).sum()

    torch.testing.assert_close(norms.lookup_norms(ids, e), one_by_one(make, ids, e), rtol=1e-12, atol=1e-14)


@given(batch=sizes, positions=sizes, heads=sizes, width=sizes, vocabulary=st.integers(1, 6))
def test_a_weight_that_embeds_and_decides(batch, positions, heads, width, vocabulary):
    ids, e = torch.randint(vocabulary, (batch, positions)), torch.randn(batch, positions, width).double()
    a, g = torch.randn(batch, heads, width).double(), torch.randn(batch, heads, vocabulary).double()

    def make(ids, e, a, g):
        weight = torch.zeros(vocabulary, width, dtype=torch.float64, requires_grad=True)
        return weight, (F.embedding(ids, weight) * e).sum() + (F.linear(a, weight) * g).sum()

    found = norms.lookup_norms(ids, e) + norms.product_norms(a, g) + norms.tied_cross_terms(ids, e, a, g)
    torch.testing.assert_close(found, one_by_one(make, ids, e, a, g), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("centred", [True, False])
def test_the_gain_of_a_normalisation(centred):
    x, g = torch.randn(4, 7, 6).double(), torch.randn(4, 7, 6).double()

    def make(x, g):
        weight = torch.ones(6, dtype=torch.float64, requires_grad=True)
        y = F.layer_norm(x, (6,), weight, eps=1e-3) if centred else F.rms_norm(x, (6,), weight, eps=1e-3)
        return weight, (y * g).sum()

    found = norms.sum_norms(norms.normalised_layer(x, 1, 1e-3, centred) * g)
    torch.testing.assert_close(found, one_by_one(make, x, g), rtol=1e-12, atol=0)


def test_the_worked_examples():
    a, g = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]), torch.tensor([[[1.0, 2.0], [0.0, 1.0]]])
    assert norms.product_norms(a, g).item() == 11
    assert norms.sum_norms(g).item() == 10
    assert norms.sum_norms(torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]]) * g).item() == 2


def test_an_empty_batch_and_empty_sequences():
    for batch, positions in ((0, 3), (2, 0)):
        a, g = torch.zeros(batch, positions, 4), torch.zeros(batch, positions, 5)
        assert norms.product_norms(a, g).tolist() == [0.0] * batch
        assert norms.lookup_norms(torch.zeros(batch, positions, dtype=torch.int64), g).tolist() == [0.0] * batch
        assert norms.sum_norms(g).tolist() == [0.0] * batch


def test_half_precision_is_widened_before_it_is_squared():
    a = torch.full((1, 300, 1), 300.0, dtype=torch.float16)
    assert norms.product_norms(a, a).item() == pytest.approx((300 * 300.0**2) ** 2, rel=1e-5)
