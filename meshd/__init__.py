"""meshd: a service mesh for the machines people really have."""

__version__ = "0.2.0"
