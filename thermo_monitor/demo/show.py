"""Runs the demo and shows what was found: a table in the terminal, a picture, and the way to TensorBoard."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from thermo_monitor import report
from thermo_monitor.demo.run import DemoRun, train

RUNS = {"grokking": 3.0, "control": 0.0}  # name of the run and its weight decay
MEASURED = (  # of docs/transitions.md, which a test holds it against
    "How good the detector is, on 102 small runs with known truth: 98 % of what is told is right, 95 % of the "
    "generalizations are found, 86 % of the runs that grok are announced before half of the held-out answers are "
    "right, 2.7 false alarms in 100,000 steps of controls (0.3 to 9.8; 1 asked for)."
)


def run(directory: Path, steps: int, seed: int, progress: bool) -> dict[str, DemoRun]:
    """Train both runs, print their events, write ``report.png``."""
    console = Console()
    started = time.perf_counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the model is so small that a second thread only gets in the way
    try:
        runs = _train(directory, steps, seed, progress, console)
    finally:
        torch.set_num_threads(threads)
    for name, result in runs.items():
        console.print(_table(name, result))
    picture = directory / "report.png"
    report.draw(runs, picture)
    console.print(MEASURED)
    console.print(f"Took {time.perf_counter() - started:.0f} s. Picture: {picture}")
    console.print(f"To look at the runs:  {_tensorboard()} --logdir {directory}", soft_wrap=True)
    console.print("and open  http://localhost:6006/  which opens on the tab with both runs", soft_wrap=True)
    return runs


def _tensorboard() -> str:
    """How to start the TensorBoard of this environment, from a shell that may not know of it."""
    beside = Path(sys.executable).parent / "tensorboard"
    found = shutil.which("tensorboard")
    known = found is not None and Path(found).resolve() == beside.resolve()
    return "tensorboard" if known or not beside.exists() else str(beside)


def _train(directory: Path, steps: int, seed: int, progress: bool, console: Console) -> dict[str, DemoRun]:
    runs = {}
    for name, weight_decay in RUNS.items():
        shutil.rmtree(directory / name, ignore_errors=True)  # one run a folder: an older one would be continued
        console.print(f"\n[bold]{name}[/bold]: weight decay {weight_decay:g}, {steps} steps")
        runs[name] = train(name, directory, weight_decay=weight_decay, steps=steps, seed=seed, progress=progress)
    return runs


def _table(name: str, result: DemoRun) -> Table:
    """The events that are not another side of one that is listed, with the accuracies that the monitor never saw."""
    table = Table(
        title=f"Events of the run '{name}'; train and held-out: accuracies when an event was confirmed",
        title_justify="left",
    )
    for column in ("onset", "confirmed", "phase", "what happened", "train", "held-out"):
        table.add_column(column, justify="left" if column == "what happened" else "right", no_wrap=column == "phase")
    for event in sorted(result.events, key=lambda e: e.onset):
        if "part_of" in event.details:
            continue
        accuracies = [f"{result.accuracy(f'{which} accuracy', event.step):.2f}" for which in ("train", "held-out")]
        what = event.message.partition("; looks like")[0]
        table.add_row(str(event.onset), str(event.step), event.phase, what, *accuracies)
    return table
