"""The study of the specific heat: stacked runs are the single ones, peaks are dated by rule."""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent.parent / "studies"))

from specific_heat import estimates, figures, outcome, protocol, run, signals, tables
from specific_heat.grid import CONDITIONS, Cell, deep, full, reduced
from specific_heat.model import Study
from specific_heat.stacked import Stack, splits

from thermo_monitor.physics.canonical import specific_heat
from thermo_monitor.physics.specific_heats import energy_variance, specific_heat_batchmean

CELL = Cell("small", 5, 0.6, 1, 8, ((0, 0), (1, 1)), 2, 20, every=10)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_stack_is_trained_as_each_run_alone(layers):
    cell = Cell("small", 5, 0.6, layers, 8, ((0, 0), (3, 1)), 2, 20)
    stack = Stack(cell)
    for _ in range(20):
        stack.advance()
    index = cell.runs().index(("weak decay", (3, 1)))
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


def test_the_shorter_way_of_training_through_a_table_gives_the_same():
    torch.manual_seed(0)
    model = Study(7, 16)
    torch.nn.init.normal_(model.position)
    tokens = torch.cat([torch.randint(0, 7, (9, 2)), torch.full((9, 1), 7)], dim=1)
    logits, hidden, rows = model.read(tokens)
    torch.testing.assert_close(model(tokens), logits)
    assert rows.shape == (1, 9, 4, 3, 3)
    torch.testing.assert_close(model.unembedding(hidden), logits)


def test_no_pair_stands_on_both_sides_in_either_order():
    for condition, inside, outside in zip([c for c, _ in CELL.runs()], *splits(CELL), strict=True):
        pairs = [{tuple(sorted(t)) for t in side.tokens[:, :2].tolist()} for side in (inside, outside)]
        assert not pairs[0] & pairs[1]
        assert len(pairs[0]) == int(CELL.shares()[condition] * 15)
        assert len(pairs[0]) + len(pairs[1]) == 15


def test_runs_of_a_fixed_scale_have_it_and_others_do_not():
    stack = Stack(CELL)
    logits = stack.forward(stack.train.tokens)
    size = (logits - logits.mean(-1, keepdim=True)).square().mean((1, 2)).sqrt()
    fixed = stack.fixed
    present = stack.train.present.all(1)  # the padding of others does not count
    assert (fixed & present).any()
    torch.testing.assert_close(size[fixed & present], torch.full_like(size[fixed & present], 3.0))
    assert (size[~fixed] < 2.0).all()


def test_shuffled_labels_are_shuffled_and_only_in_training():
    inside, outside = splits(CELL)
    at = CELL.runs().index(("shuffled", (0, 0)))
    assert torch.equal(inside[at].tokens, inside[0].tokens)
    assert not torch.equal(inside[at].answers, inside[0].answers)
    assert torch.equal(outside[at].answers, outside[0].answers)
    answer = {(a, b): y for (a, b, _), y in zip(inside[at].tokens.tolist(), inside[at].answers.tolist(), strict=True)}
    assert all(answer[b, a] == y for (a, b), y in answer.items())


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


def test_heads_and_runs_that_are_read_together_are_those_read_alone():
    z = torch.randn(2, 3, 7, 4, 3, 3, dtype=torch.float64)  # runs, layers, examples, heads
    together, pooled = signals.of_heads(z), signals.pooled_over_all(z)
    causal = torch.ones(3, 3, dtype=torch.bool).tril()
    for i, layer, head in np.ndindex(2, 3, 4):
        own = z[i, layer, :, head]
        rows = own[:, -1]
        assert together["B"][i, layer, head].item() == pytest.approx(own[:, causal].var().item())
        assert together["A answer"][i, layer, head].item() == pytest.approx(specific_heat(rows).mean().item())
        assert together["B_row answer"][i, layer, head].item() == pytest.approx(rows.var(1, correction=0).mean().item())
        assert together["D answer"][i, layer, head].item() == pytest.approx(specific_heat_batchmean(rows).item())
        assert together["V answer"][i, layer, head].item() == pytest.approx(energy_variance(rows).item())
        both = 0.5 * (specific_heat(rows).mean() + specific_heat(own[:, 1, :2]).mean())
        assert together["A all"][i, layer, head].item() == pytest.approx(both.item())
        ratio = (rows.std(1, correction=0) / math.sqrt(2 * math.log(3))).mean()
        assert together["freezing_ratio answer"][i, layer, head].item() == pytest.approx(ratio.item())
    assert pooled.tolist() == pytest.approx([own[..., causal].var().item() for own in z])


def test_one_example_makes_the_batch_mean_canonical_and_its_energy_without_variance():
    z = torch.randn(1, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(specific_heat_batchmean(z), specific_heat(z[0]))
    assert energy_variance(z).isnan().all()
    assert specific_heat_batchmean(z[..., :1]).isnan().all()


def test_a_peak_is_inside_stands_out_and_is_looked_for_past_generalization():
    steps = np.arange(0, 1000, 10)
    bump = np.exp(-(((steps - 600) / 50) ** 2))
    time, height, width, top = protocol.peak(steps, bump, after=100)
    assert (time, height, top) == (600.0, 1.0, "inside")
    assert width == pytest.approx(2 * 50 * math.sqrt(math.log(2)), abs=20)
    rising, falling = (protocol.peak(steps, sign * steps / 1000, after=100) for sign in (1, -1))
    assert math.isnan(rising.step)
    assert (rising.top, falling.top) == ("end", "start")
    noise = np.random.default_rng(0).standard_normal(100)
    assert math.isnan(protocol.peak(steps, noise * 1e-9 + 1.0, after=990)[0])  # too short


def test_the_study_runs_resumes_and_reports(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(run.GRIDS, "reduced", lambda: [CELL])
    options = ["--recordings", str(tmp_path / "a"), "--results", str(tmp_path / "results"), "--workers", "1"]
    run.main([*options, "--cells", "1"])
    assert capsys.readouterr().out.startswith(CELL.name)
    run.main([*options, "--figures", str(tmp_path / "figures")])
    assert "of processor" not in capsys.readouterr().out  # it is there already
    kept = tmp_path / "results" / CELL.arm
    first = {file.name: file.read_bytes() for file in kept.iterdir()}
    assert set(first) == {"runs.csv", "peaks.csv", "tables.json", "tables.md"}
    assert len(outcome.load(kept)) == 2 * len(CONDITIONS)
    assert len(list((tmp_path / "figures").glob("*.png"))) == 3
    options[1] = str(tmp_path / "b")
    run.main([*options, "--report"])  # from what is kept
    assert first == {file.name: file.read_bytes() for file in kept.iterdir()}
    run.main(options)  # trained again
    assert first == {file.name: file.read_bytes() for file in kept.iterdir()}


def _made(grok, condition, seed):
    """A run whose definition A peaks 200 steps before it groks, and whose V does not know of it."""
    steps = np.arange(0, 2000, 20)
    held = 1 / (1 + np.exp(-(steps - grok) / 30)) if condition == "grokking" else np.zeros(100)
    early = np.exp(-(((steps - grok + 200) / 60) ** 2)) * (condition == "grokking")
    arrays = {"steps": steps, "train/accuracy": (steps > 100)[:, None], "held-out/accuracy": held[:, None]}
    arrays |= {f"{side}/{name}": np.zeros((100, 1, 1, 4)) for side in signals.SIDES for name in signals.HEADS}
    arrays |= {f"{side}/{name}": np.zeros((100, 1)) for side in signals.SIDES for name in signals.OF_OUTPUTS[1:]}
    arrays |= {f"{side}/B of the run": np.zeros((100, 1)) for side in signals.SIDES}
    arrays |= {name: np.zeros((100, 1)) for name in signals.OF_RUNS}
    arrays["train/A answer"] = np.broadcast_to(early[:, None, None, None], (100, 1, 1, 4))
    cell = Cell("small", 5, 0.6, 1, 8, ((seed, seed),), 0, 2000)
    (found,) = outcome.outcomes(cell, arrays)
    found.condition = condition
    return found


def test_announcements_of_a_signal_that_announces_and_one_that_does_not():
    made = [_made(800 + 100 * seed, c, seed) for seed in range(8) for c in ("grokking", "no decay")]
    found = tables.everything(made)
    rows = {row["signal"]: row for row in found["announcements"]["all"]}
    assert rows["A answer"]["before"] == rows["A answer"]["peaks"] == 8
    assert rows["A answer"]["share"] == pytest.approx([1.0, 0.6306, 1.0], abs=1e-4)
    assert rows["A answer"]["lead"][0] == pytest.approx(270, abs=20)
    assert rows["A answer"]["rank correlation"] == pytest.approx([1.0, 1.0, 1.0])
    assert rows["A answer"]["of other runs"] < 0.9
    assert rows["A answer"]["peaks in never"] == 0
    assert rows["V answer"]["peaks"] == 0
    assert found["heads"][0]["heads"] == 32
    assert found["heads"][0]["runs whose heads agree"] == 8
    # The early reading knows nothing yet, but no null signal comes before with so few false alarms.
    assert found["verdicts"]["all"]["A answer"] == {"precedes": False, "dates": True, "separates": True}
    assert not any(found["verdicts"]["all"]["V answer"].values())
    assert "## A answer" in figures.report("made", made, found)


KEPT = sorted(run.RESULTS.glob("*/runs.csv"))


@pytest.mark.parametrize("kept", [file.parent for file in KEPT], ids=lambda folder: folder.name)
def test_the_tables_that_are_kept_follow_from_the_dates_that_are_kept(kept):
    runs = outcome.load(kept)
    of = json.loads((kept / "tables.json").read_text())
    assert run._plain(tables.counts(runs)) == of["outcomes"]
    assert run._plain(tables.heads(runs)) == of["heads"]
    assert run._plain(tables.separation(runs)) == of["separation"]
    first, second = tables.halves(runs)
    rows = tables.announcements(first, second)
    assert run._plain(rows) == of["announcements"][tables.SETS[0]]
    assert run._plain(tables.verdicts(rows)) == of["verdicts"][tables.SETS[0]]
    assert figures.counts(tables.counts(runs)) in (kept / "tables.md").read_text()


def test_the_page_shows_the_tables_that_are_kept():
    page = (Path(__file__).parent.parent / "docs" / "specific_heat.md").read_text()
    kept = (run.RESULTS / "one-layer" / "tables.md").read_text()
    shown = re.findall(r"<!-- from tables.md -->\n((?:\|.*\n)+)", page)
    assert len(shown) >= 6
    assert all(block in kept for block in shown)
    found = json.loads((run.RESULTS / "one-layer" / "tables.json").read_text())
    for subset in ("all", *tables.SETS):  # the sentence that the page begins with
        assert not any(all(passed.values()) for passed in found["verdicts"][subset].values())


def test_times_that_both_grow_with_the_modulus_are_not_correlated_for_that():
    rng = np.random.default_rng(0)
    group = np.repeat([1.0, 2.0, 3.0, 4.0], 25)
    a, b = 10 * group + rng.standard_normal(100), 10 * group + rng.standard_normal(100)
    within, low, high = estimates.correlation(a, b, group)
    assert abs(within) < 0.25
    assert low < 0 < high
    assert estimates.correlation(a, b, np.zeros(100))[0] > 0.9


def test_a_power_law_is_found_with_its_interval():
    rng = np.random.default_rng(0)
    p = np.repeat([19, 23, 31, 41], 10)
    slope, low, high = estimates.exponent(p, 2.0 * p**0.5 * np.exp(0.1 * rng.standard_normal(40)))
    assert low < 0.5 < high
    assert slope == pytest.approx(0.5, abs=0.2)
    assert math.isnan(estimates.exponent(p[:20], np.ones(20))[0])  # two moduli


def test_rows_that_are_only_sharpened_have_a_peak():
    heat = signals.of_random_rows(np.array([0.0, 0.01, 1.0, 50.0]))
    assert heat[0] == 0.0
    assert heat[1] == pytest.approx(0.01**2 * 2 * math.log(3), rel=0.02)  # the variance of the logits, when small
    assert heat[2] > 0.5 > 0.1 > heat[3]


def test_the_grids_cross_model_and_split_seeds():
    seeds = full()[0].seeds
    assert len(seeds) == 30
    assert len({split for _, split in seeds}) == 3
    assert sorted({c.p for c in reduced()}) == [19, 23, 31, 41]
    for cells in (reduced(), deep()):
        assert len({c.name for c in cells}) == len(cells)
        for p in {c.p for c in cells}:
            own = [seed for c in cells if c.p == p for seed in c.seeds]
            assert len(own) == len(set(own)) == 10
