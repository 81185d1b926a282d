"""Listeners of a workload's outgoing and incoming connections."""
