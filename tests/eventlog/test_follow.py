"""Event files: read as TensorBoard reads them, while they grow, and where they are damaged."""

import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event as TensorBoardEvent
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from tests import logs
from thermo_monitor.eventlog import framing
from thermo_monitor.eventlog.follow import EventFile
from thermo_monitor.eventlog.runs import Log, find


def record(step, value=1.0, tag="loss", wall=None):
    payload = TensorBoardEvent(
        step=step,
        wall_time=1e9 + step if wall is None else wall,
        summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]),
    ).SerializeToString()
    length = struct.pack("<Q", len(payload))
    return length + struct.pack("<I", masked_crc32c(length)) + payload + struct.pack("<I", masked_crc32c(payload))


def steps(file, tag="loss"):
    return [int(s) for s in file.columns[tag].steps] if tag in file.columns else []


def write(path, *parts):
    path.write_bytes(b"".join(parts))
    file = EventFile(path)
    file.read()
    return file


@given(st.binary(max_size=64))
def test_the_checksum_is_that_of_tensorboard(data):
    assert framing.checksum(data) == masked_crc32c(data)


def test_it_reads_what_tensorboard_reads(tmp_path):
    logs.known(tmp_path / "run", last=300)
    reference = EventAccumulator(str(tmp_path / "run"), {"scalars": 0, "tensors": 0})
    reference.Reload()
    (log,) = find(str(tmp_path))
    log.read()
    curves = log.curves()
    scalars = reference.Tags()["scalars"]
    assert scalars
    assert set(scalars) == set(curves)
    for tag in scalars:
        points = reference.Scalars(tag)
        assert curves[tag][0].tolist() == [p.step for p in points]
        assert curves[tag][1].tolist() == [p.value for p in points]
    assert log.problems == []
    assert log.torn == 0


def test_numbers_that_were_written_as_tensors(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        for step in range(5):
            writer.add_scalar("loss", 0.5 * step, step, new_style=True)
            writer.add_text("words", "none of our business", step)
    (log,) = find(str(tmp_path))
    log.read()
    assert log.curves()["loss"][1].tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert list(log.curves()) == ["loss"]


def test_events_of_the_monitor_are_all_there(tmp_path):
    logs.many(tmp_path / "many", count=200)
    (log,) = find(str(tmp_path))
    log.read()
    assert [e.id for e in log.events] == [f"run:{n}" for n in range(200)]


def test_a_growing_file_is_read_further_and_a_half_record_waited_for(tmp_path):
    path = tmp_path / "events.out.tfevents.1"
    whole = [record(n) for n in range(50)]
    data = b"".join(whole)
    file = EventFile(path)
    path.write_bytes(b"")
    assert not file.read()
    seen = 0
    for end in range(0, len(data) + 1, 7):
        path.write_bytes(data[:end])
        file.read()
        assert len(steps(file)) >= seen
        seen = len(steps(file))
    path.write_bytes(data)
    file.read()
    assert steps(file) == list(range(50))
    assert file.problems == []
    assert not file.read()
    path.write_bytes(data + record(50)[:20])
    file.read()
    assert file.torn == 20


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    path = tmp_path / "events.out.tfevents.1"
    file = write(path, *[record(n) for n in range(10)])
    path.write_bytes(record(3))
    assert file.read()
    assert steps(file) == [3]
    assert "replaced" in file.problems[0]


@pytest.mark.parametrize("length", [10 * 2**30, 2**63, 7])
def test_a_length_that_was_corrupted_costs_one_record(tmp_path, length):
    bad = bytearray(record(1))
    bad[:8] = struct.pack("<Q", length)
    file = write(tmp_path / "f", record(0), bytes(bad), *[record(n) for n in range(2, 9)])
    assert steps(file) == [0, *range(2, 9)]
    assert "belong to no record" in file.problems[0]


def test_a_length_of_ten_gigabytes_with_its_checksum_is_waited_for_and_nothing_is_allocated(tmp_path):
    length = struct.pack("<Q", 10 * 2**30)
    file = write(tmp_path / "f", record(0), length, struct.pack("<I", masked_crc32c(length)), b"x" * 100)
    assert steps(file) == [0]
    assert file.torn == 112


def test_a_payload_that_was_corrupted_is_left_out_and_told(tmp_path):
    bad = bytearray(record(1))
    bad[12:20] = b"\xff" * 8
    file = write(tmp_path / "f", record(0), bytes(bad), record(2))
    assert steps(file) == [0, 2]
    assert "its checksum is wrong" in file.problems[0]


@pytest.mark.parametrize(
    "junk", [b"", b"\0", b"no event file at all " * 400, os.urandom(100_000)], ids=["empty", "zero", "text", "random"]
)
def test_files_that_are_none_are_answered_with_a_message(tmp_path, junk):
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(junk)
    (log,) = find(str(tmp_path))
    log.read()
    assert log.curves() == {}
    assert log.events == []
    assert bool(log.problems) or len(junk) < 12


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nothing_behind_a_damaged_place_is_lost(tmp_path_factory, data):
    whole = [record(n, tag="abc"[n % 3] * 4) for n in range(30)]
    at = data.draw(st.integers(0, 29))
    body = bytearray(whole[at])
    for _ in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(0, 11))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(body)))
    whole[at] = bytes(body[:cut])
    file = write(tmp_path_factory.mktemp("x") / "f", *whole)
    found = sorted(int(s) for c in file.columns.values() for s in c.steps)
    assert [s for s in found if s != at] == [n for n in range(30) if n != at]


def test_a_resumed_run_is_read_once(tmp_path):
    for number, span in enumerate((range(0, 900, 50), range(650, 1200, 50))):
        payload = [record(s, float(number), wall=1e6 * number + s) for s in span]
        (tmp_path / f"events.out.tfevents.{number}").write_bytes(b"".join(payload))
    (log,) = find(str(tmp_path))
    log.read()
    found, values = log.curves()["loss"]
    assert found.tolist() == list(range(0, 1200, 50))
    assert values.tolist() == [float(s >= 650) for s in range(0, 1200, 50)]


def test_runs_are_found_where_they_are(tmp_path):
    logs.scalars(tmp_path / "a", {"x": [(0, 1.0)]})
    logs.scalars(tmp_path / "b" / "c", {"x": [(0, 1.0)]})
    (tmp_path / "a" / "thermo.jsonl").write_text("")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "metrics.csv").write_text("step,loss\n1,2\n")
    assert [log.name for log in find(str(tmp_path))] == ["a", "b/c", "d/metrics.csv"]
    with pytest.raises(ValueError, match="does not exist"):
        find(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match=r"cannot be read|does not exist|fsspec"):
        find("memory://nowhere/at/all")


def test_a_remote_directory_is_read_further(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/runs/a/events.out.tfevents.1", record(0) + record(1))
    (log,) = find("memory://runs")
    assert log.read()
    memory.pipe("/runs/a/events.out.tfevents.1", record(0) + record(1) + record(2))
    assert log.read()
    assert not log.read()
    assert log.curves()["loss"][0].tolist() == [0, 1, 2]
    memory.rm("/runs", recursive=True)


def test_text_files_of_any_program(tmp_path):
    (tmp_path / "a.csv").write_bytes("\ufeffepoch,step,train_loss,größe\n0,10,1.5,\n0,x,2,3\n1,30,nan,4\n".encode())
    (tmp_path / "b.jsonl").write_text(
        '{"step": 1, "loss": {"train": 2}}\nnonsense\n[1]\n{"step": 2, "loss": {"train": 1e999}}\n{"ste'
    )
    a, b = find(str(tmp_path))
    for log in (a, b):
        log.read()
    assert {k: v[1].tolist() for k, v in a.curves().items() if k == "größe"} == {"größe": [4.0]}
    assert a.problems == ["a.csv: 1 rows without a step"]
    assert b.curves()["loss/train"][0].tolist() == [1, 2]
    assert b.problems == ["b.jsonl: 2 lines could not be read"]


def test_our_own_text_file_has_readings_and_events(tmp_path):
    from thermo_monitor.records import Reading
    from thermo_monitor.sinks import JsonlSink, Tick

    sink = JsonlSink(tmp_path / "thermo.jsonl")
    for step in range(4):
        sink.write(Tick(step, 0.0, [Reading(step, "loss/train", float("nan") if step == 2 else 1.0)]))
    sink.event(logs.EVENTS[0])
    sink.close()
    (log,) = find(str(tmp_path))
    log.read()
    np.testing.assert_array_equal(log.curves()["thermo/loss/train"][1], [1.0, 1.0, np.nan, 1.0])
    assert [e.id for e in log.events] == ["run:0"]


def test_a_log_travels_to_another_process(tmp_path):
    import pickle

    logs.scalars(tmp_path, {"x": [(0, 1.0)]})
    (log,) = find(str(tmp_path))
    there = pickle.loads(pickle.dumps(log))
    assert isinstance(there, Log)
    there.read()
    assert list(there.curves()) == ["x"]
