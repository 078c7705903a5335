"""What ``thermo-monitor analyze`` shows in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from thermo_monitor.terminal import printable

if TYPE_CHECKING:
    from thermo_monitor.analysis.results import Result


def listed() -> None:
    """Print the names of the analyses."""
    from thermo_monitor.analysis.catalogue import ANALYSES

    console = Console()
    for name, analysis in ANALYSES.items():
        console.print(Text(f"{name:12s}{analysis.about}"), soft_wrap=True)


def run(model: str, prompts: Path, out: Path, **options: Any) -> bool:
    """Run with a progress bar; whether every analysis failed.

    Raises:
        ValueError: with one line for the user.
    """
    import warnings

    from thermo_monitor.analysis import run as analyses

    console = Console(stderr=True)
    names = analyses.chosen(options["only"], bool(options["against"]))
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries below; what matters is in the results
        task = progress.add_task("loading", total=len(names))

        def told(name: str, result: Result | None) -> None:
            if result is None:
                progress.update(task, description=name)
                return
            progress.advance(task)
            if result.undefined is not None:
                progress.console.print(Text(f"{name}: {printable(result.undefined)}", style="yellow"))

        found = analyses.analyze(model, prompts, out, told=told, **options)
    good = [name for name, result in found.items() if result.undefined is None]
    Console().print(Text(f"{len(good)} of {len(found)} analyses in {out}: {', '.join(good)}"))
    return not good
