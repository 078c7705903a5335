"""Slow, obvious versions: plain Python and numpy in float64, one row at a time."""
