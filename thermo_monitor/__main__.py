"""``python -m thermo_monitor`` is ``thermo-monitor``."""

from thermo_monitor.cli import main

main()
