"""What a run of the suite said of some tests, kept in a file so that a page can tell it."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("torch", "lightning", "transformers", "accelerate")


class Collected:
    """A plugin of pytest: what became of each test, and why it was skipped."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Set-up, test and clean-up each give a report; the worst counts."""
        if report.failed:
            self.outcomes[report.nodeid] = "failed"
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.outcomes[report.nodeid] = reason.removeprefix("Skipped: ")
        elif report.when == "call":
            self.outcomes.setdefault(report.nodeid, "passed")


def run(names: list[str]) -> dict[str, Any]:
    """Run tests that are given as ``file::name`` or ``file::name[part of the parameters]``.

    Returns:
        The day, the versions, and for each name how many tests it stands for, how many of them passed and how many
        failed, and why others were skipped.
    """
    whole = sorted({f"tests/{name.partition('[')[0].replace('::', '.py::')}" for name in names})
    plugin = Collected()
    pytest.main(["-q", "-p", "no:cacheprovider", *(str(ROOT / one) for one in whole)], plugins=[plugin])
    found = {}
    for name in dict.fromkeys(names):
        outcomes = [outcome for node, outcome in plugin.outcomes.items() if stands_for(name, node)]
        reasons = sorted(set(outcomes) - {"passed", "failed"})
        counts = {word: outcomes.count(word) for word in ("passed", "failed")}
        found[name] = {"tests": len(outcomes), **counts, "skipped": reasons}
    return {"date": str(datetime.date.today()), "versions": versions(), "tests": found}


def stands_for(name: str, node: str) -> bool:
    """Whether a name means this test; the words in its brackets have to be among the parameters."""
    test, _, words = name.replace("::", ".py::").partition("[")
    own, _, parameters = node.removeprefix("tests/").partition("[")
    return own == test and all(word in parameters for word in words.removesuffix("]").split())


def versions() -> dict[str, str]:
    """Of Python and of the packages that the tests are about."""
    return {"Python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def save(path: Path, record: dict[str, Any]) -> None:
    """Write it, readable."""
    path.write_text(json.dumps(record, indent=1) + "\n")


def said(record: dict[str, Any]) -> str:
    """When it was, and with which versions."""
    return f"{record['date']} ({', '.join(f'{name} {version}' for name, version in record['versions'].items())})"
