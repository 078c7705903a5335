"""The step that each tag of an event file has reached: a loader takes a step back for a restart of the run."""

from __future__ import annotations

from collections.abc import Iterable


class TagSteps:
    """By tag, the step that was written last.

    Example:
        >>> steps = TagSteps()
        >>> steps.rises("loss", 3), steps.rises("loss", 3), steps.free(2, ["loss", "norm"])
        (True, False, 4)
    """

    def __init__(self) -> None:
        self.last: dict[str, int] = {}

    def rises(self, tag: str, step: int) -> bool:
        """Whether a tag may be written at a step; then it counts as written."""
        if step <= self.last.get(tag, -1):
            return False
        self.last[tag] = step
        return True

    def free(self, wanted: int, tags: Iterable[str]) -> int:
        """The first step from `wanted` on that none of the tags has reached."""
        return max([wanted, *(self.last.get(tag, -1) + 1 for tag in tags)])
