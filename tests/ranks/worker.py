"""One of two processes: everything that two can show is shown in one go, since starting them is what takes time."""

import contextlib
import json
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import torch
import torch.distributed as dist

from tests.fingerprint import digest, installed, seed_all
from tests.ranks import runs
from tests.ranks.runs import adamw, model_of, run, train
from tests.silent import Silent
from thermo_monitor import Event, Monitor, exchange
from thermo_monitor.budget import Stretch
from thermo_monitor.presets import LossProbe, default
from thermo_monitor.probes import NoiseScaleProbe
from thermo_monitor.probes.base import Listener, Measured
from thermo_monitor.sinks import MemorySink

FOUND = {}
FOLDER = Path()


def check(function):
    FOUND[function.__name__] = function
    return function


for kind in ("ddp", "fsdp2"):
    for name in runs.RUNS:
        FOUND[f"{kind} {name}"] = lambda kind=kind, name=name: run(kind, name)


FOUND["hsdp default"] = lambda: run("hsdp", "default")
for name in runs.TRAINERS:
    FOUND[name] = lambda name=name: runs.TRAINERS[name](FOLDER / name, 2)


def outcome(kind, monitored):
    model, called = model_of(kind, dropout=True)
    optimizer = adamw(model.parameters())
    seed_all(dist.get_rank())
    monitor = Silent()
    if monitored:
        probes = "study" if monitored == 1 else runs.beside()
        fixed = None if monitored == 1 else runs.batches(1, size=4, seed=9)[0]
        options = {"every": monitored, "preset": probes, "probe_batch": fixed, "sinks": [], "strict": True}
        monitor = Monitor(called, optimizer, **options)
    losses = train(model, called, optimizer, monitor, 12, accumulate=2)
    if monitored:
        monitor.close()
    parts = [p.to_local() if hasattr(p, "to_local") else p for p in model.parameters()]
    states = [v.to_local() if hasattr(v, "to_local") else v for s in optimizer.state.values() for v in s.values()]
    return {
        "parameters": digest(parts),
        "optimizer": digest(states),
        "losses": digest(losses),
        "torch": digest(torch.get_rng_state()),
        "keys": list(model.state_dict()),
    } | {k: v for k, v in installed(model).items() if isinstance(v, int | bool)}


for kind in ("ddp", "fsdp2"):
    FOUND[f"{kind} nothing changes"] = lambda kind=kind: [outcome(kind, monitored) for monitored in (0, 1, 5)]


def why_no_shards():
    """Why a model with spread parameters cannot be trained here, without any monitor; None where it can."""
    try:
        model, called = model_of("fsdp2")
        train(model, called, runs.sgd(model.parameters()), Silent(), 1)
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        return f"torch {torch.__version__} does not train with fully_shard on a CPU: {error}"
    return None


@check
def the_noise_scale_of_ranks():
    model, called = model_of("ddp")
    tokens = runs.batches(1, size=8)[0]
    squares = []
    for rows in (tokens[::2], tokens[1::2], tokens):
        loss = runs.cross_entropy(model(rows), rows)
        squares.append(sum(g.square().sum().item() for g in torch.autograd.grad(loss, list(model.parameters()))))
    optimizer, sink = runs.sgd(model.parameters()), MemorySink()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with Monitor(called, optimizer, every=1, preset=[NoiseScaleProbe()], sinks=[sink], strict=True) as monitor:
        for step, scaled in enumerate((False, True)):
            with monitor.step(step):
                mine = runs.share(tokens)
                loss = runs.cross_entropy(called(mine), mine)
                monitor.loss(loss)
                (scaler.scale(loss) if scaled else loss).backward()
                if scaled:
                    scaler.unscale_(optimizer)
                monitor.gradients()
                optimizer.zero_grad()
    return {"squares": squares, "read": sink.series("fisher/noise_trace")[1].tolist()}


class Planted:
    """Fails on one rank from a step on; counts how often it was asked."""

    quantities = ("loss/train",)
    fast = False

    def __init__(self, rank, adds=True):
        self.rank, self.adds = rank, adds

    def listen(self, run):
        fails = run.rank == self.rank

        class Sums(Listener):
            steps = 0

            def after_step(self):
                self.steps += 1
                if fails and self.steps == 2:
                    raise RuntimeError("planted")

            def collect(self):
                return None, [torch.tensor([1.0, 2.0 + run.rank])]

            def read(self, step, label, arrays):
                from thermo_monitor.records import Reading

                return Measured([Reading(step, "loss/planted", float(arrays[0][1] / arrays[0][0]))])

        class Adds(Sums):
            def shares(self, label, arrays):
                return {"sums": arrays[0]}

            def pooled(self, label, sums, present):
                return label, [sums["sums"]]

        return Adds() if self.adds else Sums()


def quiet(probes, **options):
    """What is said, and what is read, in a training with some probes."""
    model, called = model_of("ddp")
    optimizer, sink = adamw(model.parameters()), MemorySink()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Monitor(called, optimizer, preset=probes, sinks=[sink], **options) as monitor:
            train(model, called, optimizer, monitor, 6)
    said = [str(w.message).splitlines()[0] for w in said]
    return {"said": said, "readings": runs.listed(sink), "off": list(monitor.guard.disabled)}


@check
def a_probe_fails_on_one_rank():
    return {rank: quiet([*default()[:2], Planted(rank)], every=1) for rank in (0, 1)}


@check
def a_norm_fails_on_one_rank():
    probes = default()[:3]
    listen = type(probes[2]).listen
    try:

        def broken(self, run):
            listener = listen(self, run)
            if run.rank == 1:
                listener.before_step = lambda: 1 / 0
            return listener

        type(probes[2]).listen = broken
        return quiet(probes, every=1)
    finally:
        type(probes[2]).listen = listen


@check
def what_does_not_add_up_is_refused():
    return quiet([LossProbe(), Planted(7, adds=False)], every=1)


@check
def rank_zero_decides():
    model, called = model_of("ddp")
    optimizer, sink = adamw(model.parameters()), MemorySink()
    measured, told = [], []
    with Monitor(called, optimizer, every=2, budget=0.5, preset=default()[:2], sinks=[sink], strict=True) as monitor:
        # Each rank would have it differently.
        monitor._cadence._budget.ended = lambda *_: Stretch(4, 2) if dist.get_rank() == 0 else Stretch(2, 16)
        monitor._parts.listeners["LossProbe"].after_step = lambda: None
        begin = monitor._pool.begin
        monitor._pool.begin = lambda step, full: (measured.append((step, full)), begin(step, full))
        for step in range(24):
            train_one(model, called, optimizer, monitor, step)
            if step == 4 and dist.get_rank() == 0:
                for k in range(5):
                    monitor.announce(Event("shift", k, 0, phase="generalization"))
            told += [(step, *t) for t in monitor.announced()]
    return {"measured": measured, "told": told}


def train_one(model, called, optimizer, monitor, step):
    tokens = runs.share(runs.batches(1, size=8, seed=step)[0])
    with monitor.step(step):
        loss = runs.cross_entropy(called(tokens), tokens)
        monitor.loss(loss)
        loss.backward()
        monitor.gradients()
        optimizer.step()
        optimizer.zero_grad()


@check
def steps_that_differ_switch_the_monitor_off():
    model, called = model_of("ddp")
    optimizer = adamw(model.parameters())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Monitor(called, optimizer, every=1, preset=default()[:2], sinks=[]) as monitor:
            for step in range(5):
                train_one(model, called, optimizer, monitor, step + (dist.get_rank() if step > 1 else 0))
    return {"off": dict(monitor.guard.disabled), "said": len(said)}


@check
def a_step_that_one_rank_broke_off_is_read_from_the_other():
    model, called = model_of("plain")
    optimizer, sink = adamw(model.parameters()), MemorySink()
    with Monitor(called, optimizer, every=2, preset=[LossProbe()], sinks=[sink], strict=True) as monitor:
        for step in range(5):
            with contextlib.suppress(ZeroDivisionError), monitor.step(step):
                monitor.loss(1.0 + dist.get_rank())
                if step == 3 and dist.get_rank() == 1:
                    raise ZeroDivisionError
    return sink.series("loss/train")[1].tolist()


@check
def a_monitor_on_one_rank_only():
    exchange.MEETING, before = 1.0, exchange.MEETING
    try:
        out = quiet(default(), every=1) if dist.get_rank() == 0 else None
        if out is None:
            model, called = model_of("ddp")
            train(model, called, adamw(model.parameters()), Silent(), 6)
        return out
    finally:
        exchange.MEETING = before
        exchange._NUMBERS.__next__() if dist.get_rank() else None


@check
def one_rank_is_busy_for_longer_than_the_group_would_wait():
    exchange.MEETING, before = 1.0, exchange.MEETING
    try:
        sink = MemorySink()
        with Monitor(model_of("plain")[0], None, every=1, preset=[LossProbe()], sinks=[sink], strict=True) as monitor:
            for step in range(4):
                if step == 2 and dist.get_rank() == 0:
                    time.sleep(2.5)
                with monitor.step(step):
                    monitor.loss(1.0 + dist.get_rank())
        return sink.series("loss/train")[1].tolist()
    finally:
        exchange.MEETING = before


@check
def one_rank_gives_up():
    """A failure of the exchange itself, planted on one rank: the other must not wait for it."""
    found, start = {}, time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Monitor(model_of("plain")[0], None, every=1, preset=[LossProbe()], sinks=[]) as monitor:
            if dist.get_rank() == 1:
                monitor._pool._batch = lambda *_: 1 / 0
            for step in range(6):
                with monitor.step(step):
                    monitor.loss(1.0)
        found["off"] = list(monitor.guard.disabled)
    return found | {"took": time.monotonic() - start}


@check
def checkpoints_are_resumed():
    model, called = model_of("ddp")
    optimizer = adamw(model.parameters())
    with Monitor(called, optimizer, every=2, preset=default()[:2], sinks=[], strict=True) as monitor:
        train(model, called, optimizer, monitor, 8)
        # Only rank zero saves: nobody may wait for the others here.
        state = json.loads(json.dumps(monitor.state_dict())) if dist.get_rank() == 0 else None
    if state is not None:
        with_it = Monitor(called, optimizer, preset=default()[:2], sinks=[], strict=True)
        with_it.load_state_dict(state)
        seen = with_it.detector.state_dict()["states"]["loss/train"]["last_step"]
    else:
        with_it, seen = Monitor(called, optimizer, preset=default()[:2], sinks=[], strict=True), None
    with_it.close()
    return seen


@check
def a_worker_dies():
    """The last thing that these two do."""
    model, called = model_of("ddp")
    optimizer, sink = adamw(model.parameters()), MemorySink()
    alone = model_of("plain")[0]
    apart = Monitor(alone, None, every=1, preset=[LossProbe()], sinks=[])  # on ranks that do not train together
    monitor = Monitor(called, optimizer, every=1, preset=default(), sinks=[sink])
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for step in range(8):
                if step == 5 and dist.get_rank() == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                train_one(model, called, optimizer, monitor, step)
                if step < 3:
                    with apart.step(step):
                        apart.loss(1.0)
        except RuntimeError as error:
            found["training"] = str(error)[:80]
        start = time.monotonic()
        monitor.close()
        found["close"] = time.monotonic() - start
        start = time.monotonic()
        for step in range(3, 8):
            with apart.step(step):
                apart.loss(1.0)
        apart.close()
        found["apart"] = time.monotonic() - start
    found["off"] = list(apart.guard.disabled)
    found["read"] = sorted({r.step for r in sink.readings})
    return found


def main(rank, port, folder, names):
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "NODE_RANK": "0", "GROUP_RANK": "0",
    }  # fmt: skip
    global FOLDER
    FOLDER = folder
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = {"no shards": why_no_shards()}
    for name in names or FOUND:
        if found["no shards"] and name.startswith(("fsdp2", "hsdp")):
            continue
        (folder / name).mkdir(exist_ok=True)
        start = time.monotonic()
        try:
            found[name] = FOUND[name]()
        except BaseException:
            found[name] = {"raised": traceback.format_exc()}
        found[f"{name}: seconds"] = time.monotonic() - start
        (folder / f"{rank}.json").write_text(json.dumps(found))
        if "raised" in (found[name] if isinstance(found[name], dict) else {}):
            break
    os._exit(0)  # the other rank is dead, and torch would wait for it


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
