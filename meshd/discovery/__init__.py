"""Which workloads are on this node, and how far each is on its way into or out of the mesh."""
