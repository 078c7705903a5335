"""The context around one optimizer step."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol


class Steps(Protocol):
    """What is told of a step."""

    def begin(self, step: int) -> None:
        """It begins."""

    def end(self) -> None:
        """It has come to its end."""

    def abandon(self) -> None:
        """It was broken off."""


class Step:
    """Reusable context around one step; a new object for each would cost more than a skipped step may."""

    def __init__(self, monitor: Steps) -> None:
        self._monitor = monitor
        self.number = 0

    def __enter__(self) -> None:
        self._monitor.begin(self.number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._monitor.end()
        else:
            self._monitor.abandon()
