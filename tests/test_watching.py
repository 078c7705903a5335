"""The command line on logs: scan, watch, report, doctor."""

import csv
import html.parser
import io
import json
import os
import re

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests import logs
from tests.tensorboard_plugin.test_plugin import installed_entry_point
from thermo_monitor import doctor, scan, watch
from thermo_monitor.cli import app
from thermo_monitor.detect import finished
from thermo_monitor.detect.synthetic import noise, sigmoid


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def log(tmp_path):
    logs.known(tmp_path / "known", last=500, events=logs.EVENTS[:1])
    logs.plain(tmp_path / "plain")
    logs.scalars(tmp_path / "quiet", {"loss": [(s, 1.0 + 0.1 * np.sin(s * 12.9898)) for s in range(300)]})
    return tmp_path


def test_scan_tells_by_its_exit_code_and_in_json(log):
    done = run("scan", "--json", log)
    assert done.exit_code == 3
    found = json.loads(done.stdout)
    by_run = {one["run"]: one for one in found["runs"]}
    assert [e["onset"] for e in by_run["known"]["events"]] == [300]
    assert by_run["known"]["watched"]
    (event,) = by_run["plain"]["events"]
    assert abs(event["onset"] - 600) <= 2
    assert {event["quantity"], *event["details"]["also"]} == {"train/loss", "val/accuracy"}
    assert by_run["quiet"]["events"] == []
    assert found["found"] == 2
    assert run("scan", log / "quiet").exit_code == 0


def test_scan_looks_only_at_what_is_asked_for(log):
    done = run("scan", "--json", "--tags", "noise", log / "plain")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["runs"][0]["curves"] == 1
    found = json.loads(run("scan", "--json", "--tags", "loss/*", log / "known").stdout)["runs"][0]
    assert (found["curves"], found["watched"]) == (1, False)


def test_scan_writes_tables_without_formulas(log, tmp_path):
    logs.scalars(tmp_path / "=evil()", {"=cmd|x": [(s, float(s >= 50) + 0.01 * np.sin(s)) for s in range(100)]})
    done = run("scan", "--csv", log)
    rows = list(csv.reader(io.StringIO(done.stdout)))
    assert len(rows) == 4
    assert not any(cell.startswith(("=", "@", "+")) for row in rows for cell in row)
    assert "'=cmd|x" in [row[rows[0].index("quantity")] for row in rows]


def test_scan_of_nothing_and_of_damaged_files_is_answered_in_words(tmp_path):
    done = run("scan", tmp_path / "nothing")
    assert done.exit_code == 1
    assert "does not exist" in done.output
    for name, junk in {
        "empty": b"",
        "random": os.urandom(5000),
        "huge": (10 * 2**30).to_bytes(8, "little") * 9,
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "events.out.tfevents.1").write_bytes(junk)
    done = run("scan", tmp_path)
    assert done.exit_code == 0
    assert "belong to no record" in done.output
    assert run("scan", "--json", "--csv", tmp_path).exit_code == 2


def test_many_runs_give_the_same_in_several_processes(tmp_path):
    pytest.importorskip("joblib")
    for n in range(4):
        logs.scalars(tmp_path / f"r{n}", {"x": [(s, float(s >= 40 + n) + 0.01 * np.sin(9 * s)) for s in range(120)]})
    alone, together = (scan.scan([str(tmp_path)], jobs=jobs) for jobs in (1, 2))
    assert [one.run for one in together] == ["r0", "r1", "r2", "r3"]
    assert [[e.onset for e in one.events] for one in together] == [[40 + n] for n in range(4)]
    told = [[[e.to_json() for e in one.events] for one in found] for found in (alone, together)]
    assert told[0] == told[1]


def test_watch_shows_runs_curves_and_events(log):
    console = Console(width=110, record=True, file=io.StringIO())
    watch.run(str(log), 1.0, once=True, console=console)
    shown = console.export_text()
    for expected in (
        "known",
        "● memorization since 300",
        "training loss",
        "█",
        "train/loss",
        "no event so far",
        "step 490",
    ):
        assert expected in shown, expected


def test_watch_reads_on_and_finds_new_runs(tmp_path, monkeypatch):
    view = watch.Watch(str(tmp_path))
    view.look()
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(view.render(100))
    assert "no run with numbers" in console.export_text()
    logs.known(tmp_path / "late", last=100, events=())
    view.look()
    console.print(view.render(100))
    assert "late" in console.export_text()


def test_nothing_from_a_log_moves_the_cursor_of_a_terminal(tmp_path):
    logs.scalars(tmp_path / "a\x1b[2Jb", {"loss\x1b[31m[bold]": [(s, float(s >= 50)) for s in range(100)]})
    for done in (run("scan", tmp_path), run("watch", "--once", tmp_path)):
        assert "\x1b[2J" not in done.output
        assert "\x1b[31m[" not in done.output
        assert "[bold]" in done.output


class Text(html.parser.HTMLParser):
    """What a browser would show, and the elements that it would make."""

    def __init__(self):
        super().__init__()
        self.text, self.elements = [], set()

    def handle_data(self, data):
        self.text.append(data)

    def handle_starttag(self, tag, attributes):
        self.elements.add(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attributes)


def test_a_report_is_one_file_that_needs_nothing_and_runs_nothing(log, tmp_path):
    logs.evil(log)
    done = run("report", log, "-o", tmp_path / "out" / "report.html")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "out" / "report.html").read_text()
    page = Text()
    page.feed(text)
    assert {"svg", "polyline", "table"} <= page.elements
    assert not {"script", "img", "link", "iframe"} & page.elements
    shown = " ".join(page.text)
    assert logs.EVIL in shown
    assert "training loss fell from 3 to 0.1" in shown
    assert not re.search(r"https?://", text)
    assert run("report", tmp_path / "out", "-o", tmp_path / "x.html").exit_code == 1


def test_a_report_has_every_spike_and_its_events_in_place(tmp_path):
    points = [(s, 100.0 if s == 7777 else 1.0) for s in range(10_000)]
    logs.scalars(tmp_path / "run", {"x": points})
    run("report", tmp_path, "-o", tmp_path / "r.html")
    heights = [
        float(y) for y in re.findall(r",([\d.]+)", re.search(r'points="([^"]*)"', (tmp_path / "r.html").read_text())[1])
    ]
    assert max(heights) - min(heights) > 70


def test_doctor_finds_the_tab_and_hears_a_model():
    installed_entry_point()
    done = run("doctor", "--model", "thermo_monitor.demo.modular:Transformer")
    assert done.exit_code == 0, done.output
    assert "TensorBoard finds it" in done.output
    assert "LossProbe" in done.output
    assert run("doctor", "--model", "nothing:Nothing").exit_code == 1


def test_doctor_says_what_is_wrong_with_tabs(monkeypatch):
    from tensorboard import default

    monkeypatch.setattr(default, "get_dynamic_plugins", lambda: [])
    assert doctor.tab().good is False

    def broken():
        raise ImportError("a tab of somebody else")

    monkeypatch.setattr(default, "get_dynamic_plugins", broken)
    assert "a tab of somebody else" in doctor.tab().words


def test_the_shell_can_complete_commands():
    assert "--install-completion" in run("--help").output


# ---------------------------------------------------------------------------------------- changes in finished curves
@pytest.mark.parametrize("n", [40, 200, 900, 3000, 20_000])
@pytest.mark.parametrize("phi", [0.0, 0.8])
def test_a_level_that_moves_is_found_and_dated(n, phi):
    at = int(0.6 * n)
    x = noise(n, 3, phi) + 12.0 * sigmoid(n, at)
    (event,) = finished.find({"x": (np.arange(n), x)})
    assert event.direction == "up"
    assert event.onset_low <= at <= event.onset_high
    assert event.onset_high - event.onset_low <= max(20, n / 50)


@pytest.mark.parametrize(
    "kind", ["noise", "walkless", "power law", "exponential", "line", "constant", "spikes", "sine"]
)
def test_what_is_no_transition_is_none(kind):
    found = 0
    for seed in range(4):
        for n in (150, 1000, 8000):
            t = np.arange(n)
            x = {
                "noise": noise(n, seed),
                "walkless": noise(n, seed, 0.9, "t3"),
                "power law": 3.0 * (1 + t / n * 300) ** -0.5 * np.exp(0.03 * noise(n, seed, 0.3)),
                "exponential": 2.0 * np.exp(-5 * t / n) + 0.1 + 0.01 * noise(n, seed),
                "line": 5.0 * t / n + 0.1 * noise(n, seed),
                "constant": np.full(n, 2.0),
                "spikes": noise(n, seed) + 30.0 * (t % (n // 5) == n // 10),
                "sine": np.sin(6 * t / n) + 0.05 * noise(n, seed),
            }[kind]
            found += len(finished.find({"x": (t, x)}))
    assert found <= 1, f"{found} of 12 series"


def test_a_curve_that_ends_in_no_numbers_is_a_divergence():
    values = np.r_[np.ones(50) + 0.01 * noise(50, 0), np.full(10, np.nan)]
    (event,) = finished.find({"loss": (np.arange(60) * 10, values)})
    assert (event.kind, event.onset, event.level) == ("divergence", 500, "error")


@pytest.mark.parametrize(
    "values", [[], [1.0], [np.nan] * 20, [np.inf, 1.0] * 20, [0.0] * 30, [1e300, -1e300] * 20, [5e-324] * 9]
)
def test_any_values_are_survived(values):
    assert isinstance(finished.find({"x": (np.arange(len(values)), np.array(values))}), list)
