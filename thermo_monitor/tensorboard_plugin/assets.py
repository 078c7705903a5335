"""The files of the page, compressed once.

The scripts are ES modules, each with an idea of its own. They are sent as one: two dozen requests, each of which may
only begin when another was read, would take longer than all the rest of the page, and what is compressed together is a
quarter smaller. Joining them is a matter of their order, since no two of them give one name to two things.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Mapping
from importlib import resources

ENTRY = "index.js"  # with all that it imports
ALONE = ("uPlot.iife.min.js", "onward.js")  # scripts that are sent as they are
_TYPES = {".js": "text/javascript", ".css": "text/css", ".txt": "text/plain"}
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w.]+)";\n', re.M)


def files() -> dict[str, tuple[bytes, str]]:
    """Compressed content and type of each file, by name."""
    folder = resources.files("thermo_monitor.tensorboard_plugin") / "static"
    texts = {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir() if _kind(file.name)}
    modules = {name: text for name, text in texts.items() if name.endswith(".js") and name not in ALONE}
    texts = {name: text for name, text in texts.items() if name not in modules} | {ENTRY: joined(modules, ENTRY)}
    return {
        name: (gzip.compress(text.encode(), 9, mtime=0), f"{_kind(name)}; charset=utf-8")
        for name, text in texts.items()
    }


def joined(modules: Mapping[str, str], entry: str) -> str:
    r"""One module of several, each after those that it imports.

    Args:
        modules: text by name. They import by name, ``import { a } from "./b.js";``, and export what they define.
        entry: name of the one that imports the others; only its exports remain.

    Raises:
        ValueError: a module is missing.

    Example:
        >>> modules = {"a.js": 'import { b } from "./b.js";\nexport const a = b;', "b.js": "export const b = 1;"}
        >>> print(joined(modules, "a.js"))
        // b.js
        const b = 1;
        // a.js
        export const a = b;
    """
    seen: set[str] = set()
    order: list[str] = []

    def visit(name: str) -> None:
        if name in seen:
            return
        if name not in modules:
            raise ValueError(f"the page has no module {name}")
        seen.add(name)
        for imported in _IMPORT.findall(modules[name]):
            visit(imported)
        order.append(name)

    visit(entry)
    parts = []
    for name in order:
        text = _IMPORT.sub("", modules[name]).strip()
        parts.append(f"// {name}\n{text if name == entry else re.sub('^export ', '', text, flags=re.M)}")
    return "\n".join(parts)


def _kind(name: str) -> str | None:
    return _TYPES.get(os.path.splitext(name)[1])
