"""The command line. Importing it loads no torch: each command imports what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import thermo_monitor

app = typer.Typer(
    help="Thermodynamic readings of a training run, and alerts when it changes regime.",
    no_args_is_help=True,
    add_completion=False,
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


def main() -> None:
    """Entry point of ``thermo-monitor``."""
    app()
