"""Random rows: unbiased, with the right standard error, and drawn from a generator of their own."""

import math
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.probes.models import Decoder, Measuring, tokens
from thermo_monitor.probes import AttentionProbe, record_attention

KEYS = ("attn/specific_heat", "attn/entropy_fraction", "attn/max_logit", "attn/reduced_temperature")
DRAWS = 600


class Told(nn.Module):
    """Attention between given queries and keys, whose rows differ a lot."""

    def __init__(self, heads: int, similar: float, batch: int = 3) -> None:
        super().__init__()
        rows = 40
        strength = (3 * torch.rand(1, 1, rows, 1)) ** 2  # the same rows are sharp in every head and example
        own = (3 * torch.rand(batch, heads, rows, 1)) ** 2
        self.q = torch.randn(batch, heads, rows, 8) * (similar * strength + (1 - similar) * own)
        self.k = torch.randn(batch, heads, rows, 8)
        self.mask: Tensor | None = None

    def forward(self) -> None:
        for name in ("a", "b"):
            record_attention(name, self.q, self.k, mask=self.mask)


def draws(model: nn.Module, micro_batches: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Values and stated errors [draws, keys]."""
    values, errors = [], []
    with Measuring(model, AttentionProbe(rows=8, sampling="random", quantities=KEYS), seed=5) as measuring:
        for _ in range(DRAWS):
            for _ in range(micro_batches):
                model()
                measuring.ear.open()
            readings = measuring.read().readings
            values.append([r.value for r in readings])
            errors.append([r.error for r in readings])
    return np.array(values), np.array(errors)


def everything(model: nn.Module) -> np.ndarray:
    with Measuring(model, AttentionProbe(rows=40, quantities=KEYS)) as measuring:
        model()
        return np.array(list(measuring.values().values()))


@pytest.mark.parametrize(("heads", "similar", "micro_batches"), [(1, 0.0, 1), (4, 1.0, 1), (4, 0.0, 1), (4, 0.5, 3)])
def test_the_mean_is_unbiased_and_the_error_is_the_spread(heads, similar, micro_batches):
    model = Told(heads, similar)
    values, errors = draws(model, micro_batches)
    spread = values.std(0, ddof=1)
    bias = (values.mean(0) - everything(model)) / (spread / math.sqrt(DRAWS))
    assert np.abs(bias[:3]).max() < 5  # the inverse of a mean, the reduced temperature, is biased
    stated = np.sqrt((errors**2).mean(0))
    assert np.abs(stated / spread - 1)[:3].max() < 0.1
    assert abs(stated[3] / spread[3] - 1) < 0.35


def test_rows_that_do_not_count():
    """A causal mask leaves the first row one key: the number of rows in the mean is then itself random."""
    model = Told(2, 0.5)
    model.mask = torch.ones(40, 40).tril().bool()
    values, errors = draws(model)
    spread = values.std(0, ddof=1)
    assert (np.abs(values.mean(0) - everything(model)) / spread)[:3].max() < 0.1
    assert np.abs(np.sqrt((errors**2).mean(0)) / spread - 1)[:3].max() < 0.15


def test_all_rows_have_no_error():
    model = Told(2, 0.5)
    with Measuring(model, AttentionProbe(rows=40, sampling="random", quantities=KEYS)) as measuring:
        model()
        readings = measuring.read().readings
    assert [r.error for r in readings] == [0.0] * len(KEYS)
    assert np.allclose([r.value for r in readings], everything(model))


def test_one_row_has_no_known_error():
    model = Told(2, 0.5)
    with Measuring(model, AttentionProbe(rows=1, sampling="random", quantities=KEYS)) as measuring:
        model()
        assert [r.error for r in measuring.read().readings] == [None] * len(KEYS)


@pytest.mark.parametrize("sampling", ["even", "random"])
def test_the_random_numbers_of_the_program_are_not_touched(sampling):
    model = Decoder()
    before = states()
    with Measuring(model, AttentionProbe(rows=4, sampling=sampling)) as measuring:
        model(tokens())
        measuring.read()
    assert states() == before


def states() -> tuple[object, ...]:
    numpy = np.random.get_state()[1].tolist()  # noqa: NPY002 - it is the global state that is meant
    return torch.get_rng_state().tolist(), random.getstate(), numpy


def test_even_rows_draw_nothing(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("a generator was made")

    model, x = Decoder(), tokens()
    monkeypatch.setattr(torch, "Generator", never)
    with Measuring(model, AttentionProbe(rows=4)) as measuring:
        model(x)
        first = measuring.read()
        model(x)
        assert measuring.read().readings == first.readings


def test_successive_draws_differ_and_a_seed_repeats_them():
    model, x = Decoder(), tokens(length=20)

    def run(seed: int) -> list[dict[str, float]]:
        out = []
        with Measuring(model, AttentionProbe(rows=4, sampling="random"), seed=seed) as measuring:
            for _ in range(2):
                model(x)
                out.append(measuring.values())
        return out

    assert run(1) == run(1)
    assert run(1)[0] != run(1)[1]
    assert run(1) != run(2)
