"""Snapshot → Envoy resources. Pure: the same snapshot always gives the same bytes."""
