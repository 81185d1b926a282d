"""Runs Kubernetes manifests on this host: pods are network namespaces, containers are processes.

It is for the demo and for tests. It tells the mesh which workloads exist, and decides nothing about
them.
"""
