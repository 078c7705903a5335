"""The benchmarks run, print their tables, and their figures say what they claim to say."""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def scripts(monkeypatch):
    """Import a benchmark as the interpreter that runs it would."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield lambda name: __import__(name)
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def cells(text, name):
    """The cells of the first row of a markdown table that begins with a name."""
    row = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", text, re.M)[0]
    return row.split(" | ")


def test_the_detection_benchmark_prints_its_tables_and_draws_its_picture(scripts, tmp_path, capsys):
    scripts("matplotlib").use("Agg")
    out = scripts("detection").main(
        ["--quick", "--json", str(tmp_path / "f.json"), "--figure", str(tmp_path / "images" / "f.png")]
    )
    text = capsys.readouterr().out
    assert cells(text, "no change")[:3] == ["this package", "z-score (30, 3)", "CUSUM (.5, 5)"]
    ours, zscore = (float(x) for x in cells(text, "AR .9, t3")[:2])
    assert ours == 0.0 < 50 < zscore
    assert re.fullmatch(r"0\.0 / 1\.00 / \d+", cells(text, "step of 4, AR .9, t3")[0])
    assert cells(text, "iid")[0] == "10,000"
    written = json.loads((tmp_path / "f.json").read_text())
    assert (
        written["online"]["AR .9, t3"]["this package"]["false"]
        == out["online"]["AR .9, t3"]["this package"]["false"]
        == 0
    )
    assert 10_000 < (tmp_path / "images" / "f.png").stat().st_size < 200_000


def test_an_alarm_before_the_onset_is_false_and_spoils_the_run(scripts):
    detection, families = scripts("detection"), scripts("families")

    def make(n, seed):
        return families.Series(np.zeros(n), [families.Change(500, 1, 4.0)])

    def score(alarms):
        return detection.online(lambda series: alarms, make, 1000, 2)

    assert score([510]) == {"false": 0.0, "clean": 1.0, "delay": 10.0}
    assert score([400, 510]) == {"false": 20.0, "clean": 0.0, "delay": 10.0}
    missed = score([])
    assert (missed["false"], missed["clean"]) == (0.0, 0.0)
    assert math.isnan(missed["delay"])


def test_the_families_hold_what_their_names_say(scripts):
    families = scripts("families")
    for name, make in {**families.NULLS, **families.CHANGES}.items():
        series, again = make(3000, 3), make(3000, 3)
        assert np.array_equal(series.values, again.values, equal_nan=True), name
        assert bool(series.changes) == (name in families.CHANGES), name
    for name in ("step of 4, AR .9, t3", "width 100, 4, AR .9, t3"):
        series = families.CHANGES[name](6000, 0)
        at = series.changes[0].middle
        assert np.mean(series.values[: at - 100]) - np.mean(series.values[at + 100 :]) == pytest.approx(4.0, abs=0.6)
    assert 0.05 <= np.mean(np.isnan(families.CHANGES["5 % missing, width 100, 4"](3000, 0).values)) < 0.15
    assert families.NULLS["declared learning-rate drops"](1000, 0).declared == [400, 750]


def test_baselines_alarm_on_a_jump_and_start_again(scripts):
    baselines, families = scripts("baselines"), scripts("families")
    detection = scripts("detection")
    values = np.where(np.arange(600) < 400, np.tile([0.0, 1.0], 300), 50.0)
    for name, make in baselines.available().items():
        alarms = detection.alarms_of(make, families.Series(values))
        assert alarms, name
        assert 400 <= alarms[0] < 440, name


def test_the_fusion_benchmark_prints_both_rules_and_the_average_is_no_later(scripts, capsys, tmp_path):
    out = scripts("fusion").main(["--quick", "--json", str(tmp_path / "f.json")])
    text = capsys.readouterr().out
    assert len(re.findall(r"^\| (?:in)?dependent \| (?:average|union) \|", text, re.M)) == 4
    assert len(re.findall(r"^\| [139] \| (?:in)?dependent \|", text, re.M)) == 6
    nine = [row["median"] for row in out["delay"] if row.get("changed") == 9]
    assert all(average <= union + 1 for average, union, _ in nine)
    assert json.loads((tmp_path / "f.json").read_text())["arl"] == 10_000


def test_the_benchmark_of_segment_counts_false_changes_and_found_ones_by_length(scripts, capsys, tmp_path):
    script = scripts("segment_lengths")
    out = script.main(["--lengths", "600", "--seeds", "1", "--first", "3", "--json", str(tmp_path / "s.json")])
    assert cells(capsys.readouterr().out, "independent") == ["0.0", "0.0"]
    assert out["step of 3, AR .5"]["600"] == {
        "false": 0.0, "false_sure": 0.0, "count": 0.0, "count_sure": 0.0, "found": 1.0, "found_sure": 1.0
    }  # fmt: skip
    assert json.loads((tmp_path / "s.json").read_text())["seeds"] == [3, 4]
    jump = script.score(
        lambda n, seed: script.Series(np.arange(n) // (n // 2) * 9.0 + script.noise(n, seed)), 100, range(2)
    )
    assert jump["false"] == 100.0  # one change in each that the truth does not have


def test_the_cost_benchmark_prints_one_and_many_series(scripts, capsys):
    script = scripts("detector_cost")
    script.ROUNDS = 1
    out = script.main(["--series", "3", "--ticks", "5", "--readings", "600"])
    text = capsys.readouterr().out
    assert len(re.findall(r"^\| [13], [a-z ]+ \| [0-9.]+ ms", text, re.M)) == 3
    assert len(re.findall(r"^\| [a-z0-9, ]+ \| [0-9.]+ \([0-9.]+, [0-9.]+\) \|$", text, re.M)) == 8
    assert all(0.0 < low <= middle <= high for low, middle, high in out["segment"]["600"].values())
    assert 1000 < out["many"]["bytes"] <= 16 * 1024
    assert 0 < out["many"]["fastest"] <= out["many"]["median"]


def test_the_attention_benchmark_leaves_out_what_takes_too_long(scripts, capsys, tmp_path):
    options = ["--lengths", "64", "128", "--heads", "2", "--json", str(tmp_path / "a.json")]
    out = scripts("attention").main([*options, "--limit", "0.05"])
    assert "CPU" in out["device"]
    assert (
        len(
            re.findall(
                r"^\| (?:64|128) \| [0-9.]+ ms, [0-9.]+ MB \| [0-9.]+ ms \([0-9.]+\)", capsys.readouterr().out, re.M
            )
        )
        == 2
    )
    assert {"fused", "rows", "ln Z", "matrix"} < set(out["rows"][1])
    assert json.loads((tmp_path / "a.json").read_text())["rows"][0]["fused"]["ms"] > 0
    out = scripts("attention").main([*options, "--limit", "0"])
    assert set(out["rows"][1]) == {"length"}


def test_the_document_of_many_devices_has_the_figures_that_were_measured(scripts, capsys):
    kept = scripts("scale").main(["--from", str(BENCHMARKS / "results" / "scale_cpu.json")])
    document = (BENCHMARKS.parent / "docs" / "scale.md").read_text()
    for line in filter(None, capsys.readouterr().out.splitlines()):
        assert line in document, line
    lengths = {int(layers): of_layers["numbers"] for layers, of_layers in kept["ranks"]["vector"].items()}
    assert {n: scripts("scale").length(kept["ranks"], n, 8, 64) for n in lengths} == lengths
    ring, eight = scripts("scale").fitted(kept["ranks"]), kept["ranks"]["reduce"]["8"]
    for size, seconds in eight.items():  # to which it was not fitted
        assert 1 / 2.35 < ring.seconds(8, int(size), kept["ranks"]["cores"]) / seconds["least"] < 1.05


def test_what_goes_round_is_what_the_document_says(scripts):
    kept = json.loads((BENCHMARKS / "results" / "scale_cpu.json").read_text())
    assert scripts("scale").vector(1, steps=41)["numbers"] == kept["ranks"]["vector"]["1"]["numbers"]


def test_the_error_of_reading_a_part_is_that_of_a_sample_without_replacement(scripts):
    rng = np.random.default_rng(0)
    by_layer = 1 + 0.1 * rng.standard_normal(8)
    values = np.broadcast_to(by_layer[None, :, None], (4, 8, 2))
    found = {
        (what, part): error for what, part, error in scripts("scale").errors({"all rows": values, "64 rows": values})
    }
    assert found["ranks of one sequence", "1 of 4"] < 1e-12  # all sequences are alike here
    pairs = [by_layer[offset::4].mean() / by_layer.mean() - 1 for offset in range(4)]
    assert found["layers in rotation", "2 of 8"] == pytest.approx(math.sqrt(np.mean(np.square(pairs))))
