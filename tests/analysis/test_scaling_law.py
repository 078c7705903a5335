import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.analysis.decoders import Decoder, sentences
from thermo_monitor.analysis import scaling_law as scaling
from thermo_monitor.analysis.scaling_law import SERIES, Size, count_parameters, measure, power_law, random_tokens
from thermo_monitor.physics import representation_entropy, representation_entropy_cap

PYTHIA = {70e6: 512, 160e6: 768, 410e6: 1024, 1.0e9: 2048, 1.4e9: 2048, 2.8e9: 2560, 6.9e9: 4096, 12e9: 5120}


def test_random_tokens_of_the_widths_of_pythia_make_a_power_law_of_their_own():
    values = np.stack([random_tokens(width, 64, sentences=2) for width in PYTHIA.values()])
    law = power_law([int(size) for size in PYTHIA], values, resamples=50)
    assert law.exponent == pytest.approx(-0.39, abs=0.005)
    assert law.r2 == pytest.approx(0.989, abs=0.003)


def test_an_exact_law_is_found_and_noise_is_in_its_intervals():
    sizes, rng, hit = [10**k for k in range(3, 9)], np.random.default_rng(0), 0
    for seed in range(40):
        noise = np.exp(0.3 * rng.normal(size=(6, 30)))
        law = power_law(sizes, 5 * np.power(np.array(sizes, float), -0.1)[:, None] * noise, resamples=400, seed=seed)
        hit += law.low <= -0.1 <= law.high
        assert law.low_models < law.exponent < law.high_models
    assert 33 <= hit <= 40  # of 40 at 95 %, less four standard deviations; percentiles are a little narrow


def test_two_intervals_say_two_things():
    """Sentences that agree, and models that do not stand on a line."""
    y = np.array([1.0, 3.0, 1.0, 3.0, 1.0])[:, None] * np.ones(50)
    law = power_law([1, 10, 100, 1000, 10_000], y, resamples=50)
    assert law.high - law.low < 1e-12
    assert law.high_models - law.low_models > 0.5


def test_what_a_model_gives():
    model, ids = Decoder(layers=1), sentences(7, 9)
    size = measure(model, ids, batch=3)
    model.eval()
    x = model.blocks[0](model.embed(ids) + model.position[:9]).detach()
    loss = F.cross_entropy(model.head(x)[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    assert size.loss == pytest.approx(loss.view(7, 8).mean(1).detach().numpy(), rel=1e-5)
    assert size.representation_entropy == pytest.approx(representation_entropy(x).numpy(), rel=1e-5)
    assert (size.width, size.tokens, size.parameters) == (16, 9, sum(p.numel() for p in model.parameters()))


def test_the_law_comes_with_its_null_and_controls():
    widths, ids = (4, 8, 12, 16, 24), sentences(6)
    sizes = []
    for width in widths:
        torch.manual_seed(width)
        sizes.append(measure(Decoder(width=width), ids))
    laws = scaling.scaling_law(sizes, resamples=50)
    assert tuple(laws) == SERIES
    parts = scaling.series(sizes)
    caps = [representation_entropy_cap(12, width) for width in widths]
    assert parts["entropy_over_cap"] == pytest.approx(parts["representation_entropy"] / np.array(caps)[:, None])
    assert (parts["entropy_over_cap"] <= 1 + 1e-9).all()
    assert "R2" in str(laws["loss"])


def test_sizes_are_counted_with_and_without_embeddings():
    model = Decoder()
    tied = Decoder()
    tied.head.weight = tied.embed.weight
    embedding = model.embed.weight.numel()
    assert count_parameters(model) - count_parameters(model, embeddings=False) == embedding
    assert count_parameters(model) - count_parameters(tied) == embedding
    assert count_parameters(nn.Linear(2, 3)) == 9


def test_what_is_no_law_is_refused_or_nan():
    with pytest.raises(ValueError, match="4 sizes: a power law needs at least 5"):
        power_law([1, 2, 3, 4, 4], np.ones((5, 3)))
    assert math.isnan(power_law([1, 2, 3, 4, 5], np.full((5, 3), math.nan)).exponent)
    assert math.isnan(power_law([1, 2, 3, 4, 5], np.zeros((5, 3))).exponent)
    alone = power_law([1, 2, 3, 4, 5], np.arange(1.0, 6)[:, None])
    assert math.isnan(alone.low)
    assert alone.exponent == pytest.approx(1.0)
    one = np.ones(3)
    sizes = [Size(k, 8, 4 + (k == 3), one, one, one) for k in range(1, 6)]
    with pytest.raises(ValueError, match="equal n only"):
        scaling.scaling_law(sizes)
    with pytest.raises(ValueError, match="at least 2 sentences of at least 2 tokens"):
        measure(Decoder(), sentences(1))
    wide = Decoder()
    wide.embed = nn.Embedding(50, 16)
    with pytest.raises(ValueError, match="the model has 23"):
        measure(wide, sentences() + 20)


def test_a_family_on_this_disk_one_model_at_a_time(tmp_path):
    transformers = pytest.importorskip("transformers")
    rows = sentences(5, 10)
    (tmp_path / "prompts.txt").write_text("1 2 3\n" + "\n".join(" ".join(map(str, row.tolist())) for row in rows))
    models = []
    for k in range(2):
        config = transformers.GPTNeoXConfig(
            vocab_size=23, hidden_size=8 * (k + 1), num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            bos_token_id=0, eos_token_id=0, max_position_embeddings=12,
        )  # fmt: skip
        models.append(transformers.GPTNeoXForCausalLM(config).eval())
        models[-1].save_pretrained(tmp_path / str(k))
    family = scaling.local_family(
        [tmp_path / "0", str(tmp_path / "1"), tmp_path / "missing"], tmp_path / "prompts.txt", 8
    )
    for model in models:
        size, expected = next(family), measure(model, rows[:, :8])
        assert size.parameters == expected.parameters
        assert size.loss == pytest.approx(expected.loss, rel=1e-6)
        assert size.representation_entropy == pytest.approx(expected.representation_entropy, rel=1e-6)
    with pytest.raises(ValueError, match="is not on this disk"):
        next(family)
