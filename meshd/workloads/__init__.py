"""The workloads of this node, and how far each is on its way into or out of the mesh."""
