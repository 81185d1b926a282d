"""How a machine becomes a node of a mesh: one token, one connection."""
