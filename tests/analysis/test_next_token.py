"""Next-token states and distances from equilibrium against direct computation."""

import math

import numpy as np
import pytest
import torch

from tests.analysis.models import decoder, random_markov
from thermo_monitor.analysis.next_token import equilibrium, next_token_states
from thermo_monitor.analysis.parallel import generations
from thermo_monitor.physics import next_token

MODEL = random_markov(words=5)


def test_states_of_padded_prompts_are_those_of_each_alone():
    pytest.importorskip("transformers")
    model = decoder(context=8).train()
    prompts = [[1, 2, 3], [], [4], [5] * 9, [6, 7]]
    found = list(next_token_states(model, iter(prompts), temperatures=(1.0, 0.5)))
    assert model.training
    assert [(f.index, f.temperature) for f in found] == [(i, t) for i in range(5) for t in (1.0, 0.5)]
    assert [f.reason for f in found[::2]] == [None, "empty_prompt", None, "context_exceeded", None]
    model.eval()
    for f in found:
        if f.reason:
            assert math.isnan(f.entropy)
            continue
        with torch.no_grad():
            expected = next_token(model(torch.tensor([prompts[f.index]])).logits[0, -1], f.temperature)
        for name, value in expected._asdict().items():
            assert getattr(f, name) == pytest.approx(value.item(), abs=1e-9), name


@pytest.mark.parametrize("temperatures", [(), (0.0,), (1.0, -1.0), (math.inf,)])
def test_no_temperatures(temperatures):
    with pytest.raises(ValueError, match="temperatures="):
        next_token_states(MODEL, [[1]], temperatures=temperatures)


def test_distance_of_every_token():
    texts = [[1, 2, 3, 4], [2], [3, 1, 0], [4, 4, 1, 2]]
    for f in equilibrium(MODEL, texts, batch=2):
        text = texts[f.index]
        if len(text) == 1:
            assert (f.reason, len(f.loss)) == ("n_lt_2", 0)
            continue
        p = MODEL.p[text[:-1]]
        loss, entropy = -np.log(p[np.arange(len(p)), text[1:]]), -(p * np.log(p)).sum(1)
        assert f.loss == pytest.approx(loss)
        assert f.entropy == pytest.approx(entropy)
        assert f.distance == pytest.approx(loss - entropy)
        assert f.mean == pytest.approx((loss - entropy).mean())
        assert f.error == pytest.approx((loss - entropy).std(ddof=1) / math.sqrt(len(loss)))


def test_texts_of_the_model_itself_are_in_equilibrium():
    tokens = torch.stack([s.token for s in generations(MODEL, [1], runs=60, tokens=40)], 1)
    texts = torch.cat([torch.ones(60, 1, dtype=torch.int64), tokens], 1).tolist()
    means = np.array([f.mean for f in equilibrium(MODEL, texts)])
    assert abs(means.mean()) < 4 * means.std(ddof=1) / math.sqrt(60)
    sharper = [f.mean for f in equilibrium(lambda ids: 3 * MODEL(ids), texts)]
    assert np.mean(sharper) > 0.5
