import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread

from thermo_monitor.records import PHASES, Event, Reading
from thermo_monitor.report import draw
from thermo_monitor.report_events import PHASE_COLOUR, arrange
from thermo_monitor.sinks import JsonlSink, MemorySink, Tick, read_jsonl

KEYS = ("loss/train", "opt/gradient_norm", "attn/entropy_fraction", "attn/reduced_temperature")


def record(events=(), curves=None, n=300, keys=KEYS):
    readings = [Reading(s, k, 0.5 + 0.1 * np.sin(s / 30)) for s in range(n) for k in keys]
    return SimpleNamespace(readings=readings, events=list(events), curves=curves or {})


def coloured(image, colour):
    """Columns of the picture that hold a pixel of exactly this colour, in the middle of its height."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    middle = image[200:750, :, :3]
    return np.flatnonzero((np.abs(middle - rgb) < 0.01).all(axis=2).sum(axis=0) > 100)


def test_the_picture_has_the_promised_size(tmp_path):
    path = tmp_path / "new" / "run.png"
    draw({"a": record(), "b": record()}, path)
    assert imread(path).shape[:2] == (900, 1400)
    assert path.stat().st_size < 300_000


def test_an_event_is_a_line_at_its_onset_in_the_colour_of_its_phase(tmp_path):
    path = tmp_path / "run.png"
    event = Event("shift", 180, 150, phase="generalization", onset_low=140, onset_high=160)
    draw({"a": record([event], n=301)}, path)
    columns = coloured(imread(path), PHASE_COLOUR["generalization"])
    assert columns.size
    middle = 1400 * (0.065 + 0.935) / 2
    assert np.abs(columns - middle).min() < 2
    draw({"a": record([], n=301)}, path)
    assert not coloured(imread(path), PHASE_COLOUR["generalization"]).size


def test_phases_have_colours_of_their_own():
    assert set(PHASE_COLOUR) == set(PHASES)
    assert len(set(PHASE_COLOUR.values())) == len(PHASES)


def ink(path):
    """How many pixels the curve has in each fifth of the width of the strips."""
    image = imread(path)[:, :, :3]
    dark = (image < 0.25).all(axis=2)[200:780, 91:1309]
    return [int(part.sum()) for part in np.array_split(dark, 5, axis=1)]


@pytest.mark.parametrize("n", [300, 30_000])
def test_a_curve_has_a_gap_where_nothing_valid_was_read(tmp_path, n):
    value = [np.nan if 0.4 * n < s < 0.6 * n else 0.5 for s in range(n)]
    for name, values in (("whole", [0.5] * n), ("gap", value)):
        readings = [Reading(s, "attn/entropy_fraction", v) for s, v in enumerate(values)]
        draw({"run": SimpleNamespace(readings=readings, events=[])}, tmp_path / f"{name}.png")
    whole, gap = ink(tmp_path / "whole.png"), ink(tmp_path / "gap.png")
    assert gap[2] < 0.2 * whole[2]
    assert gap[0] == whole[0]


@pytest.mark.parametrize(
    "run",
    [
        MemorySink(),
        record(keys=("loss/train",), n=1),
        record(keys=("out/predictive_entropy",)),
        record([Event("shift", 0, 0), Event("excursion", 5, 5, level="info")], n=0),
        SimpleNamespace(
            readings=[Reading(s, "loss/train", v) for s, v in enumerate((np.nan, np.inf, -1.0))], events=[]
        ),
        record(curves={"accuracy": ([], []), "größe": (np.arange(5), np.full(5, np.nan))}),
    ],
    ids=["empty", "one point", "nothing drawn", "events alone", "no finite value", "empty curves"],
)
@pytest.mark.parametrize("log_steps", [False, True])
def test_whatever_is_missing_a_picture_comes_out(tmp_path, run, log_steps):
    draw({"gap": run, "full": record()}, tmp_path / "run.png", log_steps=log_steps)
    assert imread(tmp_path / "run.png").shape[:2] == (900, 1400)


def test_memory_and_file_give_the_same_picture(tmp_path):
    memory, file = MemorySink(), JsonlSink(tmp_path / "run.jsonl")
    for sink in (memory, file):
        for step in range(100):
            sink.write(Tick(step, 0.0, [Reading(step, k, 1.0 + step / 7) for k in KEYS]))
        sink.event(Event("drift", 60, 40, "up", onset_low=30, onset_high=50))
        sink.close()
    draw({"r": memory}, tmp_path / "a.png")
    draw({"r": read_jsonl(tmp_path / "run.jsonl")}, tmp_path / "b.png")
    np.testing.assert_array_equal(imread(tmp_path / "a.png"), imread(tmp_path / "b.png"))


def test_many_events_are_drawn_in_time(tmp_path):
    events = [Event("shift", s + 3, s, phase=PHASES[s % 6], evidence=float(s)) for s in range(0, 300, 5)]
    draw({"a": record(events)}, tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size < 300_000


def spans(labels, placed):
    return [(s, s + w, s, n) if right else (s - w, s, s, n) for (s, w), (n, right) in zip(labels, placed, strict=True)]


def test_names_cover_neither_one_another_nor_a_stem():
    arranged = 0
    for seed in range(40):
        labels = [(float(x), 120.0) for x in np.random.default_rng(seed).uniform(0, 600, 4)]
        placed = arrange(labels, 0, 600)
        if placed is None:
            continue
        arranged += 1
        found = spans(labels, placed)
        for i, (left, right, _, lane) in enumerate(found):
            assert left >= 0
            assert right <= 600
            for j, (other_left, other_right, stem, other_lane) in enumerate(found):
                if i != j and lane == other_lane:
                    assert right <= other_left or other_right <= left
                if i != j and other_lane > lane:
                    assert not left < stem < right
    assert arranged > 30


def test_names_step_back_from_the_right_edge():
    placed = arrange([(70, 40), (80, 40), (95, 40)], 0, 100)
    assert placed is not None
    assert [lane for lane, _ in placed] == [0, 1, 2]


def test_too_many_names_have_no_arrangement():
    assert arrange([(50.0, 60.0)] * 4, 0, 100) is None
    assert arrange([], 0, 100) == []


def test_no_run_and_no_place_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no run to draw"):
        draw({}, tmp_path / "x.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write"):
        draw({"a": record()}, tmp_path / "file" / "x.png")


def test_neither_pyplot_nor_torch_is_touched(tmp_path):
    code = (
        "import sys, thermo_monitor.report as r\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from thermo_monitor.sinks import MemorySink\n"
        f"r.draw({{'a': MemorySink()}}, {str(tmp_path / 'x.png')!r})\n"
        "loaded = {'matplotlib.pyplot', 'torch'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
