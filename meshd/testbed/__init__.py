"""Runs Kubernetes manifests on this host: pods are network namespaces, containers processes.

For the demo and for tests. It tells the mesh which workloads there are, and decides nothing about
them.
"""
