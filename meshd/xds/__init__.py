"""Serves resources to the proxies over delta ADS, and tracks what each of them has."""
