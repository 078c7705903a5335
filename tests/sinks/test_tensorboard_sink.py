"""Everything is read back with TensorBoard's own loaders."""

import json
import math
import re
import struct
import sys
import types
from itertools import pairwise

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary
from tensorboard.util.tensor_util import make_ndarray

from thermo_monitor.records import Event, Reading
from thermo_monitor.sinks import Frame, TensorBoardSink, Tick

STREAMS = ("scalars", "images", "text", "thermo_monitor", "thermo_monitor_heads", "thermo_monitor_series")


def load(path):
    accumulator = EventAccumulator(str(path), tensor_size_guidance=dict.fromkeys(STREAMS, 0))
    accumulator.Reload()
    return accumulator


def tensors(path, tag):
    return [(t.step, make_ndarray(t.tensor_proto)) for t in load(path).Tensors(tag)]


def scalars(path, tag):
    return [(t.step, float(make_ndarray(t.tensor_proto))) for t in load(path).Tensors(tag)]


def records(path):
    return [event for file in sorted(path.iterdir()) for event in LegacyEventFileLoader(str(file)).Load()]


def raw_values(path):
    """(step, summary value) of every file of the run, in the order of writing."""
    return [(event.step, value) for event in records(path) for value in event.summary.value]


def tick(step, readings=None, frames=None):
    readings = {"loss/train": 0.5} if readings is None else readings
    return Tick(
        step,
        1e9 + step,
        [Reading(step, q, v) for q, v in readings.items()],
        [Frame(step, q, v, tuple(f"block.{i}" for i in range(len(v)))) for q, v in (frames or {}).items()],
    )


def shift(step, **kw):
    return Event(**{"kind": "shift", "step": step, "onset": step - 5, "id": f"r:{step}", "wall": 1e9 + step, **kw})


def test_scalars_of_a_tick_are_one_record_with_their_wall_time(tmp_path):
    sink = TensorBoardSink(tmp_path)
    sink.write(tick(3, {"loss/train": 0.1, "attn/entropy": 1.5}))
    sink.close()
    events = [e for e in records(tmp_path) if e.HasField("summary")]
    assert len(events) == 2  # the other one has what the chunks held when the sink was closed
    assert events[0].wall_time == 1e9 + 3
    assert {v.tag for v in events[0].summary.value} == {
        "thermo/loss/train",
        "thermo/attn/entropy",
        "thermo/detect/regime",
        "custom_scalars__config__",
    }
    loaded = load(tmp_path)
    assert loaded.Tags()["tensors"]
    metadata = loaded.SummaryMetadata("thermo/attn/entropy")
    assert metadata.plugin_data.plugin_name == "scalars"
    assert "(unit: nats)" in metadata.summary_description
    assert scalars(tmp_path, "thermo/loss/train") == [(3, pytest.approx(0.1))]


def test_nan_is_left_out_and_infinity_is_not(tmp_path):
    sink = TensorBoardSink(tmp_path)
    for step, value in enumerate((1.0, math.nan, math.inf, 1e300)):
        sink.write(tick(step, {"loss/train": value}))
    sink.close()
    assert scalars(tmp_path, "thermo/loss/train") == [(0, 1.0), (2, math.inf), (3, math.inf)]


def test_layers_get_scalars_only_when_asked_for(tmp_path):
    heads = np.array([[1.0, 3.0], [5.0, math.nan], [math.nan, math.nan]])
    readings = [Reading(0, "attn/entropy", 9.0, layer=0), Reading(0, "attn/entropy", 7.0, layer=0, head=1)]
    for layers, expected in (((), {}), ((0, 1, 2, 9), {"L00": 9.0, "L01": 5.0})):
        path = tmp_path / str(len(layers))
        sink = TensorBoardSink(path, layers=layers)
        sink.write(Tick(0, 0.0, readings, [Frame(0, "attn/entropy", heads)]))
        sink.close()
        found = {v.tag.rpartition("/")[2]: v.simple_value for _, v in raw_values(path) if "/L" in v.tag}
        assert found == expected


def test_frames_are_float16_bytes_and_the_first_has_the_metadata(tmp_path):
    values = np.array([[0.1, 0.2, math.nan], [0.3, 1.0, 0.0]])
    sink = TensorBoardSink(tmp_path)
    sink.write(tick(0, {}, {"attn/specific_heat_norm": values}))
    sink.write(tick(10, {}, {"attn/specific_heat_norm": values / 2}))
    sink.close()
    stored = tensors(tmp_path, "heads/attn/specific_heat_norm")
    assert [step for step, _ in stored] == [0, 10]
    assert stored[0][1].dtype == np.float16
    np.testing.assert_array_equal(stored[0][1], values.astype(np.float16))
    written = [v for _, v in raw_values(tmp_path) if v.tag.startswith("heads/")]
    assert [len(v.tensor.tensor_content) for v in written] == [12, 12]
    assert not written[0].tensor.half_val
    assert [v.HasField("metadata") for v in written] == [True, False]  # a loader keeps those of the first
    metadata = load(tmp_path).SummaryMetadata("heads/attn/specific_heat_norm")
    assert metadata.plugin_data.plugin_name == "thermo_monitor_heads"
    assert metadata.data_class == DATA_CLASS_TENSOR
    assert json.loads(metadata.plugin_data.content) == {
        "schema": 1,
        "quantity": "attn/specific_heat_norm",
        "unit": "1",
        "scale": "linear",
        "layers": ["block.0", "block.1"],
        "range": [0.0, 1.0],
    }


def test_log_quantities_are_stored_as_decimal_logarithms(tmp_path):
    values = np.array([[1e9, 1e-9, 0.0, -1.0, math.nan]])
    sink = TensorBoardSink(tmp_path)
    sink.write(tick(0, {}, {"attn/reduced_temperature": values, "attn/max_logit": np.array([[1e9, -math.inf]])}))
    sink.close()
    ((_, stored),) = tensors(tmp_path, "heads/attn/reduced_temperature")
    np.testing.assert_array_equal(stored, [[9.0, -9.0, math.nan, math.nan, math.nan]])
    content = json.loads(load(tmp_path).SummaryMetadata("heads/attn/reduced_temperature").plugin_data.content)
    assert (content["scale"], content["range"]) == ("log10", None)
    ((_, clipped),) = tensors(tmp_path, "heads/attn/max_logit")
    np.testing.assert_array_equal(clipped, [[65504.0, -65504.0]])


def test_the_interval_of_frames_doubles_when_full(tmp_path):
    sink = TensorBoardSink(tmp_path, max_frames=4)
    for step in range(20):
        sink.write(tick(step, {}, {"attn/entropy": np.full((1, 2), float(step))}))
    sink.close()
    stored = tensors(tmp_path, "heads/attn/entropy")
    assert [step for step, _ in stored] == [0, 1, 2, 3, 4, 6, 8, 12, 16]
    assert all(grid[0, 0] == step for step, grid in stored)


def decode(png):
    from io import BytesIO

    from matplotlib.image import imread

    return imread(BytesIO(png), format="png")


def test_pictures_come_at_events_and_at_the_end_only(tmp_path):
    sink = TensorBoardSink(tmp_path)
    grid = np.array([[0.0, 0.5, 1.0], [math.nan, 0.2, 0.9]])
    for step in range(0, 50, 10):
        sink.write(tick(step, {}, {"attn/entropy": grid}))
        if step == 20:
            sink.event(shift(20))
            sink.event(shift(20))  # nothing new to draw
    sink.close()
    pictures = [(step, v.image) for step, v in raw_values(tmp_path) if v.HasField("image")]
    assert [step for step, _ in pictures] == [20, 40]
    image = pictures[0][1]
    assert (image.height, image.width) == (80, 120)
    assert decode(image.encoded_image_string).shape[:2] == (80, 120)
    loaded = load(tmp_path)
    assert loaded.SummaryMetadata("thermo/heads/attn/entropy").plugin_data.plugin_name == "images"


def test_no_tensor_frame_is_due_and_still_the_last_one_is_drawn(tmp_path):
    sink = TensorBoardSink(tmp_path, max_frames=2)
    for step in range(4):
        sink.write(tick(step, {}, {"attn/entropy": np.full((1, 1), float(step))}))
    sink.close()
    assert [s for s, v in raw_values(tmp_path) if v.HasField("image")] == [3]


def test_events_are_a_rolling_vector_of_json(tmp_path):
    sink, found = TensorBoardSink(tmp_path), []
    for n in range(40):
        sink.write(tick(n * 10))
        found.append(shift(n * 10, message=f"größer {n}"))
        sink.event(found[-1])
        vectors = tensors(tmp_path, "events")  # there at once, before the sink is closed
        assert vectors[-1][0] == n * 10
        read = [Event.from_json(t.decode()) for t in vectors[-1][1]]
        assert [e.id for e in read] == [e.id for e in found[-32:]]
    assert read[-1].message == "größer 39"
    ((step, texts),) = tensors(
        tmp_path, "events/0000"
    )  # thirty-two of them once more, where no sampling takes them away
    assert step == 310
    assert [Event.from_json(t.decode()).id for t in texts] == [e.id for e in found[:32]]
    metadata = load(tmp_path).SummaryMetadata("events")
    assert metadata.plugin_data.plugin_name == "thermo_monitor"
    assert metadata.data_class == DATA_CLASS_TENSOR
    sink.close()


def test_the_table_holds_what_people_should_see(tmp_path):
    sink = TensorBoardSink(tmp_path)
    sink.event(shift(10, kind="excursion", level="info", quantity="loss/train"))
    assert "thermo/events" not in load(tmp_path).Tags()["tensors"]
    sink.event(shift(20, phase="generalization", direction="up", quantity="a|b", evidence=8.13, onset_low=12))
    sink.event(shift(30, phase="scheduled", level="info"))
    sink.close()
    loaded = load(tmp_path)
    assert loaded.SummaryMetadata("thermo/events").plugin_data.plugin_name == "text"
    table = tensors(tmp_path, "thermo/events")[-1][1][0].decode().splitlines()
    assert table[0].startswith("| step | onset [low, high] | kind | phase |")
    assert table[2].startswith("| *30* | *25* | *shift* | *scheduled* |")
    assert table[3].startswith("| 20 | 15 [12, ?] | shift | generalization | a\\|b | up | 8.1 | Compare validation")
    assert len(table) == 4
    assert tensors(tmp_path, "events")[-1][1].shape == (3,)


def test_regime_counts_the_shifts_that_nobody_scheduled(tmp_path):
    sink = TensorBoardSink(tmp_path)
    for step in range(4):
        sink.write(tick(step))
        if step == 1:
            sink.event(shift(1, kind="excursion"))
            sink.event(shift(1, phase="scheduled"))
            sink.event(shift(1))
    sink.event(shift(3))
    sink.close()
    assert scalars(tmp_path, "thermo/detect/regime") == [(0, 0.0), (1, 0.0), (2, 1.0), (3, 1.0), (4, 2.0)]


def test_steps_rise_strictly_in_every_tag_whatever_comes(tmp_path):
    sink = TensorBoardSink(tmp_path, layers=(0,))
    frames = {"attn/entropy": np.ones((1, 2))}
    rng = np.random.default_rng(0)
    for step in (0, 5, 5, 3, 10, 11, 11, 12):
        sink.write(tick(step, {"loss/train": 1.0, "attn/entropy": 2.0}, frames))
        for _ in range(int(rng.integers(4))):
            sink.event(shift(step + int(rng.integers(-20, 3))))
    sink.close()
    steps = {}
    for step, value in raw_values(tmp_path):
        steps.setdefault(value.tag, []).append(step)
    assert len(steps) == 11
    for tag, found in steps.items():
        assert all(a < b for a, b in pairwise(found)), (tag, found)
    assert steps["thermo/loss/train"] == [0, 5, 10, 11, 12]


def test_a_late_reading_carries_the_step_of_writing_and_yields_to_a_fresh_one(tmp_path):
    sink = TensorBoardSink(tmp_path)
    sink.write(Tick(20, 0.0, [Reading(10, "loss/train", 1.0)]))
    sink.write(Tick(30, 0.0, [Reading(30, "loss/train", 3.0), Reading(20, "loss/train", 2.0)]))
    sink.close()
    assert scalars(tmp_path, "thermo/loss/train") == [(20, 1.0), (30, 3.0)]


def test_the_state_is_plain_json_and_the_next_process_goes_on(tmp_path):
    first = TensorBoardSink(tmp_path / "a", max_frames=4)
    for step in range(6):
        first.write(tick(step, None, {"attn/entropy": np.full((1, 2), float(step))}))
    first.event(shift(5, evidence=math.nan, details={"before": math.inf}))
    state = json.loads(json.dumps(first.state_dict(), allow_nan=False))
    second = TensorBoardSink(tmp_path / "b", max_frames=4)
    second.load_state_dict(state)
    assert second.state_dict() == first.state_dict()
    for step in range(5, 10):  # step 5 was written before
        second.write(tick(step, None, {"attn/entropy": np.full((1, 2), float(step))}))
    second.event(shift(9))
    second.close()
    first.close()
    assert [s for s, _ in scalars(tmp_path / "b", "thermo/loss/train")] == [6, 7, 8, 9]
    assert scalars(tmp_path / "b", "thermo/detect/regime")[:1] == [(6, 1.0)]
    ((_, vector),) = tensors(tmp_path / "b", "events")
    assert [Event.from_json(t.decode()).id for t in vector] == ["r:5", "r:9"]
    assert [s for s, _ in tensors(tmp_path / "b", "heads/attn/entropy")] == [5, 7]  # the seventh frame and the ninth


def test_number_of_tags_is_the_documented_one(tmp_path):
    from thermo_monitor.quantities import REGISTRY

    keys = list(REGISTRY)
    sink = TensorBoardSink(tmp_path)
    sink.write(tick(0, dict.fromkeys(keys[:20], 1.0), {q: np.ones((4, 12)) for q in keys[:7]}))
    sink.event(shift(0))
    sink.close()
    tags = {v.tag for _, v in raw_values(tmp_path)}
    assert len([tag for tag in tags if tag.startswith("series/")]) == 20  # which no stock dashboard lists
    assert len(tags) - 20 == 20 + 2 * 7 + 4 < 40


def test_no_file_before_the_first_word(tmp_path):
    sink = TensorBoardSink(tmp_path / "run")
    sink.write(Tick(0, 0.0))
    sink.close()
    assert list((tmp_path / "run").iterdir()) == []


def test_torch_writer_gets_our_values_beside_its_own_and_stays_open(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="needs torch")
    writer = tensorboard.SummaryWriter(tmp_path)
    sink = TensorBoardSink(writer=writer)
    writer.add_scalar("loss", 1.0, 0)
    sink.write(tick(0, {"loss/train": 2.0}, {"attn/entropy": np.ones((2, 2))}))
    sink.event(shift(0))
    sink.close()
    writer.add_scalar("loss", 3.0, 1)
    writer.close()
    assert len(list(tmp_path.iterdir())) == 1
    assert scalars(tmp_path, "loss") == [(0, 1.0), (1, 3.0)]
    assert scalars(tmp_path, "thermo/loss/train") == [(0, 2.0)]
    assert len(tensors(tmp_path, "events")) == len(tensors(tmp_path, "heads/attn/entropy")) == 1


def test_closing_after_the_owner_closed_opens_no_second_file(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="needs torch")
    writer = tensorboard.SummaryWriter(tmp_path)
    sink = TensorBoardSink(writer=writer)
    sink.write(tick(0, {}, {"attn/entropy": np.ones((2, 2))}))
    writer.close()
    sink.close()
    assert len(list(tmp_path.iterdir())) == 1


class FakeWriter:
    """The part of a SummaryWriter that is used, with a class of summaries of its own as tensorboardX has."""

    def __init__(self, accepts):
        self.accepts, self.got, self.flushed, self.all_writers = accepts, [], 0, {}

    def _get_file_writer(self):
        return self

    def add_summary(self, summary, global_step=None, walltime=None):
        if type(summary) is not self.accepts:
            raise TypeError(f"expected {self.accepts}, got {type(summary)}")
        self.got.append((summary, global_step, walltime))

    def flush(self):
        self.flushed += 1


class TheirSummary:
    """Stands for the generated class of another package: made from bytes alone."""

    @classmethod
    def FromString(cls, data):
        made = cls()
        made.parsed = Summary.FromString(data)
        return made


def test_tensorboardx_gets_the_summary_in_its_own_classes(monkeypatch):
    module = types.ModuleType("tensorboardX.proto.summary_pb2")
    module.Summary = TheirSummary
    for name in ("tensorboardX", "tensorboardX.proto"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "tensorboardX.proto.summary_pb2", module)
    fake = type("SummaryWriter", (FakeWriter,), {"__module__": "tensorboardX.writer"})(TheirSummary)
    sink = TensorBoardSink(writer=fake)
    sink.write(tick(7, {"loss/train": 0.25}, {"attn/entropy": np.ones((1, 1))}))
    sink.event(shift(7))
    (first, step, wall), (second, *_) = fake.got
    assert (step, wall) == (7, 1e9 + 7)
    assert first.parsed.value[0].simple_value == 0.25
    assert first.parsed.value[1].metadata.data_class == DATA_CLASS_TENSOR
    assert second.parsed.value[0].tag == "events"
    assert fake.flushed == 1
    plain = FakeWriter(TheirSummary)  # the same refusal without the translation
    with pytest.raises(TypeError, match="expected"):
        TensorBoardSink(writer=plain).write(tick(0))


def test_a_function_may_give_the_writer_later():
    fake, box = FakeWriter(Summary), [None]
    sink = TensorBoardSink(writer=lambda: box[0])
    sink.write(tick(0))
    sink.event(shift(0))
    box[0] = fake
    sink.write(tick(1))
    assert [(step, s.value[0].tag) for s, step, _ in fake.got] == [
        (0, "thermo/loss/train"),
        (0, "events"),
        (1, "thermo/loss/train"),
    ]
    sink.close()
    assert fake.flushed == 1


def test_a_writer_that_never_comes_costs_little(tmp_path):
    sink = TensorBoardSink(writer=lambda: None)
    for step in range(1100):
        sink.write(tick(step))
    assert len(sink._writer._waiting) == 1000
    sink.close()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "exactly one of log_dir and writer"),
        ({"log_dir": "x", "writer": print}, "exactly one of log_dir and writer"),
        ({"writer": "runs/x"}, "writer is 'str'; give a SummaryWriter"),
        ({"writer": print, "namespace": "/"}, "give a word such as 'thermo'"),
        ({"writer": print, "max_frames": 1}, "at least 2 frames"),
    ],
)
def test_wrong_configuration_says_what_would_be_right(kwargs, message):
    with pytest.raises(ValueError, match=message):
        TensorBoardSink(**kwargs)


def test_an_unwritable_directory_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to .*file/run: .*directory that can be made"):
        TensorBoardSink(tmp_path / "file" / "run")


def test_a_disk_error_reaches_the_caller(tmp_path, monkeypatch):
    import threading

    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    sink = TensorBoardSink(tmp_path)
    sink.write(tick(0))
    sink._writer.flush()

    def full(data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sink._writer._file._async_writer._writer, "write", full)
    with pytest.raises(OSError, match="No space left"):
        sink.event(shift(0))


def test_float16_bytes_are_little_endian():
    from thermo_monitor.sinks.summaries import grid, heads_metadata, stored

    value = grid("t", stored("attn/entropy", np.array([[1.0]])), heads_metadata("attn/entropy", ()))
    assert value.tensor.tensor_content == struct.pack("<e", 1.0)


def test_a_step_between_two_full_ones_is_left_out(tmp_path):
    with_all = TensorBoardSink(tmp_path)
    for step in range(6):
        with_all.write(Tick(step, 0.0, [Reading(step, "loss/train", 1.0)], full=step % 3 == 0))
    with_all.close()
    assert [step for step, _ in scalars(tmp_path, "thermo/loss/train")] == [0, 3]


def test_the_stock_dashboard_of_custom_scalars_finds_the_curves_that_belong_together(tmp_path):
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    sink = TensorBoardSink(tmp_path)
    for step in range(3):
        sink.write(tick(step, {"loss/train": 0.1, "opt/gradient_norm": 1.0, "opt/weight_norm": 1.0}))
    sink.close()
    ((_, content),) = tensors(tmp_path, "custom_scalars__config__")  # once
    layout = Layout.FromString(content.item())
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert charts["loss"] == ["^thermo/loss/train$"]
    tags = {v.tag for _, v in raw_values(tmp_path)}
    assert [t for t in sorted(tags) if any(re.match(p, t) for p in charts["norms"])] == [
        "thermo/opt/gradient_norm",
        "thermo/opt/weight_norm",
    ]
    metadata = load(tmp_path).SummaryMetadata("custom_scalars__config__")
    assert metadata.plugin_data.plugin_name == "custom_scalars"


@pytest.mark.parametrize("theirs", [False, True])
def test_a_writer_that_was_given_gets_the_layout_unless_it_has_one(tmp_path, theirs):
    from torch.utils.tensorboard import SummaryWriter

    for _ in range(2):  # the second time in a directory that has one
        writer = SummaryWriter(tmp_path)
        if theirs:
            writer.add_custom_scalars({"mine": {"chart": ["Multiline", ["a"]]}})
        sink = TensorBoardSink(writer=writer)
        for step in range(2):
            sink.write(tick(step, {"loss/train": 0.1}))
        sink.close()
        writer.close()
    layouts = [v for _, v in raw_values(tmp_path) if v.tag == "custom_scalars__config__"]
    assert len(layouts) == (2 if theirs else 1)
    assert all((b"mine" in v.tensor.string_val[0]) is theirs for v in layouts)


def test_a_layout_waits_for_a_writer_that_does_not_exist_yet(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    made = []
    sink = TensorBoardSink(writer=lambda: made[0] if made else None)
    sink.write(tick(0, {"loss/train": 0.1}))
    made.append(SummaryWriter(tmp_path))
    sink.write(tick(1, {"loss/train": 0.1}))
    sink.close()
    made[0].close()
    assert [s for s, v in raw_values(tmp_path) if v.tag == "custom_scalars__config__"] == [1]


def test_every_number_is_kept_in_chunks(tmp_path):
    sink = TensorBoardSink(tmp_path)
    for step in range(250):
        sink.write(Tick(step, 1e9 + step, [Reading(step, "loss/train", step / 7)], full=step % 10 == 0))
        if step == 130:
            sink.event(shift(130, level="warning"))
    sink.close()
    chunks = tensors(tmp_path, "series/loss/train")
    assert [(step, len(points)) for step, points in chunks] == [(99, 100), (130, 31), (230, 100), (249, 19)]
    points = np.concatenate([points for _, points in chunks])
    steps = np.arange(250.0)
    np.testing.assert_array_equal(points, np.stack([steps, 1e9 + steps, steps / 7], 1))
