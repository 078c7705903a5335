"""Where an alert can go: an address that apprise knows, a run of W&B or trackio, or a function."""

from __future__ import annotations

import contextvars
import importlib
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from thermo_monitor.records import Event, Level

_TITLE = 63  # characters that W&B takes


@dataclass(frozen=True, slots=True)
class Message:
    """What is told.

    Attributes:
        title: run, what, step.
        text: the rest, a few lines.
        level: of the most urgent event in it.
        event: the event, the most urgent one of a digest.
        picture: a PNG of the quantity around it, or nothing.
    """

    title: str
    text: str
    level: Level
    event: Event
    picture: bytes = b""


class Channel(Protocol):
    """One destination."""

    name: str  # for messages to the user: without anything secret
    least: Level  # lowest level that it gets

    def remember(self) -> None:
        """Called in the thread of the events, before one is sent."""

    def send(self, message: Message) -> bool:
        """Whether it was taken. May take long, and may raise."""


class NoActiveRun(RuntimeError):
    """Nobody would see the alert: no run of that service is active."""


class Address:
    """A service, by its address in the form of apprise; nothing of it but its scheme is ever shown.

    Raises:
        ValueError: apprise is not installed, or knows no such service.
    """

    def __init__(self, url: str, least: Level = "warning") -> None:
        scheme = url.partition("://")[0] if "://" in url else "?"
        self.name = f"{scheme}://..."
        self.least: Level = least
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its deprecations are its own to mend, also where warnings are errors
            try:
                apprise = importlib.import_module("apprise")
            except ModuleNotFoundError:
                raise ValueError(
                    f"alerts to {self.name} need apprise: pip install 'thermo-monitor[alerts]'; "
                    "'wandb', 'trackio' and functions do without"
                ) from None
            logging.getLogger("apprise").addHandler(logging.NullHandler())  # it would print to the terminal
            self._service = apprise.Apprise()
            known = self._service.add(url)
        if not known:
            raise ValueError(
                f"apprise knows no service for the address {self.name}; "
                "see https://github.com/caronc/apprise/wiki for the form of each"
            )
        self._types = {
            "info": apprise.NotifyType.INFO,
            "warning": apprise.NotifyType.WARNING,
            "error": apprise.NotifyType.FAILURE,
        }

    def __repr__(self) -> str:
        """Without the address."""
        return f"Address({self.name})"

    def remember(self) -> None:
        """Nothing."""

    def send(self, message: Message) -> bool:
        """With the picture as an attachment; services that take none leave it out."""
        kind = self._types[message.level]
        if not message.picture:
            return bool(self._service.notify(body=message.text, title=message.title, notify_type=kind))
        with tempfile.TemporaryDirectory(prefix="thermo-alert-") as folder:
            path = Path(folder) / "event.png"
            path.write_bytes(message.picture)
            return bool(
                self._service.notify(body=message.text, title=message.title, notify_type=kind, attach=str(path))
            )


class WandbRun:
    """The run of W&B that is active at that moment."""

    name = "wandb"

    def __init__(self, least: Level = "warning") -> None:
        self.least: Level = least

    def remember(self) -> None:
        """Nothing: the run belongs to the process."""

    def send(self, message: Message) -> bool:
        """One alert of that run; W&B has levels of its own and titles below 64 characters.

        Raises:
            NoActiveRun: there is none, or it has ended.
        """
        wandb = sys.modules.get("wandb")
        run = getattr(wandb, "run", None)
        if run is None:
            raise NoActiveRun
        level = {"info": "INFO", "warning": "WARN", "error": "ERROR"}[message.level]
        run.alert(title=message.title[:_TITLE], text=message.text, level=level, wait_duration=0)
        return True


class TrackioRun:
    """The run of trackio that is active where the events come from: it belongs to a context, not to the process."""

    name = "trackio"

    def __init__(self, least: Level = "warning") -> None:
        self.least: Level = least
        self._context: contextvars.Context | None = None

    def remember(self) -> None:
        """Take the context of the calling thread along."""
        self._context = contextvars.copy_context()

    def send(self, message: Message) -> bool:
        """One alert of that run.

        Raises:
            NoActiveRun: there is none, or it has ended.
        """
        trackio: Any = sys.modules.get("trackio")
        if trackio is None or self._context is None:
            raise NoActiveRun
        names = {"info": "INFO", "warning": "WARN", "error": "ERROR"}
        level = getattr(trackio.AlertLevel, names[message.level])
        try:
            self._context.run(trackio.alert, title=message.title, text=message.text, level=level)
        except RuntimeError as error:  # what trackio raises where no run was begun
            raise NoActiveRun from error
        return True


class Function:
    """A function of the user's own, called with the event."""

    def __init__(self, call: Callable[[Event], object], least: Level = "warning") -> None:
        self._call = call
        self.name = str(getattr(call, "__qualname__", type(call).__name__))
        self.least: Level = least

    def remember(self) -> None:
        """Nothing."""

    def send(self, message: Message) -> bool:
        """What it returns says nothing; what it raises counts as not sent."""
        self._call(message.event)
        return True


Target = str | Callable[[Event], object]
_NAMED: dict[str, Callable[[Level], Channel]] = {"wandb": WandbRun, "trackio": TrackioRun}


def channel(target: Any, least: Level = "warning") -> Channel:
    """The channel for what a user gives.

    Args:
        target: an address such as ``slack://...``, ``wandb``, ``trackio``, or a function of an event.
        least: lowest level that it gets.

    Raises:
        ValueError: it is none of these, or apprise does not know it; an address is never repeated in the message.
    """
    if isinstance(target, str):
        return _NAMED[target](least) if target in _NAMED else Address(target, least)
    if callable(target) and not isinstance(target, type):
        return Function(target, least)
    raise ValueError(
        f"an alert goes to an address such as 'slack://...' or 'mailto://...', to 'wandb', 'trackio', or to a function "
        f"that takes an event; got {type(target).__name__}"
    )
