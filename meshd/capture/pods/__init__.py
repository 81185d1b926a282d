"""Redirects the traffic of workloads that have a network namespace of their own."""
