"""The demo, shortened: what it promises to show is what it shows."""

import math

import numpy as np
import pytest
import torch

from thermo_monitor.demo.modular import Transformer, modular_addition
from thermo_monitor.demo.run import train
from thermo_monitor.demo.show import RUNS, _table

HEADLINES = (
    "loss/train",
    "opt/gradient_norm",
    "opt/weight_norm",
    "attn/specific_heat_norm",
    "attn/entropy_fraction",
    "attn/reduced_temperature",
    "out/predictive_entropy",
    "repr/representation_entropy",
    "repr/spectral_entropy",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo")
    # The control is followed until well after the time at which the other run generalizes.
    return {name: train(name, directory, weight_decay=decay, steps=600, progress=False) for name, decay in RUNS.items()}


def told(run):
    return [e for e in run.events if "part_of" not in e.details and e.level != "info"]


def test_the_run_that_groks_memorizes_first_and_generalizes_then(runs):
    run = runs["grokking"]
    phases = [e.phase for e in told(run)]
    assert phases[:2] == ["memorization", "generalization"]
    memorized, generalized = told(run)[:2]
    assert run.accuracy("train accuracy", memorized.step) > 0.9
    assert run.accuracy("held-out accuracy", memorized.step) < 0.1
    assert memorized.step < generalized.onset
    assert run.accuracy("held-out accuracy", 599) > 0.9


def test_the_control_memorizes_and_is_never_said_to_generalize(runs):
    run = runs["control"]
    assert "memorization" in [e.phase for e in told(run)]
    assert not [e for e in run.events if e.phase == "generalization"]
    assert run.accuracy("held-out accuracy", 599) < 0.1


@pytest.mark.parametrize("key", HEADLINES)
@pytest.mark.parametrize("name", RUNS)
def test_the_headline_readings_are_finite_in_every_tick(runs, name, key):
    values = [r.value for r in runs[name].readings if r.quantity == key and r.layer is None]
    assert len(values) == (600 if key in HEADLINES[:2] else 120)
    assert all(math.isfinite(v) for v in values)


def test_the_table_has_the_accuracies_at_each_event(runs):
    table = _table("grokking", runs["grokking"])
    assert table.row_count == len([e for e in runs["grokking"].events if "part_of" not in e.details])


def test_both_orders_of_a_pair_are_on_the_same_side_and_nothing_is_lost():
    train_split, held_out = modular_addition(p=11, seed=3)

    def pairs(split):
        return {tuple(sorted(row)) for row in split.tokens[:, :2].tolist()}

    assert not pairs(train_split) & pairs(held_out)
    assert len(train_split.answers) + len(held_out.answers) == 121
    for split in (train_split, held_out):
        assert torch.equal(split.tokens[:, :2].sum(1) % 11, split.answers)
        assert (split.tokens[:, 2] == 11).all()


def test_the_split_comes_from_a_generator_of_its_own():
    before = torch.get_rng_state()
    a, _ = modular_addition(seed=1)
    b, _ = modular_addition(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a.tokens, b.tokens)
    assert not torch.equal(a.tokens, modular_addition(seed=2)[0].tokens)


def test_the_model_cannot_look_ahead():
    model = Transformer(p=5)
    hidden = []
    model.blocks[0].register_forward_hook(lambda module, args, out: hidden.append(out))
    model(torch.tensor([[1, 2, 5]]))
    model(torch.tensor([[1, 4, 5]]))
    assert torch.equal(hidden[0][:, 0], hidden[1][:, 0])
    assert not np.allclose(hidden[0][:, 1].detach(), hidden[1][:, 1].detach())
