"""The tab in a real browser, on both of TensorBoard's loaders."""

import csv
import io
import json
import time
import urllib.parse

import numpy as np
import pytest

from tests import logs
from tests.browser.conftest import DATA, opened, tensorboard, until_listed, until_told
from thermo_monitor.records import Event, Reading
from thermo_monitor.sinks import Frame, TensorBoardSink, Tick

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore::ResourceWarning")]
VIEWS = ("timeline", "heads", "portrait", "runs", "live")
COLOUR = {"memorization": (0, 114, 178), "generalization": (0, 133, 95)}  # on a light ground
AXE = pytest.importorskip("axe_playwright_python.sync_playwright", reason="make test-browser installs it").Axe()


def drawn(frame, view):
    frame.wait_for_selector(f"main[data-view={view}]:not([aria-busy])", timeout=20_000)


def test_a_log_of_the_monitor_opens_on_the_tab(tab):
    tab.page.goto(f"{tab.address}/")
    frame = tab.frame()
    drawn(frame, "timeline")
    assert "#1" in tab.page.url
    assert "runs=" in tab.page.url
    names = tab.page.locator(".active-plugin-list .plugin-name").all_inner_texts()
    assert names[0].lower() == "thermo"
    assert [name.lower() for name in names].count("thermo") == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_view_is_drawn_in_both_colour_schemes(browser, served, request, theme):
    for page in opened(browser, served, request, color_scheme=theme):
        if theme == "dark":  # as TensorBoard has it
            frame = page.open_inside(runs="known~other", run="known")
            page.page.evaluate("document.body.classList.add('dark-mode')")
        else:
            frame = page.open(runs="known~other", run="known")
        frame.wait_for_selector(f"html[data-theme={theme}]", state="attached")
        for number, view in enumerate(VIEWS, start=1):
            frame.locator(f"#tab-{view}").click()
            drawn(frame, view)
            assert frame.locator(f"#tab-{view}").get_attribute("aria-selected") == "true"
            painted = frame.evaluate(
                "[...document.querySelectorAll('main canvas')].filter(c => c.width > 0 && "
                "c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v)).length"
            )
            assert painted >= {"timeline": 8, "heads": 3, "portrait": 1, "runs": 3, "live": 8}[view], f"{number} {view}"
            if "Python" in request.node.name:
                continue  # what a loader has read makes no page more or less accessible
            found = AXE.run(frame, options={"resultTypes": ["violations"]}).response["violations"]
            serious = [
                f"{v['id']}: {v['nodes'][0]['html'][:120]}" for v in found if v["impact"] in ("serious", "critical")
            ]
            assert serious == [], view


def place(frame, step, low=0, high=1990):
    """Where a step is in the first chart, in canvas pixels; from the axis alone, not from what drew the marker."""
    return frame.evaluate(
        """([step, low, high]) => {
            const over = document.querySelector('.strip .u-over').getBoundingClientRect();
            const canvas = document.querySelector('.strip canvas');
            const box = canvas.getBoundingClientRect();
            const unit = canvas.width / box.width;
            const x = Math.round((over.left - box.left + (step - low) / (high - low) * over.width) * unit);
            const y = Math.round((over.top - box.top + over.height / 2) * unit);
            const data = canvas.getContext('2d').getImageData(x - 2, y - 3, 5, 7).data;
            const pixels = [];
            for (let i = 0; i < data.length; i += 4) pixels.push([data[i], data[i + 1], data[i + 2]]);
            return pixels;
        }""",
        [step, low, high],
    )


def test_markers_are_where_the_events_are(tab):
    frame = tab.open(runs="known", run="known")
    drawn(frame, "timeline")

    def marked(phase, step):
        return any(
            max(abs(a - b) for a, b in zip(pixel, COLOUR[phase], strict=True)) < 30 for pixel in place(frame, step)
        )

    assert marked("memorization", 300)
    assert marked("generalization", 900)
    assert not marked("memorization", 250)
    assert not marked("memorization", 900)
    assert not marked("generalization", 700)
    flags = {f["phase"]: f for f in frame.eval_on_selector_all(
        ".flag",
        "all => all.map(f => ({phase: f.dataset.phase, onset: +f.dataset.onset, left: parseFloat(f.style.left)}))",
    )}  # fmt: skip
    assert {name: flag["onset"] for name, flag in flags.items()} == {
        "memorization": 300,
        "generalization": 900,
        "scheduled": 1500,
    }
    width = frame.evaluate("document.querySelector('.u-over').clientWidth")
    for flag in flags.values():
        assert flag["left"] == pytest.approx(flag["onset"] / 1990 * width, abs=1.5)
    bands = frame.eval_on_selector_all(".phase", "all => all.map(p => p.title)")
    assert bands == ["memorization from step 300", "generalization from step 900"]


def test_an_event_shows_its_evidence_and_the_curves_around_it(tab):
    frame = tab.open(runs="known", run="known")
    drawn(frame, "timeline")
    frame.locator(".flag[data-phase=generalization]").click()
    frame.wait_for_selector(".moved tbody tr")
    words = frame.locator(".evidence").inner_text()
    for expected in (
        "generalization",
        "step 900 [880, 930]",
        "step 1,000, 100 later",
        "representation entropy",
        "What to look at next",
        "checkpoints on both",
    ):
        assert expected.lower() in words.lower(), expected
    rows = frame.eval_on_selector_all(".moved tbody tr", "all => all.map(r => [...r.children].map(c => c.textContent))")
    before, after = next((float(r[1]), float(r[2])) for r in rows if r[0].startswith("representation entropy"))
    assert before == pytest.approx(0.64, abs=0.05)
    assert after == pytest.approx(0.5, abs=0.08)
    assert "zoom=" in tab.page.url
    frame.locator("body").press("p")
    frame.wait_for_selector(".event-title:has-text('memorization')")
    assert "ln F = 12.5" in frame.locator(".evidence").inner_text()
    assert "Spectral entropy rose" in frame.locator(".evidence").inner_text()
    frame.locator("body").press("Escape")
    frame.wait_for_selector(".events")


def test_hovering_reads_every_curve_at_a_step(tab):
    frame = tab.open(runs="known", run="known")
    drawn(frame, "timeline")
    box = frame.locator(".u-over").nth(2).bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] * 1004 / 1990, box["y"] + 30)
    tab.page.wait_for_timeout(150)
    shown = dict(
        frame.eval_on_selector_all(
            ".strip",
            "all => all.map(s => ['.strip-title', '.value b'].map(name => s.querySelector(name).textContent))",
        )
    )
    assert float(shown["training loss"]) == pytest.approx(logs.values(1000)["loss/train"], rel=2e-3)
    assert float(shown["representation entropy"]) == pytest.approx(
        logs.values(1000)["repr/representation_entropy"], rel=2e-3
    )


def test_the_address_holds_the_state(tab):
    frame = tab.open_inside(runs="known~other", run="other", view="runs", align="first")
    drawn(frame, "runs")
    frame.locator("#tab-timeline").click()
    drawn(frame, "timeline")
    frame.get_by_role("button", name="log", exact=True).click()
    drawn(frame, "timeline")
    assert "p.thermo_monitor.x=log" in tab.page.url
    tab.page.reload()
    frame = tab.frame()
    drawn(frame, "timeline")
    assert frame.locator(".segmented [aria-pressed=true]").inner_text() == "log"
    assert frame.locator(".run.focus .run-name").inner_text() == "other"
    assert frame.locator(".run.on").count() == 2


def test_names_and_texts_of_a_log_are_text(tab):
    evil = urllib.parse.quote(logs.EVIL, safe="")
    frame = tab.open(runs=urllib.parse.quote(f"{evil}~evil", safe=""), run="evil")
    for view in VIEWS:
        frame.locator(f"#tab-{view}").click()
        drawn(frame, view)
        assert frame.locator("img").count() == 0
        assert logs.EVIL in frame.locator(".picker").inner_text()
    frame = tab.open(runs="evil", run="evil", event=urllib.parse.quote(f"evil\n=1+1{logs.EVIL}:0", safe=""))
    drawn(frame, "timeline")
    assert logs.EVIL in frame.locator(".evidence").inner_text()
    frame = tab.open(runs=urllib.parse.quote(evil, safe=""), run=evil)
    drawn(frame, "timeline")
    assert logs.EVIL in frame.locator(".stack").inner_text()
    assert tab.page.evaluate("window.broken") is None
    assert frame.evaluate("window.broken") is None


def test_of_a_thousand_events_all_are_listed(tab):
    frame = tab.open(view="runs", runs="many", run="many")
    drawn(frame, "runs")
    assert frame.locator(".sortable tbody tr").count() == 1000
    with tab.page.expect_download() as download:
        frame.get_by_role("link", name="Download CSV").click()
    rows = list(csv.reader(io.StringIO(download.value.path().read_text())))
    assert len(rows) == 1001


def test_tables_are_sorted_by_any_column(tab):
    frame = tab.open(view="runs", runs="known~other", run="known")
    drawn(frame, "runs")
    for _ in range(2):
        frame.get_by_role("button", name="confirmed").click()
    steps = frame.eval_on_selector_all(
        ".sortable tbody tr td:nth-child(5)", "all => all.map(c => Number(c.textContent.replace(',', '')))"
    )
    assert steps == sorted(steps, reverse=True)
    assert len(steps) == 5


def test_runs_are_aligned_at_an_event(tab):
    frame = tab.open(view="runs", runs="known~many", run="known", align="memorization")
    drawn(frame, "runs")
    assert "not shown: many" in frame.locator(".stack").inner_text()
    assert frame.locator(".strip canvas").first.is_visible()


def test_a_log_that_the_monitor_never_wrote_has_events_too(tab):
    frame = tab.open(runs="plain", run="plain")
    drawn(frame, "timeline")
    frame.wait_for_selector(".flag")
    words = frame.locator(".evidence").inner_text()
    assert "was not watched by the monitor" in words
    assert "shift" in words
    onset = int(frame.locator(".flag").first.get_attribute("data-onset"))
    assert abs(onset - 600) <= 2


def test_heads_are_scrubbed_played_and_walked_through(tab):
    frame = tab.open(view="heads", runs="known", run="known")
    drawn(frame, "heads")
    now = frame.locator(".now")
    assert "newest" in now.inner_text()
    slider = frame.locator("input[type=range]")
    slider.focus()
    slider.press("Home")
    assert now.inner_text() == "step 0"
    slider.press("ArrowRight")
    first = now.inner_text()
    assert first != "step 0"
    canvas = frame.locator(".map canvas")
    canvas.focus()
    canvas.press("ArrowDown")
    canvas.press("ArrowRight")
    canvas.press("ArrowRight")
    assert "layer 1, head 2: –" in canvas.get_attribute("aria-label")  # was not measured
    box = canvas.bounding_box()
    tab.page.mouse.move(box["x"] + 150, box["y"] + 10)
    assert "layers.0.attn, head 0" in frame.locator(".tip").inner_text()
    frame.get_by_role("button", name="Play").click()
    tab.page.wait_for_timeout(700)
    frame.get_by_role("button", name="Pause").click()
    assert now.inner_text() != first


NOTIFICATIONS = """() => {
    window.told = [];
    window.Notification = class {
        static permission = "default";
        static async requestPermission() { return (Notification.permission = "granted"); }
        constructor(title, { body }) { window.told.push([title, body]); }
    };
    Object.defineProperty(document, "hidden", { value: true, configurable: true });
}"""
# The page looks at the log when it is seen again; by the time that it has an answer, it is hidden.
HIDDEN = """() => {
    let reads = 0;
    Object.defineProperty(document, "hidden", { get: () => ++reads > 2, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.mark.parametrize("load_fast", ["auto", "false"])
def test_a_run_from_an_empty_log_to_a_server_that_is_gone(browser, request, tmp_path, load_fast):
    def write(step):
        frame = Frame(step, "attn/entropy", np.array([[1.0 + step, 2.0]]), ("a",))
        sink.write(Tick(step, time.time(), [Reading(step, "loss/train", 1 / (1 + step))], [frame]))

    generator = None
    with tensorboard(tmp_path, load_fast) as address:
        generator = opened(browser, address, request)
        page = next(generator)
        frame = page.open_inside(view="heads")
        assert "ThermoMonitor()" in frame.locator("main").inner_text()  # how to get some data

        sink = TensorBoardSink(tmp_path / "live")
        for step in range(20):
            write(step)
        sink._writer.flush()
        frame.wait_for_selector("main[data-view=heads]", timeout=20_000)
        frame.evaluate(NOTIFICATIONS)
        frame.locator("#tab-live").click()
        frame.get_by_role("button", name="Switch browser notifications on").click()
        frame.wait_for_selector("text=Browser notifications are on")
        frame.locator("#tab-heads").click()
        drawn(frame, "heads")
        frame.locator("input[type=range]").press("Home")
        for step in range(20, 40):
            write(step)
        told = ("down", "loss/train", 12.0, "generalization", "it fell", 28, 32, "run:0")
        sink.event(Event("shift", 39, 30, *told, wall=time.time()))
        until_told(address, "live")
        frame.evaluate(HIDDEN)
        frame.wait_for_selector(".toast", timeout=15_000)
        assert "generalization in live" in frame.locator(".toast").inner_text()
        assert frame.evaluate("window.told") == [["generalization in live", "it fell"]]
        assert page.page.title().startswith("(1) ")
        frame.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
        assert frame.locator(".now").inner_text() == "step 0"  # the scrubber stays where it was put
        frame.locator(".toast-main").click()
        drawn(frame, "timeline")
        assert frame.locator(".flag[data-onset='30']").is_visible()
        assert not page.page.title().startswith("(")
        sink.close()
    frame.wait_for_selector(".banner:has-text('does not answer')", timeout=20_000)
    assert frame.locator(".strip canvas").first.is_visible()
    page.troubles.clear()  # refused connections are what this is about
    generator.close()


def test_the_log_may_arrive_before_the_styles(tab):
    held = []
    tab.page.route("**/style.css", lambda route: held.append(route))
    with tab.page.expect_response("**/events*"), tab.page.expect_response("**/words"):
        tab.page.goto(f"{tab.address}/data/plugin_entry.html?name=1#1")
    tab.page.wait_for_timeout(300)  # the answers are read, and the page still waits
    assert held
    for route in held:
        route.continue_()
    drawn(tab.frame(), "timeline")


def test_behind_a_prefix_it_works_as_well(browser, request, log):
    with tensorboard(log, "auto", "--path_prefix", "/user/x/proxy/6006") as address:
        until_listed(address, "known")
        for page in opened(browser, address, request):
            frame = page.open_inside(runs="known", run="known")
            drawn(frame, "timeline")
            assert frame.locator(".flag").count() == 3


def test_four_hundred_runs_are_listed(browser, request, tmp_path):
    for n in range(400):
        logs.scalars(tmp_path / f"run-{n:03d}", {"loss": [(s, 1.0 / (1 + s)) for s in range(5)]})
    with tensorboard(tmp_path) as address:
        until_listed(address, *(f"run-{n:03d}" for n in range(400)))
        for page in opened(browser, address, request):
            frame = page.open()
            drawn(frame, "timeline")
            assert frame.locator(".run").count() == 400
            frame.get_by_role("searchbox").fill("run-39")
            assert frame.locator(".run").count() == 10


def test_the_routes_answer_what_the_page_asks(served):
    import urllib.request

    with urllib.request.urlopen(f"{served}{DATA}/words") as answer:
        assert "generalization" in json.load(answer)["phases"]
