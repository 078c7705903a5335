"""Generations side by side: entropies against their definitions, and what is said about a change."""

import math

import numpy as np
import pytest
import torch

from tests.analysis.models import decoder, random_markov
from tests.reference import parallel as reference
from thermo_monitor.analysis.parallel import changes, ensemble_entropy, generations, spearman

MODEL = random_markov(words=6, stop=0.1)


def test_every_position_is_as_computed_run_by_run():
    found = ensemble_entropy(MODEL, [1], runs=6, tokens=12, report=(2, 3), temperature=0.8)
    texts = np.concatenate([np.ones((6, 1), np.int64), found.tokens], 1)
    p = MODEL.p ** (1 / 0.8)
    p /= p.sum(1, keepdims=True)
    for t in range(12):
        rows = p[texts[:, t]].tolist()
        expected = reference.readings(rows)
        for name in ("marginal", "conditional", "jackknife", "error"):
            assert getattr(found, name)[t] == pytest.approx(expected[name], abs=1e-6), name
        assert found.gap[t] == pytest.approx(expected["information"], abs=1e-6)
        pairs = [reference.entropy(reference.mean(rows[i : i + 2])) for i in (0, 2, 4)]
        assert found.by_runs[2][t] == pytest.approx(np.mean(pairs), abs=1e-6)
    assert sorted(found.by_runs) == [2, 3, 6]
    assert found.reason is None
    assert found.gap.max() <= math.log(6)
    assert (found.saturated <= 1).all()


def test_more_runs_take_the_bias_away():
    truth = ensemble_entropy(MODEL, [1], runs=3000, tokens=4, report=()).marginal[-1]
    found = [ensemble_entropy(MODEL, [1], runs=60, tokens=4, seed=s) for s in range(12)]
    raw, corrected, line = (np.mean([x[-1] for x in xs]) for xs in zip(*[
        (f.by_runs[10], f.jackknife, f.extrapolated) for f in found], strict=True))  # fmt: skip
    error = np.std([f.jackknife[-1] for f in found], ddof=1) / math.sqrt(12)
    assert raw < truth
    assert abs(corrected - truth) < 4 * error + 0.002
    assert abs(line - truth) < 4 * error + 0.01


def test_noise_is_common_and_own():
    state = torch.get_rng_state()
    one, two = (ensemble_entropy(MODEL, [1], runs=4, tokens=9) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(one.tokens, two.tokens)
    nearly = ensemble_entropy(MODEL, [1], runs=4, tokens=9, temperature=1.0001)
    assert np.array_equal(one.tokens, nearly.tokens)
    assert not np.array_equal(one.tokens, ensemble_entropy(MODEL, [1], runs=4, tokens=9, seed=1).tokens)


def test_draws_follow_the_predictions():
    counts = np.zeros(6)
    for step in generations(MODEL, [2], runs=4000, tokens=1, temperature=0.7):
        counts += np.bincount(step.token.numpy(), minlength=6)
    p = MODEL.p[2] ** (1 / 0.7)
    p /= p.sum()
    assert ((counts / 4000 - p) ** 2 / (p + 1e-12)).sum() * 4000 < 25  # chi-square, 5 degrees of freedom


def test_what_is_suppressed_never_comes():
    found = ensemble_entropy(MODEL, [1], runs=30, tokens=20, suppress=[0, 3])
    assert not np.isin(found.tokens, [0, 3]).any()
    assert (found.marginal <= math.log(4) + 1e-9).all()


def test_one_run_and_no_spread():
    found = ensemble_entropy(MODEL, [1], runs=1, tokens=5)
    assert (found.gap == 0).all()
    assert np.isnan(found.jackknife).all()
    assert np.isnan(found.extrapolated).all()
    assert np.isnan(found.saturated).all()
    assert found.reason == "n_lt_2"
    still = ensemble_entropy(lambda ids: torch.zeros(*ids.shape, 3), [1], runs=2, tokens=5)
    assert math.isnan(still.proxy_correlation)


def test_a_model_of_transformers_as_a_callable():
    pytest.importorskip("transformers")
    model = decoder().eval()
    one = ensemble_entropy(model, [1, 2, 3], runs=5, tokens=12)
    two = ensemble_entropy(lambda ids: model(ids).logits, [1, 2, 3], runs=5, tokens=12)
    assert np.array_equal(one.tokens, two.tokens)
    assert one.marginal == pytest.approx(two.marginal, abs=1e-6)


@pytest.mark.parametrize(("after", "what"), [(3.0, "explosion"), (0.4, "collapse")])
def test_explosion_and_collapse_are_flagged(after, what):
    def model(ids):  # knows better, or nothing, from the 80th token on
        y = torch.tensor([3.0, 2.0, 1.0] + [0.0] * 25)
        late = torch.arange(ids.shape[1]) >= 80
        # A little of its own for every text, so that there is a noise to stand out of.
        own = (ids.sum(-1) % 7 / 7.0)[:, None, None]
        spread = torch.where(late, 0.05 if what == "explosion" else 4.0, 1.0)[None, :, None]
        return y * spread * (1 + 0.1 * own)

    found = ensemble_entropy(model, [1], runs=8, tokens=160, report=())
    marginal = [e for e in found.events if e.quantity == "out/marginal_entropy"]
    assert [e.details["what"] for e in marginal] == [what]
    assert abs(marginal[0].onset - 79) <= 2


def test_noise_alone_is_no_event():
    noise = np.random.default_rng(0).normal(2.0, 0.05, (20, 300))
    assert not any(changes(row, row[::-1]) for row in noise)
    assert changes(noise[0][:40], noise[1][:40]) == ()


def test_rank_correlation_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    a, b = np.random.default_rng(0).integers(0, 5, (2, 40)).astype(float)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert math.isnan(spearman(a[:2], b[:2]))


@pytest.mark.parametrize("temperature", [0.0, -1.0, [], [1.0, math.nan]])
def test_no_temperature(temperature):
    with pytest.raises(ValueError, match="temperature"):
        ensemble_entropy(MODEL, [1], runs=2, tokens=2, temperature=temperature)


def test_no_prompt():
    with pytest.raises(ValueError, match="give begin="):
        ensemble_entropy(MODEL, [], runs=2, tokens=2)
    with pytest.raises(ValueError, match="runs=0"):
        ensemble_entropy(MODEL, [1], runs=0, tokens=2)
