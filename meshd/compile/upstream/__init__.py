"""Clusters and endpoints, and how connections to them are secured."""
