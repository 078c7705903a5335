"""A run that is taken up again goes on where it was; a second fit with the same callback does not start anew either."""

import json

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from tests.fits import Module, ThermoMonitor, fit, trainer
from tests.models import batches
from thermo_monitor import Event
from thermo_monitor.decisions import Told
from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.guard import Guard
from thermo_monitor.sinks import MemorySink, read_jsonl

DETECTOR = OnlineDetector(burn_in=10)
# One batch again and again: which one comes first after a resume is Lightning's business.
SAME = DataLoader(batches(1) * 12, batch_size=None)


def callback(sinks, **options):
    return ThermoMonitor(**{"every": 2, "sinks": sinks, "detector": DETECTOR, "strict": True} | options)


def detector_state(monitor):
    """As JSON, without what the clock says."""

    def timeless(value):
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if k not in ("wall", "events")}
        return [timeless(v) for v in value] if isinstance(value, list) else value

    return json.dumps(timeless(monitor.state_dict()["detector"]))


class Shifts(Module):
    """Its weights are thrown at a step, so that there is an event to find."""

    def __init__(self, at=None):
        super().__init__()
        self.model.eval()  # no dropout: a resumed run draws other random numbers
        self.at = at

    def on_train_batch_start(self, batch, index):
        if self.global_step == self.at:
            for p in self.parameters():
                p.data.mul_(4)


class KeepState(Callback):
    """Reads a state before the end of the fit, where late findings are not in it yet."""

    def __init__(self, monitor, step):
        self.monitor, self.step, self.state = monitor, step, None

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            self.state = detector_state(self.monitor.monitor)


def test_a_resumed_run_is_an_uninterrupted_one(tmp_path):
    """At step 36 the run is inside what its detectors follow; the checkpoint is between two slow readings."""

    def run(stop, ckpt=None):
        own = callback([sink := MemorySink()])
        keep = KeepState(own, 60)
        module = Shifts(at=30)
        fit(trainer(tmp_path, own, keep, max_steps=stop), module, SAME, ckpt_path=ckpt)
        if ckpt is None and stop < 60:
            module.trainer.save_checkpoint(tmp_path / "half.ckpt")
        return own, keep.state, sink

    whole, expected, all_readings = run(60)
    first, _, early = run(36)
    second, state, late = run(60, tmp_path / "half.ckpt")
    assert state == expected
    steps = all_readings.series("loss/train")[0].tolist()
    assert early.series("loss/train")[0].tolist() + late.series("loss/train")[0].tolist() == steps
    assert len(whole.events) > 0
    ids = [event.id for event in second.events]
    assert len(ids) == len(set(ids))
    found = [(e.kind, e.onset, e.quantity) for e in whole.events]
    assert set(found) <= {(e.kind, e.onset, e.quantity) for e in second.events}
    assert second.events[: len(first.events)] == first.events


def test_a_checkpoint_holds_plain_python_and_what_was_on_its_way(tmp_path):
    own = callback([])
    run = trainer(tmp_path, own, max_steps=12)
    fit(run, Module())
    run.save_checkpoint(tmp_path / "run.ckpt")
    state = torch.load(tmp_path / "run.ckpt", weights_only=True)["callbacks"]["ThermoMonitor"]
    json.dumps(state)
    assert state["step"] == 12
    assert state["detector"]["states"]["loss/train"]["last_step"] == 11

    class Checks(Callback):
        def on_train_batch_end(self, trainer, *_):
            states = own.state_dict()["detector"]["states"]
            assert states["loss/train"]["last_step"] == trainer.global_step - 1
            states["loss/train"]["mode"] = "spoilt"  # a copy: the run does not notice

    fit(trainer(tmp_path, own, Checks(), max_steps=12), Module())


def test_a_checkpoint_of_something_else_is_refused_and_training_goes_on(tmp_path, spoken):
    own = callback([], strict=False)
    own.load_state_dict({"detector": {"states": 3}})
    assert own.state_dict() == {"detector": {"states": 3}}  # not lost before it was taken up
    fit(trainer(tmp_path, own, max_steps=1), Module())  # setup forgets what is not of this fit
    own = callback([], strict=False)
    run = trainer(tmp_path, own, max_steps=4)
    setup = own.setup

    def restores(*args, stage):
        setup(*args, stage=stage)
        own.load_state_dict({"detector": {"states": 3}})

    own.setup = restores
    fit(run, Module())
    assert run.global_step == 4
    assert len([text for text in spoken if "no state of a Monitor" in text]) == 1
    assert own.monitor.latest["loss/train"] > 0


def test_a_second_fit_of_the_same_trainer_counts_on(tmp_path):
    own = callback([sink := MemorySink()])
    module = Shifts(at=20)
    run = trainer(tmp_path, own, max_steps=30)
    fit(run, module)
    before = list(own.events)
    run.fit_loop.max_epochs, run.fit_loop.epoch_loop.max_steps = -1, 45
    fit(run, module)
    assert sink.series("loss/train")[0].tolist() == list(range(45))
    assert own.monitor.state_dict()["detector"]["states"]["loss/train"]["last_step"] == 44
    assert own.events[: len(before)] == before
    ids = [event.id for event in own.events]
    assert len(ids) == len(set(ids))


def test_another_trainer_begins_a_new_run(tmp_path):
    made = []

    def sinks():
        made.append(MemorySink())
        return [made[-1]]

    own = callback(sinks)
    for _ in range(2):
        fit(trainer(tmp_path, own, max_steps=3), Module())
    assert [sink.series("loss/train")[0].tolist() for sink in made] == [[0, 1, 2]] * 2
    assert own.monitor.state_dict()["detector"]["states"]["loss/train"]["last_step"] == 2


def test_a_file_that_is_continued_has_every_step_once(tmp_path, spoken):
    for stop, ckpt in ((6, None), (9, None), (12, tmp_path / "half.ckpt")):
        own = callback(None)
        run = trainer(tmp_path, own, max_steps=stop)
        fit(run, Module(), ckpt_path=ckpt)
        if stop == 6:
            run.save_checkpoint(tmp_path / "half.ckpt")
    run = read_jsonl(tmp_path / "thermo.jsonl")
    assert [r.step for r in run.readings if r.quantity == "loss/train"] == list(range(12))


@pytest.mark.parametrize("words", [("shift",), ("instability",)])
def test_a_checkpoint_is_written_at_an_event(words, tmp_path):
    class Plants(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 3:
                reader = own.monitor._reader
                phase = "instability"
                reader._emit([Event("shift", 2, 1, phase=phase), Event("variance", 2, 1)])
                reader._emit([Event("shift", 2, 2, phase=phase, details={"part_of": "run:0"})])

    def refuses(event):
        raise RuntimeError("planted")

    own = callback([], save_checkpoint_on=words, on_event=refuses, strict=False)
    fit(trainer(tmp_path, own, Plants(), max_steps=6), Module())
    files = list((tmp_path / "thermo_checkpoints").iterdir())
    assert [f.name for f in files] == ["step=2-shift-instability.ckpt"]
    assert torch.load(files[0], weights_only=True)["global_step"] == 4


def test_what_is_found_at_the_end_is_saved_too(tmp_path):
    own = callback([], save_checkpoint_on=("divergence",))

    class Diverges(Module):
        def training_step(self, tokens, index):
            return super().training_step(tokens, index) * (float("nan") if index == 5 else 1)

    fit(trainer(tmp_path, own, max_steps=6), Diverges())
    assert [f.name.split("-")[1] for f in (tmp_path / "thermo_checkpoints").iterdir()] == ["divergence"]


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_checkpoint_that_failed_on_one_rank_leaves_no_other_waiting(world_size, spoken):
    """A checkpoint is collective: with others, a rank takes part in the next one as well."""

    class Trainer:
        tried = ()

        def save_checkpoint(self, path):
            self.tried = (*self.tried, path.name)
            raise OSError("planted: disk full")

    own, one = callback([], save_checkpoint_on=("shift",)), Trainer()
    one.world_size = world_size
    own.monitor = type("M", (), {"guard": Guard(False)})()
    own._save(one, [Told(2, "shift", "unexplained"), Told(9, "drift", "instability")])
    expected = ("step=2-shift-unexplained.ckpt", "step=9-drift-instability.ckpt")
    assert one.tried == expected[:world_size]
    assert len(spoken) == 1
