"""The entropy function against enumeration, and what its error bars and its status are worth."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from tests.analysis.models import decoder, entropy_function, enumerated, random_markov, tree
from thermo_monitor.analysis.entropy_scan import ZERO, entropy_scan, summary
from thermo_monitor.analysis.prompt_entropy import prompt_entropy
from thermo_monitor.analysis.sampling import draw, sampling_logits

MODEL = random_markov()


def test_the_reference_is_the_sum_over_all_texts():
    p = random_markov(words=3, stop=0.9).p  # 8,000 texts; longer ones have a mass of 1e-12
    assert enumerated(p, 1, 12) == pytest.approx(entropy_function(p)[1], rel=1e-8)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_both_estimates_agree_with_enumeration(temperature):
    exact = entropy_function(MODEL.p, temperature)
    for found in prompt_entropy(MODEL, [[1], [2], [3]], stop=0, samples=3000, tokens=200, temperature=temperature):
        truth = exact[found.prompt[-1]]
        assert abs(found.entropy - truth) < 4 * found.error
        assert abs(found.surprisal - truth) < 4 * found.surprisal_error
        assert (found.status, found.truncated) == ("estimate", 0.0)
        row = MODEL.p[found.prompt[-1]] ** (1 / temperature)
        row /= row.sum()
        assert found.next_entropy == pytest.approx(-(row * np.log(row)).sum(), abs=1e-12)


def test_the_standard_errors_cover_at_the_nominal_rate():
    exact = entropy_function(MODEL.p)[1]
    records = list(prompt_entropy(MODEL, [[1]] * 600, stop=0, samples=60, tokens=200, batch=4000))
    for name, error in (("entropy", "error"), ("surprisal", "surprisal_error")):
        z = np.array([(getattr(r, name) - exact) / getattr(r, error) for r in records])
        # 600 intervals: the share of those that cover has a standard error of .009; skewness costs a little.
        assert 0.915 <= np.mean(np.abs(z) < 1.96) <= 0.975, name
        assert abs(z.mean()) < 0.35, name


def test_the_tree_where_surprisal_is_exact_and_the_chain_rule_is_not():
    (found,) = prompt_entropy(tree(), [[6]], stop=0, samples=4000, tokens=5)
    assert found.surprisal == pytest.approx(math.log(3), abs=1e-12)
    assert found.surprisal_error == pytest.approx(0, abs=1e-12)
    assert abs(found.entropy - math.log(3)) < 4 * found.error
    # Mean ln 3 with probability 2/3 of H_0 + ln 2 and 1/3 of H_0: variance (2/9) ln^2 2.
    assert found.samples * found.error**2 == pytest.approx(0.106767, rel=0.05)


def test_independent_symbols_where_the_chain_rule_is_exact_and_surprisal_is_not():
    y = torch.tensor([0.9, 0.1], dtype=torch.float64).log()
    (found,) = prompt_entropy(lambda ids: y.expand(*ids.shape, 2), [[0]], stop=(), samples=4000, tokens=3)
    assert found.entropy == pytest.approx(3 * 0.325082973, abs=1e-8)
    assert found.error == pytest.approx(0, abs=1e-12)
    assert found.samples * found.surprisal_error**2 == pytest.approx(1.303505, rel=0.1)
    assert (found.status, found.reason, found.truncated) == ("lower_bound", "no_stop_symbol", 1.0)


def test_what_is_cut_off_is_a_lower_bound():
    full = entropy_function(MODEL.p)[1]
    values = []
    for tokens in (1, 3, 9):
        (found,) = prompt_entropy(MODEL, [[1]], stop=0, samples=2000, tokens=tokens)
        assert (found.status, found.reason) == ("lower_bound", "truncated")
        values.append(found.entropy)
    assert values[0] == pytest.approx(found.next_entropy)
    assert values[0] < values[1] < values[2] < full + 4 * found.error


def test_sampled_and_scored_with_the_same_truncation():
    p = MODEL.p.copy()
    for row in p:
        row[np.argsort(row)[:2]] = 0
    p /= p.sum(1, keepdims=True)
    exact = entropy_function(np.where(p[:, :1] > 0, p, MODEL.p))
    assert (p[:, 0] > 0).all()  # or nothing would stop
    (found,) = prompt_entropy(MODEL, [[1]], stop=0, samples=2000, tokens=200, top_k=2)
    assert abs(found.entropy - exact[1]) < 4 * found.error
    assert abs(found.surprisal - exact[1]) < 4 * found.surprisal_error
    (greedy,) = prompt_entropy(MODEL, [[1]], stop=0, samples=4, tokens=9, top_k=1)
    assert greedy.entropy == 0.0


@pytest.mark.parametrize("options", [{"top_k": 3}, {"top_p": 0.7}, {"temperature": 0.7, "top_k": 6, "top_p": 0.5}])
def test_truncation_is_that_of_transformers(options):
    warpers = pytest.importorskip("transformers.generation.logits_process")
    y = torch.randn(5, 12, dtype=torch.float64)
    expected = y / options.get("temperature", 1.0)
    if "top_k" in options:
        expected = warpers.TopKLogitsWarper(options["top_k"])(None, expected)
    if "top_p" in options:
        expected = warpers.TopPLogitsWarper(options["top_p"])(None, expected)
    torch.testing.assert_close(sampling_logits(y, **options), expected)


def test_draws_follow_the_distribution():
    p = torch.tensor([0.0, 0.2, 0.0, 0.5, 0.3, 0.0])
    u = (torch.arange(100_000) + 0.5) / 100_000
    counts = draw(p.expand(len(u), -1), u).bincount(minlength=6) / len(u)
    torch.testing.assert_close(counts, p, atol=2e-5, rtol=0)
    assert draw(p[None], torch.tensor([1 - 1e-9], dtype=torch.float64)).item() == 4


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_cached_and_padded_is_as_whole_and_alone(kind):
    pytest.importorskip("transformers")
    model = decoder(kind).train()
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 1], [7, 7]]
    options = {"stop": 0, "samples": 6, "tokens": 14}
    state, mode = torch.get_rng_state(), [part.training for part in model.modules()]
    together = list(prompt_entropy(model, prompts, **options))
    split = list(prompt_entropy(model, prompts, batch=4, **options))
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in model.modules()] == mode
    model.eval()
    whole = list(prompt_entropy(lambda ids: model(ids).logits, prompts, **options))
    for a, b, c in zip(together, split, whole, strict=True):
        for other in (b, c):
            assert a.prompt == other.prompt
            assert dataclasses.astuple(other)[2:10] == pytest.approx(dataclasses.astuple(a)[2:10], rel=1e-9)


def test_a_scan_counts_names_and_forgets():
    p = np.array([[1.0, 0, 0, 0], [1 - 1e-4, 1e-4, 0, 0], [0.5, 0, 0.5, 0], [0.99, 0, 0, 0.01]])
    model, prompts = random_markov(), [[1], [2], [3], [0], [2, 1], []]
    model.y.data = torch.as_tensor(p).log()
    found = entropy_scan(model, iter(prompts), stop=0, samples=200, tokens=60, below=(0.01, 0.1), keep=3)
    exact = entropy_function(p)
    assert (found.prompts, found.read, found.undefined) == (6, 5, {"empty_prompt": 1})
    assert [r.prompt for r in found.lowest] == [(0,), (1,), (2, 1)]
    assert {limit: s.value for limit, s in found.shares.items()} == {ZERO: 0.2, 0.01: 0.6, 0.1: 0.8}
    assert found.mean == pytest.approx(exact[[1, 2, 3, 0, 1]].mean(), abs=0.1)
    assert found.counts.sum() == 5
    assert found.shares[0.1].low < 0.8 < found.shares[0.1].high
    values = np.array([r.entropy for r in prompt_entropy(model, prompts[:5], stop=0, samples=200, tokens=60)])
    assert found.mean == pytest.approx(values.mean())
    assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(5))


def test_a_lower_bound_below_the_limit_decides_nothing():
    records = list(prompt_entropy(tree(), [[3], [6]], stop=0, samples=50, tokens=1))
    found = summary(records, below=(2.0,))
    assert [r.status for r in records] == ["estimate", "lower_bound"]
    assert found.shares[2.0].value == 1.0
    assert found.shares[2.0].undecided == 1
    assert found.lower_bounds == 1


def test_the_bar_knows_how_many_there_are_if_that_can_be_known(monkeypatch):
    bars = []

    def track(items, description, total, transient):
        bars.append((description, total))
        return items

    monkeypatch.setattr("thermo_monitor.analysis.prompts.track", track)
    for prompts in ([[1], [2]], iter([[1], [2]])):
        assert len(list(prompt_entropy(MODEL, prompts, stop=0, samples=2, tokens=3, progress=True))) == 2
    assert bars == [("prompt entropy", 2), ("prompt entropy", None)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_device_as_on_the_host():
    there = random_markov().cuda()
    for one, two in zip(*(prompt_entropy(m, [[1], [2, 3]], stop=0) for m in (MODEL, there)), strict=True):
        assert one.entropy == pytest.approx(two.entropy, rel=1e-9)


def test_prompts_are_taken_one_after_the_other():
    taken = []

    def source():
        for i in range(10_000):
            taken.append(i)
            yield [1 + i % 3]

    records = prompt_entropy(MODEL, source(), stop=0, samples=2, tokens=3, batch=4)
    for _ in range(5):
        next(records)
    assert len(taken) <= 16
