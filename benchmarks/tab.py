"""How fast the TensorBoard tab is, in a real browser.

    python benchmarks/tab.py [--load_fast auto] [--json FILE]

1. Drawing 5 runs x 20,000 points x 4 charts, from the arrival of the data to the next frame of the screen.
2. First paint of the tab, from the start of its frame (its own navigation) and from opening TensorBoard's page.
3. From writing an event to its note in the tab, at TensorBoard's default reload interval of five seconds.
4. Scrubbing through 1,000 frames of 48 x 64: milliseconds for each.

Needs `make test-browser` once, for the browser.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Frame as BrowserFrame
from playwright.sync_api import Page, sync_playwright
from tensorboard.compat.proto.event_pb2 import Event as TensorBoardEvent
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from thermo_monitor.records import Event, Reading
from thermo_monitor.sinks import Frame, TensorBoardSink, Tick

PORT = 6407
TAB = f"http://127.0.0.1:{PORT}/#thermo_monitor"
DATA = f"http://127.0.0.1:{PORT}/data/plugin/thermo_monitor"
TAGS = ("loss/train", "attn/specific_heat_norm", "attn/reduced_temperature", "repr/representation_entropy")


@contextmanager
def tensorboard(directory: Path, *arguments: str) -> Iterator[None]:
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(directory), "--port", str(PORT), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{DATA}/state", timeout=5) as answer:
                    if json.load(answer)["runs"]:
                        break
            except OSError:
                pass
            time.sleep(0.3)
        time.sleep(2)  # the loaders go on reading
        yield
    finally:
        process.terminate()
        process.wait(20)


def frame_of(page: Page) -> BrowserFrame:
    while True:
        for frame in page.frames:
            if frame.url.endswith("name=1"):  # where links by the usual name are sent on to
                frame.wait_for_selector("main[data-painted]", timeout=60_000)
                return frame
        page.wait_for_timeout(20)


def curves(directory: Path) -> None:
    for run in range(5):
        noise = np.random.default_rng(run).standard_normal((20_000, len(TAGS))) * 0.02
        (directory / f"run-{run}").mkdir(parents=True)
        with (directory / f"run-{run}" / "events.out.tfevents.1.benchmark").open("wb") as file:
            writer = RecordWriter(file)
            for step in range(20_000):
                numbers = [2.0 * np.exp(-step / 8000) + 0.1, 0.2, 1.5, 0.6] + noise[step]
                values = [Summary.Value(tag=f"thermo/{k}", simple_value=v) for k, v in zip(TAGS, numbers, strict=True)]
                record = TensorBoardEvent(summary=Summary(value=values), step=step, wall_time=1e9 + step)
                writer.write(record.SerializeToString())


def maps(directory: Path) -> None:
    sink = TensorBoardSink(directory / "maps", max_frames=1000)
    rng = np.random.default_rng(0)
    for step in range(1000):
        values = rng.uniform(0, 1, (48, 64)) * (1 + step / 1000)
        sink.write(Tick(step, 1e9 + step, [Reading(step, "loss/train", 1.0)], [Frame(step, "attn/entropy", values)]))
    sink.close()


def drawing(page: Page) -> dict[str, Any]:
    runs = "~".join(f"run-{n}" for n in range(5))
    compare = "~".join(f"thermo%252F{tag.replace('/', '%252F')}" for tag in TAGS)
    out = []
    for _ in range(5):
        page.goto("about:blank")
        page.goto(f"{TAB}&p.thermo_monitor.view=runs&p.thermo_monitor.runs={runs}&p.thermo_monitor.compare={compare}")
        frame = frame_of(page)
        assert frame.locator(".strip canvas").count() == 4
        out.append(
            [float(frame.locator("main").get_attribute(f"data-{what}") or "nan") for what in ("drawn", "painted")]
        )
    return {"drawing, ms: script, until the next frame of the screen": sorted(out)}


def paint(page: Page) -> dict[str, Any]:
    inside, outside = [], []
    for _ in range(5):
        page.goto("about:blank")
        started = time.perf_counter()
        page.goto(f"{TAB}&p.thermo_monitor.runs=maps")
        frame = frame_of(page)
        outside.append(round(1e3 * (time.perf_counter() - started)))
        entries = "performance.getEntriesByName('first-contentful-paint').map(e => e.startTime)[0]"
        drawn = "performance.getEntriesByName('first-view').map(e => e.startTime)[0]"
        inside.append([round(frame.evaluate(entries) or -1), round(frame.evaluate(drawn) or -1)])
    first = "first paint and first view of the frame, ms"
    return {first: sorted(inside), "from opening TensorBoard, ms": sorted(outside)}


def scrubbing(page: Page) -> dict[str, Any]:
    page.goto("about:blank")
    page.goto(f"{TAB}&p.thermo_monitor.view=heads&p.thermo_monitor.runs=maps")
    frame = frame_of(page)
    times = frame.evaluate(
        """async () => {
            const slider = document.querySelector('input[type=range]');
            const times = [];
            for (let n = 0; n <= Number(slider.max); n++) {
                const started = performance.now();
                slider.value = n;
                slider.dispatchEvent(new Event('input'));
                await new Promise(requestAnimationFrame);
                times.push(performance.now() - started);
            }
            return times;
        }"""
    )
    largest = [round(float(np.quantile(times, q)), 1) for q in (0.5, 0.99, 1)]
    return {"frames": len(times), "scrubbing, ms: median, 99 %, largest": largest}


def latency(page: Page, directory: Path, tries: int) -> dict[str, Any]:
    sink = TensorBoardSink(directory / "live")
    for step in range(30):
        sink.write(Tick(step, time.time(), [Reading(step, "loss/train", 1.0)]))
    sink._writer.flush()
    seconds = []
    with tensorboard(directory):
        page.goto(f"{TAB}&p.thermo_monitor.view=live")
        frame = frame_of(page)
        for n in range(tries):
            time.sleep(1.3 * n % 5)  # at any phase of TensorBoard's own interval
            started = time.perf_counter()
            step = 30 + n
            sink.write(Tick(step, time.time(), [Reading(step, "loss/train", 1.0)]))
            found = Event(
                "shift", step, step - 1, "up", "loss/train", 9.0, "reorganization", f"event {n}", id=f"run:{n}"
            )
            sink.event(replace(found, wall=time.time()))
            frame.wait_for_selector(f".toast:has-text('event {n}')", timeout=60_000)
            seconds.append(round(time.perf_counter() - started, 2))
            page.wait_for_timeout(500)
    sink.close()
    return {"from writing an event to its note, s": sorted(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load_fast", default="auto", choices=["auto", "false"])
    parser.add_argument("--tries", type=int, default=10)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows: dict[str, Any] = {"loader": args.load_fast}
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as directory:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        log = Path(directory) / "log"
        curves(log)
        maps(log)
        samples = "scalars=0,thermo_monitor_heads=0"
        with tensorboard(log, "--load_fast", args.load_fast, "--samples_per_plugin", samples):
            time.sleep(20 if args.load_fast == "false" else 5)
            rows |= drawing(page) | paint(page) | scrubbing(page)
        rows |= latency(page, Path(directory) / "growing", args.tries)
        browser.close()
    for name, row in rows.items():
        print(f"{name}: {row}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
