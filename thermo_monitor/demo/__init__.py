"""A small transformer on modular addition: a run that groks and a control that does not, with everything switched on."""
