"""Frozen values that rooms exchange. Pure: no I/O, no clock, and no import of any room."""
