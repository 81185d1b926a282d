"""Fetches the keys of issuers of tokens, from whom nothing is believed but what a key is."""
