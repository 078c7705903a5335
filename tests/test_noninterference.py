"""The monitor cannot change what it monitors: bit for bit, with and without it."""

import copy
import gc
import warnings
import weakref

import pytest
import torch
import torch.utils.checkpoint

from tests.fingerprint import installed, result, seed_all
from tests.fits import Module, ThermoMonitor, fit, loader, trainer
from tests.models import Encoder, Plain, Transformer, batches, build, cross_entropy, train
from tests.silent import Silent
from thermo_monitor import Monitor
from thermo_monitor.probes import ExampleGradientProbe, FisherProbe, NoiseScaleProbe, TemperatureProbe
from thermo_monitor.probes.base import Listener, Measured
from thermo_monitor.probes.fisher import _POSSIBLE as FISHER


def plain(kind, make, **options):
    """A plain loop with the monitor that ``make(model, optimizer)`` gives."""
    model = build(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    seed_all()
    monitor = make(model, optimizer)
    losses = train(model, monitor, optimizer=optimizer, **options)
    outcome = result(model, optimizer, losses)
    if not isinstance(monitor, Silent):
        monitor.close()
    return outcome


@pytest.mark.parametrize("kind", [Transformer, Encoder, Plain])
def test_a_plain_loop_comes_to_the_same(kind, spoken):
    expected = plain(kind, lambda *_: Silent(), steps=30, accumulate=2)
    for every in (1, 5):
        monitored = plain(
            kind,
            lambda model, optimizer, every=every: Monitor(
                model, optimizer, every=every, preset="study", sinks=[], strict=True
            ),
            steps=30,
            accumulate=2,
        )
        assert monitored == expected


@pytest.mark.parametrize("kind", [Transformer, Encoder])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9)])
def test_gradients_of_examples_and_measurements_beside_the_training_change_nothing(kind, optimizer, spoken):
    def outcome(make):
        model = build(kind)
        stepper = optimizer(model.parameters(), lr=1e-2)
        seed_all()
        monitor = make(model, stepper)
        losses = train(model, monitor, optimizer=stepper, steps=12, accumulate=2)
        found = result(model, stepper, losses)
        if not isinstance(monitor, Silent):
            monitor.close()
        return found | installed(model)

    expected = outcome(lambda *_: Silent())
    probes = [
        ExampleGradientProbe(examples=None),
        FisherProbe(batches(1)[0], draws=2, lanczos=2, quantities=FISHER),
        TemperatureProbe(window=32),
    ]
    for every in (1, 5):
        for chosen in (probes, [NoiseScaleProbe()]):
            assert expected == outcome(
                lambda model, stepper, every=every, chosen=chosen: Monitor(
                    model, stepper, every=every, preset=chosen, sinks=[], strict=True
                )
            )


@pytest.mark.parametrize("way", ["scaler", "checkpointing", "reentrant checkpointing", "compiled"])
def test_what_a_loop_may_do_beside_comes_to_the_same(way, spoken):
    """Half precision with a scaler that skips a step, recomputed blocks, a compiled model."""
    if way == "compiled":  # dynamo looks at the gradient of what is no leaf, and torch warns of it
        warnings.filterwarnings("ignore", message="The .grad attribute")

    def outcome(make):
        torch._dynamo.reset()
        model = build(Transformer)
        if "checkpointing" in way:
            for block in model.blocks:
                inner = block.forward
                block.forward = lambda x, inner=inner: torch.utils.checkpoint.checkpoint(
                    inner, x, use_reentrant="reentrant" in way
                )
        called = torch.compile(model, backend="eager") if way == "compiled" else model
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=3, enabled=way == "scaler")
        seed_all()
        monitor, losses = make(model, optimizer), []
        for step, tokens in enumerate(batches(12)):
            with monitor.step(step):
                with torch.autocast("cpu", dtype=torch.float16, enabled=way == "scaler"):
                    loss = cross_entropy(called(tokens), tokens)
                monitor.loss(loss)
                scaler.scale(loss).backward()
                monitor.gradients(*([scaler] if way == "scaler" and not isinstance(monitor, Silent) else []))
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                losses.append(loss.detach())
        scales.append(scaler.get_scale())
        found = result(model, optimizer, losses) | {"scaler": scaler.state_dict()}
        if not isinstance(monitor, Silent):
            monitor.close()
        return found | installed(model)

    scales = []
    expected = outcome(lambda *_: Silent())
    for every in (1, 5):
        assert expected == outcome(
            lambda model, optimizer, every=every: Monitor(
                model, optimizer, every=every, preset="study", sinks=[], strict=True
            )
        )
    if way == "scaler":
        assert scales[0] != 2.0**20  # it was changed on the way, so steps were skipped or it grew


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_fit_comes_to_the_same(precision, accumulate, clip, tmp_path):
    def outcome(*callbacks):
        module = Module()
        run = trainer(
            tmp_path, *callbacks, precision=precision, accumulate_grad_batches=accumulate, gradient_clip_val=clip
        )
        seed_all()
        fit(run, module, loader(30 * accumulate))
        assert run.global_step == 30
        left.append(installed(module))
        return result(module, run.optimizers[0], module.losses)

    left = []
    expected = outcome()
    tokens = batches(1)[0]
    for every, fixed in ((1, None), (5, lambda module: module.model(tokens))):
        options = {"preset": "study", "probe_batch": fixed, "sinks": [], "strict": True}
        assert outcome(ThermoMonitor(every=every, **options)) == expected
    assert left[1:] == left[:1] * 2


class Culprit:
    """A probe that does what none may do."""

    quantities = ()
    fast = True

    def __init__(self, deed):
        self.deed = deed

    def listen(self, run):
        deed = self.deed

        class Guilty(Listener):
            def before_step(self):
                deed(run.model)

            def collect(self):
                return None, []

            def read(self, step, label, arrays):
                return Measured()

        return Guilty()


CULPRITS = {
    "torch": lambda model: torch.rand(1),
    "keys": lambda model: model.register_buffer("seen", torch.zeros(1)),
    "parameters": lambda model: next(model.parameters()).data.mul_(1 + 1e-6),
}


@pytest.mark.parametrize("what", CULPRITS)
def test_the_comparison_can_fail(what, spoken):
    expected = plain(Transformer, lambda *_: Silent())
    probes = [Culprit(CULPRITS[what])]
    outcome = plain(Transformer, lambda model, optimizer: Monitor(model, optimizer, preset=probes, sinks=[]))
    assert outcome[what] != expected[what]


def test_nothing_stays_installed_and_a_left_hook_would_show(spoken):
    model = build()
    before = installed(model)
    with Monitor(model, preset="study", every=1, sinks=[], strict=True) as monitor:
        with monitor.step(0):
            assert installed(model) != before
        train(model, monitor)
    assert installed(model) == before
    model.blocks[0].register_forward_hook(lambda *_: None)
    assert installed(model) != before


def test_evaluation_between_steps_is_neither_heard_nor_changed(spoken):
    model, tokens = build(Encoder), batches(1)[0]
    with Monitor(model, every=1, sinks=[], strict=True) as monitor:
        train(model, monitor)
        model.eval()
        with torch.no_grad():
            during = model(tokens)
        heard = monitor.latest["attn/entropy_fraction"]
        monitor.flush()
    with torch.no_grad():
        assert torch.equal(during, model(tokens))  # the inference fast path, in both
    assert heard > 0


def test_a_copy_of_a_monitored_model_carries_no_monitor(tmp_path, spoken):
    model = build()
    with Monitor(model, every=1, sinks=[], strict=True) as monitor:
        train(model, monitor)
        twin = copy.deepcopy(model)
        torch.save(model, tmp_path / "model.pt")
        assert (tmp_path / "model.pt").stat().st_size < 60_000
        loaded = torch.load(tmp_path / "model.pt", weights_only=False)
        passes = monitor._ear.hub.passes
        for other in (twin, loaded):
            with monitor.step(9):
                tokens = batches(1)[0]
                cross_entropy(other(tokens), tokens)
        # One pass for each opening, none for the copies: their hooks are dead.
        assert monitor._ear.hub.passes == passes + 2
        assert not any(isinstance(v, Monitor) for v in vars(loaded).values())


def test_a_dropped_monitor_is_forgotten_by_its_model(spoken):
    model = build()
    monitor = Monitor(model, every=1, sinks=[])
    watched = weakref.ref(monitor)
    del monitor
    gc.collect()
    assert watched() is None
    model(batches(1)[0])


def test_a_weight_that_autocast_keeps_has_its_gradient():
    # Of a module with separate projections the routes compute q and k again, before the module does.
    def gradients(monitored):
        torch.manual_seed(0)
        model = torch.nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True)
        x, y = torch.randn(2, 3, 8), torch.randn(2, 4, 6)
        monitor = Monitor(model, every=1, sinks=[], strict=True)
        if monitored:
            monitor.begin(0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(x, y, y, need_weights=False)[0].sum().backward()
        if monitored:
            assert monitor._ear.hub.listening
        monitor.close()
        return [p.grad for p in model.parameters()]

    for with_it, without in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(with_it, without)
