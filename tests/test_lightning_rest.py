"""What else a Lightning trainer does beside fitting: validating, tuning, reading a configuration, many loggers."""

import json
import os
import subprocess
import sys
import warnings

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.tuner import Tuner

from tests.fingerprint import installed, result, seed_all
from tests.fits import Module, ThermoMonitor, fit, loader, trainer
from tests.models import cross_entropy
from thermo_monitor.sinks import MemorySink, read_jsonl


def test_a_validation_alone_is_no_training(tmp_path):
    module, callback = Module(), ThermoMonitor(every=1, strict=True)
    before = installed(module)
    run = trainer(tmp_path, callback)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.validate(module, loader(3), verbose=False)
    assert callback.monitor is None
    assert callback.events == []
    assert installed(module) == before
    assert not list(tmp_path.rglob("*"))


class Tuned(Module):
    """Has a learning rate and a batch size that can be looked for."""

    def __init__(self):
        super().__init__()
        self.lr, self.batch_size = 1e-3, 2

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr)

    def train_dataloader(self):
        return loader(40, size=self.batch_size)

    def val_dataloader(self):
        return loader(2)


@pytest.mark.parametrize("search", ["lr_find", "scale_batch_size"])
def test_a_search_before_a_fit_comes_to_the_same_and_is_no_part_of_it(search, tmp_path, spoken):
    options = {"lr_find": {"num_training": 12}, "scale_batch_size": {"max_trials": 2, "steps_per_trial": 2}}[search]

    def outcome(*callbacks):
        module = Tuned()
        run = trainer(tmp_path, *callbacks, max_steps=6, enable_checkpointing=True)
        seed_all()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            getattr(Tuner(run), search)(module, **options)
            run.fit(module)
        return result(module, run.optimizers[0], []) | installed(module) | {"lr": module.lr, "size": module.batch_size}

    sink = MemorySink()
    expected = outcome()
    fits = []

    def sinks():
        fits.append(MemorySink())
        return [fits[-1]]

    assert outcome(ThermoMonitor(every=1, sinks=sinks, strict=True)) == expected
    assert fits[-1].series("loss/train")[0].tolist() == list(range(6))
    assert sink.readings == []


def test_a_fit_goes_on_from_its_last_model_checkpoint(tmp_path):
    def run(steps, resumed):
        sink = MemorySink()
        keeps = ModelCheckpoint(tmp_path / "kept", every_n_train_steps=4, save_top_k=-1, save_last=True)
        own = trainer(
            tmp_path,
            ThermoMonitor(every=2, sinks=[sink], strict=True),
            keeps,
            max_steps=steps,
            enable_checkpointing=True,
        )
        fit(own, Module(), loader(12), ckpt_path=str(tmp_path / "kept" / "last.ckpt") if resumed else None)
        return sink.series("loss/train")[0].tolist()

    assert run(8, resumed=False) == list(range(8))
    assert run(12, resumed=True) == list(range(8, 12))


class Pair(Module):
    """Two networks against each other, with an optimizer each, as in a GAN."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, tokens, index):
        for optimizer, sign in zip(self.optimizers(), (1.0, 0.5), strict=True):
            self.toggle_optimizer(optimizer)
            loss = sign * cross_entropy(self.model(tokens), tokens)
            self.losses.append(loss.detach())
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self):
        parts = (self.model.blocks, self.model.head)
        return [torch.optim.Adam(part.parameters(), 1e-2) for part in parts]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_two_networks_optimized_by_hand_come_to_the_same(precision, tmp_path, spoken):
    def outcome(*callbacks):
        module = Pair()
        run = trainer(tmp_path, *callbacks, max_steps=20, precision=precision)
        seed_all()
        fit(run, module, loader(10))
        return [result(module, optimizer, module.losses) for optimizer in run.optimizers] + [installed(module)]

    sink = MemorySink()
    expected = outcome()
    for every in (1, 3):
        assert outcome(ThermoMonitor(every=every, preset="study", sinks=[sink], strict=True)) == expected
    assert sink.series("opt/gradient_norm")[0].tolist() == list(range(10)) * 2


def test_several_loggers_at_once_each_get_theirs(tmp_path):
    loggers = [TensorBoardLogger(tmp_path, "", "board"), CSVLogger(tmp_path, "", "table", flush_logs_every_n_steps=1)]
    fit(trainer(tmp_path, ThermoMonitor(every=2, strict=True), logger=loggers, max_steps=6), Module())
    assert list((tmp_path / "board").glob("*tfevents*"))
    assert "thermo/loss/train" in (tmp_path / "table" / "metrics.csv").read_text()
    assert read_jsonl(tmp_path / "board" / "thermo.jsonl").readings


def test_wandb_without_a_network_gets_the_numbers(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    from lightning.pytorch.loggers import WandbLogger

    monkeypatch.setenv("WANDB_MODE", "offline")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger = WandbLogger(project="test", save_dir=tmp_path, offline=True)
        fit(trainer(tmp_path, ThermoMonitor(every=2, strict=True), logger=logger, max_steps=6), Module())
        summary = dict(logger.experiment.summary)
        wandb.finish()
    assert summary["thermo/loss/train"] > 0
    assert list(tmp_path.rglob("*.wandb"))


def test_mlflow_in_a_folder_gets_the_numbers(tmp_path):
    pytest.importorskip("mlflow")
    from lightning.pytorch.loggers import MLFlowLogger

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger = MLFlowLogger("test", tracking_uri=f"sqlite:///{tmp_path}/runs.db")
        fit(trainer(tmp_path, ThermoMonitor(every=2, strict=True), logger=logger, max_steps=6), Module())
        history = logger.experiment.get_metric_history(logger.run_id, "thermo/loss/train")
    assert [metric.step for metric in history] == [0, 2, 4]


CLI = """
import warnings
warnings.simplefilter("ignore")
from lightning.pytorch.cli import LightningCLI
from tests.fits import Module, loader
class Ours(Module):
    def train_dataloader(self):
        return loader(6)
LightningCLI(Ours, save_config_kwargs={"overwrite": True})
"""


def test_the_command_line_reads_the_callback_from_its_configuration(tmp_path):
    pytest.importorskip("jsonargparse")
    config = {
        "trainer": {
            "accelerator": "cpu", "max_steps": 4, "logger": False, "enable_checkpointing": False,
            "enable_progress_bar": False, "default_root_dir": str(tmp_path),
            "callbacks": [
                {"class_path": "thermo_monitor.lightning.ThermoMonitor",
                 "init_args": {"every": 2, "preset": "study", "save_checkpoint_on": ["shift"], "layers": [0]}},
            ],
        }
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-c", CLI, "fit", "--config", str(tmp_path / "config.json")],
        capture_output=True, text=True, check=False, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert {r.step for r in read_jsonl(tmp_path / "thermo.jsonl").readings} == set(range(4))
