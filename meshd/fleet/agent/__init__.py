"""An agent's side of its connection to the server."""
