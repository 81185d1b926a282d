"""Compares what clients are planned under two configurations. It knows the plan, and no Envoy."""
