"""The pictures of the TensorBoard tab in docs/images, from the demo's runs.

make demo test-browser && .venv/bin/python docs/screenshots.py runs/demo
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

PORT = 6408
IMAGES = Path(__file__).parent / "images"
BASE = f"http://127.0.0.1:{PORT}"
DATA = f"{BASE}/data/plugin/thermo_monitor"
BOTH = "runs=grokking~control"
SHOTS = {  # file: state of the tab, colour scheme
    "tab-timeline": (f"view=timeline {BOTH} run=grokking x=log", "light"),
    "tab-evidence": ("view=timeline runs=grokking run=grokking event={generalization} zoom=100_520", "dark"),
    "tab-heads": ("view=heads runs=grokking run=grokking quantity=attn%2Fspecific_heat_norm", "light"),
    "tab-portrait": ("view=portrait runs=grokking run=grokking x=log", "light"),
    "tab-runs": (f"view=runs {BOTH} run=control", "dark"),
    "tab-live": ("view=live runs=control run=control", "light"),
}


def main() -> None:
    """Take them all."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", sys.argv[1], "--port", str(PORT)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        names: dict[str, str] = {}
        while not names:
            time.sleep(0.5)
            try:
                with urllib.request.urlopen(f"{DATA}/events") as answer:
                    found = json.load(answer)["events"].get("grokking", [])
            except OSError:
                continue
            names = {e["phase"]: e["id"] for e in found if "part_of" not in e["details"]}
        with sync_playwright() as playwright:
            path = shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
            for file, (state, theme) in SHOTS.items():
                page = browser.new_page(viewport={"width": 1360, "height": 940}, color_scheme=theme)
                event = f"grokking%0A{names.get('generalization', '')}".replace(":", "%3A")
                parts = state.replace("{generalization}", event).split()
                page.goto(f"{BASE}/#thermo_monitor" + "".join(f"&p.thermo_monitor.{part}" for part in parts))
                while not (frames := [f for f in page.frames if f.url.endswith("name=1")]):
                    page.wait_for_timeout(50)
                frames[0].wait_for_selector("main[data-painted]", timeout=60_000)
                page.wait_for_timeout(700)
                page.screenshot(path=IMAGES / f"{file}.png")
                page.close()
            browser.close()
    finally:
        server.terminate()
        server.wait(20)


if __name__ == "__main__":
    main()
