"""Ways in which parameters are spread: read, or refused by name in one line."""

import pytest
import torch
from torch import nn

from tests.models import build, train
from thermo_monitor import Monitor, presets
from thermo_monitor.probes.base import Absent, Listener, adds_up
from thermo_monitor.probes.shards import local, sharding, share
from thermo_monitor.sinks import MemorySink


class Placement:
    def __init__(self, kind):
        self.kind = kind

    def is_partial(self):
        return self.kind == "partial"

    def is_replicate(self):
        return self.kind == "replicate"


class Spread(torch.Tensor):
    """Stands for a DTensor over a mesh."""

    @staticmethod
    def of(*kinds, shape=(2, 4)):
        tensor = torch.zeros(3).as_subclass(Spread)
        tensor.placements = tuple(map(Placement, kinds))
        tensor.device_mesh = type("Mesh", (), {"shape": shape[: len(kinds)]})()
        return tensor


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("shard", "shard"), 1.0),  # every rank has a part of its own
        (("replicate", "shard"), 0.5),  # two replicas of four shards: a sum over all ranks would be twice too large
        (("replicate", "replicate"), 0.125),
    ],
)
def test_what_a_part_counts(kinds, expected):
    assert share(Spread.of(*kinds), ranks=8) == expected
    assert share(torch.zeros(2), ranks=8) == 0.125
    assert share(Spread.of(*kinds), ranks=1) == 1.0


def test_sums_that_are_still_to_be_made_are_no_gradient():
    with pytest.raises(ValueError, match="not added up"):
        share(Spread.of("partial"), ranks=2)


def test_an_ordinary_tensor_is_itself():
    x = torch.ones(2, requires_grad=True)
    assert local(x).data_ptr() == x.data_ptr()
    assert not local(x).requires_grad


class FullyShardedDataParallel(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


class Parallel(nn.Module):
    """A weight that tensor parallelism has cut, or fully_shard over two dimensions."""

    def __init__(self, *kinds):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.kinds = kinds

    def parameters(self, recurse=True):
        return iter([Spread.of(*self.kinds)])


def deepspeed():
    engine = type("DeepSpeedEngine", (nn.Module,), {"__module__": "deepspeed.runtime.engine"})
    return engine()


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (nn.Linear(2, 2), ""),
        (FullyShardedDataParallel(nn.Linear(2, 2)), "FullyShardedDataParallel"),
        (deepspeed(), "DeepSpeed"),
        (Parallel("shard"), "tensor parallelism"),
        (type("FSDPModule", (Parallel,), {})("shard"), "fully_shard"),
        (type("FSDPModule", (Parallel,), {})("replicate", "shard"), "fully_shard"),
        (type("FSDPModule", (Parallel,), {})("shard", "shard"), "tensor parallelism"),
    ],
)
def test_each_way_has_its_name(model, name):
    assert sharding(model) == name


def test_a_parameter_of_zero_3_gives_it_away():
    model = nn.Linear(2, 2)
    model.weight.ds_id = 7
    assert sharding(model) == "DeepSpeed"


def test_what_it_keeps_in_pieces_of_its_own_is_absent_and_the_rest_is_read(monkeypatch, spoken):
    monkeypatch.setattr("thermo_monitor.assembly.sharding", lambda *_: "DeepSpeed")
    model, sink = build(), MemorySink()
    with Monitor(model, every=1, preset="study", sinks=[sink], strict=True) as monitor:
        hub = monitor._ear.hub
        train(model, monitor, steps=2)
        assert len(hub.on_output) == 1  # those of the refused ones are gone
    refused = {r.quantity for r in sink.readings if r.reason == "sharded"}
    assert {"opt/gradient_norm", "opt/weight_norm", "fisher/trace_adam_proxy", "opt/norm_balance"} <= refused
    finite = {r.quantity for r in sink.readings if r.reason is None}
    assert {"loss/train", "attn/specific_heat", "out/predictive_entropy", "repr/effective_rank"} <= finite
    said = [text for text in spoken if "DeepSpeed keeps in pieces of its own" in text]
    assert len(said) == len({text.split()[0] for text in said}) == 6  # one line for each probe


def test_a_monitor_from_before_the_process_group_says_so(monkeypatch, spoken):
    model, sink = build(), MemorySink()
    with Monitor(model, every=1, sinks=[sink]) as monitor:
        train(model, monitor, steps=1)
        monkeypatch.setattr("thermo_monitor.ranked.ranks", lambda: (0, 2))
        train(model, monitor, steps=3)
    assert "init_process_group" in monitor.guard.disabled["ranks"]
    assert {r.step for r in sink.readings} == {0}


def test_every_probe_of_the_house_says_how_it_adds_up(spoken):
    model = build()
    with Monitor(model, preset=presets.study(), sinks=[]) as monitor:
        for listener in monitor._parts.listeners.values():
            assert adds_up(listener), listener
    assert adds_up(Absent(("loss/train",), "sharded"))
    assert not adds_up(Listener.__new__(type("Own", (Listener,), {"collect": None, "read": None})))
