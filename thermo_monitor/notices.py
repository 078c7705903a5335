"""What the program itself changes, so that its consequences are no surprise to the detectors."""

from __future__ import annotations

from torch.optim import Optimizer

from thermo_monitor.detect import interventions
from thermo_monitor.detect.run import RunDetector
from thermo_monitor.settings import settings


class Notices:
    """Tells the detectors of learning rate, weight decay, micro-batches and batch size where they have changed.

    Args:
        optimizer: read for what changes by schedule.
    """

    def __init__(self, optimizer: Optimizer | None) -> None:
        self._optimizer = optimizer
        self._facts: dict[str, float] = {}  # as they were at the last measured step
        self._unchanged = 0  # measured steps since they changed

    def tell(self, detector: RunDetector, step: int, micro_batches: int, examples: int) -> None:
        """A measured step is over.

        Args:
            detector: is told.
            step: index of the optimizer step.
            micro_batches: losses heard in it; 0 if none was.
            examples: in a batch; 0 if not known.
        """
        facts: dict[str, float] = settings(self._optimizer)
        if micro_batches:
            facts["micro-batches of a step"] = micro_batches
        if examples:
            facts["batch size"] = examples
        self._unchanged = self._unchanged + 1 if facts.items() <= self._facts.items() else 0
        self._facts |= facts
        if self._unchanged <= interventions.STEADY:  # what has stayed as long as that is no news
            detector.notice(step, facts)
