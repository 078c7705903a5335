"""How answers travel: strict JSON, and arrays behind a header for curves and frames."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def dumps(data: Any) -> str:
    """Strict JSON: a number that is not finite becomes ``null``.

    Example:
        >>> dumps({"a": float("nan"), "b": [1.5]})
        '{"a":null,"b":[1.5]}'
    """
    return json.dumps(_finite(data), allow_nan=False, separators=(",", ":"))


def pack(header: Mapping[str, Any], arrays: Sequence[NDArray[Any]]) -> bytes:
    """Length of the header as uint32, the header as JSON, then the arrays, little-endian, each at a multiple of 8.

    The header gets ``arrays``: for each its type, shape and offset from the end of the header.

    Example:
        >>> data = pack({"n": 2}, [np.array([1.0, 2.0])])
        >>> int.from_bytes(data[:4], "little") % 8, data[-16:] == np.array([1.0, 2.0]).tobytes()
        (4, True)
    """
    parts, places, at = [], [], 0
    for array in arrays:
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        places.append({"type": array.dtype.name, "shape": list(array.shape), "at": at})
        data += b"\0" * (-len(data) % 8)
        parts.append(data)
        at += len(data)
    head = dumps({**header, "arrays": places}).encode()
    head += b" " * (-(len(head) + 4) % 8)
    return b"".join([len(head).to_bytes(4, "little"), head, *parts])


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
