"""What the trainer, its loggers and its checkpoints see of the monitor."""

import math

import pytest
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.fits import Module, ThermoMonitor, fit, trainer
from thermo_monitor.lightning_sinks import logger_sinks
from thermo_monitor.sinks import read_jsonl


def test_metrics_are_there_for_checkpoints_and_early_stopping(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor="thermo/specific_heat_norm", every_n_train_steps=1, save_top_k=2)
    stopping = EarlyStopping("thermo/entropy_fraction", check_on_train_epoch_end=True, patience=3, mode="min")
    callback = ThermoMonitor(every=1, sinks=[], strict=True)
    present = []

    class Looks(Callback):
        def on_train_batch_end(self, trainer, *_):
            present.append("thermo/specific_heat_norm" in trainer.callback_metrics)

    options = {"enable_checkpointing": True, "max_epochs": 2, "max_steps": -1}
    run = trainer(tmp_path, callback, Looks(), stopping, checkpoint, **options)
    fit(run, Module())
    assert all(present)  # from the first step
    assert len(list(tmp_path.glob("*.ckpt"))) == 2
    assert math.isfinite(float(checkpoint.best_model_score))
    notable = [e for e in callback.events if e.level != "info"]
    assert float(run.callback_metrics["thermo/transitions"]) == len(notable)
    assert callback.monitor.latest["attn/specific_heat_norm"] == pytest.approx(
        float(run.callback_metrics["thermo/specific_heat_norm"])
    )


def test_readings_go_into_the_loggers_own_event_file(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="run")
    module = Module()
    module.on_train_batch_end = lambda *_: module.log("mine", 1.0)
    fit(trainer(tmp_path, ThermoMonitor(every=2), logger=logger, max_steps=6, log_every_n_steps=1), module)
    files = list((tmp_path / "run").glob("*tfevents*"))
    assert len(files) == 1
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [e.step for e in events.Scalars("mine")] == list(range(6))
    assert [e.step for e in events.Scalars("thermo/loss/train")] == [0, 2, 4]
    losses = [r.step for r in read_jsonl(tmp_path / "run" / "thermo.jsonl").readings if r.quantity == "loss/train"]
    assert losses == list(range(6))


def test_other_loggers_get_numbers(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="run", flush_logs_every_n_steps=1)
    fit(trainer(tmp_path, ThermoMonitor(every=2), logger=logger, max_steps=6), Module())
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("thermo/loss/train")
    assert len([line for line in lines[1:] if line.split(",")[column]]) == 3
    assert (tmp_path / "run" / "thermo.jsonl").exists()


def test_without_a_logger_a_file_is_named_and_written(tmp_path, spoken):
    fit(trainer(tmp_path, ThermoMonitor(every=2), max_steps=6), Module())
    assert [text for text in spoken if "no logger" in text and str(tmp_path / "thermo.jsonl") in text]
    run = read_jsonl(tmp_path / "thermo.jsonl")
    assert sorted({r.step for r in run.readings}) == list(range(6))


def test_a_rehearsal_leaves_no_file_and_bare_bones_suffice(tmp_path, spoken, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for options in ({"fast_dev_run": 2}, {"barebones": True, "logger": None, "num_sanity_val_steps": None}):
        if "barebones" in options:
            options |= dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"))
        callback = ThermoMonitor(every=1, strict=True)
        fit(trainer(tmp_path / "x", callback, **options, max_steps=3), Module())
        assert callback.monitor.latest["loss/train"] > 0
        if "fast_dev_run" in options:
            assert not list(tmp_path.rglob("*.jsonl"))


def test_a_directory_that_cannot_be_written_costs_the_file_and_not_the_training(tmp_path, spoken):
    (tmp_path / "file").write_text("")
    callback = ThermoMonitor(every=1, strict=True)
    run = trainer(tmp_path, callback, max_steps=3)
    run._default_root_dir = str(tmp_path / "file" / "below")
    fit(run, Module())
    assert run.global_step == 3
    assert any("cannot write" in text and "training begins without" in text for text in spoken)


def test_every_rank_asks_for_the_directory_and_only_the_first_writes(tmp_path):
    """The directory is a broadcast: a rank that does not ask keeps the others waiting."""

    class Rank:
        loggers = ()
        fast_dev_run = False
        default_root_dir = tmp_path
        asked = 0

        @property
        def log_dir(self):
            self.asked += 1

    for rank_zero in (True, False):
        rank = Rank()
        rank.is_global_zero = rank_zero
        sinks = logger_sinks(rank)
        assert rank.asked == 1
        assert bool(sinks) == rank_zero
        for sink in sinks:
            sink.close()
