"""The study of the specific heat: stacked runs are the single ones, peaks are dated by rule."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent.parent / "studies"))

from specific_heat import protocol, run, signals, tables
from specific_heat.grid import CONDITIONS, Cell, full, reduced
from specific_heat.model import Study
from specific_heat.stacked import Stack, splits

from thermo_monitor.physics.canonical import specific_heat
from thermo_monitor.physics.specific_heats import energy_variance, specific_heat_batchmean

CELL = Cell(5, 0.6, 1, 8, ((0, 0), (1, 1)), 20, every=10)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_stack_is_trained_as_each_run_alone(layers):
    cell = Cell(5, 0.6, layers, 8, ((0, 0), (3, 1)), 20)
    stack = Stack(cell)
    for _ in range(20):
        stack.advance()
    index = CONDITIONS.index("weak decay") * 2 + 1
    torch.manual_seed(3)
    model = Study(5, 8, layers=layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.03)
    train = splits(cell)[0][index]
    for _ in range(20):
        F.cross_entropy(model(train.tokens), train.answers).backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, parameter in model.named_parameters():
        # Sums in another order; Adam divides by the size of gradients, small ones included.
        torch.testing.assert_close(stack.parameters[name][index], parameter, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_shorter_way_through_the_last_block_gives_the_same(layers):
    torch.manual_seed(0)
    model = Study(7, 16, layers=layers)
    tokens = torch.randint(0, 7, (9, 3))
    logits, hidden, rows = model.read(tokens)
    torch.testing.assert_close(model(tokens), logits)
    assert rows.shape == (layers, 9, 4, 3, 3)
    torch.testing.assert_close(model.unembedding(hidden), logits)


def test_runs_of_a_fixed_scale_have_it_and_others_do_not():
    stack = Stack(CELL)
    logits = stack.forward(stack.train.tokens)
    size = (logits - logits.mean(-1, keepdim=True)).square().mean((1, 2)).sqrt()
    fixed = stack.fixed
    torch.testing.assert_close(size[fixed], torch.full_like(size[fixed], 3.0))
    assert (size[~fixed] < 2.0).all()


def test_shuffled_labels_are_shuffled_and_only_in_training():
    inside, outside = splits(CELL)
    shuffled = CONDITIONS.index("shuffled") * 2
    assert torch.equal(inside[shuffled].answers.sort().values, inside[0].answers.sort().values)
    assert not torch.equal(inside[shuffled].answers, inside[0].answers)
    assert torch.equal(outside[shuffled].answers, outside[0].answers)


def test_definitions_of_the_specific_heat_on_rows_that_tell_them_apart():
    z = torch.zeros(1, 2, 1, 3, 3, dtype=torch.float64)
    z[0, 0, 0, 2], z[0, 1, 0, 2] = torch.tensor([40.0, 0.0, 0.0]), torch.zeros(3)
    found = signals.of_heads(z)
    assert found["A answer"].item() == pytest.approx(0.0, abs=1e-12)
    assert found["B_row answer"].item() == pytest.approx(0.5 * torch.tensor([40.0, 0, 0]).var(unbiased=False).item())
    q = torch.tensor([2 / 3, 1 / 6, 1 / 6], dtype=torch.float64)
    surprisal = -q.log()
    assert found["D answer"].item() == pytest.approx(((q * surprisal**2).sum() - (q * surprisal).sum() ** 2).item())
    u = torch.tensor([-40.0, 0.0])
    assert found["V answer"].item() == pytest.approx(u.var().item())
    unmasked = torch.tensor([0.0, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0, 0])
    assert found["B"].item() == pytest.approx(unmasked.var().item())


def test_one_example_makes_the_batch_mean_canonical_and_its_energy_without_variance():
    z = torch.randn(1, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(specific_heat_batchmean(z), specific_heat(z[0]))
    assert energy_variance(z).isnan().all()
    assert specific_heat_batchmean(z[..., :1]).isnan().all()


def test_a_peak_is_inside_stands_out_and_is_looked_for_past_generalization():
    steps = np.arange(0, 1000, 10)
    bump = np.exp(-(((steps - 600) / 50) ** 2))
    time, height, width = protocol.peak(steps, bump, after=100)
    assert (time, height) == (600.0, 1.0)
    assert width == pytest.approx(2 * 50 * math.sqrt(math.log(2)), abs=20)
    assert math.isnan(protocol.peak(steps, steps / 1000, after=100)[0])  # at the edge
    noise = np.random.default_rng(0).standard_normal(100)
    assert math.isnan(protocol.peak(steps, noise * 1e-9 + 1.0, after=990)[0])  # too short


def test_the_study_runs_resumes_and_reports(tmp_path, capsys):
    first = run.train(CELL, tmp_path, "cpu")
    assert first.startswith(CELL.name)
    with np.load(tmp_path / f"{CELL.name}.npz") as file:
        arrays = {name: file[name] for name in file.files}
    again = tmp_path / "again"
    again.mkdir()
    run.train(CELL, again, "cpu")
    with np.load(again / f"{CELL.name}.npz") as file:
        assert all(np.array_equal(arrays[name], file[name], equal_nan=True) for name in file.files)
    runs = tables.traces(CELL, arrays)
    assert len(runs) == 2 * len(CONDITIONS)
    assert runs[0].signal("A answer").shape == (3,)
    run.report([CELL], tmp_path, tmp_path / "out.json", tmp_path / "figures")
    assert "| random time |" in capsys.readouterr().out
    assert (tmp_path / "figures" / "specific-heat.png").stat().st_size > 10_000


def test_announcements_of_a_signal_that_announces_and_one_that_does_not():
    steps = np.arange(0, 2000, 20)
    made = []
    for seed in range(8):
        for condition in ("grokking", "no decay"):
            grok = 800 + 100 * seed
            held = 1 / (1 + np.exp(-(steps - grok) / 30)) if condition == "grokking" else np.zeros(100)
            early = np.exp(-(((steps - grok + 200) / 60) ** 2)) * (condition == "grokking")
            heads = {name: np.zeros((100, 1, 4), np.float32) for name in signals.HEADS}
            heads["A answer"] = np.repeat(early[:, None, None], 4, axis=2)
            values = {name: np.zeros(100, np.float32) for name in signals.RUNS}
            values |= {"train accuracy": (steps > 100).astype(float), "held-out accuracy": held}
            made.append(tables.Trace(CELL, condition, (seed, seed), steps, heads, values))
    rows = {row["signal"]: row for row in tables.announcements(made)}
    assert rows["A answer"]["before"] == rows["A answer"]["peaks"] == 8
    assert rows["A answer"]["lead"][0] == pytest.approx(270, abs=20)
    assert rows["A answer"]["spearman"][0] == pytest.approx(1.0)
    assert rows["A answer"]["never"] == 0.0
    assert rows["V answer"]["peaks"] == 0


def test_the_grids_cross_model_and_split_seeds():
    seeds = full()[0].seeds
    assert len(seeds) == 30
    assert len({split for _, split in seeds}) == 3
    assert [c.p for c in reduced()] == [19, 23, 31, 41]
