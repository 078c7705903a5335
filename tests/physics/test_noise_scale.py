"""The gradient noise scale recovers what was planted."""

import itertools
import math

import pytest
import torch

from thermo_monitor.physics.noise_scale import NoiseParts, SmoothedNoise, noise_parts


def test_both_parts_are_unbiased_over_all_batches():
    # Every batch of 3 out of a population with replacement, enumerated: the expectation is exact.
    population = torch.randn(4, 5).double()
    mean = population.mean(0)
    signal, noise = mean.square().sum(), (population - mean).square().sum(1).mean()
    signals, noises = [], []
    for rows in itertools.product(range(4), repeat=3):
        batch = population[list(rows)]
        parts = noise_parts(
            batch.square().sum(1).mean().item(), batch.mean(0).square().sum().item(), small_batch=1, big_batch=3
        )
        signals.append(parts.signal)
        noises.append(parts.noise)
    assert sum(signals) / len(signals) == pytest.approx(signal.item(), rel=1e-10)
    assert sum(noises) / len(noises) == pytest.approx(noise.item(), rel=1e-10)


def test_micro_batches_give_the_same_in_expectation_as_single_examples():
    generator = torch.Generator().manual_seed(0)
    mean, deviation, trials = torch.tensor([1.0, -2.0, 0.5]).double(), 3.0, 4000
    g = mean + deviation * torch.randn(trials, 16, 3, generator=generator).double()
    big = g.mean(1).square().sum(-1).mean().item()
    micro = g.unflatten(1, (4, 4)).mean(2).square().sum(-1).mean().item()
    parts = noise_parts(micro, big, small_batch=4, big_batch=16)
    # tr Sigma = 27; the sd of the pair estimate is about 27 / sqrt(4000) * a few.
    assert parts.noise == pytest.approx(27, rel=0.05)
    assert parts.signal == pytest.approx(5.25, rel=0.1)


def test_identical_examples_have_no_noise():
    parts = noise_parts(2.0, 2.0, small_batch=1, big_batch=8)
    assert (parts.signal, parts.noise, parts.scale) == (2.0, 0.0, 0.0)


@pytest.mark.parametrize(("small", "big"), [(8, 8), (8, 4), (0, 4)])
def test_one_size_says_nothing(small, big):
    parts = noise_parts(1.0, 1.0, small_batch=small, big_batch=big)
    assert math.isnan(parts.noise)
    assert parts.reason == "n_lt_2"


def test_parts_are_averaged_apart_and_a_negative_signal_stays_in():
    smoothed = SmoothedNoise(decay=0.9)
    assert smoothed.parts.reason == "too_early"
    pairs = [(1.0, 4.0), (-0.5, 6.0), (math.nan, 1.0), (2.0, 5.0)]
    for signal, noise in pairs:
        smoothed.add(NoiseParts(signal, noise))
    weights = [0.81, 0.9, 1.0]
    kept = [pair for pair in pairs if pair[0] == pair[0]]
    expected = [sum(w * pair[k] for w, pair in zip(weights, kept, strict=True)) / sum(weights) for k in (0, 1)]
    assert (smoothed.parts.signal, smoothed.parts.noise) == pytest.approx(tuple(expected))
    assert smoothed.parts.scale == pytest.approx(expected[1] / expected[0])
    assert math.isnan(NoiseParts(-1.0, 2.0).scale)
