"""What happens when a part of the monitor fails: it is switched off, visibly, and the training goes on."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


class Guard:
    """Runs the monitor's parts by name and stops asking those that raised.

    Args:
        strict: raise instead; tests use it.
    """

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self.disabled: dict[str, str] = {}  # part -> what it raised

    def run(self, part: str, call: Callable[..., Result], *args: Any, default: Result | None = None) -> Result | None:
        """The result of ``call(*args)``, or ``default`` when the part fails or has failed before."""
        if part in self.disabled:
            return default
        try:
            return call(*args)
        except Exception as error:
            self.failed(part, error)
            return default

    def failed(self, part: str, error: Exception) -> None:
        """Switch a part off because of an error; said once, with the traceback."""
        if self.strict:
            raise error
        if part in self.disabled:
            return
        self.disabled[part] = f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(error))
        tell(f"{part} raised an error and is switched off; training goes on.\n{trace}")


def tell(message: str) -> None:
    """Say something to the user, who may have turned warnings into errors: that must not stop a training either."""
    try:
        warnings.warn(f"thermo-monitor: {message}", RuntimeWarning, stacklevel=3)
    except Warning:
        print(f"thermo-monitor: {message}")
