"""What TensorBoard imports at its start, and therefore nothing that could fail.

An exception while this module is imported would end TensorBoard; one inside ``load`` only leaves the tab out.
"""

from __future__ import annotations

from typing import Any

from tensorboard.plugins import base_plugin

# A loader of TensorBoard keeps ten tensors of a tag, at random, unless it is told otherwise. No event depends on this
# (see ``events``); curves and frames look better with more.
SAMPLES = {"thermo_monitor": 1000, "thermo_monitor_heads": 500, "thermo_monitor_series": 1000}


class Loader(base_plugin.TBLoader):  # type: ignore[misc]
    """Finds the tab."""

    def define_flags(self, parser: Any) -> None:
        """Adds ``--thermo_first``."""
        parser.add_argument_group("thermo-monitor").add_argument(
            "--thermo_first",
            choices=("true", "false"),
            default="true",
            help="Whether a log that thermo-monitor wrote opens on its tab. Other logs never do. (default: true)",
        )

    def fix_flags(self, flags: Any) -> None:
        """Ask for more samples of our own data, unless the user said how many."""
        flags.samples_per_plugin = {**SAMPLES, **(flags.samples_per_plugin or {})}

    def load(self, context: Any) -> Any:
        """The tab; what it needs is imported here, where TensorBoard survives a failure."""
        from thermo_monitor.tensorboard_plugin.plugin import ThermoPlugin

        return ThermoPlugin(context)


class FirstLoader(base_plugin.TBLoader):  # type: ignore[misc]
    """Finds the tab once more, as the first one, for logs that the monitor wrote: see ``first``."""

    def load(self, context: Any) -> Any:
        """The first tab, or none where the user said so."""
        from thermo_monitor.tensorboard_plugin.first import FirstPlugin, wanted

        return FirstPlugin(context) if wanted(context) else None
