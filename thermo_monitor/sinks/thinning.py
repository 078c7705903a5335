"""Which frames of a quantity are written, when nobody knows how long the run will be."""

from __future__ import annotations


class Thinning:
    """Lets every frame pass at first, and half as many each time the allotment is full.

    A log cannot take a frame back, so the guarantee is about the frames that a reader keeps on the present grid (those
    whose number is a multiple of :attr:`interval`): there are never more than `capacity` of them, and never fewer than
    half as many once it was full. What lies in the log besides grows with the logarithm of the run's length: `n` frames
    leave ``capacity * (1 + log2(n / capacity) / 2)``, about 1600 of 10 000 for a capacity of 500.

    Args:
        capacity: frames on the present grid, at least 2.

    Example:
        >>> thin = Thinning(4)
        >>> [n for n in range(20) if thin.admit()]
        [0, 1, 2, 3, 4, 6, 8, 12, 16]
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 2:
            raise ValueError(f"a quantity needs room for at least 2 frames, got {capacity}")
        self.capacity = capacity
        self.interval = 1
        self.seen = 0

    def admit(self) -> bool:
        """Count one frame; whether it is to be written."""
        number = self.seen
        self.seen += 1
        if number >= self.capacity * self.interval:
            self.interval *= 2
        return number % self.interval == 0

    def state_dict(self) -> dict[str, int]:
        """Plain JSON."""
        return {"seen": self.seen, "interval": self.interval}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.seen, self.interval = int(state["seen"]), int(state["interval"])
