"""Change-point detection on training metrics: online while the run goes on, offline when it is over.

:class:`OnlineDetector` reads one value at a time, :class:`ManyDetectors` one of each of many series; :func:`segment`
cuts a finished series; ``evaluate`` scores either against known changes.
"""

from thermo_monitor.detect.many import ManyDetectors as ManyDetectors
from thermo_monitor.detect.offline import segment as segment
from thermo_monitor.detect.online import OnlineDetector as OnlineDetector
from thermo_monitor.detect.report import Decision as Decision

__all__ = ["Decision", "ManyDetectors", "OnlineDetector", "segment"]
