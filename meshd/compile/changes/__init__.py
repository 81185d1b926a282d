"""Tells what differs between two snapshots, and so which way a compilation takes. Pure."""
