"""Parts that fail at a chosen point, for tests of what happens then."""

from thermo_monitor.probes.base import Listener, Measured


class Failing:
    """A probe that raises in one of its methods; it is not asked for anything after that."""

    quantities = ()
    fast = True

    def __init__(self, where, error=RuntimeError):
        self.where, self.error = where, error
        self.calls = 0

    def listen(self, run):
        return _Listener(self, run)


class _Listener(Listener):
    def __init__(self, options, run):
        self.options = options
        self.at("listen")
        run.hub.on_attention.append(lambda call: self.at("attention"))
        run.hub.on_output.append(lambda call: self.at("output"))

    def at(self, where):
        if self.options.where == where:
            self.options.calls += 1
            raise self.options.error(f"planted in {where}")

    def on_loss(self, loss):
        self.at("on_loss")

    def before_step(self):
        self.at("before_step")

    def after_step(self):
        self.at("after_step")

    def collect(self):
        self.at("collect")
        return None, []

    def read(self, step, label, arrays):
        self.at("read")
        return Measured()

    def close(self):
        self.at("close")


class FailingSink:
    """A sink that raises from the n-th tick, or at the first event, or when it is closed."""

    def __init__(self, after=None, event=False, closing=False):
        self.after, self.on_event, self.closing = after, event, closing
        self.ticks, self.closed = [], 0

    def write(self, tick):
        if self.after is not None and len(self.ticks) >= self.after:
            raise OSError("planted: the disk is full")
        self.ticks.append(tick)

    def event(self, event):
        if self.on_event:
            raise OSError("planted in event")

    def close(self):
        self.closed += 1
        if self.closing:
            raise OSError("planted in close")
