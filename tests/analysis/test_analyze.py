"""``thermo-monitor analyze`` as it is called."""

import csv
import json

import pytest
import torch
from typer.testing import CliRunner

from tests.analysis.decoders import Decoder, sentences
from thermo_monitor.analysis.catalogue import ANALYSES
from thermo_monitor.cli import app

BUILD = "tests.analysis.decoders:Decoder"


def saved(path, seed):
    torch.manual_seed(seed)
    torch.save({"state_dict": Decoder().state_dict()}, path)
    return str(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    path = tmp_path_factory.mktemp("analyze")
    rows = sentences(12, 8).tolist()
    (path / "prompts.txt").write_text("\n".join(" ".join(map(str, row)) for row in rows))
    saved(path / "a.ckpt", 0), saved(path / "b.ckpt", 1)
    return path


def called(place, *options, model="a.ckpt", prompts="prompts.txt"):
    arguments = ["analyze", str(place / model), "--prompts", str(place / prompts), *options]
    return CliRunner().invoke(app, arguments)


def test_everything_is_written(place, tmp_path):
    done = called(
        place, "--model", BUILD, "--against", str(place / "b.ckpt"), "--context", "12", "--out", str(tmp_path / "found")
    )
    assert done.exit_code == 0, done.output
    assert f"{len(ANALYSES)} of {len(ANALYSES)} analyses" in done.output
    for name in ANALYSES:
        said = json.loads((tmp_path / "found" / f"{name}.json").read_text(), parse_constant=pytest.fail)
        assert said["undefined"] is None
        assert said["equal_length"] == {"tokens": 8, "prompts": 12}
        assert (tmp_path / "found" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        with (tmp_path / "found" / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(said["table"])
        assert not any(cell.startswith(("=", "@")) for row in rows for cell in row.values())
    models = json.loads((tmp_path / "found" / "models.json").read_text())
    (pair,) = models["table"]
    assert 0 < pair["sup_mean"] <= pair["tv_mean"] <= 1


def test_only_some(place, tmp_path):
    done = called(place, "--model", BUILD, "--only", "gain,layers", "--only", "sentences", "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert sorted(p.stem for p in tmp_path.glob("*.json")) == ["gain", "layers", "sentences"]
    listed = CliRunner().invoke(app, ["analyze", "--list"])
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(ANALYSES)


def test_what_one_analysis_cannot_do_stops_no_other(place, tmp_path):
    (place / "one.txt").write_text("1 2 3\n")
    done = called(place, "--model", BUILD, "--out", str(tmp_path), "--only", "mixtures,gain", prompts="one.txt")
    assert done.exit_code == 0, done.output
    assert "1 of 2 analyses" in done.output
    assert "at least 2 prompts" in json.loads((tmp_path / "mixtures.json").read_text())["undefined"]
    assert not (tmp_path / "mixtures.csv").exists()
    nothing = called(place, "--model", BUILD, "--out", str(tmp_path), "--only", "mixtures", prompts="one.txt")
    assert nothing.exit_code == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--only", "entropie"), "there is no analysis 'entropie'"),
        ((), "--model module:Class"),
        (("--model", "nothing:Nobody"), "makes no model"),
        (("--model", BUILD, "--against", "missing.ckpt"), "is not on this disk"),
        (("--model", BUILD, "--tokenizer", "missing"), "has no tokenizer"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(place, tmp_path, options, words):
    done = called(place, "--out", str(tmp_path), *options)
    assert done.exit_code == 1
    assert words in " ".join(done.output.split())
    assert "Traceback" not in done.output


def test_prompts_that_are_wrong(place, tmp_path):
    (place / "empty.txt").write_text("\n")
    (place / "high.txt").write_text("1 2\n3 99\n")
    (place / "long.txt").write_text(" ".join(["1"] * 40) + "\n")
    for name, words in (
        ("empty.txt", "has no prompts"),
        ("high.txt", "the token 99"),
        ("long.txt", "context_exceeded"),
    ):
        done = called(place, "--model", BUILD, "--context", "12", "--out", str(tmp_path), prompts=name)
        assert done.exit_code == 1
        assert words in " ".join(done.output.split())
    assert CliRunner().invoke(app, ["analyze"]).exit_code == 2
    (tmp_path / "file").write_text("")
    done = called(place, "--model", BUILD, "--only", "gain", "--out", str(tmp_path / "file"))
    assert done.exit_code == 1
    assert "cannot write" in done.output
