"""Envoy's building blocks, which all directions share."""
