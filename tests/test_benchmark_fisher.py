"""The Fisher benchmark runs, prints its table, and what it measures is right."""

import re
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_it_prints_its_table_and_our_norms_are_exact(monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    fisher = __import__("fisher")
    try:
        result = fisher.main(["--models", "small", "--rounds", "1", "--json", str(tmp_path / "f.json")])
    finally:
        del sys.modules["fisher"]
    table = result["models"]["small"]
    assert table["all examples"]["error"] < 1e-5
    assert table["torch.func"]["error"] < 1e-5
    assert 0.9 < table["all examples"]["covered"] < 1
    text = capsys.readouterr().out
    for way in ("all examples", "a quarter of them", "norm layers only", "Adam proxy", "torch.func"):
        assert re.search(rf"^\| {re.escape(way)} \| \d+\.\d+ \(", text, re.M), way
    assert (tmp_path / "f.json").read_text().startswith("{")


def test_what_is_compared_with_is_not_needed(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    fisher = __import__("fisher")
    monkeypatch.setattr(fisher.util, "find_spec", lambda name: None)
    try:
        (setting,) = fisher.settings(["small"])
        assert "BackPACK" not in fisher.ways(setting)
    finally:
        del sys.modules["fisher"]


@pytest.mark.parametrize("library", ["backpack", "curvlinops"])
def test_a_model_that_a_library_cannot_take_is_said_to_be_unsupported(library, monkeypatch):
    pytest.importorskip(library)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    fisher = __import__("fisher")
    try:
        (setting,) = fisher.settings(["small"])
        with pytest.raises(NotImplementedError):
            getattr(fisher, library)(setting)
    finally:
        del sys.modules["fisher"]
