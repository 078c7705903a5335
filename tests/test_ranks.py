"""Several devices read as one, a decision is one of all, and nobody waits for a monitor that has stopped."""

import json
import math
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.ranks import runs

if not torch.distributed.is_available():
    pytest.skip("torch was built without torch.distributed", allow_module_level=True)

ROOT = Path(__file__).parent.parent
SINGLE = {}
REFUSED = {"sharded", "several_ranks"}
# What needs whole parameters on every rank is absent where they are spread.
WHOLE = {"ExampleGradientProbe", "FisherProbe", "GeometryProbe", "LossWindowProbe"}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes have found, by name of the check: [rank zero, the other]."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs = [open(folder / f"{rank}.log", "w") for rank in range(2)]  # noqa: SIM115
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.ranks.worker", str(rank), str(port), str(folder)],
            stdout=log,
            stderr=log,
            cwd=ROOT,
        )
        for rank, log in enumerate(logs)
    ]
    try:
        for name in runs.RUNS:  # meanwhile, on one
            SINGLE[name] = json.loads(json.dumps(runs.run("plain", name)))
        for name, trainer in runs.TRAINERS.items():
            (folder / "one" / name).mkdir(parents=True)
            SINGLE[name] = json.loads(json.dumps(trainer(folder / "one" / name, 1)))
        for worker in workers:
            worker.wait(240)
    finally:
        for worker in workers:
            worker.kill()
        for log in logs:
            log.close()
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    return {name: [of_rank.get(name) for of_rank in found] for name in found[0]}


def result(two, name, rank=0):
    if name not in two and name.startswith(("fsdp2", "hsdp")) and two["no shards"][rank]:
        pytest.skip(two["no shards"][rank])
    found = two[name][rank]
    assert not (isinstance(found, dict) and "raised" in found), found["raised"]
    return found


def compare(found, expected, refused=()):
    """Every reading, error, reason and map; relative to 1e-5."""
    one, many = ({(step, key, layer): rest for step, key, *rest, layer in rows} for rows in (expected, found))
    seen = set()
    for place, (value, error, reason) in one.items():
        if place[1].partition(" ")[0] in refused:
            if place in many:  # maps of what is refused are not there
                assert math.isnan(many[place][0])
                assert many[place][2] in REFUSED
            continue
        np.testing.assert_allclose(
            np.array(many[place][0], dtype=float), np.array(value, dtype=float), rtol=1e-5, atol=1e-12, err_msg=place[1]
        )
        assert many[place][2] == reason, place
        assert (many[place][1] is None) == (error is None), place
        if error is not None:
            np.testing.assert_allclose(many[place][1], error, rtol=1e-5, atol=1e-12, err_msg=place[1])
        seen |= {place[1]} if reason is None else set()
    assert set(many) <= set(one)
    return seen


@pytest.mark.parametrize("name", list(runs.RUNS))
def test_two_ranks_with_replicas_read_as_one(name, two):
    seen = compare(result(two, f"ddp {name}"), SINGLE[name])
    assert len(seen) > {"default": 16, "study": 50, "beside": 24}[name]


@pytest.mark.parametrize("name", list(runs.RUNS))
def test_two_ranks_with_shards_read_as_one(name, two):
    refused = {key for probe in runs.RUNS[name][0]() if type(probe).__name__ in WHOLE for key in probe.quantities}
    refused |= {"fisher/trace_mc"} if "fisher/share_mc" in refused else set()
    seen = compare(result(two, f"fsdp2 {name}"), SINGLE[name], refused)
    assert len(seen) > {"default": 16, "study": 40, "beside": 4}[name]


def test_replicas_of_shards_read_as_one(two):
    assert len(compare(result(two, "hsdp default"), SINGLE["default"])) > 16


@pytest.mark.parametrize("name", list(runs.TRAINERS))
def test_trainers_on_two_ranks_read_as_on_one(name, two):
    readings, saved = result(two, name)
    expected, saved_by_one = SINGLE[name]
    assert len(compare(readings, expected)) > 16
    assert len(saved) == len(saved_by_one) == (name != "accelerate")  # asked for by rank zero, made by all


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_nothing_changes_bit_for_bit(kind, two):
    for rank in range(2):
        without, *monitored = result(two, f"{kind} nothing changes", rank)
        assert monitored == [without] * 2
    parameters = [result(two, f"{kind} nothing changes", rank)[0]["parameters"] for rank in range(2)]
    assert (parameters[0] == parameters[1]) == (kind == "ddp")  # shards differ: the comparison sees this rank's


def test_ranks_are_small_batches(two):
    found = result(two, "the_noise_scale_of_ranks")
    one, other, whole = found["squares"]
    expected = ((one + other) / 2 - whole) / (1 / 4 - 1 / 8)
    assert found["read"] == pytest.approx([expected] * 2, rel=1e-5)  # also under the scale of mixed precision


@pytest.mark.parametrize("rank", [0, 1])
def test_a_probe_that_fails_on_one_rank_counts_nothing_there(rank, two):
    found, other = (result(two, "a_probe_fails_on_one_rank", r)[str(rank)] for r in range(2))
    planted = {step: value for step, key, value, *_ in found["readings"] if key == "loss/planted"}
    losses = [step for step, key, *_ in found["readings"] if key == "loss/train"]
    assert losses == list(range(6))
    assert ("Planted" in found["off"], "Planted" in other["off"]) == (rank == 0, rank == 1)
    if rank == 1:  # 2 on rank zero, 3 on the other
        assert planted == {0: 2.5} | dict.fromkeys(range(1, 6), 2.0)
        assert ["1 of 2 ranks" in text for text in found["said"]] == [True]


def test_a_norm_with_a_part_missing_is_no_number(two):
    found = result(two, "a_norm_fails_on_one_rank")
    norms = [rest for _, key, *rest in found["readings"] if key == "opt/weight_norm"]
    assert len(norms) == 6
    assert all(math.isnan(value) and reason == "probe_failed" for value, _, reason, _ in norms)
    assert found["off"] == []
    assert result(two, "a_norm_fails_on_one_rank", 1)["off"] == ["WeightProbe"]


def test_a_probe_that_does_not_add_up_is_refused_by_name(two):
    found = result(two, "what_does_not_add_up_is_refused")
    assert ["Planted is absent" in text for text in found["said"]] == [True]
    assert {reason for _, key, value, _, reason, _ in found["readings"] if key == "loss/train"} == {
        None,
        "several_ranks",
    }


def test_rank_zero_decides_for_all_at_the_same_step(two):
    here, there = (result(two, "rank_zero_decides", rank) for rank in range(2))
    assert here == there
    # 4 times as rarely, every 8 steps, and the cheap ones every 2: from the exchange after the first full one on.
    full = [step for step, is_full in here["measured"] if is_full]
    assert full[:3] == [0, 2, 4]
    assert set(full[3:]) == {8, 16}
    # Four in one turn, and the fifth in the next, which this run does not come to.
    assert [tuple(t[1:]) for t in here["told"]] == [(k, "shift", "generalization") for k in range(4)]
    assert len({t[0] for t in here["told"]}) == 1


def test_ranks_at_different_steps_are_not_added_up(two):
    for rank in range(2):
        found = result(two, "steps_that_differ_switch_the_monitor_off", rank)
        assert list(found["off"]) == ["ranks"]
        assert "do not measure the same steps" in found["off"]["ranks"]
        assert found["said"] == 1


def test_a_step_that_one_rank_broke_off_is_read_from_the_other(two):
    assert result(two, "a_step_that_one_rank_broke_off_is_read_from_the_other") == [1.5, 1.5, 1.5, 1.0, 1.5]


def test_a_monitor_on_one_rank_gives_up_and_says_why(two):
    found = result(two, "a_monitor_on_one_rank_only")
    assert found["off"] == ["ranks"]
    assert found["readings"] == []
    assert "switched off" in found["said"][0]


def test_a_rank_that_is_busy_is_waited_for_as_the_training_waits(two):
    found = result(two, "one_rank_is_busy_for_longer_than_the_group_would_wait")
    assert found == [1.5] * 4


def test_a_rank_that_gives_up_lets_the_others_go(two):
    for rank in range(2):
        found = result(two, "one_rank_gives_up", rank)
        assert found["off"] == ["ranks"]
        assert found["took"] < 5


def test_rank_zero_saves_alone(two):
    assert result(two, "checkpoints_are_resumed") == 5  # what the ranks had exchanged, without asking them again


def test_a_worker_that_dies_is_not_waited_for(two):
    found = result(two, "a_worker_dies")
    assert two["a_worker_dies"][1] is None
    assert "training" in found  # whose own collective says so
    assert found["read"][:3] == [0, 1, 2]
    assert found["close"] < 5
    assert found["off"] == ["ranks"]  # where the training needs no other rank: it goes on, without the monitor
    assert found["apart"] < 5
