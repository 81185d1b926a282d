"""The Kubernetes kinds that a node reads."""
