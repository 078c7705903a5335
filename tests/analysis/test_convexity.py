import math

import pytest
import torch
from torch import nn

from tests.analysis.decoders import VOCABULARY, Decoder, sentences
from thermo_monitor.analysis.convexity import convexity_probe
from thermo_monitor.physics.canonical import entropy


class Bag(nn.Module):
    """Logits of the next token are the mean embedding: [B, T] -> [B, V]."""

    def __init__(self, table):
        super().__init__()
        self.embed = nn.Embedding.from_pretrained(table)

    def forward(self, ids):
        return self.embed(ids).mean(1)


def test_certain_prompts_of_which_a_mixture_is_a_coin():
    """x is sure of one token, y of the other: g = ln 2, exactly."""
    table = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]], dtype=torch.float64)
    found = convexity_probe(Bag(table), torch.tensor([[0, 0], [1, 1]]))
    assert found.gaps == pytest.approx([math.log(2)], abs=1e-12)
    assert (found.positive.value, found.negative.value) == (1.0, 0.0)


def test_undecided_prompts_of_which_a_mixture_is_sure():
    """Each prompt doubts between the third token and one of its own; only what they share survives."""
    table = torch.tensor([[100.0, 0.0, 100.0], [0.0, 100.0, 100.0]], dtype=torch.float64)
    found = convexity_probe(Bag(table), torch.tensor([[0], [1]]))
    assert found.gaps == pytest.approx([-math.log(2)], abs=1e-12)
    assert (found.positive.value, found.negative.value) == (0.0, 1.0)


def test_equal_prompts_have_no_gap_and_no_sign():
    found = convexity_probe(Decoder(), sentences(1).repeat(6, 1))
    assert found.gaps == pytest.approx([0, 0, 0], abs=1e-6)
    assert (found.positive.value, found.negative.value) == (0.0, 0.0)


def test_through_a_model_by_hand():
    model, ids = Decoder().eval(), sentences(9)
    found = convexity_probe(model, ids, seed=3, batch=2)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    x, y = ids[order[:4]], ids[order[4:8]]

    def s(embedded):
        z = embedded + model.position
        for block in model.blocks:
            z = block(z)
        return entropy(model.head(z)[:, -1].double())

    with torch.no_grad():
        a, b = model.embed(x), model.embed(y)
        expected = s((a + b) / 2) - (s(a) + s(b)) / 2
    assert found.gaps == pytest.approx(expected.numpy(), abs=1e-6)
    assert found.mean.count == 4
    assert found.positive.value + found.negative.value == 1
    assert found.quantiles == tuple(sorted(found.quantiles))


def test_several_tokens_under_common_random_numbers():
    """For a model that forgets the prompt after one token, only the first token makes a gap."""

    class Forgetful(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(3, 3)
            self.last = nn.Linear(1, 3)

        def forward(self, ids):
            return self.embed(ids)[:, 0] if ids.shape[1] == 1 else torch.zeros(len(ids), 3)

    model, ids = Forgetful(), torch.tensor([[0], [1], [2], [0]])
    one, more = convexity_probe(model, ids), convexity_probe(model, ids, tokens=3, samples=5)
    assert more.gaps == pytest.approx(one.gaps, abs=1e-12)
    assert convexity_probe(Decoder(), sentences(4, 6), tokens=3).gaps.shape == (2,)


def test_nothing_is_left_behind_and_bad_input_is_refused():
    model = Decoder()
    before = model.train()(sentences()).shape
    convexity_probe(model, sentences(4))
    assert not model.embed._forward_hooks
    assert model.training
    assert before == (8, 12, VOCABULARY)
    with pytest.raises(ValueError, match="at least 2 prompts"):
        convexity_probe(model, sentences(1))
    with pytest.raises(ValueError, match="tokens=0"):
        convexity_probe(model, sentences(4), tokens=0)
    with pytest.raises(ValueError, match=r"no nn\.Embedding"):
        convexity_probe(nn.Linear(2, 2), sentences(4))
