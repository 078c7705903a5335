"""What happens when a part fails: each case is run, and the page says what it was seen to do.

    python -m tests.faults.cases          writes the table of docs/robustness.md
    python -m tests.faults.cases --run    runs the tests first, and says there what became of them

A case gives one of the words in ``WORDS``; it has checked before that the training came to the same, and that what the
part had taken before the fault is still there.
"""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests import pages
from tests.faults import planted, ran
from tests.faults.planted import AT, ERRORS, EVENT, STEPS, Clock, FaultyProbe, Run, Stream, faulty, misbehave
from thermo_monitor.probes import hub
from thermo_monitor.sinks import ConsoleSink, JsonlSink, TensorBoardSink, read_jsonl
from thermo_monitor.sinks.alerts import AlertSink
from thermo_monitor.sinks.metrics import MetricsSink

PAGE = Path(__file__).parent.parent.parent / "docs" / "robustness.md"
RECORD = Path(__file__).parent / "cases.json"
TEST = "faults/test_faults::test_a_fault_hurts_nothing_else"

WORDS = {
    "off": "switched off, said once, counted in `monitor/disabled`; the other parts go on",
    "nan": "its readings are NaN with a reason; it goes on",
    "waits": "the step takes longer, and `monitor/milliseconds` says so",
    "anew": "written anew from the next record on, said once",
    "lost": "what could not be told is listed at the end; tried again with the next event",
    "goes on": "nothing: no number depends on it",
}

FILES = ("exception", "disk full", "permission lost", "read-only file system", "host memory full")


def _off(run: Run, part: str) -> str:
    """The part was switched off, and nothing else."""
    assert list(run.off) == [part], run.off
    assert run.readings() == list(range(STEPS))
    return "off"


def _probe(name: str, fault: str, folder: Path) -> str:
    clock = Clock()
    probe = type(name, (FaultyProbe,), {})(planted.probes()[name], fault, clock)
    run = Run(clock, preset=[*([] if name == "LossProbe" else [planted.LossProbe()]), probe])
    assert run.same
    if fault in ERRORS:
        assert list(run.off) == [name], run.off
        return "off"
    assert not run.off
    if fault == "slow":
        steps, spent = run.witness.series("monitor/milliseconds")
        assert min(spent[steps > AT]) > 20  # milliseconds that the probe sleeps
        return "waits"
    late = [r for r in run.witness.readings if r.step >= AT and r.quantity in probe.quantities]
    assert all(math.isfinite(r.value) or r.reason for r in late)
    assert any(math.isnan(r.value) for r in late)
    return "nan"


def _jsonl(fault: str, folder: Path) -> str:
    path = folder / "run" / "thermo.jsonl"
    clock = planted.deleted(path.parent) if fault == "directory deleted" else Clock()
    sink = JsonlSink(path)

    class Closes(Clock):
        def __call__(self, step: int) -> None:
            super().__call__(step)
            if step == AT:
                sink.close()

    clock = Closes() if fault == "writer closed" else clock
    run = Run(clock, [planted.jsonl_patch(fault, clock, path)], sinks=[sink])
    assert run.same
    found = read_jsonl(path)
    steps = [r.step for r in found.readings if r.quantity == "loss/train"]
    if fault == "directory deleted":
        assert not run.off
        assert steps == list(range(AT - 1, STEPS))
        assert found.events == [EVENT]
        return "anew"
    if fault == "slow":
        assert steps == list(range(STEPS))
        return "waits"
    assert steps == list(range(AT - 1))  # of the step before the fault the numbers were on their way
    return _off(run, "JsonlSink[0]")


def _board(fault: str, folder: Path) -> str:
    """An event file of ours; it is written by a thread, which the fault meets."""
    clock = planted.deleted(folder / "run") if fault == "directory deleted" else Clock()
    sink = TensorBoardSink(log_dir=folder / "run")

    class Flushes(Clock):  # so that the thread has written what was given to it before
        def __call__(self, step: int) -> None:
            if step:
                time.sleep(0.01)
            if step == AT and sink._writer._file is not None:
                sink._writer.flush()
                if fault == "writer closed":
                    sink._writer.close()
            super().__call__(step)

    clock = clock if fault == "directory deleted" else Flushes()
    with warnings.catch_warnings(), mock.patch("threading.excepthook"):
        run = Run(clock, [planted.records_patch(fault, clock)], sinks=[sink])
    assert run.same
    written = EventAccumulator(str(folder / "run")).Reload()
    steps = [e.step for e in written.Scalars("thermo/loss/train")]
    if fault == "directory deleted":
        assert not run.off
        assert steps == list(range(AT - 1, STEPS))
        assert written.Tensors("events")
        return "anew"
    if fault == "slow":
        assert steps == list(range(STEPS))
        assert not run.off
        return "goes on"
    assert steps == list(range(AT - 1))
    return _off(run, "TensorBoardSink[0]")


def _given(fault: str, folder: Path) -> str:
    """The user's own writer."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder / "run")

    class Closes(Clock):
        def __call__(self, step: int) -> None:
            super().__call__(step)
            if step == AT and fault == "writer closed":
                writer.close()

    clock = Closes()
    patches = [] if fault == "writer closed" else [_raising(writer, fault, clock)]
    run = Run(clock, patches, sinks=[TensorBoardSink(writer=writer)])
    writer.close()
    assert run.same
    steps = [e.step for e in EventAccumulator(str(folder / "run")).Reload().Scalars("thermo/loss/train")]
    assert steps[: AT - 1] == list(range(AT - 1))
    return _off(run, "TensorBoardSink[0]")


def _raising(writer: object, fault: str, clock: Clock) -> object:
    inner = writer._get_file_writer()  # type: ignore[attr-defined]
    return mock.patch.object(inner, "add_summary", faulty(inner.add_summary, fault, clock))


def _metrics(fault: str, folder: Path) -> str:
    clock, taken = Clock(), []
    run = Run(clock, sinks=[MetricsSink(faulty(lambda numbers, step: taken.append(step), fault, clock))])
    assert run.same
    if fault == "slow":
        assert taken == list(range(STEPS))
        return "waits"
    assert taken == list(range(AT - 1))
    return _off(run, "MetricsSink[0]")


def _console(fault: str, folder: Path) -> str:
    clock = Clock()
    run = Run(clock, sinks=[ConsoleSink(Stream(fault, clock))])
    assert run.same
    assert len(run.witness.events) == 1
    return _off(run, "ConsoleSink[0]")


def _alert(fault: str, folder: Path) -> str:
    clock, told, said = Clock(), [], []

    def target(event: object) -> None:
        if fault == "never answers":
            time.sleep(0.5)
        misbehave(fault)
        told.append(event)

    sink = AlertSink([target], timeout=0.05, flush=0.3)
    sink._outbox._pause = 0.01
    sink._outbox._tell = said.append
    with mock.patch("thermo_monitor.sinks.alerts.tell", said.append):
        run = Run(clock, sinks=[sink])
    assert run.same
    assert not run.off
    if fault == "slow":
        assert told == [EVENT]
        return "goes on"
    assert any("alerts that were not sent" in text for text in said)
    return "lost"


def _part(part: str, target: str, fault: str, folder: Path) -> str:
    """A function of ours somewhere between the probes and the sinks."""
    clock = Clock()
    module, _, name = target.rpartition(".")
    owner: object = sys.modules["thermo_monitor." + module.rpartition(".")[0]]
    owner = getattr(owner, module.rpartition(".")[2])
    run = Run(clock, [mock.patch.object(owner, name, faulty(getattr(owner, name), fault, clock))])
    assert run.same
    if fault == "slow":
        assert not run.off
        return "waits"
    assert list(run.off) == [part], run.off
    return "off"


def _user(option: str, fault: str, folder: Path) -> str:
    """A function that the user gave."""
    clock, calls = Clock(), []
    part = {"every": "schedule", "on_event": "on_event"}[option]

    def call(argument: object) -> bool:
        calls.append(argument)
        if clock.due:
            misbehave(fault)
        return True

    run = Run(clock, **{option: call})
    assert run.same
    if fault == "slow":
        assert not run.off
        return "waits"
    assert list(run.off) == [part], run.off
    return "off"


def _heard(route: str, fault: str, folder: Path) -> str:
    """A route that hears what the program does fails inside the program's own call."""
    clock = Clock()
    name = {"attention": "attention", "output": "output", "representation": "representation"}[route]
    patch = mock.patch.object(hub.Hub, name, faulty(getattr(hub.Hub, name), fault, clock))
    run = Run(clock, [patch], preset="default")
    assert run.same
    if fault == "slow":
        assert not run.off
        return "waits"
    return _off(run, route)


def _clock(name: str, fault: str, folder: Path) -> str:
    clock = Clock()
    path = folder / "run.jsonl"
    run = Run(clock, [planted.jumping(name)], sinks=[JsonlSink(path), TensorBoardSink(log_dir=folder)], budget=0.5)
    assert run.same
    assert not run.off
    for quantity in ("monitor/milliseconds", "monitor/overhead"):
        values = run.witness.series(quantity)[1]
        assert (values >= 0).all(), values
        assert quantity != "monitor/overhead" or (values <= 1).all(), values
    assert {r.step for r in read_jsonl(path).readings} >= {0, AT}
    return "goes on"


def _table() -> dict[tuple[str, str], tuple[Callable[[str, Path], str], str]]:
    rows: dict[tuple[str, str], tuple[Callable[[str, Path], str], str]] = {}

    def add(part: str, faults: dict[str, str], run: Callable[[str, Path], str]) -> None:
        for fault, happens in faults.items():
            rows[part, fault] = run, happens

    def of(*faults: str, happens: str = "off", **others: str) -> dict[str, str]:
        return dict.fromkeys(faults, happens) | others

    memory = ("exception", "host memory full", "device memory full")
    for name in planted.probes():
        add(f"probe: {name}", of(*memory, slow="waits", NaN="nan"), lambda f, d, n=name: _probe(n, f, d))
    for route in ("attention", "output", "representation"):
        add(f"route: {route}", of(*memory, slow="waits"), lambda f, d, r=route: _heard(r, f, d))
    add("JSON lines", of(*FILES, "writer closed", slow="waits") | {"directory deleted": "anew"}, _jsonl)
    add("event file", of(*FILES, "writer closed", slow="goes on") | {"directory deleted": "anew"}, _board)
    add("the user's TensorBoard writer", of("exception", "disk full", "writer closed"), _given)
    add("other loggers", of("exception", "disk full", slow="waits"), _metrics)
    add("terminal", of("exception", "disk full", "writer closed"), _console)
    add("alert route", {"exception": "lost", "never answers": "lost", "slow": "goes on"}, _alert)
    for part, target in (
        ("detector", "detect.run.RunDetector.update"),
        ("transport", "transport.Transport.send"),
        ("arrival", "transport.Transport.arrived"),
        ("interventions", "notices.Notices.tell"),
    ):
        add(part, of(*memory, slow="waits"), lambda f, d, p=part, t=target: _part(p, t, f, d))
    add("the user's `on_event`", of("exception", slow="waits"), lambda f, d: _user("on_event", f, d))
    add("the user's `every`", of("exception", slow="waits"), lambda f, d: _user("every", f, d))
    add("`time.time`", {"clock going back": "goes on"}, lambda f, d: _clock("time", f, d))
    add("`time.perf_counter`", {"clock going back": "goes on"}, lambda f, d: _clock("perf_counter", f, d))
    return rows


TABLE = _table()


def page() -> str:
    """The rows of one part and what happens to it together."""
    together: dict[tuple[str, str], list[str]] = {}
    for (part, fault), (_, happens) in TABLE.items():
        together.setdefault((part, happens), []).append(fault)
    by_faults: dict[tuple[str, str], list[str]] = {}
    for (part, happens), faults in together.items():
        kind, _, name = part.partition(": ")
        by_faults.setdefault((", ".join(faults), happens), []).append(f"{kind} `{name}`" if name else part)
    lines = ["| fault | in | what happens |", "|---|---|---|"]
    for (faults, happens), parts in by_faults.items():
        lines.append(f"| {faults} | {', '.join(parts)} | {WORDS[happens]} |")
    record = json.loads(RECORD.read_text())
    found = record["tests"][TEST]
    return "\n".join([*lines, "", f"{found['passed']} of {found['tests']} cases passed on", f"{ran.said(record)}."])


def with_table(text: str) -> str:
    """The page with this table in it."""
    return pages.with_table(text, page(), "<!-- faults -->", "<!-- end of faults -->")


if __name__ == "__main__":
    if sys.argv[1:] == ["--run"]:
        ran.save(RECORD, ran.run([TEST]))
    PAGE.write_text(with_table(PAGE.read_text()))
