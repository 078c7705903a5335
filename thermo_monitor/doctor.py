"""What is installed, whether TensorBoard sees the tab, and what can be heard of a model."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple

from thermo_monitor import __version__


class Finding(NamedTuple):
    """One line: whether it is right, what it is about, and what was found."""

    good: bool | None  # None: neither right nor wrong
    what: str
    words: str


_PACKAGES = (
    ("tensorboard", "needed for the tab"),
    ("torch", "needed to watch a training"),
    ("lightning", "for the Lightning callback"),
    ("pytorch-lightning", "for the Lightning callback"),
    ("transformers", "for the Hugging Face callback"),
    ("apprise", "for alerts to chat, mail and phones: pip install 'thermo-monitor[alerts]'"),
    ("joblib", "to scan many runs at once: pip install 'thermo-monitor[scan]'"),
    ("fsspec", "to read remote logs: pip install 'thermo-monitor[scan]'"),
)


def examine(model: str | None = None) -> Iterator[Finding]:
    """Findings, one after the other.

    Args:
        model: ``module:Class`` or ``module:function`` of a model that can be made without arguments.
    """
    yield Finding(None, "thermo-monitor", __version__)
    yield Finding(None, "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name, why in _PACKAGES:
        version = _version(name)
        yield Finding(None if version is None else True, name, version or f"not installed; {why}")
    yield tab()
    yield loader()
    if model is not None:
        yield from heard(model)


def tab() -> Finding:
    """Whether TensorBoard finds our tab, asked in the way in which it looks itself."""
    try:
        default = importlib.import_module("tensorboard.default")
        names = [f"{one.__module__}.{one.__qualname__}" for one in default.get_dynamic_plugins()]
    except Exception as error:  # one broken plugin, of anybody, stops TensorBoard
        return Finding(False, "tab", f"TensorBoard fails to look for tabs: {type(error).__name__}: {error}")
    if "thermo_monitor.tensorboard_plugin.loader.Loader" not in names:
        return Finding(False, "tab", "TensorBoard does not find it: install thermo-monitor where tensorboard runs")
    if "thermo_monitor.tensorboard_plugin.loader.FirstLoader" not in names:
        return Finding(True, "tab", "TensorBoard finds it; for logs to open on it install thermo-monitor again")
    return Finding(True, "tab", "TensorBoard finds it, and opens on it where the monitor wrote the log")


def loader() -> Finding:
    """Which of TensorBoard's two loaders runs here; the tab works with both."""
    try:
        ingester = importlib.import_module("tensorboard.data.server_ingester")
        ingester.get_server_binary()
    except Exception:
        return Finding(
            None, "loader", "the Python one (slower with large logs); the fast one is not made for this system"
        )
    return Finding(None, "loader", "the fast one")


def heard(model: str) -> Iterator[Finding]:
    """What the monitor could hear of a model."""
    name, _, attribute = model.partition(":")
    try:
        made = getattr(importlib.import_module(name), attribute)()
        monitor_module = importlib.import_module("thermo_monitor.monitor")
        with monitor_module.Monitor(made, sinks=[]) as monitor:
            lines = monitor.describe().splitlines()
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}; give module:Class of a model that is made without arguments"
        yield Finding(False, "model", f"{model}: {wrong}")
        return
    yield Finding(True, "model", f"{model} can be watched with the default preset:")
    for line in lines:
        yield Finding(None, "", line)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
