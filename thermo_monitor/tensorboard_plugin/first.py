"""A log that the monitor wrote opens on the tab.

TensorBoard opens the first tab that has data, in the order in which its page finds the tabs. That order is the one in
which they were registered, built-in ones first; but the page keeps them in an object, and JavaScript lists keys that
are whole numbers before all others. So the tab is registered a second time under a number, and of the two that one has
data whose log holds data of ours: it stands first then, and TensorBoard opens it. A log that the monitor never wrote
opens as ever, with the tab at the end of the row.

Both have the same page and the same answers. Links to ``#thermo_monitor`` work in any case, and a page of TensorBoard
that ordered its tabs in another way would merely open another one first.
"""

from __future__ import annotations

from typing import Any

from thermo_monitor.tensorboard_plugin.listing import EVENTS, HEADS
from thermo_monitor.tensorboard_plugin.plugin import FIRST, ThermoPlugin


class FirstPlugin(ThermoPlugin):
    """The tab, where it comes first."""

    plugin_name = FIRST

    def data_plugin_names(self) -> tuple[str, ...]:
        """Data of the monitor, and no other."""
        return (EVENTS, HEADS)

    def is_active(self) -> bool:
        """Only with such data."""
        return False


def wanted(context: Any) -> bool:
    """Whether the user lets it come first."""
    return getattr(context.flags, "thermo_first", "true") != "false"
