"""Solvers against brute force, and schedules in ``generate``."""

import math

import numpy as np
import pytest
import torch

from tests.analysis.models import decoder, random_markov
from thermo_monitor.analysis.least_squares import curve, least_squares_schedule
from thermo_monitor.analysis.parallel import ensemble_entropy
from thermo_monitor.analysis.temperature_schedule import (
    COLDEST,
    HOTTEST,
    Feedback,
    fit_schedule,
    held,
    smooth,
    solve_temperature,
)
from thermo_monitor.physics import conditional_entropy, marginal_entropy

F64 = torch.float64
FORK = torch.tensor([[8.0, 0.0, -8.0], [0.0, 0.2, -8.0]], dtype=F64)
MODEL = random_markov(words=6, stop=0.1)


def entropy(y, t):
    return marginal_entropy(y / t).item()


def nearest_root(y, target, start):
    """By brute force on a fine grid."""
    a = np.linspace(math.log(COLDEST), math.log(HOTTEST), 12_001)
    h = marginal_entropy(y / torch.from_numpy(np.exp(a)).view(-1, 1, 1)).numpy() - target
    cross = np.flatnonzero(h[:-1] * h[1:] <= 0)
    if not len(cross):
        return None
    return float(np.exp(a[cross[np.argmin(np.abs(a[cross] - math.log(start)))]]))


def test_one_distribution_has_the_temperatures_of_the_specification():
    y = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=F64)
    for target, t in ((1.2, 1.711715325), (0.5, 0.532303107)):
        assert solve_temperature(y, target).temperature == pytest.approx(t, abs=1e-9)


def test_the_fork_is_not_monotone():
    assert entropy(FORK, COLDEST) == pytest.approx(math.log(2), abs=1e-3)
    assert entropy(FORK, 1.0) == pytest.approx(0.5890, abs=1e-4)
    assert entropy(FORK, 1.2191) == pytest.approx(0.587075, abs=1e-6)


@pytest.mark.parametrize("start", [0.2, 0.9, 1.0, 1.2, 1.3, 4.0])
@pytest.mark.parametrize("target", [0.588, 0.6, 0.65, 0.69, 0.8])
def test_of_several_roots_the_nearest(start, target):
    found = solve_temperature(FORK, target, start)
    assert not found.unreachable
    assert entropy(FORK, found.temperature) == pytest.approx(target, abs=1e-9)
    assert found.temperature == pytest.approx(nearest_root(FORK, target, start), rel=1e-3)


@pytest.mark.parametrize(("target", "nearest"), [(0.5, 1.2191), (1.2, HOTTEST)])
def test_where_there_is_no_root_the_nearest_temperature_is_taken_and_said(target, nearest):
    found = solve_temperature(FORK, target)
    assert found.unreachable
    assert found.temperature == pytest.approx(nearest, rel=0.06)  # the search has steps of a tenth
    assert found.entropy == pytest.approx(entropy(FORK, found.temperature))


def test_random_ensembles_against_brute_force():
    for seed in range(12):
        y = 3 * torch.randn(4, 9, dtype=F64, generator=torch.Generator().manual_seed(seed))
        target = 0.4 + 0.15 * seed
        expected, found = nearest_root(y, target, 1.0), solve_temperature(y, target)
        assert found.unreachable == (expected is None)
        if expected is not None:
            assert found.temperature == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf])
def test_no_target(target):
    for make in (lambda: solve_temperature(FORK, target), lambda: Feedback(target)):
        with pytest.raises(ValueError, match="target"):
            make()


@pytest.mark.parametrize(
    "options", [{"of": "both"}, {"start": 0.0}, {"gain": 0.0}, {"steps": 0}, {"reach": 0.0}, {"floor": 0.0}]
)
def test_no_controller(options):
    with pytest.raises(ValueError, match="|".join(options)):
        Feedback(1.0, **options)


def test_the_fitted_schedule_holds_its_target_and_repeats():
    fit = fit_schedule(MODEL, [1], 1.1, runs=12, tokens=25, report=())
    assert not fit.unreachable[2:].any()
    assert fit.ensemble.marginal[~fit.unreachable] == pytest.approx(1.1, abs=1e-6)
    again = ensemble_entropy(MODEL, [1], runs=12, tokens=25, temperature=fit.temperatures, report=())
    assert np.array_equal(again.tokens, fit.ensemble.tokens)
    assert again.marginal == pytest.approx(fit.ensemble.marginal)


def test_what_cannot_be_reached_is_flagged():
    assert fit_schedule(MODEL, [1], 5.0, runs=3, tokens=3, report=()).unreachable.all()
    with pytest.raises(ValueError, match="top_k cannot be given"):
        fit_schedule(MODEL, [1], 1.0, top_k=3)


def test_feedback_holds_what_a_fixed_temperature_does_not():
    steep = torch.tensor([4.0, 2.0, 1.0, 0.0, -1.0, -2.0])

    def model(ids):  # sharpens along the text, each text in its own way
        t = torch.arange(ids.shape[1])[None, :, None]
        return steep * (0.5 + t / 40) + torch.nn.functional.one_hot(ids % 6, 6)

    fixed = ensemble_entropy(model, [1], runs=10, tokens=60, report=())
    target = float(fixed.marginal[:5].mean())
    found = ensemble_entropy(model, [1], runs=10, tokens=60, temperature=Feedback(target), report=())
    assert np.abs(fixed.marginal / target - 1).max() > 0.25
    assert held(found.marginal, target) == 60


def test_the_conditional_controller_gives_each_row_its_own_temperature():
    y = torch.randn(5, 9, dtype=F64) * 2
    control = Feedback(1.3, of="conditional", steps=20)
    t = control.update(y)
    assert t.shape == (5,)
    for row, value in zip(y, t, strict=True):
        assert conditional_entropy((row / value)[None]).item() == pytest.approx(1.3, abs=1e-6)
    with pytest.raises(ValueError, match="ScheduledTemperature"):
        control(0, y)


@pytest.mark.parametrize("how", ["list", "schedule", "marginal", "conditional"])
def test_generate_of_transformers_applies_them(how):
    transformers = pytest.importorskip("transformers")
    from thermo_monitor.analysis.processors import ScheduledTemperature

    model = decoder(stop=None, words=12).eval()
    with torch.no_grad():
        model.lm_head.weight *= 40  # far from uniform
    given = {
        "list": [0.5, 2.0],
        "schedule": fit_schedule(model, [1, 2], 1.5, runs=4, tokens=8, report=()),
        "marginal": Feedback(1.5, steps=6),
        "conditional": Feedback(1.5, of="conditional", steps=20),
    }[how]
    processor = ScheduledTemperature(given)
    prompt = torch.tensor([[1, 2]])
    for _ in range(2):  # the second call begins anew
        out = model.generate(
            prompt, do_sample=True, max_new_tokens=8, num_return_sequences=4, output_logits=True, output_scores=True,
            top_k=0, return_dict_in_generate=True, logits_processor=transformers.LogitsProcessorList([processor]),
            attention_mask=torch.ones_like(prompt), pad_token_id=0,
        )  # fmt: skip
        assert len(processor.applied) == 8
        for raw, score, t in zip(out.logits, out.scores, processor.applied, strict=True):
            torch.testing.assert_close(score.double(), raw.double() / t.unsqueeze(-1), rtol=1e-5, atol=1e-5)
    if how == "list":
        assert [t.item() for t in processor.applied] == [0.5] + [2.0] * 7
    if how == "schedule":
        assert [t.item() for t in processor.applied] == given.temperatures.tolist()
    z = torch.stack(out.scores).double()
    if how == "marginal":
        assert marginal_entropy(z).numpy() == pytest.approx(1.5, rel=0.05)
    if how == "conditional":
        rows = marginal_entropy(z.unsqueeze(2))
        assert rows.numpy() == pytest.approx(1.5, rel=0.05)
    with pytest.raises(ValueError, match="each positive"):
        ScheduledTemperature([])


def test_least_squares_comes_closer_than_where_it_began():
    def model(ids):
        t = torch.arange(ids.shape[1], dtype=F64)[None, :, None]
        return torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=F64) * (1 + 1 - torch.exp(-t / 8)) + 0 * ids.unsqueeze(-1)

    first = ensemble_entropy(model, [0], runs=2, tokens=30, report=())
    found = least_squares_schedule(model, [0], 0.95, fitted=20, tokens=30, runs=2, evaluations=30)
    off = [((x.marginal[:20] - 0.95) ** 2).sum() for x in (first, found.ensemble)]
    assert off[1] < 0.01 * off[0]
    assert len(found.temperatures) == 30
    assert curve(np.array([9.0, 0.0, 1.0]), 3).tolist() == pytest.approx([HOTTEST] * 3)


def test_running_means():
    x = np.random.default_rng(0).random(20)
    assert smooth(x, 1) == pytest.approx(x)
    assert smooth(x, 5)[7] == pytest.approx(x[5:10].mean())
