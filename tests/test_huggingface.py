"""The callback follows what transformers' Trainer does: accumulation, clipping, odd losses, evaluation, resuming."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from tests.fingerprint import installed, result, seed_all
from tests.trainers import InOrder, collate, examples, gpt2, run, trainer
from thermo_monitor import Event
from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.huggingface import ThermoMonitor
from thermo_monitor.probes import hub
from thermo_monitor.sinks import MemorySink, read_jsonl


def monitored(tmp_path, *others, **options):
    """A training and what was read in it."""
    sink = MemorySink()
    callback = ThermoMonitor(every=2, sinks=[sink], strict=True)
    return run(trainer(tmp_path, callback, *others, **options)), sink, callback


class Keeps(InOrder):
    """Keeps every loss that is trained on."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.losses = []

    def training_step(self, *args, **options):
        loss = super().training_step(*args, **options)
        self.losses.append(loss)
        return loss


class Norms(TrainerCallback):
    """Takes the norm of the gradients that the optimizer steps with, which not every trainer logs."""

    def __init__(self):
        self.taken = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **given):
        self.taken.append(math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters())))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_accumulation_steps": 3, "max_grad_norm": 0.1},
        {"bf16": True},
        {"checkpointing": False},
        {"checkpointing": True},
        {"torch_compile": True, "torch_compile_backend": "eager"},
    ],
    ids=["plain", "accumulation", "bf16", "checkpointing", "reentrant", "compiled"],
)
def test_a_training_comes_to_the_same(options, tmp_path, spoken):
    def outcome(*callbacks):
        torch._dynamo.reset()
        model, given = gpt2(dropout=0.1), dict(options)
        if "checkpointing" in given:
            # The name changed in the course of transformers 5.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": given.pop("checkpointing")})
        seed_all()
        own = trainer(tmp_path, *callbacks, model=model, kind=Keeps, **given)
        run(own)
        left.append(installed(model))
        return result(model, own.optimizer, own.losses)

    left = []
    expected = outcome()
    for every, fixed in ((1, None), (5, collate(examples(4)))):
        monitor = ThermoMonitor(every=every, preset="study", probe_batch=fixed, sinks=[], strict=True)
        assert outcome(monitor) == expected
        assert (fixed is not None) == ("geom/kinetic_depth" in monitor.monitor.latest)
    assert left[1:] == left[:1] * 2


def test_a_compiled_model_is_heard_where_it_can_be(tmp_path, spoken):
    torch._dynamo.reset()
    own, sink, _ = monitored(tmp_path, torch_compile=True, torch_compile_backend="eager")
    logged = [entry["loss"] for entry in own.state.log_history if "loss" in entry]
    assert sink.series("loss/train")[1] == pytest.approx(logged, rel=1e-6)
    assert len(sink.series("opt/gradient_norm")[0]) == 6
    assert np.isfinite(sink.series("attn/entropy_fraction")[1]).all()  # an operator in the graph hears it


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_trainers_own(padded, smoothing, tmp_path):
    """Weighted by tokens under accumulation, also in the shorter last step of an epoch, and with its own smoothing."""
    own, sink, _ = monitored(
        tmp_path,
        norms := Norms(),
        data=examples(20, padded=padded),  # 5 batches an epoch: two of them in a step, then one
        gradient_accumulation_steps=2,
        max_steps=6,
        label_smoothing_factor=smoothing,
    )
    logged = [entry for entry in own.state.log_history if "loss" in entry]
    assert sink.series("loss/train")[1] == pytest.approx([entry["loss"] for entry in logged], rel=1e-6)
    assert len(norms.taken) == 6
    assert sink.series("opt/gradient_norm")[1] == pytest.approx(norms.taken, rel=1e-5)


def test_a_loss_function_of_ones_own_is_heard(tmp_path):
    def halved(outputs, labels, num_items_in_batch=None):
        logits = outputs["logits"]
        return 0.5 * torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    own, sink, _ = monitored(tmp_path, trainer_options={"compute_loss_func": halved})
    logged = [entry["loss"] for entry in own.state.log_history if "loss" in entry]
    assert sink.series("loss/train")[1] == pytest.approx(logged, rel=1e-6)
    assert len(sink.series("out/predictive_entropy")[0]) == 3


def test_gradients_are_those_before_clipping(tmp_path):
    own, sink, _ = monitored(tmp_path, max_grad_norm=1e-3, gradient_accumulation_steps=2)
    logged = [entry["grad_norm"] for entry in own.state.log_history if "grad_norm" in entry]
    assert sink.series("opt/gradient_norm")[1] == pytest.approx(logged, rel=1e-5)
    assert min(logged) > 0.1


def test_a_loss_that_the_trainer_hides_is_seen(tmp_path):
    class Diverges(InOrder):
        def compute_loss(self, *args, **options):
            loss = super().compute_loss(*args, **options)
            return loss * math.nan if self.state.global_step == 3 else loss

    own, sink, _ = monitored(tmp_path, kind=Diverges, max_steps=5)
    assert all(math.isfinite(entry["loss"]) for entry in own.state.log_history if "loss" in entry)
    losses = [r for r in sink.readings if r.quantity == "loss/train"]
    assert [math.isnan(r.value) for r in losses] == [False, False, False, True, True]
    assert losses[3].reason == "non_finite"


def test_what_is_generated_or_evaluated_in_between_is_not_heard(tmp_path):
    class Generates(InOrder):
        def training_step(self, model, inputs, *args, **options):
            with torch.no_grad():
                model.eval()
                model(input_ids=inputs["input_ids"] * 0)
                assert not hub.ACTIVE
            return super().training_step(model, inputs, *args, **options)

    _, expected, _ = monitored(tmp_path)
    _, sink, _ = monitored(
        tmp_path, kind=Generates, evaluation=examples(8, seed=3), eval_strategy="steps", eval_steps=1
    )
    for key in ("loss/train", "attn/entropy_fraction", "out/predictive_entropy", "repr/effective_rank"):
        assert sink.series(key)[1].tolist() == expected.series(key)[1].tolist()


class Breaks(torch.nn.Module):
    """A block that raises in one of the two directions once it is told to."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.where, self.calls = inner, None, 0

    def forward(self, *args, **options):
        self.calls += 1
        output = self.inner(*args, **options)
        if self.calls == 4 and self.where == "forward":
            raise RuntimeError("planted")
        hidden = output[0] if isinstance(output, tuple) else output
        if self.calls == 4 and self.where == "backward":
            hidden.register_hook(lambda gradient: 1 / 0)
        return output


@pytest.mark.parametrize("where", ["forward", "backward", "batch"])
def test_nothing_listens_after_an_error(where, tmp_path, spoken):
    """The trainer tells nobody of an error; hooks that stay on the model are gone with the next training."""

    class Stops(InOrder):
        def _prepare_inputs(self, inputs):
            if where == "batch" and self.state.global_step == 3:
                raise RuntimeError("planted")
            return super()._prepare_inputs(inputs)

    model, sink = gpt2(), MemorySink()
    before = installed(model)
    model.transformer.h[1] = block = Breaks(model.transformer.h[1])
    callback = ThermoMonitor(every=1, sinks=[sink], strict=True)
    block.where = where
    own = trainer(tmp_path, callback, model=model, kind=Stops)
    with pytest.raises((RuntimeError, ZeroDivisionError)):
        run(own)
    now = installed(model)
    assert now["modes"] == before["modes"]
    assert now["listening"] == ()
    assert sink.series("loss/train")[0].tolist() == [0, 1]  # of step 2 the reading was on its way
    del own.callback_handler
    callback._close()
    assert installed(model) == before
    assert sink.series("loss/train")[0].tolist() == [0, 1, 2]


def test_the_next_training_removes_what_the_last_one_left(tmp_path):
    model = gpt2()
    before = installed(model)
    model.transformer.h[1] = block = Breaks(model.transformer.h[1])
    block.where = "forward"
    sinks = []

    def fresh():
        sinks.append(MemorySink())
        return [sinks[-1]]

    own = trainer(tmp_path, ThermoMonitor(every=1, sinks=fresh, strict=True), model=model)
    with pytest.raises(RuntimeError, match="planted"):
        run(own)
    run(own)
    assert installed(model) == before
    assert [sink.series("loss/train")[0].tolist() for sink in sinks] == [[0, 1, 2], list(range(6))]


def test_evaluations_are_read_as_held_out_metrics(tmp_path):
    own, sink, _ = monitored(tmp_path, evaluation=examples(8, seed=3), eval_strategy="steps", eval_steps=2)
    losses = [entry["eval_loss"] for entry in own.state.log_history if "eval_loss" in entry]
    steps, values = sink.series("val/loss")
    assert steps.tolist() == [1, 3, 5]
    assert values == pytest.approx(losses)
    assert not any("runtime" in r.quantity or "per_second" in r.quantity for r in sink.readings)


# ------------------------------------------------------------------------------------------------------- checkpoints
DETECTOR = OnlineDetector(burn_in=10)


def timeless(events):
    return [(e.id, e.kind, e.onset, e.step, e.quantity) for e in events]


class Thrown(TrainerCallback):
    """Throws the weights at a step, so that there is an event to find."""

    def on_step_begin(self, args, state, control, model=None, **given):
        if state.global_step == 25:
            for p in model.parameters():
                p.data.mul_(4)


@pytest.mark.parametrize("restores", [False, True])
def test_a_resumed_training_goes_on_where_it_was(restores, tmp_path):
    """With ``restore_callback_states_from_checkpoint`` the trainer makes the callback anew; its sinks are kept."""

    def train(stop, **options):
        heard, sink = [], MemorySink()
        callback = ThermoMonitor(every=2, sinks=[sink], detector=DETECTOR, on_event=heard.append, strict=True)
        own = trainer(
            tmp_path / "run",
            Thrown(),
            callback,
            data=examples(4) * 60,
            max_steps=60,
            save_strategy="steps",
            save_steps=31,
            restore_callback_states_from_checkpoint=restores,
        )
        if stop < 60:

            class Stop(TrainerCallback):
                def on_save(self, args, state, control, **given):
                    control.should_training_stop = True

            own.add_callback(Stop())
        run(own, **options)
        mine = next(c for c in own.callback_handler.callbacks if isinstance(c, ThermoMonitor))
        return mine.events, heard, sink

    _, _, early = train(31)
    assert json.loads((tmp_path / "run/checkpoint-31/trainer_state.json").read_text())["stateful_callbacks"]
    resumed, heard, late = train(60, resume_from_checkpoint=str(tmp_path / "run/checkpoint-31"))
    whole, _, readings = train(60)
    assert early.series("loss/train")[0].tolist() == list(range(31))
    assert late.series("loss/train")[0].tolist() == list(range(31, 60))
    assert late.series("loss/train")[1].tolist() == readings.series("loss/train")[1][31:].tolist()
    assert timeless(whole)
    assert set(timeless(whole)) <= set(timeless(resumed))
    assert timeless(heard) == timeless(resumed)[len(resumed) - len(heard) :]
    assert len({e.id for e in resumed}) == len(resumed)


def test_a_monitor_that_is_added_later_does_not_break_the_checkpoint(tmp_path):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    run(trainer(tmp_path, **options))
    own = trainer(tmp_path, ThermoMonitor(sinks=[sink := MemorySink()], strict=True), **options)
    run(own, resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert sink.series("loss/train")[0].tolist() == [2, 3]


def test_a_checkpoint_is_saved_at_an_event(tmp_path):
    class Plants(TrainerCallback):
        def on_step_begin(self, args, state, control, **given):
            if state.global_step == 2:
                callback.monitor._reader._emit([Event("shift", 2, 1, phase="instability")])

    callback = ThermoMonitor(sinks=[], save_checkpoint_on=("instability",), strict=True)
    run(trainer(tmp_path, Plants(), callback))
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]


# ------------------------------------------------------------------------------------------------------ destinations
def test_without_reports_there_is_a_folder_of_its_own(tmp_path):
    run(trainer(tmp_path, ThermoMonitor(every=2, strict=True)))
    folder = tmp_path / "thermo"
    assert len(list(folder.glob("*tfevents*"))) == 1
    assert [r.step for r in read_jsonl(folder / "thermo.jsonl").readings if r.quantity == "loss/train"] == list(
        range(6)
    )


def test_readings_go_into_the_trainers_own_event_file(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    run(trainer(tmp_path, ThermoMonitor(every=2, strict=True), report_to="tensorboard"))
    files = list(tmp_path.rglob("*tfevents*"))
    assert len(files) == 1
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    assert [e.step for e in events.Scalars("thermo/loss/train")] == [0, 2, 4]  # the last one too
    assert [e.step for e in events.Scalars("train/loss")] == list(range(1, 7))
    assert (tmp_path / "board" / "thermo.jsonl").exists()


def test_other_reporters_get_numbers_as_logs(tmp_path):
    from transformers.integrations import integration_utils

    class Reporter(TrainerCallback):
        logs: tuple = ()

        def on_log(self, args, state, control, logs=None, **given):
            self.logs = (*self.logs, (state.global_step, logs))

    Reporter.__module__ = integration_utils.__name__
    reporter = Reporter()
    run(trainer(tmp_path, reporter, ThermoMonitor(every=2, strict=True)))
    ours = [(step, logs) for step, logs in reporter.logs if "thermo/loss/train" in logs]
    assert [step for step, _ in ours] == [1, 3, 5]
    assert ours[0][1]["thermo/attn/entropy_fraction"] > 0.9


def test_people_are_told_of_events_also_after_a_resume(tmp_path):
    told = []

    class Plants(TrainerCallback):
        def on_step_begin(self, args, state, control, **given):
            if state.global_step == 3:
                mine = next(c for c in own.callback_handler.callbacks if isinstance(c, ThermoMonitor))
                mine.monitor._reader._emit(
                    [Event("shift", 3, 1, phase="instability", level="error", message="planted")]
                )

    options = {"save_strategy": "steps", "save_steps": 2, "restore_callback_states_from_checkpoint": True}
    for resume in (None, str(tmp_path / "checkpoint-2")):
        own = trainer(tmp_path, Plants(), ThermoMonitor(sinks=[], alerts=[told.append], strict=True), **options)
        run(own, resume_from_checkpoint=resume)
    assert len(told) == 2


def test_deepspeed_is_refused_by_name(tmp_path, spoken):
    callback = ThermoMonitor(sinks=[], strict=True)
    own = trainer(tmp_path, callback)
    own.is_deepspeed_enabled = True
    state = type("S", (), {"is_world_process_zero": True, "global_step": 0, "stateful_callbacks": {}})()
    DeepSpeedOptimizerWrapper = type("DeepSpeedOptimizerWrapper", (), {})
    callback.on_train_begin(own.args, state, own.control, model=own.model, optimizer=DeepSpeedOptimizerWrapper())
    assert callback.monitor is None
    assert any("DeepSpeed keeps gradients" in text for text in spoken)


@pytest.mark.parametrize("wrong", [{"every": 0}, {"preset": "defult"}, {"sinks": 3}, {"save_checkpoint_on": ("shft",)}])
def test_a_wrong_option_is_told_before_anything_runs(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        ThermoMonitor(**wrong)
