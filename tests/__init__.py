"""Tests. They mirror the package; ``reference`` holds slow, obvious versions of the formulas."""
