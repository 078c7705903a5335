import subprocess
import sys

import pytest
from typer.testing import CliRunner

import thermo_monitor
from thermo_monitor.cli import app


def test_help_names_the_commands_and_loads_no_torch():
    code = (
        "import sys; from thermo_monitor.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'transformers', 'tensorboard', 'matplotlib', 'ruptures'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "demo" in done.stdout


def test_version():
    assert CliRunner().invoke(app, ["--version"]).stdout.strip() == thermo_monitor.__version__


def test_the_demo_writes_logs_and_a_picture_and_says_how_to_look_at_them(tmp_path):
    done = CliRunner().invoke(app, ["demo", "--dir", str(tmp_path), "--steps", "60", "--no-progress"])
    assert done.exit_code == 0, done.output
    assert "tensorboard --logdir" in done.output
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    for run in ("grokking", "control"):
        assert list((tmp_path / run).glob("events.out.tfevents.*"))
        assert (tmp_path / run / "thermo.jsonl").exists()


def test_too_few_steps_are_refused():
    done = CliRunner().invoke(app, ["demo", "--steps", "3"])
    assert done.exit_code == 2


@pytest.mark.parametrize("name", ["thermo_monitor.nothing", "nothing"])
def test_an_unknown_name_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match="nothing"):
        getattr(thermo_monitor, name.rpartition(".")[2])
