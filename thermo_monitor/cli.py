"""The command line. Importing it loads no torch: each command imports what it needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

import thermo_monitor

app = typer.Typer(
    help="Thermodynamic readings of a training run, and alerts when it changes regime.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(thermo_monitor.__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Thermodynamic readings of a training run, and alerts when it changes regime."""


@app.command()
def demo(
    directory: Annotated[Path, typer.Option("--dir", help="Where logs and report.png go.")] = Path("runs/demo"),
    steps: Annotated[int, typer.Option(min=50, help="Optimizer steps of each run.")] = 1300,
    seed: Annotated[int, typer.Option(help="Of the models and of the split.")] = 0,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Train a transformer that groks, and a control that does not, and show what the monitor finds."""
    from thermo_monitor.demo import show

    show.run(directory, steps, seed, progress)


@app.command()
def watch(
    logdir: Annotated[str, typer.Argument(help="Log directory, an event file, or a remote place such as s3://...")],
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option(help="Print what is there and leave.")] = False,
) -> None:
    """Follow runs in the terminal: curves, phases, events. Ctrl-C ends it."""
    from thermo_monitor import watch as view

    with _said():
        view.run(logdir, every, once)


@app.command()
def scan(
    places: Annotated[list[str], typer.Argument(help="Log directories, event files, CSV or JSONL files.")],
    tags: Annotated[
        list[str] | None, typer.Option("--tags", help="Curves to look at, such as 'val/*'; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    jobs: Annotated[int, typer.Option(help="Processes; -1: one a core.")] = -1,
) -> None:
    """Find transitions in logs of any run. The exit code is 3 when there are any, 0 when there are none."""
    from thermo_monitor import scan as scanning

    if as_json and as_csv:
        raise typer.BadParameter("give one of --json and --csv")
    with _said():
        found = scanning.scan(places, tuple(tags or ()), jobs)
    if as_json or as_csv:
        typer.echo(scanning.as_json(found) if as_json else scanning.as_csv(found), nl=as_json)
    else:
        from thermo_monitor.scan_table import show

        show(found)
    if any(one.events for one in found):
        raise typer.Exit(3)


@app.command()
def report(
    logdir: Annotated[str, typer.Argument(help="Log directory, an event file, a CSV or JSONL file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file.")] = Path("thermo-report.html"),
) -> None:
    """Write one self-contained HTML file: the curves of each run with their events."""
    from thermo_monitor import page
    from thermo_monitor.eventlog.runs import find
    from thermo_monitor.scan import scan_run

    with _said():
        runs = [(scan_run(log), log.curves()) for log in find(logdir)]
        if not any(curves for _, curves in runs):
            raise ValueError(f"no run with numbers in {logdir}")
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(page.page(logdir, runs), encoding="utf-8")
        except OSError as error:
            raise ValueError(f"cannot write {out}: {error.strerror}") from error
    typer.echo(f"{len(runs)} runs in {out}")


@app.command()
def analyze(
    model: Annotated[
        str | None, typer.Argument(help="Local folder of transformers, or a checkpoint (.ckpt, .pt, .safetensors).")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts, one a line, or JSONL; lists of ids for a model without a tokenizer.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for JSON, CSV and PNG.")] = Path("thermo-analysis"),
    only: Annotated[list[str] | None, typer.Option("--only", help="Analyses to run, such as 'entropy,layers'.")] = None,
    show: Annotated[bool, typer.Option("--list", help="List the analyses and leave.")] = False,
    build: Annotated[str | None, typer.Option("--model", help="module:Class that makes a checkpoint's model.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Folder of a tokenizer; that of the model by default.")] = None,
    against: Annotated[
        list[str] | None, typer.Option("--against", help="Another model or checkpoint to compare; repeatable.")
    ] = None,
    length: Annotated[int | None, typer.Option(min=1, help="Tokens that prompts are cut to, to compare them.")] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Most tokens that the model reads.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
) -> None:
    """Ask a trained model: entropies of prompts, representations, token selection, distances. Reads this disk only."""
    from thermo_monitor.analysis_command import listed, run

    if show:
        listed()
        return
    if model is None or prompts is None:
        raise typer.BadParameter("give a model and --prompts FILE, or --list")
    with _said():
        failed = run(
            model, prompts, out, only=tuple(only or ()), build=build, tokenizer=tokenizer,
            against=tuple(against or ()), length=length, context=context, seed=seed,
        )  # fmt: skip
    if failed:
        raise typer.Exit(1)


@app.command()
def doctor(
    model: Annotated[str | None, typer.Option(help="module:Class of a model: what can be heard of it.")] = None,
) -> None:
    """Say what is installed, whether TensorBoard sees the tab, and what can be heard of a model."""
    from thermo_monitor import doctor as examination

    sign = {True: "ok  ", False: "BAD ", None: "    "}
    bad = False
    for finding in examination.examine(model):
        bad |= finding.good is False
        typer.echo(f"{sign[finding.good]}{finding.what:<18} {finding.words}")
    if bad:
        raise typer.Exit(1)


@app.command("alert-test")
def alert_test(
    urls: Annotated[list[str], typer.Argument(help="Addresses, such as slack://... or mailto://...")],
) -> None:
    """Send a test message, and say whether it was taken."""
    from thermo_monitor.records import Event
    from thermo_monitor.sinks.channels import Message, channel

    text = "A test of thermo-monitor: alerts about your trainings will look like this."
    event = Event("shift", 120, 100, "up", "loss/train", phase="reorganization", message=text, id="test:0")
    failed = False
    for url in urls:
        with _said():
            target = channel(url)
        try:
            taken = target.send(Message("thermo-monitor: test", text, "warning", event))
            why = "" if taken else ": it refused the message; check the address, token and network"
        except Exception as error:  # its text may hold the address
            taken, why = False, f": {type(error).__name__}"
        failed |= not taken
        typer.echo(f"{target.name} {'took the message' if taken else 'did not take the message'}{why}")
    if failed:
        raise typer.Exit(1)


@contextmanager
def _said() -> Iterator[None]:
    """What the user gave wrongly is answered in a sentence."""
    try:
        yield
    except ValueError as error:
        typer.echo(f"thermo-monitor: {error}", err=True)
        raise typer.Exit(1) from None


def main() -> None:
    """Entry point of ``thermo-monitor``."""
    app()
