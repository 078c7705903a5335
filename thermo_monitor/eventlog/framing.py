"""Records of an event file: where they are, also when the file is damaged.

A record is ``uint64 length, uint32 checksum of the length, payload, uint32 checksum of the payload``, little-endian;
the checksum is CRC-32C, rotated and shifted ("masked"). The checksum of the length is looked at for every record: it is
what tells a half-written record from a corrupt length, and where records go on behind a damaged place. The checksum of
a payload is looked at only where the payload cannot be read, since computing it takes longer than everything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_HEADER = Struct("<QI")
HEADER, FOOTER = 12, 4
LARGEST = 2**31 - 1  # bytes of a payload: a larger protobuf does not exist
_WINDOW = 1 << 20  # offsets that are tried at a time behind a damaged place
_KNOWN = 4096  # checksums of lengths that are remembered: lengths repeat


# Kind, first byte, one after the last byte, where the next record begins. A plain tuple: millions of them are made. The
# kind is ``payload``; ``corrupt`` for bytes that belong to no record; ``torn`` for the end of a file that is probably
# still being written.
Record = tuple[Literal["payload", "corrupt", "torn"], int, int, int]


def _table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1).astype(np.uint32)
    return table


_CRC = _table()
_known: dict[int, int] = {}


def checksum(data: bytes) -> int:
    """Masked CRC-32C of some bytes.

    Example:
        >>> hex(checksum(b"123456789"))  # CRC-32C is 0xe3069283
        '0xc78ab0e5'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = int(_CRC[(crc ^ byte) & 0xFF]) ^ (crc >> 8)
    return _masked(crc ^ 0xFFFFFFFF)


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def is_length(length: int, found: int) -> bool:
    """Whether a checksum belongs to a length."""
    expected = _known.get(length)
    if expected is None:
        expected = checksum(length.to_bytes(8, "little"))
        if len(_known) < _KNOWN:
            _known[length] = expected
    return expected == found


def records(buffer: bytes | memoryview, start: int = 0, end: int | None = None) -> Iterator[Record]:
    """Records from an offset on, to the end of what is complete.

    Args:
        buffer: the file, mapped or read.
        start: where a record begins.
        end: where to stop; the end of the buffer unless given.

    Example:
        >>> length = (2).to_bytes(8, "little")
        >>> record = length + checksum(length).to_bytes(4, "little") + b"ab" + b"...."
        >>> data = b"xyz" + record + record[:9]
        >>> list(records(data)), data[15:17]
        ([('corrupt', 0, 3, 3), ('payload', 15, 17, 21), ('torn', 21, 30, 21)], b'ab')
    """
    at, stop = start, len(buffer) if end is None else end
    unpack, known = _HEADER.unpack_from, _known
    while at + HEADER <= stop:
        length, found = unpack(buffer, at)
        if known.get(length) != found and not is_length(length, found):
            further = _resynchronise(buffer, at + 1, stop)
            yield "corrupt", at, further, further
            at = further
            continue
        after = at + HEADER + length + FOOTER
        if length > LARGEST or after > stop:
            break
        yield "payload", at + HEADER, after - FOOTER, after
        at = after
    if at < stop:
        yield "torn", at, stop, at


def _resynchronise(buffer: bytes | memoryview, start: int, stop: int) -> int:
    """The first offset at which a length has its checksum; the end where there is none.

    The last few bytes may be a header that is not complete: it is left for the next look.
    """
    at = start
    while at + HEADER <= stop:
        upto = min(at + _WINDOW + HEADER, stop)
        data = np.frombuffer(buffer, np.uint8, upto - at, at)
        count = data.size - HEADER + 1
        crc = np.full(count, 0xFFFFFFFF, np.uint32)
        for n in range(8):
            crc = _CRC[(crc ^ data[n : n + count]) & 0xFF] ^ (crc >> np.uint32(8))
        crc ^= np.uint32(0xFFFFFFFF)
        masked = ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)
        stored = sum(data[8 + n : 8 + n + count].astype(np.uint32) << np.uint32(8 * n) for n in range(4))
        # A length of four bytes or more: no larger record exists, and chance would find one otherwise.
        plausible = (data[4 : 4 + count] == 0) & (data[5 : 5 + count] == 0) & (data[6 : 6 + count] == 0)
        hits = np.flatnonzero((masked == stored) & plausible)
        if hits.size:
            return at + int(hits[0])
        at += count
    return max(start, stop)
