"""A TensorBoard on each loader, and a real browser that looks at it.

``THERMO_BROWSER=required`` makes a missing browser a failure, which is what continuous integration sets.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager

import pytest

from tests import logs

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
DATA = "/data/plugin/thermo_monitor"


@contextmanager
def tensorboard(directory, load_fast="auto", *arguments, wait=True):
    """Address of a TensorBoard of its own, which answers unless nobody waits for that."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "tensorboard.main", "--logdir", str(directory), "--host", "127.0.0.1",
        "--port", str(port), "--load_fast", load_fast, "--reload_interval", "1", *arguments,
    ]  # fmt: skip
    prefix = arguments[arguments.index("--path_prefix") + 1] if "--path_prefix" in arguments else ""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}{prefix}"
    try:
        until = time.monotonic() + 60
        while wait:
            try:
                with urllib.request.urlopen(f"{address}{DATA}/state", timeout=5) as answer:
                    assert answer.status == 200
                break
            except OSError:
                assert process.poll() is None, "TensorBoard has ended"
                assert time.monotonic() < until, "TensorBoard does not answer"
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def until_listed(address, *runs):
    """Wait until TensorBoard has read some runs."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{address}{DATA}/state", timeout=10) as answer:
                if {run["name"] for run in json.load(answer)["runs"]} >= set(runs):
                    return
        except OSError:
            pass  # it begins to answer
        time.sleep(0.2)
    raise AssertionError(f"{runs} were not read in a minute")


@pytest.fixture(scope="session")
def log(tmp_path_factory):
    directory = tmp_path_factory.mktemp("log")
    logs.known(directory / "known")
    logs.known(directory / "other", layers=2, events=logs.EVENTS[:1])
    logs.plain(directory / "plain")
    logs.evil(directory)
    logs.many(directory / "many")
    return directory


def until_told(address, run):
    """Wait until TensorBoard has read an event of a run."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with urllib.request.urlopen(f"{address}{DATA}/events", timeout=10) as answer:
            if json.load(answer)["events"].get(run):
                return
        time.sleep(0.1)
    raise AssertionError(f"no event of {run} was read in a minute")


LOADERS = {"fast loader": "auto", "Python loader": "false"}


@pytest.fixture(scope="session")
def servers(log):
    """Addresses by loader; both read the log at the same time."""
    with ExitStack() as stack:
        addresses = {name: stack.enter_context(tensorboard(log, fast, wait=False)) for name, fast in LOADERS.items()}
        for address in addresses.values():
            until_listed(address, "known", "other", "plain", "evil", "many", logs.EVIL)
        yield addresses


@pytest.fixture(scope="session", params=LOADERS)
def served(request, servers):
    return servers[request.param]


@pytest.fixture(scope="session")
def browser():
    required = os.environ.get("THERMO_BROWSER") == "required"
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        if required:
            raise
        pytest.skip("playwright is not installed: make test-browser does that")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        if required:
            raise AssertionError("no chromium: apt-get install chromium")
        pytest.skip("no chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


def parts(state):
    return "".join(f"&p.thermo_monitor.{name}={value}" for name, value in state.items())


class Page:
    """A page of TensorBoard with our tab open, and everything that went wrong in it."""

    def __init__(self, context, address):
        self.address = address
        self.troubles = []
        self.page = context.new_page()
        self.page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        self.page.on("console", self._console)
        self.page.on("request", self._request)
        self.page.on("response", self._response)
        self.page.add_init_script(
            "document.addEventListener('securitypolicyviolation', "
            "e => console.error('violation of ' + e.violatedDirective + ' by ' + e.blockedURI))"
        )

    def _console(self, message):
        # Files that are missing are looked at by their answers: some of TensorBoard's own are, behind a prefix.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.troubles.append(f"console: {message.text}")

    def _request(self, request):
        if not request.url.startswith((self.address.rsplit("/", 0)[0].split("/user")[0], "data:", "blob:", "about:")):
            self.troubles.append(f"request: {request.url}")

    def _response(self, response):
        if DATA in response.url and response.status >= 400:
            self.troubles.append(f"status {response.status}: {response.url}")

    def open(self, **state):
        """The tab in a state of its address, without TensorBoard around it, which takes seconds to load."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}/data/plugin_entry.html?name=1#1{parts(state)}")
        return self.frame()

    def open_inside(self, **state):
        """The tab in TensorBoard; the frame that it lives in."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}/#thermo_monitor{parts(state)}")
        return self.frame()

    def frame(self):
        """The frame of the tab; links by its usual name are sent on from another frame where the tab comes first."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            for frame in reversed(self.page.frames):
                if "plugin_entry" in frame.url and frame.query_selector("html[data-ready]"):
                    frame.wait_for_selector("main[data-view]", timeout=30_000)
                    return frame
            self.page.wait_for_timeout(20)
        raise AssertionError("the tab did not open")


@pytest.fixture
def tab(browser, served, request):
    """Opens the tab; the test fails when anything went wrong in the page."""
    yield from opened(browser, served, request)


def opened(browser, address, request, **options):
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, **options)
    page = Page(context, address)
    yield page
    shots = os.environ.get("THERMO_SHOTS")
    if shots:
        os.makedirs(shots, exist_ok=True)
        name = "".join(c if c.isalnum() else "-" for c in request.node.name)
        page.page.screenshot(path=os.path.join(shots, f"{name}.png"))
    context.close()
    assert page.troubles == []
