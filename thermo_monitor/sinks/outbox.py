"""A thread that sends, so that training never waits: a bounded queue, time-outs, new tries, a list of what is left."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from thermo_monitor.sinks.channels import Channel, Message

LEVELS = ("info", "warning", "error")


@dataclass(slots=True)
class Lost:
    """What was not sent.

    Attributes:
        dropped: messages for which there was no room.
        failed: title and channel of messages that no try got through.
    """

    dropped: int = 0
    failed: list[str] = field(default_factory=list)


class Outbox:
    """Sends messages through channels, in a daemon thread that starts with the first one.

    Args:
        channels: each message goes to all of them.
        capacity: messages that wait; beyond it the oldest one of the lowest level goes.
        timeout: seconds that a channel may take. One that takes longer is left behind and gets nothing more until it
            comes back, so that a service that never answers holds one thread and no memory.
        tries: of each message on each channel.
        pause: seconds before the second try, twice as long before the third.
        tell: what to do with a sentence for the user.
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        *,
        capacity: int = 64,
        timeout: float = 10.0,
        tries: int = 3,
        pause: float = 1.0,
        tell: Callable[[str], None] = lambda words: None,
    ) -> None:
        self._channels = list(channels)
        self._capacity, self._timeout, self._tries, self._pause = capacity, timeout, tries, pause
        self._tell = tell
        self._queue: deque[Message] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stuck: dict[int, threading.Thread] = {}
        self._complained: set[int] = set()
        self._busy = False
        self._closing = False
        self.lost = Lost()

    @property
    def waiting(self) -> int:
        """Messages in the queue."""
        return len(self._queue)

    def put(self, message: Message) -> None:
        """Take a message; returns at once and never raises."""
        with self._wake:
            if self._closing:
                self.lost.dropped += 1
                return
            if len(self._queue) >= self._capacity:
                self._queue.remove(min(self._queue, key=lambda m: LEVELS.index(m.level)))
                self.lost.dropped += 1
            self._queue.append(message)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="thermo-alerts", daemon=True)
                self._thread.start()
            self._wake.notify_all()

    def close(self, seconds: float) -> list[str]:
        """Send what waits for at most some seconds; what was not sent, in words."""
        until = time.monotonic() + seconds
        with self._wake:
            self._closing = True
            self._wake.notify_all()
            while (self._queue or self._busy) and self._thread is not None and time.monotonic() < until:
                self._wake.wait(max(0.0, until - time.monotonic()))
            left = [message.title for message in self._queue]
            self._queue.clear()
        words = [f"not sent in time: {title}" for title in left]
        words += [f"not delivered: {failed}" for failed in self.lost.failed]
        if self.lost.dropped:
            words.append(f"{self.lost.dropped} more, for which there was no room")
        return words

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._queue:
                    if self._closing:
                        return
                    self._wake.wait()
                message = self._queue.popleft()
                self._busy = True
            try:
                for number, channel in enumerate(self._channels):
                    self._send(number, channel, message)
            finally:
                with self._wake:
                    self._busy = False
                    self._wake.notify_all()

    def _send(self, number: int, channel: Channel, message: Message) -> None:
        if LEVELS.index(message.level) < LEVELS.index(channel.least):
            return
        why = ""
        for attempt in range(self._tries):
            stuck = self._stuck.get(number)
            if stuck is not None and stuck.is_alive():
                why = "it still does not answer"
                break
            self._stuck.pop(number, None)
            why = self._attempt(number, channel, message)
            if not why:
                return
            if attempt + 1 < self._tries and not self._closing:
                with self._wake:
                    self._wake.wait_for(lambda: self._closing, self._pause * 2**attempt)
        if len(self.lost.failed) < self._capacity:
            self.lost.failed.append(f"{message.title} to {channel.name}: {why}")
        else:
            self.lost.dropped += 1
        if number not in self._complained:
            self._complained.add(number)
            self._tell(f"an alert could not be sent to {channel.name}: {why}; training goes on, and so do the tries.")

    def _attempt(self, number: int, channel: Channel, message: Message) -> str:
        """One try; why it failed, empty when it did not."""
        outcome: list[str] = []

        def send() -> None:
            try:
                outcome.append("" if channel.send(message) else "it refused the message")
            except Exception as error:  # its text may hold an address with a password in it
                outcome.append(type(error).__name__)

        thread: Any = threading.Thread(target=send, name="thermo-alert", daemon=True)
        thread.start()
        thread.join(self._timeout)
        if outcome:
            return outcome[0]
        self._stuck[number] = thread
        return f"no answer in {self._timeout:g} s"
