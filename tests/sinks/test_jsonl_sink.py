import json
import math
import os

import numpy as np
import pytest

from thermo_monitor.records import Event, Reading
from thermo_monitor.sinks import Frame, JsonlSink, Tick, read_jsonl

READINGS = [
    Reading(7, "loss/train", 0.1 + 0.2),
    Reading(7, "attn/entropy", math.nan, reason="n_lt_2"),
    Reading(7, "opt/gradient_norm", math.inf),
    Reading(7, "repr/spectral_entropy", 0.5, error=0.01),
    Reading(7, "attn/entropy", 1.5, layer=2),
    Reading(7, "attn/entropy", 2.5, layer=2, head=1),
    Reading(5, "attn/specific_heat", 0.25),
]
EVENT = Event("shift", 7, 5, "up", "attn/entropy", 8.1, "generalization", "größer → sharper\nsecond line", 4, 6, "r:1")


def tick(step, value=1.0):
    return Tick(step, 0.0, [Reading(step, "loss/train", value)])


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "new" / "deep" / "run.jsonl"
    values = np.array([[1.0, math.nan, -math.inf], [1e-9, 65_504.5, 1 / 3]])
    sink = JsonlSink(path)
    sink.write(Tick(7, 12.5, READINGS, [Frame(7, "attn/entropy", values, ("ä.attn", "b"))]))
    sink.event(EVENT)
    sink.close()
    run = read_jsonl(path)
    assert sorted(map(repr, run.readings)) == sorted(map(repr, READINGS))
    assert run.events == [EVENT]
    assert run.frames[0].layers == ("ä.attn", "b")
    np.testing.assert_allclose(run.frames[0].values, values, rtol=1e-6)
    assert run.skipped == 0


def test_every_line_is_strict_json_of_the_documented_type(tmp_path):
    path = tmp_path / "run.jsonl"
    sink = JsonlSink(path)
    sink.write(Tick(7, 12.5, READINGS, [Frame(7, "attn/entropy", np.array([[math.nan]]))]))
    sink.event(EVENT)

    def refuse(name):
        raise AssertionError(name)

    parsed = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert [p["type"] for p in parsed] == ["run", "tick", "frame", "event"]
    assert parsed[0]["schema"] == 1
    assert parsed[1]["values"]["attn/entropy"] is None
    assert parsed[1]["reasons"] == {"attn/entropy": "n_lt_2"}
    assert parsed[1]["errors"] == {"repr/spectral_entropy": 0.01}


def test_a_tick_is_one_write_and_is_there_at_once(tmp_path, monkeypatch):
    path, sizes, real = tmp_path / "run.jsonl", [], os.write

    def spy(fd, data):
        sizes.append(bytes(data))
        return real(fd, data)

    monkeypatch.setattr(os, "write", spy)
    sink = JsonlSink(path)
    for step in range(5):
        sink.write(tick(step))
        assert [r.step for r in read_jsonl(path).readings] == list(range(step + 1))
    assert len(sizes) == 6
    assert all(s.endswith(b"\n") and s.count(b"\n") == 1 for s in sizes)
    sink.write(
        Tick(5, 0.0, [Reading(5, "loss/train", 1.0)], [Frame(5, key, np.ones((1, 2))) for key in ("a/b", "a/c")])
    )
    assert len(sizes) == 7
    assert [json.loads(line)["type"] for line in sizes[-1].splitlines()] == ["tick", "frame", "frame"]


def test_reopening_appends_after_a_torn_line(tmp_path):
    path = tmp_path / "run.jsonl"
    sink = JsonlSink(path)
    sink.write(tick(0))
    sink.close()
    with path.open("ab") as file:
        file.write(b'{"type":"tick","step":1,"va')
    before = path.read_bytes()
    sink = JsonlSink(path)
    sink.write(tick(2))
    sink.close()
    assert path.read_bytes().startswith(before + b"\n")
    run = read_jsonl(path)
    assert [r.step for r in run.readings] == [0, 2]
    assert run.skipped == 1


def test_a_resumed_run_replaces_the_steps_that_it_repeats(tmp_path):
    path = tmp_path / "run.jsonl"
    for first, last, value in ((0, 10, 1.0), (6, 12, 2.0)):
        sink = JsonlSink(path)
        for step in range(first, last):
            sink.write(tick(step, value))
            if step == 8:
                sink.event(Event("shift", 8, 7, id=f"r:{value}"))
        sink.close()
    run = read_jsonl(path)
    assert [(r.step, r.value) for r in run.readings] == [(s, 1.0 if s < 6 else 2.0) for s in range(12)]
    assert [e.id for e in run.events] == ["r:2.0"]


def test_corrupt_lines_are_counted_and_skipped(tmp_path):
    path = tmp_path / "run.jsonl"
    sink = JsonlSink(path)
    sink.write(tick(0))
    junk = [
        b"\xff\xfe\x00garbage",
        b"[1,2]",
        b"3",
        b'{"no":"type"}',
        b'{"type":"later"}',
        b'{"type":"tick","step":1,"values":{"loss/train":"much"}}',
        b'{"type":"tick","step":Infinity,"values":{}}',
        b'{"type":"frame","step":1,"quantity":"q","layers":[],"values":[[1],[1,2]]}',
        b'{"type":"event","kind":"shift"}',
    ]
    with path.open("ab") as file:
        file.write(b"\n".join(junk) + b"\n\n")
    sink.write(tick(9))
    run = read_jsonl(path)
    assert [r.step for r in run.readings] == [0, 9]
    assert run.skipped == len(junk)


def test_frames_are_thinned_unless_all_are_wanted(tmp_path):
    for limit, expected in ((4, [0, 1, 2, 3, 4, 6, 8]), (None, list(range(10)))):
        path = tmp_path / f"{limit}.jsonl"
        sink = JsonlSink(path, max_frames=limit)
        for step in range(10):
            sink.write(Tick(step, 0.0, [], [Frame(step, "attn/entropy", np.ones((1, 1)))]))
        sink.close()
        assert [f.step for f in read_jsonl(path).frames] == expected


def test_an_unwritable_place_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to .*file/run\.jsonl: .*directory that can be made"):
        JsonlSink(tmp_path / "file" / "run.jsonl")
    with pytest.raises(ValueError, match="is a directory"):
        JsonlSink(tmp_path)


def test_a_full_disk_is_an_os_error_and_the_next_line_is_whole(tmp_path, monkeypatch):
    path, real = tmp_path / "run.jsonl", os.write
    sink = JsonlSink(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, data[:10]))
        with pytest.raises(OSError, match="only 10 of"):
            sink.write(tick(0))
    sink.write(tick(1))
    run = read_jsonl(path)
    assert [r.step for r in run.readings] == [1]
    assert run.skipped == 1
    sink.close()
    with pytest.raises(ValueError, match="closed"):
        sink.write(tick(2))
