"""Identities of workloads: names, the authority that certifies them, and rotation."""
