"""Starts meshd's processes with the privileges that each needs, and keeps them running."""
