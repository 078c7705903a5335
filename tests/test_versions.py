"""The oldest versions that are tested are those that are asked for."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def lower_bounds():
    """The lower bound of each package that a user gets, and of the test runner."""
    project = PROJECT["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    asked += [one for one in PROJECT["dependency-groups"]["test"] if one.startswith(("pytest", "hypothesis"))]
    return dict(re.match(r"([\w-]+)>=([\d.]+)", one).groups() for one in asked if not one.startswith("thermo-monitor"))


def pinned(name):
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_the_oldest_versions_are_the_lower_bounds():
    found = pinned("constraints-oldest.txt")
    for name, bound in lower_bounds().items():
        assert f"{found[name]}.".startswith(f"{bound}."), name


def test_the_versions_of_the_suite_are_no_older():
    newest = {name.lower(): version for name, version in pinned("constraints.txt").items()}
    for name, bound in lower_bounds().items():
        parts = [[int(n) for n in version.split(".")] for version in (newest[name], bound)]
        assert parts[0] >= parts[1], name


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-oldest.txt"])
def test_the_readme_names_the_versions(name):
    rows = [[cell.strip() for cell in line.split("|")] for line in (ROOT / "README.md").read_text().splitlines()]
    head = next(row for row in rows if "tested with" in row)
    row = next(row for row in rows if f"`{name}`" in row)
    given = dict(zip(head[2:6], row[2:6], strict=True))
    found = pinned(name)
    assert given == {key: found[key.lower()] for key in ("torch", "Lightning", "transformers", "accelerate")}
    assert found["pytorch-lightning"] == given["Lightning"]
