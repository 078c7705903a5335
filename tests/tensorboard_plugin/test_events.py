"""Events from tensors: all of them, each once, none that was taken back."""

import csv
import io
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.logs import EVENTS
from thermo_monitor import spreadsheet
from thermo_monitor.records import Event
from thermo_monitor.tensorboard_plugin import curves, events, wire


@dataclass
class Datum:
    step: int
    wall_time: float
    numpy: object


def datum(found, step=0, wall=0.0):
    return Datum(step, wall, np.array([e.to_json().encode() for e in found], dtype=object))


def number(n, **more):
    return replace(Event("shift", 10 * n + 5, 10 * n, id=f"run:{n}"), **more)


def test_repeated_events_are_listed_once_and_by_onset():
    first, second = number(0, onset=50), number(1)
    found = events.collect({"events": [datum([first], wall=1), datum([first, second], wall=2)]})
    assert [e.id for e in found] == ["run:1", "run:0"]


def test_full_vectors_of_their_own_fill_what_sampling_took():
    all_of = [number(n) for n in range(70)]
    tags = {
        "events": [datum(all_of[38:], wall=9)],
        "events/0000": [datum(all_of[:32], wall=1)],
        "events/0001": [datum(all_of[32:64], wall=2)],
    }
    assert [e.id for e in events.collect(tags)] == [f"run:{n}" for n in range(70)]


def test_what_a_resumed_run_did_not_find_again_is_gone():
    before, after = [number(n) for n in range(6)], [number(n) for n in range(3)] + [number(3, message="again")]
    found = events.collect({"events": [datum(before, step=900, wall=1), datum(after, step=700, wall=2)]})
    assert [e.id for e in found] == [f"run:{n}" for n in range(4)]
    assert found[3].message == "again"


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b'{"kind":1}', b'{"kind":"shift","step":"x","onset":1}', b"\xff\xfe",
             b"[" * 5000, b'{"kind":"shift","step":1,"onset":1,"details":[]}',
             b'{"kind":"shift","step":1e99,"onset":1}']
)  # fmt: skip
def test_what_is_no_event_is_left_out(text):
    good = number(0)
    vector = Datum(0, 0.0, np.array([text, good.to_json().encode()], dtype=object))
    assert [e.id for e in events.collect({"events": [vector]})] == ["run:0"]


def test_a_table_cannot_start_a_formula():
    evil = replace(EVENTS[0], message="=cmd|' /C calc'!A0", quantity="@sum", details={"before": "-1+2", "after": 1.0})
    rows = list(csv.reader(io.StringIO(events.table({"+run": [events.told(evil)]}))))
    assert rows[0] == list(events.COLUMNS)
    assert all(not cell.startswith(("=", "+", "@", "\t")) for cell in rows[1])
    assert rows[1][rows[0].index("before")] == "'-1+2"
    assert rows[1][rows[0].index("onset")] == "300"


@pytest.mark.parametrize("text", ["=1", "+1", "-x", "@a", "\t=1", "\r=1", " =1", "\n=1", '=a"b', "=a,b"])
def test_no_text_starts_a_formula(text):
    (row,) = csv.reader(io.StringIO(spreadsheet.cell(text), newline=""))
    assert row[0].startswith("'")


def test_points_that_were_done_again_are_replaced():
    data = [type("D", (), {"step": s, "wall_time": w, "value": v}) for s, w, v in
            [(0, 0, 1.0), (10, 1, 2.0), (20, 2, 3.0), (10, 3, 9.0), (15, 4, 8.0)]]  # fmt: skip
    steps, _, values = curves.columns(data)
    assert steps.tolist() == [0, 10, 15]
    assert values.tolist() == [1.0, 9.0, 8.0]
    assert curves.columns([])[0].size == 0


def test_arrays_come_back_as_they_were():
    import json

    arrays = [np.arange(3.0), np.array([[1.5, np.nan]], np.float16), np.zeros(0)]
    data = wire.pack({"x": "größe"}, arrays)
    length = int.from_bytes(data[:4], "little")
    head = json.loads(data[4 : 4 + length])
    assert head["x"] == "größe"
    for place, array in zip(head["arrays"], arrays, strict=True):
        back = np.frombuffer(data, place["type"], array.size, 4 + length + place["at"]).reshape(place["shape"])
        np.testing.assert_array_equal(back, array)
