"""Proves that traffic reaches the proxy, in both directions."""
