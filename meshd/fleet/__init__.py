"""Many nodes: membership, joining, a server and its agents."""
