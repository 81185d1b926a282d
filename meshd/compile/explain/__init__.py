"""Answers which route, cluster and endpoint a request takes."""
