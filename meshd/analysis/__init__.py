"""What objects say of one another: references, effects, and what a change takes away."""
