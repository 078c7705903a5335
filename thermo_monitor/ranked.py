"""What a monitor does on several ranks: it exchanges what was measured, and all act alike on what rank zero decides."""

from __future__ import annotations

from thermo_monitor.assembly import Assembly
from thermo_monitor.decisions import Told
from thermo_monitor.exchange import ranks
from thermo_monitor.pooling import ROWS, Pool
from thermo_monitor.records import Event

# Steps at which only the cheap quantities were read are read together: one after the other they take a third of the
# time that they take apart, between the passes of a model that has emptied the caches.
PATIENCE = ROWS
_CHANGED = "the monitor was made on {} ranks and now there are {}: make it after init_process_group"


class Ranked(Assembly):
    """The part of a monitor that knows of other ranks; on one device it does next to nothing."""

    def announce(self, event: Event) -> None:
        """Rank zero has found something that all ranks shall act on together, such as saving a checkpoint."""
        told = Told(event.step, event.kind, event.phase)
        if self._ranks == 1:
            self._told.append(told)
        elif self._pool is not None:
            self._pool.announce(told)

    def announced(self) -> list[Told]:
        """What was announced since the last call, at the same step on every rank; on one device at once."""
        told, self._told = self._told, []
        return told

    def unsaid(self) -> list[Told]:
        """What rank zero has announced, and no other rank has heard, when the run is over."""
        return [] if self._pool is None else self._pool.unsaid()

    def _met(self, step: int, slow: bool) -> bool:
        """On several ranks: exchange what has arrived, at the same steps everywhere; whether that still works."""
        if slow and ranks()[1] != self._ranks:
            self.guard.failed("ranks", RuntimeError(_CHANGED.format(self._ranks, ranks()[1])))
        if "ranks" in self.guard.disabled:
            return False
        pool = self._pool
        if pool is None:
            return True
        with self._meter:
            if slow or pool.waiting >= PATIENCE:
                arrivals = self.guard.run("arrival", self._transport.drain) or []
                for arrival in self.guard.run("ranks", pool.turn, arrivals) or []:
                    self._reader.read(arrival)
                self._decided(pool)
            pool.begin(step, slow)
        if "ranks" in self.guard.disabled:
            pool.close()  # so that the others need not wait to learn it
            return False
        return True

    def _decided(self, pool: Pool) -> None:
        stretch, told = pool.decided()
        self._told += told
        if stretch is not None:
            self._cadence.stretch(stretch)

    def flush(self) -> None:
        """Read what is still under way, waiting for it: before a checkpoint, or to see the newest numbers.

        On several ranks that is what they have exchanged already: one of them may ask without the others.
        """
        if self._pool is None:
            return super().flush()
        for arrival in self.guard.run("ranks", self._pool.finish, self._closed, True) or []:
            self._reader.read(arrival)

    def _last_turn(self) -> None:
        """What the ranks have measured since their last turn, if all of them are at their end."""
        pool = self._pool
        if pool is None or "ranks" in self.guard.disabled:
            return
        arrivals = self.guard.run("arrival", self._transport.drain) or []
        for arrival in self.guard.run("ranks", pool.turn, arrivals) or []:
            self._reader.read(arrival)
        for arrival in self.guard.run("ranks", lambda: pool.finish(last=True)) or []:
            self._reader.read(arrival)
        self._decided(pool)
