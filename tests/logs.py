"""Logs with known contents, for tests of what reads them."""

import math
import time
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event as TensorBoardEvent
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from thermo_monitor.records import Event, Reading
from thermo_monitor.sinks import Frame, TensorBoardSink, Tick

STEPS = 2000  # of the known run; its last reading is at 1990
EVENTS = (
    Event("shift", 360, 300, "down", "loss/train", 12.5, "memorization", "training loss fell from 3 to 0.1", 280, 320,
          "run:0", "warning", 1e9, {"threshold": 9.2, "shares": {"loss/train": 0.9}}),
    Event("drift", 1000, 900, "down", "repr/representation_entropy", math.nan, "generalization",
          "representation entropy drifts down from 0.7 to 0.4", 880, 930, "run:1", "warning", 1e9),
    Event("excursion", 1210, 1200, "up", "opt/gradient_norm", 15.0, "unexplained", "gradient norm was thrown up",
          1198, 1203, "run:2", "info", 1e9),
    Event("shift", 1560, 1500, "down", "loss/train", 20.0, "scheduled", "training loss fell; explained by: lr drop",
          1500, 1500, "run:3", "info", 1e9, {"reason": "lr drop"}),
    Event("shift", 370, 310, "up", "repr/spectral_entropy", 3.0, "memorization", "spectral entropy rose", 300, 330,
          "run:4", "info", 1e9, {"part_of": "run:0"}),
)  # fmt: skip
EVIL = "<img src=x onerror=parent.broken=1>"


def values(step):
    """Readings of the known run."""
    noise = 0.02 * math.sin(step * 12.9898)
    fitted = 1 / (1 + math.exp(-(step - 330) / 20))
    simple = 1 / (1 + math.exp(-(step - 960) / 60))
    return {
        "loss/train": 3.0 * math.exp(-4 * fitted - step / 2000) * (1 + noise),
        "attn/specific_heat": 0.3 * fitted + 0.2 * simple + noise / 4,
        "attn/specific_heat_norm": 0.2 * fitted + 0.1 * simple + noise / 8,
        "attn/reduced_temperature": 3.0 - 2.0 * fitted + noise,
        "attn/entropy_fraction": 0.95 - 0.3 * simple + noise / 6,
        "out/predictive_entropy": 3.0 * (1 - fitted) + 0.01,
        "repr/representation_entropy": 0.7 - 0.3 * simple + noise / 6,
        "repr/spectral_entropy": 0.8 - 0.2 * simple + noise / 6,
        "opt/gradient_norm": 1.0 - 0.8 * fitted + noise / 3,
        "opt/weight_norm": 20.0 + 5 * fitted - 6 * simple,
        "detect/score": abs(noise) * 20,
        "monitor/overhead": 0.02,
    }


def known(directory: Path, layers=6, heads=8, every=10, events=EVENTS, last=STEPS):
    """A run with events at known steps."""
    now = time.time() - 5
    with_names = tuple(f"model.layers.{n}.attn" for n in range(layers))
    sink = TensorBoardSink(directory)
    waiting = sorted(events, key=lambda e: e.step)
    rng = np.random.default_rng(0)
    phases = rng.uniform(0, 1, (layers, heads))
    for step in range(0, last, every):
        read = values(step)
        grid = read["attn/specific_heat_norm"] * (0.4 + phases + 0.3 * np.sin(step / 200 + 6 * phases))
        if layers > 2:
            grid[1, 2] = np.nan
        frames = [
            Frame(step, "attn/specific_heat_norm", grid, with_names),
            Frame(step, "attn/reduced_temperature", 1 / (0.2 + grid), with_names),
        ]
        sink.write(Tick(step, now + step / 1000, [Reading(step, k, v) for k, v in read.items()], frames))
        while waiting and waiting[0].step <= step:
            sink.event(waiting.pop(0))
    sink.close()


def scalars(directory: Path, curves):
    """A log that the monitor never wrote: tag -> [(step, value)]."""
    directory.mkdir(parents=True, exist_ok=True)
    writer = EventFileWriter(str(directory))
    for tag, points in curves.items():
        for step, value in points:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            writer.add_event(TensorBoardEvent(summary=summary, step=step, wall_time=1e9 + step))
    writer.close()


def plain(directory: Path):
    """A level that falls at step 600, a metric that rises there, and noise."""
    rng = np.random.default_rng(1)
    steps = range(0, 1000, 2)
    scalars(
        directory,
        {
            "train/loss": [(s, 2.0 - 1.0 * (s >= 600) + 0.05 * rng.standard_normal()) for s in steps],
            "val/accuracy": [(s, 0.2 + 0.6 * (s >= 600) + 0.02 * rng.standard_normal()) for s in steps],
            "noise": [(s, rng.standard_normal()) for s in steps],
        },
    )


def evil(directory: Path):
    """Names and texts that would run, were they not data."""
    scalars(directory / EVIL, {EVIL: [(s, float(s % 7)) for s in range(50)], "=cmd()": [(0, 1.0)]})
    sink = TensorBoardSink(directory / "evil")
    frame = Frame(1, "attn/entropy", np.ones((2, 2)), (EVIL, "b"))
    sink.write(Tick(1, time.time(), [Reading(s, "loss/train", 1.0) for s in (1,)], [frame]))
    sink.write(Tick(20, time.time(), [Reading(20, "loss/train", 2.0)], []))
    sink.event(
        Event(
            "shift", 9, 5, "up", EVIL, 1.0, EVIL, EVIL, 4, 6, f"=1+1{EVIL}:0", EVIL, 1e9, {"why": EVIL, "reason": EVIL}
        )
    )
    sink.close()


def many(directory: Path, count=1000, last=1_000_000):
    """A long run with many events."""
    sink = TensorBoardSink(directory)
    for n in range(count):
        step = (n + 1) * (last // count)
        sink.write(Tick(step, 1e9 + n, [Reading(step, "loss/train", 1.0 + n % 5)]))
        sink.event(
            Event(
                "shift",
                step,
                step - 5,
                "up",
                "loss/train",
                10.0,
                "reorganization",
                f"number {n}",
                step - 9,
                step - 2,
                f"run:{n}",
                "info",
                1e9 + n,
            )
        )
    sink.close()
