"""Lightning has two names with two ``Callback`` classes; the monitor is one of each that is loaded."""

import subprocess
import sys

import pytest

from thermo_monitor import lightning_names

# One program, because each costs seconds: first one name is loaded, then both.
PROGRAM = """
import importlib, sys, warnings
warnings.simplefilter("ignore")
import pytorch_lightning, torch
from thermo_monitor import lightning as adapter
assert "lightning" not in sys.modules, "another name was loaded than the one that was"

def fit(library):
    class Module(library.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)
        def training_step(self, batch, index):
            return torch.nn.functional.cross_entropy(self.layer(batch), torch.zeros(2, dtype=torch.int64))
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)
    monitor = adapter.ThermoMonitor(every=1, sinks=[])
    assert isinstance(monitor, library.Callback)
    data = torch.utils.data.DataLoader([torch.ones(2, 2)] * 3, batch_size=None)
    library.Trainer(callbacks=monitor, max_steps=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", devices=1).fit(Module(), data)
    assert monitor.monitor.latest["loss/train"] > 0

fit(pytorch_lightning)
import lightning.pytorch
from thermo_monitor import lightning_names
importlib.reload(lightning_names)
importlib.reload(adapter)
fit(pytorch_lightning)
fit(lightning.pytorch)
print("good")
"""


def test_a_trainer_of_what_is_loaded_accepts_the_callback(tmp_path):
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("good")


@pytest.mark.parametrize("name", ["lightning.pytorch", "pytorch_lightning"])
def test_one_name_suffices(name, monkeypatch):
    monkeypatch.setitem(sys.modules, ({"lightning.pytorch", "pytorch_lightning"} - {name}).pop(), None)
    pytest.importorskip(name)
    assert [base.__module__.partition(".")[0] for base in lightning_names.bases()] == [name.partition(".")[0]]


def test_without_any_the_message_says_what_to_install(monkeypatch):
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'thermo-monitor\[lightning\]'"):
        lightning_names.bases()
