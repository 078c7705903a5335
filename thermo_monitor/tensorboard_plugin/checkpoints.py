"""Whether the checkpoint of an event is there: the one thing that is looked up on the disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

FOLDER = "thermo_checkpoints"


def name(event: Mapping[str, Any]) -> str:
    """File name that the callback gives to the checkpoint of an event."""
    return f"step={event['step']}-{event['kind']}-{event['phase']}.ckpt"


def saved(logdir: str, run: str, event: Mapping[str, Any]) -> str | None:
    """Path of the checkpoint below the log directory, None where there is none.

    Run and event come out of a log that anybody may have written, so whatever leads out of the directory is not there.
    """
    if not logdir or "://" in logdir or "," in logdir:
        return None
    file = name(event)
    if os.sep in file or "/" in file or "\0" in file + run or os.path.isabs(run):
        return None
    root = os.path.realpath(logdir)
    path = os.path.realpath(os.path.join(root, run, FOLDER, file))
    if os.path.commonpath([root, path]) != root or not os.path.exists(path):
        return None
    return os.path.relpath(path, root)
