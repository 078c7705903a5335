"""Faults of every kind, planted in one part of a monitor from a chosen step on; the training around it is always the
same, so that its weights can be compared with those of a training without a monitor."""

import contextlib
import errno
import functools
import io
import os
import shutil
import time
from unittest import mock

import torch
from tensorboard.summary.writer import record_writer

from tests.fingerprint import result, seed_all
from tests.models import batches, build, train
from tests.silent import Silent
from thermo_monitor import Event, Monitor
from thermo_monitor.presets import LossProbe, study
from thermo_monitor.probes import FisherProbe, NoiseScaleProbe, TemperatureProbe
from thermo_monitor.sinks import MemorySink

STEPS, AT = 9, 5  # of the training, and the step that the fault begins at

ERRORS = {
    "exception": lambda: RuntimeError("planted"),
    "host memory full": lambda: MemoryError("planted"),
    "device memory full": lambda: torch.OutOfMemoryError("planted"),
    "disk full": lambda: OSError(errno.ENOSPC, "planted: no space left on device"),
    "permission lost": lambda: PermissionError(errno.EACCES, "planted: permission denied"),
    "read-only file system": lambda: OSError(errno.EROFS, "planted: read-only file system"),
}


def probes():
    """One of each kind."""
    known = {type(probe).__name__: probe for probe in study()}
    for probe in (FisherProbe(batches(1)[0], draws=2), NoiseScaleProbe(), TemperatureProbe()):
        known[type(probe).__name__] = probe
    return known


class Clock:
    """The step that a training is at; told before each forward pass."""

    def __init__(self):
        self.step = -1

    def __call__(self, step):
        self.step = step

    @property
    def due(self):
        return self.step >= AT


def misbehave(fault, value=None):
    """Do what the fault is, or give the value that it leaves."""
    if fault in ERRORS:
        raise ERRORS[fault]()
    if fault == "slow":
        time.sleep(0.02)
    if fault == "NaN" and isinstance(value, tuple):
        label, tensors = value
        return label, [t * float("nan") for t in tensors]
    return value


class FaultyProbe:
    """A probe whose listener misbehaves when it hands over what it measured."""

    def __init__(self, probe, fault, clock):
        self._probe, self._fault, self._clock = probe, fault, clock
        self.quantities, self.fast = probe.quantities, probe.fast

    def listen(self, run):
        listener = self._probe.listen(run)
        collect = listener.collect

        def faulty():
            found = collect()
            return misbehave(self._fault, found) if self._clock.due else found

        listener.collect = faulty
        return listener


def faulty(call, fault, clock):
    """A function that misbehaves, before it does its work or instead of it."""

    @functools.wraps(call)
    def wrapped(*args, **options):
        if clock.due:
            misbehave(fault)
        return call(*args, **options)

    return wrapped


def training(make, clock=lambda step: None):
    """The same few steps every time, with the monitor that is made for them; what they came to."""
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    seed_all()
    monitor = make(model, optimizer)
    losses = train(model, monitor, steps=STEPS, optimizer=optimizer, before=clock)
    found = result(model, optimizer, losses)
    return found, monitor


@functools.cache
def expected():
    """What the training comes to without a monitor."""
    return training(lambda *_: Silent())[0]


EVENT = Event("shift", AT, AT - 1, quantity="loss/train", phase="instability", level="error", message="planted")


class Run:
    """One training with a fault in it.

    Attributes:
        same: whether the weights, the optimizer and the random streams are those of a training without a monitor.
        off: parts that were switched off, and what they said.
        witness: a sink that nothing is planted in.
    """

    def __init__(self, clock, patches=(), preset=None, sinks=(), **options):
        self.witness, self.clock = MemorySink(), clock

        def make(model, optimizer):
            given = {"every": 1, "preset": preset or [LossProbe()], "sinks": [*sinks, self.witness]} | options
            return Monitor(model, optimizer, **given)

        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            found, monitor = training(make, self._told)
            monitor._reader._emit([EVENT])
            monitor.close()
        self.monitor, self.same, self.off = monitor, found == expected(), dict(monitor.guard.disabled)

    def _told(self, step):
        self.clock(step)

    def readings(self, quantity="loss/train"):
        return self.witness.series(quantity)[0].tolist()


def deleted(directory):
    """A clock that deletes a directory at the step of the fault."""

    class Deletes(Clock):
        def __call__(self, step):
            super().__call__(step)
            if step == AT:
                shutil.rmtree(directory)

    return Deletes()


def jsonl_patch(fault, clock, path):
    """Faults of the operating system under a JSON-lines file."""
    real = os.write

    def write(fd, data):
        ours = clock.due and os.path.exists(path) and os.path.samestat(os.fstat(fd), os.stat(path))
        if ours and fault == "disk full":  # takes a part first
            return real(fd, data[: len(data) // 2])
        if ours:
            misbehave(fault)
        return real(fd, data)

    return mock.patch("os.write", write)


def records_patch(fault, clock):
    """The same under an event file, in the thread that writes it."""
    return mock.patch.object(
        record_writer.RecordWriter, "write", faulty(record_writer.RecordWriter.write, fault, clock)
    )


def jumping(name, back=3600.0):
    """A clock of the machine that goes back by an hour, again and again."""
    real, calls = getattr(time, name), [0]

    def jumps():
        calls[0] += 1
        return real() - back * (calls[0] // 7)

    return mock.patch(f"time.{name}", jumps)


class Stream(io.StringIO):
    """A terminal that fails."""

    def __init__(self, fault, clock):
        super().__init__()
        self._fault, self._clock = fault, clock

    def write(self, text):
        if self._clock.due:
            if self._fault == "writer closed":
                raise ValueError("I/O operation on closed file")
            misbehave(self._fault)
        return super().write(text)
