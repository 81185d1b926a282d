"""Gives certificates and keys to proxies over their own stream (SDS)."""
