"""Change-point detection on training metrics."""

from thermo_monitor.detect.online import Decision as Decision
from thermo_monitor.detect.online import OnlineDetector as OnlineDetector
from thermo_monitor.detect.offline import segment as segment
