"""A run that is killed at any moment, again and again, and taken up from its last checkpoint.

    python -m tests.soak.killed --kills 50

Each child trains the same small model on the same batch, with an event planted, and saves a checkpoint every few steps.
It is ended with SIGKILL after a random time; what it left is read, and the next child goes on. In the end the events
have to be those of a run that nobody disturbed, each of them once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch

from tests.models import batches, build, cross_entropy
from thermo_monitor import Monitor
from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.eventlog.runs import find
from thermo_monitor.sinks import JsonlSink, TensorBoardSink, read_jsonl

STEPS, THROWN, SAVED = 70, 30, 10
PACE = 0.004  # seconds that a step waits, so that there is something to kill


def run(folder: Path, pace: float = 0.0) -> None:
    """Train from the last checkpoint, if there is one, to the end."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    model, tokens = build(), batches(1)[0]
    model.eval()  # no dropout: the random streams are not what is looked at
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    saved, first = folder / "checkpoint.pt", 0
    sinks = [JsonlSink(folder / "thermo.jsonl"), TensorBoardSink(log_dir=folder)]
    with Monitor(model, optimizer, every=2, sinks=sinks, detector=OnlineDetector(burn_in=10), strict=True) as monitor:
        if saved.exists():
            state = torch.load(saved, weights_only=True)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            monitor.load_state_dict(state["monitor"])
            first = state["step"]
        for step in range(first, STEPS):
            time.sleep(pace)
            if step == THROWN:
                for p in model.parameters():
                    p.data.mul_(4)
            with monitor.step(step):
                loss = cross_entropy(model(tokens), tokens)
                monitor.loss(loss)
                loss.backward()
                monitor.gradients()
                optimizer.step()
                optimizer.zero_grad()
            if (step + 1) % SAVED == 0:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
                torch.save(state | {"monitor": monitor.state_dict()}, folder / "new.pt")
                os.replace(folder / "new.pt", saved)
    (folder / "events.json").write_text(json.dumps([e.to_json() for e in monitor.events]))


def child(folder: Path, pace: float) -> int:
    """A process of its own, forked: it finds everything loaded."""
    pid = os.fork()
    if pid == 0:
        try:
            run(folder, pace)
            os._exit(0)
        except BaseException as error:  # a traceback, and not the parent's clean-up
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
    return pid


def named(events: list[str]) -> list[tuple[str, int, str]]:
    """What an event is, without the clock."""
    return sorted((e["kind"], e["onset"], e["quantity"]) for e in map(json.loads, events))


def check_files(folder: Path) -> None:
    """What a killed run left can be read, to the last complete record."""
    path = folder / "thermo.jsonl"
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    for line in lines[:-1]:
        json.loads(line or b"{}")  # only the last one may be torn, and it has no end
    read_jsonl(path)
    for log in find(str(folder)):
        log.read()


def kill_many(kills: int, seed: int = 0) -> dict[str, int]:
    """Kill so many children, of as many runs as it takes; compare each finished run with an undisturbed one."""
    generator, killed, finished, resumed = random.Random(seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        whole.mkdir()
        started = time.monotonic()
        assert os.waitpid(child(whole, PACE), 0)[1] == 0
        duration = time.monotonic() - started
        expected = json.loads((whole / "events.json").read_text())
        assert expected, "the planted event was not found"
        while killed < kills:
            folder = Path(scratch) / f"run{finished}"
            folder.mkdir()
            here = 0
            while True:
                # Not for ever: the last child of a run is left alone.
                last = killed >= kills or here >= 4
                pid = child(folder, 0.0 if last else PACE)
                if not last:
                    time.sleep(generator.uniform(0.0, duration))
                    os.kill(pid, signal.SIGKILL)
                    status = os.waitpid(pid, 0)[1]
                    if os.WIFSIGNALED(status):
                        killed, here = killed + 1, here + 1
                        resumed += (folder / "checkpoint.pt").exists()
                        check_files(folder)
                        continue
                else:
                    status = os.waitpid(pid, 0)[1]
                assert status == 0, f"a resumed run failed: {status}"
                break
            check_files(folder)
            events = json.loads((folder / "events.json").read_text())
            ids = [json.loads(e)["id"] for e in events]
            assert len(ids) == len(set(ids)), "an event is there twice"
            assert named(events) == named(expected), "another run of events than without the kills"
            in_file = [e.to_json() for e in read_jsonl(folder / "thermo.jsonl").events]
            assert named(in_file) == named(expected), "the file has other events than the run"
            losses = [r.step for r in read_jsonl(folder / "thermo.jsonl").readings if r.quantity == "loss/train"]
            assert losses == list(range(STEPS)), "a reading is missing or there twice"
            finished += 1
    return {"killed": killed, "after a checkpoint": resumed, "finished": finished, "events": len(expected)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(json.dumps(kill_many(args.kills, args.seed)))
