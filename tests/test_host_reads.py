"""No device-side line of a probe or a formula brings a value to the host: a check of the sources.

A mode that counts reads (test_monitor.py) sees neither ``tolist`` nor, on the CPU, ``cpu``.
"""

import ast
from pathlib import Path

import pytest

import thermo_monitor

PACKAGE = Path(thermo_monitor.__file__).parent
READS = {"item", "tolist", "cpu", "numpy"}
CASTS = {"float", "int", "bool"}
ON_THE_HOST = {
    "read",
    "_from_array",
    "attention_readings",  # of what arrived, as the next one
    "_error_of_heads",
    "number",
    "listen",
    "__post_init__",
    "describe",
    "check_quantities",
    "_telling",
    "_parts",  # of what arrived: this and the next two
    "_traces",
    "_error",
    "_heat",
    "detrended_variance",
    "averages",
    "logit_temperature",
    "standard_error",
    "stationary",
    "_known_on_host",
    "_of_rows",  # of what arrived: these five
    "_why",
    "_put",
    "digest",  # sums of what arrived from several ranks: these five
    "of_digest",
    "shares",
    "pooled",
    "together",
    "_positive",
    "_products",
    "_squared_error",
    "_slope",
    "blocks",  # once, when a probe is attached
    "_values",
    "_kappa",
    "_put_turned",
    "rotary_of",  # once, when a probe is attached
    "_same",
    "_layout",
}


def host_reads(source, rooms_on_the_host=()):
    """Calls in device-side functions that could bring a value to the host: ``x.item()``, ``float(tensor)`` and such."""
    found = []

    def visit(node, function):
        for child in ast.iter_child_nodes(node):
            inside = function
            if isinstance(child, ast.FunctionDef):
                if child.name in rooms_on_the_host:
                    continue
                inside = child.name
            if isinstance(child, ast.Call):
                f = child.func
                if isinstance(f, ast.Attribute) and f.attr in READS:
                    found.append(f"{inside}: .{f.attr}()")
                if isinstance(f, ast.Name) and f.id in CASTS and not _plain(child.args[0]):
                    found.append(f"{inside}: {ast.unparse(child)}")
            visit(child, inside)

    visit(ast.parse(source), "module")
    return found


def _plain(node):
    """Whether a value is visibly a Python number and no tensor."""
    text = ast.unparse(node)
    named = {
        "scale",
        "a['is_causal']",
        "given['is_causal']",
        "is_causal",
        "eps",
        "getattr(module, 'is_causal', True) if said is None else said",
    }
    return text in named or "_current_graph_task_id" in text


def test_probes_read_no_value_on_the_device_side():
    for path in sorted((PACKAGE / "probes").rglob("*.py")):
        assert host_reads(path.read_text(), ON_THE_HOST) == [], path.name


def test_physics_reads_no_value():
    for path in sorted((PACKAGE / "physics").rglob("*.py")):
        assert host_reads(path.read_text(), {"bounded_entropy"}) == [], path.name


@pytest.mark.parametrize("line", ["x.item()", "x.sum().tolist()", "x.cpu()", "float(x)", "bool(x > 0)", "int(x.max())"])
def test_a_planted_read_is_found(line):
    assert len(host_reads(f"def hear(x):\n    return {line}", ON_THE_HOST)) == 1
    assert host_reads(f"def read(x):\n    return {line}", ON_THE_HOST) == []
