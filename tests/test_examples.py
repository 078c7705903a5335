"""Every example runs, shortened, as a user would run it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))


WORDS = {
    "04_fisher_and_temperature": "fisher/trace_empirical",
    "05_prompt_entropy": "nearly without entropy",
    "06_temperature_schedule": "feedback, seed 0",
    "07_manifold_heads": "geometrization error",
    "08_token_selection": "information gain of a word",
    "09_scaling_law": "H_norm of random tokens (null)",
    "10_distribution_space": "mixing two prompts",
}
# What shortens them beyond the 120 steps that the others take.
SHORTER = {
    "08_token_selection": ("--steps", "20", "--sentences", "32"),
    "09_scaling_law": ("--steps", "3", "--sentences", "32"),
    "10_distribution_space": ("--steps", "20", "--prompts", "32"),
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs_and_says_what_it_found(path, tmp_path):
    done = subprocess.run(
        [sys.executable, str(path), *SHORTER.get(path.stem, ("--steps", "120"))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert WORDS.get(path.stem, "memorization") in done.stdout + done.stderr
    left = [*tmp_path.glob("runs/examples/*/events.out.tfevents.*"), *tmp_path.glob("runs/examples/*.png")]
    assert left
    assert all(path.stat().st_size for path in left)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_says_first_what_will_be_seen(path):
    assert path.read_text().startswith('"""')
    assert "You will see" in path.read_text().partition('"""\n\n')[0]
