"""Manifold heads are the usual ones where the manifold is flat, and are heard by the monitor wherever it is not."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.models import Measuring
from thermo_monitor.analysis.manifold_heads import (
    ManifoldAttention,
    ManifoldHead,
    geometrization_error,
    total_variation,
)
from thermo_monitor.demo.modular import Block
from thermo_monitor.physics.manifold import Manifold, pairing
from thermo_monitor.probes import AttentionProbe

SHAPES = {
    "R^8": Manifold(flat=8), "S^7": Manifold(spheres=(7,)), "torus": Manifold(circles=8),
    "R x S": Manifold(flat=4, spheres=(3,)), "R x torus": Manifold(flat=4, circles=4),
}  # fmt: skip


def test_flat_is_the_usual_transformer_to_the_bit():
    block, layer, x = Block(32, 4, 64), ManifoldAttention(32, 4, SHAPES["R^8"]), torch.randn(3, 7, 32)
    with torch.no_grad():
        for part, rows in zip((layer.query, layer.key, layer.value), block.qkv.weight.chunk(3), strict=True):
            part.weight.copy_(rows)
        layer.out.weight.copy_(block.out.weight)
    q, k, v = (part(x).view(3, 7, 4, 8).transpose(1, 2) for part in (layer.query, layer.key, layer.value))
    usual = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(3, 7, 32)
    assert torch.equal(layer(x), block.out(usual))
    head, linear = ManifoldHead(32, 11, Manifold(flat=32)), nn.Linear(32, 11, bias=False)
    head.words.data.copy_(linear.weight)
    assert torch.equal(head(x), linear(x))
    assert sum(p.numel() for p in head.parameters() if p.requires_grad) == 32 * 11


@pytest.mark.parametrize("name", SHAPES)
def test_attention_is_the_softmax_of_the_pairing_and_is_heard(name):
    manifold = SHAPES[name]
    layer, x = ManifoldAttention(32, 4, manifold).double(), torch.randn(2, 6, 32, dtype=torch.float64)
    with torch.no_grad():
        layer.log_kappa += torch.randn_like(layer.log_kappa) * 0.3
    q, k, v = (part(x).view(2, 6, 4, -1).transpose(1, 2) for part in (layer.query, layer.key, layer.value))
    scores = torch.stack([pairing(k[:, h], q[:, h], manifold, layer.log_kappa[h].exp()) for h in range(4)], 1)
    if manifold.flat:
        flat = q[..., : manifold.flat] @ k[..., : manifold.flat].mT
        scores = scores - flat + flat / manifold.flat**0.5
    z = scores.masked_fill(torch.ones(6, 6, dtype=torch.bool).triu(1), -torch.inf)
    expected = layer.out((z.softmax(-1) @ v).transpose(1, 2).reshape(2, 6, 32))
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)

    p = z[:, :, 1:].softmax(-1)
    heat = (p * (z[:, :, 1:].clamp(min=-1e3) - (p * z[:, :, 1:].clamp(min=-1e3)).sum(-1, keepdim=True)) ** 2).sum(-1)
    model = nn.ModuleDict({"layer": layer})
    with Measuring(model, AttentionProbe(rows=6, quantities=("attn/specific_heat",))) as measuring:
        layer(x)
        (reading,) = (r for r in measuring.read().readings if r.layer is None and r.quantity == "attn/specific_heat")
    assert reading.value == pytest.approx(heat.mean().item(), rel=1e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_every_head_learns(name):
    manifold = SHAPES[name]
    layer, head = ManifoldAttention(16, 2, manifold), ManifoldHead(16, 9, manifold)
    x, labels = torch.randn(4, 5, 16), torch.randint(9, (4, 5))
    parameters = [p for p in (*layer.parameters(), *head.parameters()) if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=0.03)
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(head(layer(x)).flatten(0, 1), labels.flatten())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_a_sphere_cannot_be_surer_than_its_kappa_allows():
    head = ManifoldHead(16, 50, Manifold(spheres=(15,)))
    z = head(100 * torch.randn(20, 16))
    assert z.abs().max() <= head.kappa.item() * (1 + 1e-6)


@pytest.mark.parametrize("manifold", [Manifold(flat=3), Manifold(spheres=(2,)), Manifold(circles=2)], ids=str)
def test_predictions_that_lie_on_a_manifold_are_fitted_by_it(manifold):
    x, h = torch.randn(6, manifold.coordinates), torch.randn(10, manifold.coordinates)
    kappa = torch.full((manifold.scales,), 1.5)
    p = pairing(x, h, manifold, kappa).softmax(-1)
    # A torus has many poor minima; room to go round them is given by more circles, which hold the same predictions.
    room = Manifold(circles=6) if manifold.circles else manifold
    found = geometrization_error(p, room, steps=200, starts=4)
    assert found.error < 0.04
    assert found.mean <= found.error
    assert len(found.kappa) == room.scales


def test_too_few_dimensions_leave_an_error():
    p = torch.softmax(6 * torch.eye(8), -1)
    poor, rich = (geometrization_error(p, Manifold(flat=n), steps=200, starts=1) for n in (1, 8))
    assert rich.error < 0.05 < 0.3 < poor.error


def test_what_is_no_table_of_predictions():
    for p in (torch.ones(3, 3), torch.rand(3), -torch.eye(3)):
        with pytest.raises(ValueError, match="rows are distributions"):
            geometrization_error(p, Manifold(flat=2))
    with pytest.raises(ValueError, match="no multiple of heads"):
        ManifoldAttention(10, 3, Manifold(flat=2))
    assert total_variation(torch.tensor([0.2, 0.8]), torch.tensor([0.5, 0.5])).item() == pytest.approx(0.3)
