"""Replaces what cannot be in force by what is closed. Pure."""
