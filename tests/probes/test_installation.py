"""What is installed goes again, in whatever order and however it ends."""

import contextlib
import gc
import pickle
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from tests.probes.matrix import hears
from tests.probes.models import Decoder, Measuring, listening, tokens
from thermo_monitor.guard import Guard
from thermo_monitor.probes import RepresentationProbe, hub
from thermo_monitor.probes.ear import Ear

transformers = pytest.importorskip("transformers")


def gpt2(implementation: str):
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=29, attn_implementation=implementation)
    return transformers.GPT2LMHeadModel._from_config(config, attn_implementation=implementation)


def registry():
    interface = transformers.modeling_utils.AttentionInterface
    return interface.get_interface, dict(interface._global_mapping)


def installed(model) -> Ear:
    ear = Ear(model, Guard(strict=True))
    ear.install()
    return ear


def hooks(model) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


@hears("two models in one process", "HF sdpa", "HF eager")
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("first", [0, 1])
def test_two_monitors_close_in_any_order(implementation, first):
    before, models = registry(), [gpt2(implementation), gpt2(implementation)]
    ears = [installed(model) for model in models]
    assert registry() != before
    ears[first].close()
    assert registry() != before
    ears[first].close()
    ears[1 - first].close()
    ears[1 - first].close()
    assert registry() == before
    assert [hooks(model) for model in models] == [0, 0]


def test_a_function_that_the_program_registered_meanwhile_stays():
    before = registry()
    ear = installed(gpt2("sdpa"))
    interface = transformers.modeling_utils.AttentionInterface
    wrapped = interface._global_mapping["sdpa"]

    def mine(*args, **kwargs):
        return wrapped(*args, **kwargs)

    interface.register("sdpa", mine)
    ear.close()
    assert interface._global_mapping["sdpa"] is mine
    with listening(model := gpt2("sdpa")) as ears:  # the old wrapper is still underneath
        model(tokens())
    assert ears.names == ["transformer.h.0.attn"]
    interface.register("sdpa", before[1]["sdpa"])
    assert registry() == before


def test_the_same_for_the_eager_functions():
    interface = transformers.modeling_utils.AttentionInterface
    before = interface.get_interface
    ear = installed(gpt2("eager"))
    wrapped = interface.get_interface
    interface.get_interface = mine = lambda *args: wrapped(*args)
    ear.close()
    assert interface.get_interface is mine
    assert gpt2("eager")(tokens()).logits.isfinite().all()
    interface.get_interface = before


@pytest.mark.parametrize("opened", [False, True])
def test_a_monitor_that_is_dropped_takes_everything_with_it(opened):
    before, model = registry(), gpt2("sdpa")
    measuring = Measuring(model, RepresentationProbe())
    assert hooks(model) > 0
    if opened:
        measuring.ear.open()
    del measuring
    gc.collect()  # hub and listener refer to each other
    assert hub.ACTIVE == ()
    assert stack() == []
    assert registry() == before
    assert hooks(model) == 0


def test_the_model_can_be_copied_and_pickled_while_it_is_monitored():
    model = Decoder()
    with Measuring(model, RepresentationProbe()):
        other = pickle.loads(pickle.dumps(model))
        assert set(other.state_dict()) == set(model.state_dict())
        assert torch.equal(other(tokens()), model(tokens()))


# ------------------------------------------------------------------------------------------------- the stack of modes
class Own(TorchFunctionMode):
    """A mode of the program that doubles every scale."""

    def __init__(self) -> None:
        self.seen = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            self.seen += 1
            kwargs["scale"] = 3.0
        return func(*args, **kwargs)


def stack() -> list[object]:
    return torch.overrides._get_current_function_mode_stack()


def test_a_mode_of_the_program_around_the_step_is_heard_through():
    model, own = Decoder(layers=1), Own()
    with own:
        with listening(model) as ears:
            model(tokens())
            assert stack()[-1] is own
        assert stack() == [own]
    assert own.seen == 1
    assert ears.attention[0].scale == 3.0


def test_a_mode_of_the_program_inside_the_step():
    model, own = Decoder(layers=1), Own()
    with listening(model) as ears:
        with own:
            model(tokens())
        model(tokens())
    assert own.seen == 1
    assert [call.scale for call in ears.attention] == [3.0, pytest.approx(8**-0.5)]


@pytest.mark.parametrize("make", [Own, lambda: torch.device("cpu")])
@pytest.mark.parametrize("order", ["inside and out after", "before and out inside", "inside and out inside"])
def test_modes_may_cross(make, order):
    model, own = Decoder(layers=1), make()
    ear = installed(model)
    steps = {
        "inside and out after": ["open", "enter", "call", "shut", "exit"],
        "before and out inside": ["enter", "open", "call", "exit", "call", "shut"],
        "inside and out inside": ["open", "enter", "call", "exit", "call", "shut"],
    }[order]
    heard = []
    ear.hub.on_attention.append(heard.append)
    act = {
        "open": ear.open, "shut": ear.shut, "call": lambda: model(tokens()),
        "enter": own.__enter__, "exit": lambda: own.__exit__(None, None, None),
    }  # fmt: skip
    for step in steps:
        act[step]()
    ear.close()
    assert stack() == []
    assert len(heard) == steps.count("call")


def test_a_default_device_may_change_inside_the_step():
    model = Decoder(layers=1)
    torch.set_default_device("cpu")
    with listening(model) as ears:
        model(tokens())
        torch.set_default_device(None)
        model(tokens())
        torch.set_default_device("cpu")
        model(tokens())
    torch.set_default_device(None)
    with contextlib.suppress(AttributeError):
        del torch._GLOBAL_DEVICE_CONTEXT.device_context  # torch 2.6 is left unable to say what its default is
    assert len(ears.attention) == 3


def test_opened_and_shut_again_and_again():
    ear = installed(Decoder())
    for _ in range(3):
        ear.open()
        ear.open()
        assert len(stack()) == 1
        ear.shut()
        ear.shut()
        assert stack() == []
    ear.close()


def test_transformers_is_never_imported():
    program = """
import sys, torch
from thermo_monitor import Monitor
from tests.probes.models import Decoder, tokens
model = Decoder()
with Monitor(model, every=1, sinks=[], strict=True) as monitor:
    with monitor.step(0):
        loss = torch.nn.functional.cross_entropy(model(tokens()).flatten(0, 1), tokens().flatten())
        monitor.loss(loss); loss.backward(); monitor.gradients()
assert monitor.latest["attn/entropy_fraction"] > 0
assert "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
