"""What a node knows, and what follows when any of it changes."""
