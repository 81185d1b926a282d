"""Route tables and listeners that clients of many scopes share."""
