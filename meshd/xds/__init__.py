"""Hands resources to the proxies over delta ADS, and keeps account of what each of them has."""
