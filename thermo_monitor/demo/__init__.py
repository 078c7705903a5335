"""A small transformer on modular addition: a run that groks, a control that does not, everything switched on."""
