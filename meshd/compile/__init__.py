"""Compiles a snapshot to Envoy's resources. Pure: the same snapshot always gives the same bytes."""
