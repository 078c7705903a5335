"""Alerts: told once, never in the way, and never with an address in what is shown."""

import json
import logging
import math
import socket
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from thermo_monitor.cli import app
from thermo_monitor.records import Event, Reading
from thermo_monitor.sinks import AlertSink, Tick
from thermo_monitor.sinks.channels import Function, Message, NoActiveRun, TrackioRun, WandbRun, channel
from thermo_monitor.sinks.outbox import Outbox

SECRET = "hunter2-token"


def shift(n=0, **more):
    told = {"quantity": "loss/train", "phase": "generalization", "id": f"run:{n}", "message": "loss fell"}
    return Event("shift", 100 + n, 90 + n, **{**told, **more})


def message(title="t", level="warning"):
    return Message(title, "text", level, shift())


@pytest.fixture
def said(monkeypatch):
    words = []
    monkeypatch.setattr("thermo_monitor.sinks.alerts.tell", words.append)
    return words


@pytest.fixture
def server():
    """A service that takes what is posted to it, or answers with a status."""
    taken = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            taken.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(taken_with["status"])
            self.end_headers()

        def log_message(self, *args):
            pass

    taken_with = {"status": 200}
    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield SimpleNamespace(port=http.server_port, taken=taken, answer=taken_with)
    http.shutdown()
    http.server_close()


def test_an_event_is_told_once(said):
    got = []
    sink = AlertSink([got.append])
    sink.event(shift())
    sink.event(shift())
    sink.close()
    assert [e.id for e in got] == ["run:0"]
    assert said == []


@pytest.mark.parametrize(
    "left_out", [shift(level="info"), shift(phase="scheduled"), shift(details={"part_of": "run:9"})]
)
def test_what_people_need_not_know_is_not_told(left_out):
    got = []
    sink = AlertSink([got.append])
    sink.event(left_out)
    sink.close()
    assert got == []


def test_after_an_alert_the_same_kind_is_held_back_and_then_told_together():
    now, sent = [0.0], []
    sink = AlertSink([lambda e: None], "mine", clock=lambda: now[0])
    sink._outbox.put = sent.append
    for n in range(12):
        sink.event(shift(n))
    sink.event(shift(99, quantity="attn/entropy"))  # another quantity has a cooldown of its own
    sink.write(Tick(200, 0.0))
    assert [m.title for m in sent] == ["mine: generalization at step 90", "mine: generalization at step 189"]
    now[0] = 61.0
    sink.write(Tick(201, 0.0))
    assert sent[2].title == "mine: 11 more events, the last at step 101"
    assert sent[2].text.count("\n- ") == 8
    assert "and 3 more" in sent[2].text
    sink.event(shift(50))
    assert len(sent) == 3  # the digest was an alert too


def test_an_error_passes_a_cooldown_once():
    now, sent = [0.0], []
    sink = AlertSink([lambda e: None], clock=lambda: now[0])
    sink._outbox.put = sent.append
    sink.event(shift(0))
    for n in range(1, 5):
        sink.event(shift(n, level="error"))
    assert [m.level for m in sent] == ["warning", "error"]


def test_a_message_says_what_is_needed():
    sent = []
    sink = AlertSink([lambda e: None], "mine")
    sink._outbox.put = sent.append
    for step in range(120):
        sink.write(Tick(step, 0.0, [Reading(step, "loss/train", 3.0 if step < 90 else 0.1), Reading(step, "x", 1.0)]))
    sink.event(shift(evidence=12.3, onset_low=85, onset_high=95, details={"threshold": 9.2}))
    text = sent[0].text
    for expected in ("Loss fell.", "Run: mine", "step 90 [85, 95]", "Confirmed: step 100", "12.3 (alarm at 9.2)"):
        assert expected in text
    assert "What to look at: Compare validation" in text
    assert sent[0].picture.startswith(b"\x89PNG")


def test_the_picture_shows_the_onset(tmp_path):
    import numpy as np
    from matplotlib.image import imread

    from thermo_monitor.sinks.sketch import sketch

    steps = np.arange(100.0)
    (tmp_path / "x.png").write_bytes(sketch(steps, np.where(steps < 50, 1.0, 0.0), (50.0, 45.0, 55.0), 60.0))
    image = np.rint(imread(tmp_path / "x.png")[:, :, :3] * 255).astype(int)
    assert image.shape == (220, 640, 3)
    onset = np.flatnonzero((image[110] == (201, 79, 0)).all(axis=1))
    assert abs(onset.mean() - (12 + 50 / 99 * 615)) < 2
    assert sketch(steps, np.full(100, math.nan), (1, 1, 1), 2) == b""
    assert sketch(steps[:1], steps[:1], (1, 1, 1), 2) == b""


def test_through_apprise_with_a_picture(server):
    pytest.importorskip("apprise")
    sink = AlertSink([f"json://user:{SECRET}@127.0.0.1:{server.port}/hook"], "mine")
    for step in range(5):
        sink.write(Tick(step, 0.0, [Reading(step, "loss/train", 1.0 + step)]))
    sink.event(shift())
    sink.close()
    (body,) = server.taken
    posted = json.loads(body)
    assert posted["title"] == "mine: generalization at step 90"
    assert posted["type"] == "warning"
    assert posted["attachments"][0]["mimetype"] == "image/png"


def test_a_refused_message_is_tried_again_and_then_listed(server, said, monkeypatch):
    pytest.importorskip("apprise")
    server.answer["status"] = 500
    sink = AlertSink([f"json://user:{SECRET}@127.0.0.1:{server.port}/{SECRET}"], flush=10)
    sink._outbox._pause = 0.01
    sink.event(shift())
    until = time.monotonic() + 10
    while not sink._outbox.lost.failed and time.monotonic() < until:
        time.sleep(0.02)
    sink.close()
    assert len(server.taken) == 3
    assert any("could not be sent to json://..." in words for words in said)
    assert "not delivered: generalization at step 90 to json://...: it refused the message" in said[-1]
    assert SECRET not in " ".join(said)


def test_an_unreachable_host_and_one_that_never_answers_do_not_hold_anything_up(said):
    pytest.importorskip("apprise")
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen(1)  # takes the connection and says nothing
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        gone = closed.getsockname()[1]
    targets = [f"json://127.0.0.1:{silent.getsockname()[1]}", f"json://127.0.0.1:{gone}"]
    sink = AlertSink(targets, timeout=0.3, flush=1.0, cooldown=0.0)
    before = threading.active_count()
    for n in range(10_000):
        sink.event(shift(n))
    assert sink._outbox.waiting <= 64
    assert threading.active_count() - before <= 3
    time.sleep(0.5)
    started = time.monotonic()
    sink.close()
    assert time.monotonic() - started < 3.0  # the second of flushing, and what a loaded machine adds
    assert threading.active_count() - before <= 4
    assert "alerts that were not sent" in said[-1]
    assert "for which there was no room" in said[-1] or "more" in said[-1]
    silent.close()


def test_a_channel_that_hangs_gets_nothing_more_and_the_others_go_on():
    release, got = threading.Event(), []
    outbox = Outbox([Function(lambda e: release.wait(20)), Function(lambda e: got.append(e))], timeout=0.05, tries=1)
    for n in range(5):
        outbox.put(message(str(n)))
    words = outbox.close(5)
    assert len(got) == 5
    assert sum("it still does not answer" in w for w in words) == 4
    assert sum("no answer in 0.05 s" in w for w in words) == 1
    release.set()


def test_a_full_queue_lets_the_least_important_go():
    block = threading.Event()
    outbox = Outbox([Function(lambda e: block.wait(20), "info")], capacity=3, timeout=20)
    outbox.put(message("first"))
    until = time.monotonic() + 5
    while outbox.waiting and time.monotonic() < until:
        time.sleep(0.01)
    for title, level in (("a", "warning"), ("b", "info"), ("c", "error"), ("d", "warning"), ("e", "warning")):
        outbox.put(message(title, level))
    assert [m.title for m in outbox._queue] == ["c", "d", "e"]
    assert outbox.lost.dropped == 2
    block.set()
    assert outbox.close(5) == ["2 more, for which there was no room"]
    outbox.put(message("late"))  # after the end: counted, not an error


def test_a_function_that_raises_stops_nothing(said):
    got = []

    def broken(event):
        raise RuntimeError(f"cannot reach {SECRET}")

    sink = AlertSink([broken, got.append])
    sink._outbox._pause = 0.01
    sink.event(shift())
    sink.close()
    assert len(got) == 1
    assert "RuntimeError" in " ".join(said)
    assert SECRET not in " ".join(said)


@pytest.mark.parametrize("target", [f"nonsense://{SECRET}", f"{SECRET}", f"json://{SECRET}:notaport:x/", 3, None, str])
def test_a_wrong_address_is_refused_and_not_repeated(target):
    if isinstance(target, str):
        pytest.importorskip("apprise")
    with pytest.raises(ValueError, match=r"alert|apprise") as caught:
        AlertSink([target])
    assert SECRET not in "".join(traceback.format_exception(caught.value.with_traceback(None)))


def test_one_target_is_no_list():
    for wrong in ("json://x", print):
        with pytest.raises(ValueError, match="list of targets"):
            AlertSink(wrong)
    with pytest.raises(ValueError, match="least"):
        AlertSink([], least="loud")


def test_nothing_secret_is_in_checkpoints_or_in_what_is_shown(caplog):
    pytest.importorskip("apprise")
    caplog.set_level(logging.WARNING)
    sink = AlertSink([f"json://user:{SECRET}@127.0.0.1:9/{SECRET}"], flush=3)
    sink._outbox._pause = 0.01
    sink.event(shift())
    assert SECRET not in json.dumps(sink.state_dict()) + repr(sink) + repr(sink._channels)
    sink.close()
    assert SECRET not in caplog.text
    again = AlertSink([lambda e: pytest.fail("told twice")])
    again.load_state_dict(sink.state_dict())
    again.event(shift())
    again.close()


def test_a_run_of_wandb_gets_an_alert_when_it_is_active(monkeypatch):
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(NoActiveRun):
        WandbRun().send(message())
    got = []
    run = SimpleNamespace(alert=lambda **told: got.append(told))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=run))
    assert channel("wandb").send(message("x" * 100, "error"))
    assert got[0]["level"] == "ERROR"
    assert len(got[0]["title"]) < 64


def test_a_run_of_trackio_is_found_from_the_sending_thread(monkeypatch):
    import contextvars

    active = contextvars.ContextVar("run", default=None)
    got = []
    trackio = SimpleNamespace(
        AlertLevel=SimpleNamespace(INFO="info", WARN="warn", ERROR="error"),
        alert=lambda title, text, level: got.append((active.get(), level)),
    )
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    with pytest.raises(NoActiveRun):
        TrackioRun().send(message())
    active.set("mine")
    sink = AlertSink(["trackio"])
    sink.event(shift(level="error"))
    sink.close()
    assert got == [("mine", "error")]


def test_a_test_message_from_the_command_line(server):
    pytest.importorskip("apprise")
    done = CliRunner().invoke(app, ["alert-test", f"json://u:{SECRET}@127.0.0.1:{server.port}"])
    assert (done.exit_code, done.output) == (0, "json://... took the message\n")
    server.answer["status"] = 403
    done = CliRunner().invoke(app, ["alert-test", f"json://u:{SECRET}@127.0.0.1:{server.port}"])
    assert done.exit_code == 1
    assert "did not take" in done.output
    done = CliRunner().invoke(app, ["alert-test", f"nonsense://{SECRET}"])
    assert done.exit_code == 1
    assert SECRET not in done.output


def test_the_monitor_tells_and_refuses_nonsense_before_it_makes_files(tmp_path):
    import torch
    from torch import nn

    from thermo_monitor import Monitor, presets

    with pytest.raises(ValueError, match="alert"):
        Monitor(nn.Linear(2, 2), log_dir=tmp_path / "run", alerts=[3])
    assert not (tmp_path / "run").exists()
    got = []
    model = nn.Linear(2, 2)
    with Monitor(model, preset=[presets.LossProbe()], sinks=[], alerts=[got.append], strict=True) as monitor:
        for step in range(10):
            with monitor.step(step):
                monitor.loss(torch.tensor(float("nan")))
    assert [e.kind for e in got] == ["divergence"]
