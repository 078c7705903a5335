"""The tab's requests, with a provider that is no TensorBoard, and with both of TensorBoard's loaders."""

import argparse
import gzip
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboard.plugins import base_plugin
from werkzeug.test import Client

from tests import logs
from tests.sinks.test_tensorboard_provider import serve_fast, serve_python
from thermo_monitor.records import KINDS, PHASES, Event, Reading
from thermo_monitor.sinks import TensorBoardSink, Tick
from thermo_monitor.tensorboard_plugin import assets, checkpoints, words
from thermo_monitor.tensorboard_plugin import plugin as plugin_module
from thermo_monitor.tensorboard_plugin.listing import EVENTS, HEADS, Found
from thermo_monitor.tensorboard_plugin.loader import SAMPLES, FirstLoader, Loader
from thermo_monitor.tensorboard_plugin.plugin import FIRST, ThermoPlugin

LOADERS = pytest.mark.parametrize("serve", [serve_python, serve_fast])
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


class Tab:
    """What a browser sees of the plugin."""

    def __init__(self, provider, logdir=""):
        self.plugin = ThermoPlugin(base_plugin.TBContext(data_provider=provider, logdir=str(logdir)))
        self.apps = self.plugin.get_plugin_apps()

    def get(self, path, question=None, method="get", **arguments):
        route = "/static/*" if path.startswith("/static/") else path
        if question is not None:
            arguments["q"] = json.dumps(question)
        answer = getattr(Client(self.apps[route]), method)(path, query_string=arguments)
        data = gzip.decompress(answer.data) if answer.headers.get("Content-Encoding") == "gzip" else answer.data
        return SimpleNamespace(status=answer.status_code, data=data, json=lambda: json.loads(data))


def installed_entry_point():
    """The entry point as it is installed; skips where the package was installed before there was one."""
    from importlib import metadata

    found = [p for p in metadata.entry_points(group="tensorboard_plugins") if p.name == "thermo_monitor"]
    if not found:
        pytest.skip("thermo-monitor was installed before it had a tab: pip install -e . again")
    return found[0]


class Empty:
    """A provider without any data."""

    def __getattr__(self, name):
        return lambda *args, **kwargs: {}


@pytest.fixture
def open_tab():
    ingesters = []

    def start(serve, directory, ready, samples=None):
        ingester = serve(directory, samples)
        ingesters.append(ingester)
        tab = Tab(ingester.data_provider, directory)
        until = time.monotonic() + 20
        while not ready(tab) and time.monotonic() < until:
            time.sleep(0.1)
        return tab

    yield start
    for ingester in ingesters:
        if hasattr(ingester, "_stdin_handle"):
            ingester._stdin_handle.close()


def unpack(data):
    length = int.from_bytes(data[:4], "little")
    head = json.loads(data[4 : 4 + length])
    arrays = [
        np.frombuffer(data, a["type"], int(np.prod(a["shape"])), 4 + length + a["at"]).reshape(a["shape"])
        for a in head["arrays"]
    ]
    return head, arrays


@LOADERS
def test_runs_curves_frames_and_events(tmp_path, serve, open_tab):
    logs.known(tmp_path / "known", last=400, events=logs.EVENTS[:1])
    tab = open_tab(serve, tmp_path, lambda t: "known" in t.get("/events").json()["events"])
    state = tab.get("/state").json()
    (run,) = state["runs"]
    assert (run["name"], run["monitored"], run["newer"], run["step"]) == ("known", True, False, 390)
    assert "thermo/loss/train" in [state["tags"][n] for n in run["tags"]]
    assert run["heads"][0]["layers"][0] == "model.layers.0.attn"
    assert tab.get("/state", token=state["token"]).json() == {"token": state["token"], "unchanged": True}
    (event,) = tab.get("/events").json()["events"]["known"]
    assert (event["onset"], event["onset_low"], event["step"]) == (300, 280, 360)
    assert event["advice"].startswith("Compare training")
    head, (steps, walls, values) = unpack(
        tab.get("/series", {"runs": ["known", "none"], "tags": ["thermo/loss/train"]}).data
    )
    assert head["curves"] == [{"run": "known", "tag": "thermo/loss/train"}]
    assert steps.tolist() == list(range(0, 400, 10))
    assert values[0] == pytest.approx(logs.values(0)["loss/train"], rel=1e-6)
    assert len(walls) == len(steps)
    _, (steps, frames) = unpack(
        tab.get("/frames", {"run": "known", "tag": "heads/attn/specific_heat_norm", "after": 350}).data
    )
    assert steps[-1] == 390  # how many of the others are there is TensorBoard's affair: this one keeps ten by itself
    assert (steps > 350).all()
    assert frames.shape == (len(steps), 6, 8)
    assert np.isnan(frames[:, 1, 2]).all()


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    directory = tmp_path_factory.mktemp("log")
    logs.many(directory / "many")
    return directory


@LOADERS
@pytest.mark.parametrize("samples", ["as TensorBoard has it", "one"])
def test_of_a_thousand_events_all_are_listed(many, serve, samples, open_tab):
    """Neither helper asks for more samples than TensorBoard keeps by itself: ten of a tag at random, or a hundred."""
    tab = open_tab(serve, many, lambda t: len(t.get("/events").json()["events"].get("many", ())) == 1000)
    if samples == "one":
        provider = tab.plugin._provider
        read = provider.read_tensors
        provider.read_tensors = lambda *a, **k: read(*a, **{**k, "downsample": 1})
    found = tab.get("/events").json()["events"]["many"]
    assert [e["id"] for e in found] == [f"run:{n}" for n in range(1000)]
    table = tab.get("/events.csv", {"runs": ["many"]}).data.decode()
    assert table.count("\r\n") == 1001


@LOADERS
def test_a_curve_has_all_its_points_though_the_loader_keeps_a_few(tmp_path, serve, open_tab):
    sink = TensorBoardSink(tmp_path / "long")
    for step in range(3050):
        sink.write(Tick(step, 1e9 + step, [Reading(step, "loss/train", step / 3)]))
    sink.event(Event("shift", 3049, 3000, id="run:0"))  # found last, so all before it was read
    sink.close()
    tab = open_tab(serve, tmp_path, lambda t: "long" in t.get("/events").json()["events"], SAMPLES)
    question = {"runs": ["long"], "tags": ["thermo/loss/train", "thermo/detect/regime"]}
    head, arrays = unpack(tab.get("/series", question).data)
    at = [curve["tag"] for curve in head["curves"]].index("thermo/loss/train")
    steps, walls, values = arrays[3 * at : 3 * at + 3]
    np.testing.assert_array_equal(steps, np.arange(3050))
    np.testing.assert_array_equal(values, np.arange(3050) / 3)
    np.testing.assert_array_equal(walls, 1e9 + np.arange(3050))


@LOADERS
def test_changes_are_found_in_a_log_that_the_monitor_never_wrote(tmp_path, serve, open_tab):
    logs.plain(tmp_path / "plain")
    tab = open_tab(serve, tmp_path, lambda t: t.get("/state").json()["runs"])
    assert tab.get("/events").json()["events"] == {}
    (event,) = tab.get("/events", {"runs": ["plain"]}).json()["events"]["plain"]
    assert abs(event["onset"] - 600) <= 2
    assert {event["quantity"], *event["details"]["also"]} == {"train/loss", "val/accuracy"}
    again = tab.get("/events", {"runs": ["plain"]}).json()["events"]["plain"]
    assert again == [event]
    assert len(tab.plugin._plain._known) == 1


@LOADERS
@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\x00",
        b"random bytes that are no record at all" * 9,
        (10 * 2**30).to_bytes(8, "little") + b"1234" + b"x" * 64,
    ],
)
def test_damaged_files_hide_nothing_else(tmp_path, serve, junk, open_tab):
    logs.known(tmp_path / "known", last=100, events=())
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "events.out.tfevents.1.x").write_bytes(junk)
    tab = open_tab(serve, tmp_path, lambda t: t.get("/state").json()["runs"])
    assert [run["name"] for run in tab.get("/state").json()["runs"]] == ["known"]
    assert tab.get("/events", {"runs": ["bad"]}).json() == {"events": {}}


def test_a_growing_run_is_looked_at_again_but_not_all_the_time(monkeypatch):
    from thermo_monitor.tensorboard_plugin import plain

    now, looks = [0.0], []

    def detect(log, run, tags):
        looks.append(now[0])
        now[0] += 2.0  # it takes two seconds
        return [{"look": len(looks)}]

    monkeypatch.setattr(plain, "_detect", detect)
    detector = plain.Plain(clock=lambda: now[0])
    for step in range(100):
        found = Found(["loss"], step=step, mark=[("loss", step, 0.0)])
        (event,) = detector.events(None, {"run": found})["run"]
        now[0] += 1.0
    assert looks == [0.0, 42.0, 84.0]
    assert event == {"look": 3}
    detector.events(None, {"run": found})
    assert len(looks) == 3


def test_an_empty_log_is_answered():
    tab = Tab(Empty())
    assert tab.get("/state").json()["runs"] == []
    assert tab.get("/events", {"runs": ["x"]}).json() == {"events": {}}
    assert unpack(tab.get("/series", {"runs": ["x"], "tags": ["y"]}).data) == ({"curves": [], "arrays": []}, [])
    assert unpack(tab.get("/frames", {"run": "x", "tag": "y"}).data)[1][0].size == 0


@pytest.mark.parametrize("path", ["/series", "/frames", "/events", "/events.csv"])
@pytest.mark.parametrize(
    "question", ["{", "[]", '{"runs": "x"}', '{"runs": [1]}', "[" * 100_000, '{"run": 1}', "x" * 300_000]
)
def test_a_question_that_makes_no_sense_is_refused_in_words(path, question):
    answer = Tab(Empty()).get(path, q=question)
    if answer.status != 200:  # /events.csv and /events do not look at "run"
        assert answer.status == 400
        assert "error" in answer.json()
    else:
        assert question == '{"run": 1}'


def test_only_reading_is_answered():
    assert Tab(Empty()).get("/state", method="post").status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/static/../plugin.py",
        "/static/..%2fplugin.py",
        "/static//etc/passwd",
        "/static/",
        "/static/x.js",
        "/static/./index.js",
        "/static/static/../../plugin.py",
    ],
)
def test_no_path_leads_out_of_the_list_of_files(path):
    assert Tab(Empty()).get(path).status == 404


def test_the_page_is_served_and_needs_nothing_from_elsewhere():
    tab = Tab(Empty())
    names = list(tab.plugin._files)
    assert {"index.js", "onward.js", "style.css", "uPlot.iife.min.js", "uPlot.LICENSE.txt"} <= set(names)
    for name in names:
        answer = tab.get(f"/static/{name}")
        assert answer.status == 200
        if not name.startswith("uPlot"):
            assert b"http://" not in answer.data
            assert b"https://" not in answer.data
            for forbidden in (b"innerHTML", b"outerHTML", b"insertAdjacentHTML", b"document.write", b"eval("):
                assert forbidden not in answer.data, f"{name}: {forbidden}"


def test_the_page_stays_small():
    sent = Tab(Empty()).plugin._files
    assert sum(len(content) for name, (content, _) in sent.items() if name.endswith(".js")) <= 60_000


def test_scripts_can_be_sent_as_one():
    """No name is given twice, each module is there once and after those that it imports, and nothing else is left."""
    folder = Path(plugin_module.__file__).parent / "static"
    texts = {file.name: file.read_text() for file in folder.glob("*.js") if file.name not in assets.ALONE}
    names = [
        n
        for text in texts.values()
        for n in re.findall(r"^(?:export )?(?:async )?(?:const|let|function|class) (\w+)", text, re.M)
    ]
    assert len(names) == len(set(names)) > 100
    one = assets.joined(texts, assets.ENTRY)
    order = re.findall(r"^// (\w+\.js)$", one, re.M)
    assert sorted(order) == sorted(texts)
    for name, text in texts.items():
        imported = re.findall(r'from "\./([\w.]+)"', text)
        assert all(order.index(other) < order.index(name) for other in imported)
    assert "import " not in re.sub(r"^(//.*|.*\".*import.*)$", "", one, flags=re.M)
    assert re.findall(r"^export .*", one, re.M) == ["export async function render() {"]
    with pytest.raises(ValueError, match=r"no module none\.js"):
        assets.joined({"a.js": 'import { b } from "./none.js";\n'}, "a.js")


def test_phases_have_a_sign_and_a_colour_in_both_schemes():
    text = (Path(plugin_module.__file__).parent / "static" / "look.js").read_text()
    for phase in PHASES:
        assert len(re.findall(rf"^  {phase}: ", text, re.M)) == 3, phase
    assert set(words.PHASES) == set(PHASES)
    assert set(words.KINDS) == set(KINDS)


@pytest.mark.parametrize(
    ("run", "kind"),
    [
        ("..", "shift"),
        ("/etc", "shift"),
        ("run", "../../x"),
        ("run/../..", "shift"),
        ("r\0", "shift"),
        ("link", "shift"),
    ],
)
def test_no_checkpoint_is_looked_for_outside_of_the_log(tmp_path, run, kind):
    root = tmp_path / "logs"
    for folder in (tmp_path, root / "run", root):
        (folder / "thermo_checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "thermo_checkpoints" / "step=1-shift-scheduled.ckpt").write_text("")
    (root / "link").symlink_to(tmp_path)
    event = {"step": 1, "kind": kind, "phase": "scheduled"}
    assert checkpoints.saved(str(root), run, event) is None
    found = checkpoints.saved(str(root), "run", {**event, "kind": "shift"})
    assert found == "run/thermo_checkpoints/step=1-shift-scheduled.ckpt"


def test_the_users_own_samples_are_respected():
    flags = argparse.Namespace(samples_per_plugin={"thermo_monitor": 7, "images": 3})
    Loader().fix_flags(flags)
    assert flags.samples_per_plugin == {**SAMPLES, "thermo_monitor": 7, "images": 3}
    flags = argparse.Namespace(samples_per_plugin=None)
    Loader().fix_flags(flags)
    assert flags.samples_per_plugin["thermo_monitor_heads"] == 500


@pytest.mark.parametrize(
    ("data", "first", "last"), [((), 0, 0), (("scalars",), 0, 1), ((EVENTS, "scalars"), 1, 0), ((HEADS,), 1, 0)]
)
def test_the_tab_comes_first_where_the_monitor_wrote_the_log(data, first, last):
    provider = SimpleNamespace(list_plugins=lambda ctx, experiment_id: list(data))
    flags = SimpleNamespace(thermo_first="true")
    context = base_plugin.TBContext(data_provider=provider, flags=flags, plugin_name_to_instance={})
    tabs = [loader().load(context) for loader in (Loader, FirstLoader)]
    context.plugin_name_to_instance.update({tab.plugin_name: tab for tab in tabs})

    def shown(tab):  # as TensorBoard asks
        return bool(set(tab.data_plugin_names()) & set(data)) or tab.is_active()

    assert [shown(tab) for tab in tabs] == [last, first]
    assert FIRST.isdigit()  # JavaScript lists such names before all others
    assert tabs[0].get_plugin_apps().keys() == tabs[1].get_plugin_apps().keys()
    flags.thermo_first = "false"
    assert FirstLoader().load(context) is None
    alone = Loader().load(base_plugin.TBContext(data_provider=provider, flags=flags, plugin_name_to_instance={}))
    assert shown(alone) is bool(data)


def test_the_user_decides_whether_the_tab_comes_first():
    parser = argparse.ArgumentParser()
    Loader().define_flags(parser)
    assert parser.parse_args([]).thermo_first == "true"
    assert parser.parse_args(["--thermo_first", "false"]).thermo_first == "false"


def test_tensorboard_finds_the_tab_and_its_loader_imports_next_to_nothing():
    point = installed_entry_point()
    assert point.value == "thermo_monitor.tensorboard_plugin.loader:Loader"
    code = (
        "import sys, importlib.metadata as m\n"
        f"import {point.module}\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'ruptures', 'typer'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import thermo_monitor.tensorboard_plugin.plugin\n"
        "heavy = {'torch', 'matplotlib', 'ruptures', 'lightning'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
