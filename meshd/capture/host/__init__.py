"""Redirects the traffic of services that run in the host's own network namespace."""
