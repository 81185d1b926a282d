"""Frozen values that packages exchange. Pure: no I/O, no clock, and no import of any package
above."""
