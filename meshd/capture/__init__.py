"""Capture: redirects a workload's traffic to the proxy, inside its own network namespace."""
