"""Identities of workloads: names, the authority that certifies them, rotation, and SDS."""
