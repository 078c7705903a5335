"""Presets are lists of probes that can be printed, edited and passed on."""

import pytest
import torch

from tests.models import build, train
from thermo_monitor import Monitor, quantities
from thermo_monitor.presets import PRESETS, default, resolve, study
from thermo_monitor.probes import AttentionProbe, LossProbe, OutputProbe, RepresentationProbe
from thermo_monitor.sinks import MemorySink

# Undefined under Adam, or at the start of a run; they are read with the reason.
NOT_HERE = {
    "opt/configurational_temperature",
    "opt/kinetic_temperature",
    "opt/fdr1_ratio",
    "opt/norm_balance",
    "opt/sgd_temperature",
    "out/calibration_drift",
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_measures_what_it_names(name, spoken):
    model, sink = build(), MemorySink()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with Monitor(model, optimizer, every=1, preset=name, sinks=[sink], strict=True) as monitor:
        train(model, monitor, optimizer=optimizer)
    named = {key for probe in PRESETS[name]() for key in probe.quantities}
    assert named <= set(quantities.REGISTRY)
    read = {r.quantity for r in sink.readings if r.value == r.value or r.quantity in NOT_HERE}
    assert named == {key for key in read if not key.startswith("monitor/")}
    assert not spoken


def test_study_has_every_quantity_that_is_measured():
    measured = {key for make in PRESETS.values() for probe in make() for key in probe.quantities}
    assert {key for probe in study() for key in probe.quantities} == measured


def test_a_list_is_edited_and_passed_on():
    probes = [LossProbe(), AttentionProbe(rows=8)]
    assert resolve(probes) == probes
    assert resolve(tuple(probes)) == probes
    assert resolve([]) == []
    assert default() is not default()


WRONG = {
    "an unknown name": ("defualt", "did you mean 'default'"),
    "a name far from all": ("zzz", "Presets: default, grokking, llm, study"),
    "a class": ([AttentionProbe], "give objects such as"),
    "a word in a list": (["AttentionProb"], r"did you mean AttentionProbe\(\)"),
    "an unknown word in a list": (["zzz"], "Probes: LossProbe"),
    "a probe without a list": (LossProbe(), "give a name"),
    "nothing": (None, "preset=None"),
    "a number": (3, "preset=3"),
    "something else in a list": ([3], "3 is not a probe"),
    "two of a kind": ([LossProbe(), LossProbe()], "LossProbe is given 2 times"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_preset_is_refused_in_words(case):
    preset, words = WRONG[case]
    with pytest.raises(ValueError, match=words):
        resolve(preset)


@pytest.mark.parametrize("probe", [AttentionProbe, OutputProbe, RepresentationProbe])
def test_an_unknown_quantity_is_refused_with_what_is_close(probe):
    with pytest.raises(ValueError, match=r"unknown quantity 'attn/entropi'; did you mean attn/entropy"):
        probe(quantities=("attn/entropi",))
    with pytest.raises(ValueError, match=f"{probe.__name__} does not measure 'loss/train'; it measures"):
        probe(quantities=("loss/train",))
