"""The callback follows what Lightning does: accumulation, clipping, validation, skipped batches."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from tests.fits import Module, ThermoMonitor, fit, loader, trainer
from tests.models import Plain, cross_entropy
from thermo_monitor.probes import hub
from thermo_monitor.sinks import MemorySink


def monitored(tmp_path, module=None, train=None, callbacks=(), options=None, **own):
    """A fit and what was read in it."""
    sink = MemorySink()
    callback = ThermoMonitor(**{"every": 1, "sinks": [sink], "strict": True} | own)
    module = module or Module()
    run = trainer(tmp_path, callback, *callbacks, **{"max_steps": 6} | (options or {}))
    fit(run, module, train)
    return sink, module, callback, run


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_has_one_reading_and_its_loss_is_the_mean(accumulate, tmp_path):
    sink, module, *_ = monitored(
        tmp_path, train=loader(6 * accumulate), options={"accumulate_grad_batches": accumulate}
    )
    steps, losses = sink.series("loss/train")
    assert steps.tolist() == list(range(6))
    expected = torch.stack(module.losses).double().reshape(6, accumulate).mean(1)
    torch.testing.assert_close(torch.from_numpy(losses), expected, rtol=1e-6, atol=0)  # single precision


def test_the_gradient_norm_is_the_one_before_clipping(tmp_path):
    norms = []

    class Before(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            norms.append(torch.nn.utils.get_total_norm([p.grad for p in module.parameters()]))

    sink, *_ = monitored(
        tmp_path, callbacks=[Before()], options={"gradient_clip_val": 1e-3, "accumulate_grad_batches": 2}
    )
    read = torch.from_numpy(sink.series("opt/gradient_norm")[1])
    torch.testing.assert_close(read, torch.stack(norms).double(), rtol=1e-5, atol=0)
    assert read.min() > 1e-2


@pytest.mark.parametrize("interval", [1, 3])
def test_a_validation_is_not_heard_also_inside_an_accumulated_step(interval, tmp_path):
    """With an interval of 3 batches and 2 of them in a step, every other validation is inside a step."""
    seen = []

    class Listening(Module):
        def validation_step(self, tokens, index):
            assert not hub.ACTIVE
            seen.append(torch.overrides._len_torch_function_stack())
            super().validation_step(tokens, index)

    options = {"accumulate_grad_batches": 2, "max_steps": 6, "val_check_interval": interval, "num_sanity_val_steps": 2}
    module = Listening()
    sink = MemorySink()
    callback = ThermoMonitor(every=1, sinks=[sink], preset="study", strict=True)
    fit(trainer(tmp_path, callback, **options), module, loader(12), val_dataloaders=loader(2))
    assert len(seen) > 4
    for quantity in ("attn/entropy", "out/predictive_entropy", "loss/train", "repr/effective_rank"):
        assert sink.series(quantity)[0].tolist() == list(range(6))


def test_a_validation_does_not_enter_the_readings(tmp_path):
    def series(**options):
        sink = MemorySink()
        module = Module()
        module.model.eval()  # no dropout, so that a validation has no say in the random numbers of training
        callback = ThermoMonitor(every=1, sinks=[sink], preset="study", strict=True)
        loaders = {"val_dataloaders": loader(2, seed=9)} if options else {}
        fit(
            trainer(tmp_path, callback, max_steps=6, accumulate_grad_batches=2, **options),
            module,
            loader(12),
            **loaders,
        )
        return {q: sink.series(q)[1].tolist() for q in ("attn/entropy", "out/predictive_entropy", "loss/train")}

    assert series(val_check_interval=3) == series()


def test_a_step_without_a_loss_leaves_a_gap(tmp_path, spoken):
    class Skips(Module):
        def training_step(self, tokens, index):
            return None if index in (1, 2) else super().training_step(tokens, index)

    sink, *_ = monitored(tmp_path, Skips(), loader(8), options={"max_steps": -1, "max_epochs": 1})
    assert sink.series("loss/train")[0].tolist() == [0, 3, 4, 5, 6, 7]
    assert any("no loss" in text for text in spoken)


def test_a_skipped_epoch_is_not_listened_to(tmp_path):
    class Stops(Module):
        def on_train_batch_start(self, batch, index):
            return -1 if index == 3 else None

        def on_train_epoch_end(self):
            assert not hub.ACTIVE

        def validation_step(self, tokens, index):
            assert not hub.ACTIVE
            assert torch.overrides._len_torch_function_stack() == 0

    callback = ThermoMonitor(every=1, sinks=[sink := MemorySink()], strict=True)
    run = trainer(tmp_path, callback, max_steps=-1, max_epochs=2)
    fit(run, Stops(), loader(5), val_dataloaders=loader(1))
    assert sink.series("loss/train")[0].tolist() == list(range(6))


def test_manual_optimization_counts_its_own_steps(tmp_path):
    moved = []

    class Two(Module):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, tokens, index):
            before = [p.detach().clone() for p in self.parameters()]
            for optimizer in self.optimizers():
                loss = cross_entropy(self.model(tokens), tokens)
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            moved.append(
                torch.nn.utils.get_total_norm(
                    [p.detach() - b for p, b in zip(self.parameters(), before, strict=True)]
                ).item()
            )
            return loss.detach()

        def configure_optimizers(self):
            parts = (self.model.blocks, self.model.head)
            return [torch.optim.SGD(part.parameters(), 0.1) for part in parts]

    sink, *_, run = monitored(tmp_path, Two(), options={"max_steps": 12})
    assert run.global_step == 12
    for quantity in ("loss/train", "opt/gradient_norm", "opt/update_norm", "attn/entropy_fraction"):
        assert sink.series(quantity)[0].tolist() == list(range(6))
    assert sink.series("opt/update_norm")[1].tolist() == pytest.approx(moved, rel=1e-5)  # of both optimizers


@pytest.mark.parametrize("every", [2, lambda step: step in (1, 4)])
def test_only_scheduled_steps_are_read(every, tmp_path):
    sink, *_ = monitored(tmp_path, every=every, fast_every=3)
    slow = [0, 2, 4] if every == 2 else [1, 4]
    assert sink.series("attn/entropy_fraction")[0].tolist() == slow
    assert sink.series("loss/train")[0].tolist() == sorted({0, 3, *slow})


def test_a_model_without_attention_says_so_once(tmp_path, spoken):
    sink, *_, run = monitored(tmp_path, Module(Plain), options={"max_steps": 30})
    assert len([text for text in spoken if "no attention was heard" in text]) == 1
    assert len(sink.series("loss/train")[0]) == 30
    assert "thermo/specific_heat_norm" not in run.callback_metrics


def test_frozen_layers_that_thaw_are_measured_from_then_on(tmp_path):
    class Thaws(Module):
        def __init__(self):
            super().__init__()
            self.model.blocks.requires_grad_(False)

        def on_train_batch_start(self, batch, index):
            if index == 3:
                self.model.blocks.requires_grad_(True)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-3)

    sink, module, *_ = monitored(tmp_path, Thaws())
    norms = sink.series("opt/weight_norm")[1]
    assert norms[3] > norms[2] * 1.1
    whole = torch.nn.utils.get_total_norm(module.parameters()).item()
    assert norms[-1] == pytest.approx(whole, rel=1e-3)


def test_held_out_metrics_reach_the_monitor_once_for_each_evaluation(tmp_path):
    class Logging(Module):
        def validation_step(self, tokens, index):
            self.log("val_loss", cross_entropy(self.model(tokens), tokens))
            self.log("other", 1.0)

    sink = MemorySink()
    callback = ThermoMonitor(every=1, sinks=[sink], strict=True)
    run = trainer(tmp_path, callback, max_steps=6, val_check_interval=2, num_sanity_val_steps=2)
    fit(run, Logging(), loader(6), val_dataloaders=loader(2))
    steps, values = sink.series("val/loss")
    assert steps.tolist() == [1, 3, 5]
    assert values[-1] == pytest.approx(float(run.callback_metrics["val_loss"]), rel=1e-6)
    assert {r.quantity for r in sink.readings if r.quantity.startswith("val/")} == {"val/loss"}
