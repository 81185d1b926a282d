"""What the clients of a scope see of the mesh: services, routes and rules. Pure."""
