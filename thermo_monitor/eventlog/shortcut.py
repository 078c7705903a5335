"""A short way to read a record with one number, which is what most records of most logs are.

Such a record is ``0x09 wall time (8 bytes), 0x10 step (varint), the rest, number (4 bytes)``, where the rest holds
lengths and the name and is the same for every record of a curve. It is learned from a record that protobuf has read; a
record with the same rest needs protobuf no more. Any other one is left to it.
"""

from __future__ import annotations

from struct import Struct

from thermo_monitor.eventlog.curves import Column

_WALL, _NUMBER = Struct("<d"), Struct("<f")
_MOST = 65_536  # names that are remembered


class Shortcut:
    """Remembers what the records of each curve have in common.

    Example:
        >>> from tensorboard.compat.proto.event_pb2 import Event
        >>> from tensorboard.compat.proto.summary_pb2 import Summary
        >>> def record(step, value):
        ...     summary = Summary(value=[Summary.Value(tag="loss", simple_value=value)])
        ...     return Event(step=step, wall_time=1.5, summary=summary).SerializeToString()
        >>> column, shortcut = Column(), Shortcut()
        >>> shortcut.learn(record(1, 0.5), 1, 1.5, 0.5, column)
        >>> shortcut.take(record(70_000, 0.25)), column.steps.tolist(), column.values.tolist()
        (True, [70000.0], [0.25])
        >>> shortcut.take(record(0, 0.25))  # a step of zero is not written, so this one is not of that form
        False
    """

    def __init__(self) -> None:
        self._columns: dict[bytes, Column] = {}

    def learn(self, payload: bytes, step: int, wall: float, value: float, column: Column) -> None:
        """Remember the form of a record of which the contents are known, if it is of this form."""
        end = _varint(payload)
        if end is None or len(self._columns) >= _MOST:
            return
        rest = payload[end:-4]
        if not rest.endswith(b"\x15") or _WALL.unpack_from(payload, 1)[0] != wall or _step(payload, end) != step:
            return
        if _NUMBER.unpack(payload[-4:])[0] == value:
            self._columns[rest] = column

    def take(self, payload: bytes) -> bool:
        """Add the number of a record to its curve; False where the record is of another form."""
        if len(payload) < 20 or payload[0] != 9 or payload[9] != 16:
            return False
        at, step = 10, payload[10]
        if step > 127:
            step &= 127
            shift = 7
            while True:
                at += 1
                byte = payload[at]
                step |= (byte & 127) << shift
                if byte < 128:
                    break
                shift += 7
                if shift > 56:  # a negative step, or nonsense
                    return False
        column = self._columns.get(payload[at + 1 : -4])
        if column is None:
            return False
        column.steps.append(step)
        column.walls.append(_WALL.unpack_from(payload, 1)[0])
        column.values.append(_NUMBER.unpack(payload[-4:])[0])
        return True


def _varint(payload: bytes) -> int | None:
    """Where the step ends."""
    if len(payload) < 20 or payload[0] != 9 or payload[9] != 16:
        return None
    end = next((n for n in range(10, 19) if payload[n] < 128), None)
    return None if end is None else end + 1


def _step(payload: bytes, end: int) -> int:
    return sum((byte & 127) << (7 * n) for n, byte in enumerate(payload[10:end]))
