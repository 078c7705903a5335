"""Imports point one way: what a room may import is a table, and the torch-free rooms load no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import thermo_monitor

PACKAGE = Path(thermo_monitor.__file__).parent
OWN = "thermo_monitor"
TORCH_FREE = {"numpy"}
LIGHT = {"records", "quantities"}

# Room -> what it may import beside the standard library and itself; rooms of this package by their name.
TABLE = {
    "__init__": LIGHT | {"monitor", "probes"},  # the last two when they are first used
    "records": set(),
    "quantities": set(),
    "schedule": set(),
    "streaming": TORCH_FREE,
    "detect": TORCH_FREE | LIGHT | {"ruptures", "streaming"},  # minimum effects are in the registry of quantities
    "physics": {"numpy", "torch"},
    "kernels": {"torch", "triton", "physics"},
    "guard": set(),  # what all rooms use when something fails
    "meter": {"records"},
    "settings": {"torch"},
    "transport": {"numpy", "torch"},
    "probes": {"torch", "numpy", "triton", "kernels", "physics", "quantities", "records", "guard"},
    "sinks": LIGHT | {"numpy", "guard", "apprise", "matplotlib", "rich", "tensorboard", "tensorboardX"},
    "scaling": {"torch"},
    "budget": set(),
    "cadence": {"budget", "meter", "schedule"},
    "parts": {"torch", "guard", "probes"},
    "exchange": {"numpy", "torch"},
    "decisions": {"numpy", "budget", "records"},
    "pooling": {"numpy", "budget", "decisions", "exchange", "guard", "probes", "transport"},
    "notices": {"torch", "detect", "settings"},
    "options": {"torch", "detect", "records", "sinks"},
    "delivery": {"guard", "records", "sinks"},
    "reader": {"delivery", "detect", "guard", "meter", "probes", "records", "sinks", "transport"},
    "assembly": {
        "torch", "cadence", "decisions", "delivery", "detect", "exchange", "guard", "meter", "notices", "options",
        "parts", "pooling", "presets", "probes", "reader", "records", "schedule", "settings", "sinks", "transport",
    },
    "ranked": {"assembly", "decisions", "exchange", "pooling", "records"},
    "step": set(),
    "measured": {"probes", "torch", "detect", "ranked", "scaling", "transport"},
    "monitor": {"probes", "torch", "detect", "measured", "step"},
    "presets": {"probes", "streaming", "detect", "schedule"},
    "callback": {"budget", "detect", "monitor", "options", "presets", "probes", "records", "schedule", "sinks"},
    # Either name of the framework, by importlib; one of them by name for type checkers.
    "lightning_names": {"lightning (the framework)"},
    "lightning_metrics": {"torch", "monitor"},
    "lightning_batches": {"torch", "monitor"},
    "lightning_sinks": {"callback", "guard", "sinks"},
    "lightning": {
        "torch", "callback", "decisions", "detect", "guard", "lightning_batches", "lightning_metrics",
        "lightning_names", "lightning_sinks", "monitor", "probes", "records", "schedule", "sinks",
    },
    "passes": {"torch", "monitor", "probes", "scaling"},
    "huggingface": {
        "transformers", "callback", "detect", "guard", "monitor", "passes", "probes", "records", "schedule", "sinks",
    },
    "report": LIGHT | {"numpy", "matplotlib", "report_events", "detect"},
    "report_events": LIGHT | {"numpy", "matplotlib"},
    "analysis": LIGHT | {
        "torch", "numpy", "scipy", "sklearn", "transformers", "rich", "physics", "detect", "guard", "probes",
        "safetensors", "matplotlib", "spreadsheet", "__init__",
    },
    "analysis_command": {"rich", "analysis", "terminal"},
    "demo": LIGHT | {
        "torch", "numpy", "lightning", "lightning (the framework)", "matplotlib", "rich", "typer", "report", "sinks",
        "detect", "schedule",
    },
    "tensorboard_plugin": LIGHT | {
        "__init__", "numpy", "tensorboard", "werkzeug", "detect", "eventlog", "sinks", "spreadsheet",
    },
    "spreadsheet": set(),
    "eventlog": LIGHT | {"numpy", "tensorboard", "fsspec"},
    "terminal": set(),
    "scan": LIGHT | {"joblib", "detect", "eventlog", "spreadsheet"},
    "scan_table": {"rich", "scan", "sinks", "terminal"},
    "watch": LIGHT | {"rich", "eventlog", "sinks", "terminal"},
    "page": LIGHT | {"__init__", "numpy", "eventlog", "scan", "sinks"},
    "doctor": {"__init__"},  # and what is there, by importlib
    "__main__": {"cli"},
    "cli": LIGHT | {
        "typer", "rich", "analysis_command", "demo", "report", "__init__", "doctor", "eventlog", "page", "scan",
        "scan_table", "sinks", "watch",
    },
}  # fmt: skip


def rooms(package):
    """Every source file with the room that it is in."""
    for path in sorted(package.rglob("*.py")):
        yield path, path.relative_to(package).parts[0].removesuffix(".py")


def imported(source):
    """Names of modules, absolute, with the names taken from them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the room"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def violations(package, table=None):
    """Imports that the table does not allow."""
    table = table or TABLE
    found = []
    for path, room in rooms(package):
        for name in imported(path.read_text()):
            top, _, rest = name.partition(".")
            if top == OWN:
                target = rest.partition(".")[0]
                target = (
                    target
                    if (target and (package / target).is_dir()) or (package / f"{target}.py").exists()
                    else "__init__"
                )
            elif top in sys.stdlib_module_names:
                continue
            else:
                target = "lightning (the framework)" if top == "lightning" else top
            if target != room and target not in table.get(room, set()):
                found.append(f"{path.relative_to(package)} imports {name}")
    return found


def test_imports_follow_the_table():
    assert violations(PACKAGE) == []


def test_every_room_is_in_the_table():
    assert {room for _, room in rooms(PACKAGE)} == set(TABLE)


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("physics/x.py", "from thermo_monitor.probes import hub"),
        ("detect/x.py", "import torch.nn as nn"),
        ("records.py", "import numpy"),
        ("sinks/x.py", "def f():\n    from thermo_monitor.monitor import Monitor"),
        ("attic.py", "import thermo_monitor.cli"),
    ],
)
def test_the_check_can_fail(room, line, tmp_path):
    for name in ("probes", "physics", "detect", "sinks"):
        (tmp_path / name).mkdir()
    for name in ("monitor", "cli"):
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / room).write_text(line)
    assert len(violations(tmp_path)) == 1


FREE = [
    "",
    ".detect",
    ".detect.run",
    ".streaming",
    ".sinks",
    ".sinks.defaults",
    ".cli",
    ".records",
    ".quantities",
    ".guard",
    ".tensorboard_plugin.loader",
    ".tensorboard_plugin.plugin",
    ".eventlog.runs",
    ".scan",
    ".watch",
    ".page",
    ".doctor",
    ".sinks.alerts",
]


def test_the_torch_free_rooms_load_no_torch():
    program = (
        "import sys, importlib\n"
        f"for name in {FREE}: importlib.import_module('thermo_monitor' + name)\n"
        "heavy = {'torch', 'lightning', 'pytorch_lightning', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import thermo_monitor.transport\n"
        "assert 'torch' in sys.modules\n"  # the check can fail
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
