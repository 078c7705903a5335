"""Between processes: named arrays are packed into one vector, and one all-reduce adds it up over all ranks.

The group is the monitor's own, of torch's gloo backend on the host, over the store through which the training's own
processes have found each other. So nothing of it can meet a collective of the training: a rank that stops taking part
(an error, uneven data, a debugger) leaves this vector unfinished and nothing else, and no communicator on a device
takes memory. The vector goes round in a thread of gloo while the training goes on, and is taken up at the next turn,
which comes at the same step on every rank.
"""

from __future__ import annotations

import datetime
import itertools
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

Array = NDArray[np.float64]
Name = tuple[str, ...]
Named = Mapping[Name, Array]

MEETING = 120.0  # seconds until all ranks have made their monitor
# Seconds until all ranks have come to a step that one of them has left behind: rank zero may be busy with something of
# its own for long, and the training waits for it as well. One that died, or has given up, is known at once.
WAITING = 600.0
LEAVING = 10.0  # seconds that a monitor waits for the others when it is closed

_NUMBERS = itertools.count()


def ranks() -> tuple[int, int]:
    """Rank of this process and number of processes that train together; (0, 1) where there is no process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class Exchange:
    """Sums over ranks of whatever they name, a head of fixed length among them.

    Which names there are is agreed between the ranks whenever one of them has a new one, so that the vector has the
    same length and order everywhere; what a rank does not name counts as zeros.

    Args:
        rank: of this process.
        ranks: how many there are.
        head: length of what is summed in every turn, under no name.

    Raises:
        RuntimeError: not all ranks have made one within two minutes.
    """

    def __init__(self, rank: int, ranks: int, head: int) -> None:
        self.rank, self.ranks = rank, ranks
        store = dist.distributed_c10d._get_default_store()
        # Every monitor of a process has a number, which is the same on every rank when all of them make the same ones.
        store = dist.distributed_c10d.PrefixStore(f"thermo_monitor/{next(_NUMBERS)}", store)
        try:
            # Before the group is made: in torch 2.6 the time that it is given is also the longest that any rank may be
            # busy, whatever a single turn is given.
            store.set(str(rank), "here")
            store.wait([str(other) for other in range(ranks)], datetime.timedelta(seconds=MEETING))
            group: Any = dist.ProcessGroupGloo(store, rank, ranks, datetime.timedelta(seconds=WAITING))
            _wait(group.allreduce([torch.zeros(1)]), MEETING)
        except Exception as error:
            raise RuntimeError(
                f"rank {rank} has not met the monitors of all {ranks} ranks within {MEETING:.0f} s: make a monitor on "
                f"every rank, after init_process_group ({type(error).__name__}: {error})"
            ) from error
        self._group = group
        self._head = head
        self._layout: dict[Name, tuple[int, ...]] = {}
        self._sent: tuple[Array, Named] | None = None
        self._work: Any = None
        self._vector = torch.zeros(0)
        self.bytes = 0  # that this rank has given away

    def start(self, head: Array, named: Named) -> None:
        """Send a turn on its way. Every rank does it at the same step, whatever became of its own part."""
        self._sent = head, named
        self._vector = torch.from_numpy(self._packed(head, named))
        self.bytes += 2 * self._vector.numel() * 8 * (self.ranks - 1) // self.ranks
        self._work = self._group.allreduce([self._vector], _options(dist.AllreduceOptions()))

    def finish(self, seconds: float = 0.0, *, agree: bool = True) -> tuple[Array, dict[Name, Array]] | None:
        """The sums of the turn that was started last, once; None if there is none.

        Args:
            seconds: to wait for the other ranks; 0: as long as is usual.
            agree: may name what is new, which all ranks have to do together; if not, and there is any, None.
        """
        if self._work is None:
            return None
        _wait(self._work, seconds or WAITING)
        if float(self._vector[0]) > 0:  # the same on every rank
            if not agree:
                return None
            head, named = self._sent or (np.zeros(self._head), {})
            self._agree(named)
            self._vector = torch.from_numpy(self._packed(head, named))
            self._ring(self._vector)
        self._work = self._sent = None
        return self._unpacked(self._vector.numpy())

    @property
    def under_way(self) -> bool:
        """Whether a turn was started that is not finished."""
        return self._work is not None

    def close(self) -> None:
        """Leave the group, whatever is still under way in it."""
        if self._work is not None and not self._work.is_completed() and hasattr(self._group, "abort"):
            self._group.abort()  # a thread that waits for another rank would keep this process from ending
        self._work = self._group = None

    # ------------------------------------------------------------------------------------------------- the vector
    def _packed(self, head: Array, named: Named) -> Array:
        """[1 + head + sum of (1 + size)]: how many names are new, the head, and of each name whether it is given."""
        parts = [np.zeros(1), head]
        for name, shape in self._layout.items():
            given = named.get(name)
            if given is None or given.shape != shape:
                parts.append(np.zeros(1 + int(np.prod(shape))))
            else:
                parts += [np.ones(1), np.asarray(given, dtype=np.float64).reshape(-1)]
        parts[0][0] = sum(name not in self._layout for name in named)
        return np.concatenate(parts)

    def _unpacked(self, vector: Array) -> tuple[Array, dict[Name, Array]]:
        found, at = {}, 1 + self._head
        for name, shape in self._layout.items():
            size = int(np.prod(shape))
            if vector[at] > 0:
                found[name] = vector[at + 1 : at + 1 + size].reshape(shape)
            at += 1 + size
        return vector[1 : 1 + self._head], found

    def _agree(self, named: Named) -> None:
        """The lowest rank that has new names tells them all, until none has any: seldom more than once."""
        while True:
            new = [(list(name), list(array.shape)) for name, array in named.items() if name not in self._layout]
            first = torch.tensor([self.rank if new else self.ranks])
            self._ring(first, dist.ReduceOp.MIN)
            if int(first) == self.ranks:
                return
            text = bytearray(json.dumps(new).encode())
            size = torch.tensor([len(text)])
            self._tell(size, int(first))
            sheet = torch.zeros(int(size), dtype=torch.uint8)
            if self.rank == int(first):
                sheet = torch.frombuffer(text, dtype=torch.uint8)
            self._tell(sheet, int(first))
            for name, shape in json.loads(bytes(sheet.numpy())):
                self._layout.setdefault(tuple(name), tuple(shape))

    def _ring(self, tensor: torch.Tensor, how: Any = dist.ReduceOp.SUM) -> None:
        options = _options(dist.AllreduceOptions())
        options.reduceOp = how
        _wait(self._group.allreduce([tensor], options), WAITING)

    def _tell(self, tensor: torch.Tensor, root: int) -> None:
        options = _options(dist.BroadcastOptions())
        options.rootRank, options.rootTensor = root, 0
        _wait(self._group.broadcast([tensor], options), WAITING)


def _options(options: Any) -> Any:
    options.timeout = datetime.timedelta(days=1)  # the group's own would end what a busy rank has not come to yet
    return options


def _wait(work: Any, seconds: float) -> None:
    """Until it is done, with an end to it; a worker that died raises at once."""
    until = time.monotonic() + seconds
    while not work.is_completed():
        if time.monotonic() > until:
            raise TimeoutError(f"another rank did not come to the same step within {seconds:.0f} s")
        time.sleep(2e-4)
    work.wait()


def steps_agree(sums: Iterable[float], step: int) -> bool:
    """Whether all ranks that took part were at this step, from the sums of :func:`step_sums`."""
    count, total, squares = sums
    return bool(count == 0 or (total == count * step and squares == count * (step % 4096) ** 2))


def step_sums(step: int) -> list[float]:
    """Three numbers whose sums over ranks tell whether all were at the same step, exactly for 10^5 ranks."""
    return [1.0, float(step), float((step % 4096) ** 2)]
