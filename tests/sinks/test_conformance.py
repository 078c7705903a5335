"""Every sink goes through the same: a new one is added to the list and has no test of its own to write for this."""

import io
import math
import subprocess
import sys

import numpy as np
import pytest

from thermo_monitor import sinks
from thermo_monitor.records import Event, Reading
from thermo_monitor.sinks import AlertSink, ConsoleSink, Frame, JsonlSink, MemorySink, TensorBoardSink, Tick, read_jsonl

MAKE = {
    "alerts": lambda path: AlertSink([lambda event: None]),
    "console": lambda path: ConsoleSink(io.StringIO()),
    "jsonl": lambda path: JsonlSink(path / "run.jsonl"),
    "memory": lambda path: MemorySink(),
    "tensorboard": lambda path: TensorBoardSink(path / "run"),
    "tensorboard with layers": lambda path: TensorBoardSink(path / "run", layers=(0, 7)),
}
EVENT = Event("shift", 3, 2, message="größer → ein |\n\x1b[31m\udcff \N{FIRE}", quantity="größe/länge")


def check(sink):
    """The life of a sink with everything that a run may hand to it."""
    sink.event(EVENT)  # before any tick
    sink.write(Tick(4, 0.0))
    nan, inf = math.nan, math.inf
    readings = [
        Reading(5, "loss/train", nan, reason="non_finite"),
        Reading(5, "loss/train", inf, error=inf),
        Reading(5, "attn/entropy", np.float64(1e300), error=nan),
        Reading(5, "größe/länge", -inf, layer=0),
        Reading(4, "attn/entropy", 1.0, layer=0, head=0),
        Reading(2**40, "attn/entropy", 1, layer=7),
    ]
    frames = [
        Frame(5, "attn/entropy", np.full((2, 3), nan), ("größe", "b")),
        Frame(5, "attn/reduced_temperature", np.array([[0.0, -1.0], [inf, 1e300]])),
        Frame(5, "größe/länge", np.array([[-inf, inf, 1e30]], np.float32)),
        Frame(5, "attn/n_eff", np.zeros((0, 4))),
        Frame(5, "attn/n_eff", np.zeros((1, 1)), ("again",)),
    ]
    sink.write(Tick(5, 1.0, readings, frames))
    sink.write(Tick(5, 1.0, readings, frames))  # the same step again
    sink.event(EVENT)
    sink.event(Event("divergence", 5, 5, evidence=inf, level="error", details={"x": [nan, {"y": inf}], "ä": None}))
    for step in range(6, 60):
        sink.write(Tick(step, float(step), readings[2:3], frames[:1]))
    sink.close()
    sink.close()


@pytest.mark.parametrize("name", MAKE)
def test_a_sink_takes_whatever_a_run_hands_to_it(name, tmp_path):
    check(MAKE[name](tmp_path))


@pytest.mark.parametrize("name", MAKE)
def test_a_sink_that_heard_nothing_can_be_closed(name, tmp_path):
    sink = MAKE[name](tmp_path)
    sink.close()
    sink.close()


@pytest.mark.parametrize("name", MAKE)
def test_what_is_handed_over_is_not_changed(name, tmp_path):
    sink, values = MAKE[name](tmp_path), np.array([[1.0, math.nan, -5.0]])
    kept = values.copy()
    sink.write(Tick(0, 0.0, (Reading(0, "attn/entropy", 1.0),), (Frame(0, "attn/reduced_temperature", values),)))
    sink.close()
    np.testing.assert_array_equal(values, kept)


def test_the_check_can_fail():
    class Fragile(MemorySink):
        def close(self):
            del self.readings

    with pytest.raises(AttributeError):
        check(Fragile())


def test_no_sink_is_left_out(tmp_path):
    checked = {type(make(tmp_path)) for make in MAKE.values()}
    public = {getattr(sinks, name) for name in sinks.__all__ if name.endswith("Sink") and name != "Sink"}
    assert checked == public


def test_jsonl_kept_all_of_it(tmp_path):
    check(MAKE["jsonl"](tmp_path))
    run = read_jsonl(tmp_path / "run.jsonl")
    assert run.skipped == 0
    assert len(run.readings) == 12 + 54
    assert len(run.frames) == 10 + 54
    assert [e.message for e in run.events[:2]] == [EVENT.message] * 2


def test_importing_the_package_loads_none_of_the_heavy_ones():
    code = (
        "import sys, thermo_monitor.sinks\n"
        "heavy = {'torch', 'tensorboard', 'matplotlib', 'rich', 'tensorflow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from thermo_monitor.sinks import TensorBoardSink, Tick\n"
        "from thermo_monitor.records import Event, Reading\n"
        "import tempfile\n"
        "sink = TensorBoardSink(tempfile.mkdtemp())\n"
        "sink.write(Tick(0, 0.0, [Reading(0, 'loss/train', 1.0)])); sink.event(Event('shift', 0, 0)); sink.close()\n"
        "heavy = {'torch', 'matplotlib', 'tensorflow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_not_there_says_so():
    with pytest.raises(AttributeError, match="no attribute 'CarrierPigeonSink'"):
        _ = sinks.CarrierPigeonSink
