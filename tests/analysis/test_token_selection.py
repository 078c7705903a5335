import math

import numpy as np
import pytest
from scipy import optimize

from tests.analysis.decoders import Decoder, sentences
from thermo_monitor.analysis import token_selection as selection
from thermo_monitor.analysis.token_selection import METHODS, agreement, coefficients, jaccard_by_chance, top_jaccard


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def loss(a, z, x, method, lam):
    penalty = {
        "lasso": np.abs(a).sum(),
        "ridge": (a**2).sum() / 2,
        "elastic_net": np.abs(a).sum() / 2 + (a**2).sum() / 4,
    }
    return ((x - z.T @ a) ** 2).sum() / (2 * len(x)) + lam * penalty[method]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lam", [1e-4, 1e-2])
def test_the_loss_that_is_declared_is_the_loss_that_is_minimised(method, lam):
    """An optimiser that knows nothing of the method finds nothing better: the scaling 1/(2d) is in."""
    rng = np.random.default_rng(0)
    z, x = unit(rng.normal(size=(4, 9))), unit(rng.normal(size=9))
    a, converged = coefficients(z, x, method, lam)
    assert converged
    found = optimize.minimize(loss, np.zeros(4), (z, x, method, lam), method="Nelder-Mead", tol=1e-12)
    assert loss(a, z, x, method, lam) <= found.fun + 1e-9
    assert a == pytest.approx(found.x, abs=1e-3)


def test_orthogonal_tokens_in_closed_form():
    z, x, lam = np.eye(5)[:3], np.array([0.6, -0.3, 0.01, 0.5, 0.2]), 0.01
    shrunk = np.sign(x[:3]) * (np.abs(x[:3]) - 5 * lam).clip(min=0)
    assert coefficients(z, x, "lasso", lam)[0] == pytest.approx(shrunk, abs=1e-12)
    assert coefficients(z, x, "ridge", lam)[0] == pytest.approx(x[:3] / (1 + 5 * lam), abs=1e-12)
    half = np.sign(x[:3]) * (np.abs(x[:3]) - 2.5 * lam).clip(min=0) / (1 + 2.5 * lam)
    assert coefficients(z, x, "elastic_net", lam)[0] == pytest.approx(half, abs=1e-12)
    with pytest.raises(ValueError, match="method='stepwise'"):
        coefficients(z, x, "stepwise")


def test_jaccard_and_what_chance_gives():
    assert top_jaccard(np.array([0, 0, 5.0]), np.array([0.1, 0.2, 0.7]), 2) == 1.0  # one coefficient, one token
    assert math.isnan(top_jaccard(np.zeros(3), np.ones(3), 2))
    rng = np.random.default_rng(0)
    drawn = [top_jaccard(rng.random(9), rng.random(9), 4) for _ in range(4000)]
    assert np.mean(drawn) == pytest.approx(jaccard_by_chance(9, 4), abs=5 * np.std(drawn) / math.sqrt(4000))
    assert math.isnan(jaccard_by_chance(3, 0))


def planted(count=40, tokens=9, d=32, seed=0):
    """The last token is the sum of three others, which attention picks."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(count, tokens, d))
    weights = rng.random((count, tokens - 1)) * 0.01
    for i in range(count):
        chosen = rng.choice(tokens - 1, 3, replace=False)
        z[i, -1] = unit(z[i, chosen]).sum(0)
        weights[i, chosen] += 0.3
    return z, weights


@pytest.mark.parametrize("method", METHODS)
def test_planted_tokens_are_found_and_mismatched_ones_are_chance(method):
    z, weights = planted()
    found = agreement(z, weights, method, "here", k=3)
    assert (found.layer, found.converged) == ("here", 1.0)
    assert found.jaccard.value == pytest.approx(1.0, abs=0.02)
    assert found.gain.low > 0.5
    assert found.jaccard_mismatched.low < found.by_chance < found.jaccard_mismatched.high
    assert found.spearman.low > found.spearman_mismatched.high
    assert found.unexplained < 0.02


def test_attention_that_looks_elsewhere_does_not_agree():
    z, weights = planted()
    found = agreement(z, -weights, "lasso", k=3)
    assert found.jaccard.high < 0.1
    assert found.spearman.high < 0


def test_through_a_model():
    model, ids = Decoder(layers=2), sentences(10)
    found = selection.token_selection(model, ids, k=4)
    assert [(one.layer, one.method) for one in found] == [(f"blocks.{k}", m) for k in range(2) for m in METHODS]
    model.eval()
    x = model.blocks[0](model.embed(ids) + model.position).detach().double().numpy()
    weights = model.blocks[0].weights.double().mean(1)[:, -1, :-1].numpy()
    expected = agreement(x, weights, "ridge", k=4)
    assert found[1].jaccard == expected.jaccard
    assert found[1].spearman.value == pytest.approx(expected.spearman.value, abs=1e-5)
    only = selection.token_selection(model, ids, layers=("blocks.1",))
    assert {one.layer for one in only} == {"blocks.1"}


def test_what_has_no_answer_is_nan_or_refused():
    z, weights = planted(count=3)
    z[0, 2, 0] = math.nan
    assert agreement(z, weights, "ridge").jaccard.count == 2
    z[:, -1] = 0.0  # a token without a direction is explained by nothing
    found = agreement(z, weights, "lasso")
    assert math.isnan(found.jaccard.value)
    assert found.jaccard.count == 0
    constant = agreement(np.ones((3, 5, 8)), np.full((3, 4), 0.25), "ridge")
    assert math.isnan(constant.spearman.value)
    for shape in ((1, 9), (4, 2)):
        with pytest.raises(ValueError, match="at least 2 sentences of at least 3 tokens"):
            selection.token_selection(Decoder(), sentences(*shape))
    with pytest.raises(ValueError, match="no attention"):
        selection.token_selection(Decoder(), sentences(), layers=("blocks.7",))


def test_fits_that_do_not_converge_are_left_out_and_counted(monkeypatch):
    monkeypatch.setattr(selection, "_ROUNDS", 1)
    monkeypatch.setattr(selection, "_TOLERANCE", 1e-14)
    z, weights = planted(count=5)
    z[:, :-1] += 5.0  # nearly parallel tokens
    found = agreement(z, weights, "lasso")
    assert found.converged < 1
    assert found.jaccard.count == round(5 * found.converged)
