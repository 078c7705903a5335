"""What the documents say about the program is what the program does."""

import math
import re
from pathlib import Path

import pytest

from thermo_monitor import presets, quantities

ROOT = Path(__file__).parent.parent
DEFAULTS = (ROOT / "docs" / "defaults.md").read_text()


def effect(q):
    if math.isnan(q.minimum_effect):
        return ""
    return f"factor {q.minimum_effect:g}" if q.scale == "log" else f"{q.minimum_effect:g}"


def test_the_table_of_defaults_is_the_default_preset():
    rows = re.findall(r"^\| `([a-z]+/[a-z_]+)` \| (every step|every 10) \|( yes)? \| ?([^|]*?) ?\|$", DEFAULTS, re.M)
    expected = [
        (key, "every step" if probe.fast else "every 10", " yes" if q.watched else "", effect(q))
        for probe in presets.default()
        for key in probe.quantities
        for q in [quantities.get(key)]
    ]
    assert rows == expected


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "docs/defaults.md",
        "docs/detection.md",
        "docs/ensembles.md",
        "docs/fisher.md",
        "docs/representation.md",
        "docs/geometry.md",
        "docs/robustness.md",
        "docs/scale.md",
        "docs/watching.md",
    ],
)
def test_links_and_pictures_exist(name):
    path = ROOT / name
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_every_command_of_the_readme_is_a_target():
    makefile = (ROOT / "Makefile").read_text()
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", readme, re.M))
    assert {"demo", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.M), target
