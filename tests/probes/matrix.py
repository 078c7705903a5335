"""Which attention is heard on which route: a table made of what the tests say that they show.

    python -m tests.probes.matrix

A test carries ``@hears(feature, route, ...)`` where it shows that what was heard is right, and ``@refuses(...)`` where
it shows that the layer is absent and named. The table in docs/capture.md is written from these marks.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests import pages

hears, refuses = pytest.mark.hears, pytest.mark.refuses

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent.parent / "docs" / "capture.md"
WORDS = {"hears": "tested", "refuses": "refused"}
ROUTES = (
    "sdpa function", "MultiheadAttention", "flex_attention", "HF sdpa", "HF eager", "HF flash", "HF flex",
    "record_attention",
)  # fmt: skip
NO = "not applicable"
# What a route cannot meet: torch's function has no caps and no sinks, and only flash makes masks of packed sequences
# itself (elsewhere they are a mask as any other).
NOT_APPLICABLE = {
    "grouped queries": ("MultiheadAttention",),
    "additive bias, ALiBi": ("HF flash",),
    "soft cap": ("sdpa function", "MultiheadAttention", "HF sdpa"),
    "sinks": ("sdpa function", "MultiheadAttention", "flex_attention", "HF sdpa"),
    "packed sequences": ("sdpa function", "MultiheadAttention", "HF sdpa", "HF eager"),
    "paged attention": ("sdpa function", "MultiheadAttention", "flex_attention", "record_attention"),
    "nested tensors, masks of a class of their own": ("HF sdpa", "HF eager", "HF flash", "HF flex"),
    "same outputs, gradients, random numbers": ("record_attention",),
}
FEATURES = (
    "causal", "padding", "grouped queries", "sliding window", "additive bias, ALiBi", "cross-attention", "soft cap",
    "sinks", "packed sequences", "paged attention", "nested tensors, masks of a class of their own",
    "torch.func transforms", "same outputs, gradients, random numbers", "called again in one pass",
    "two models in one process", "gradient checkpointing", "torch.compile", "torch.compile with checkpointing",
)  # fmt: skip


def marks(source: str) -> list[tuple[str, str, str]]:
    """What the tests of a file show: (feature, route, word)."""
    found = []
    for node in ast.parse(source).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id in WORDS:
                if not node.name.startswith("test_"):
                    raise ValueError(f"{node.name} is marked and is no test")
                feature, *routes = (ast.literal_eval(argument) for argument in mark.args)
                if feature not in FEATURES or not routes or not set(routes) <= set(ROUTES):
                    raise ValueError(f"{node.name}: {ast.unparse(mark)} is no cell of the table")
                found += [(feature, route, WORDS[mark.func.id]) for route in routes]
    return found


def cells() -> dict[tuple[str, str], str]:
    """The word of each cell."""
    found = {(feature, route): NO for feature, routes in NOT_APPLICABLE.items() for route in routes}
    for path in sorted(FOLDER.glob("test_*.py")):
        for feature, route, word in marks(path.read_text()):
            if found.setdefault((feature, route), word) != word:
                raise ValueError(f"{feature}, {route}: both {found[feature, route]} and {word} ({path.name})")
    return found


def table() -> str:
    """The matrix as markdown; an empty cell has no test."""
    found = cells()
    lines = [f"| | {' | '.join(ROUTES)} |", "|" + "---|" * (len(ROUTES) + 1)]
    for feature in FEATURES:
        lines.append(f"| {feature} | {' | '.join(found.get((feature, route), '') for route in ROUTES)} |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """A page with the matrix in place of the one between its two marks."""
    return pages.with_table(page, table(), "<!-- matrix -->", "<!-- end -->")


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
