"""What a server tells its nodes, and what they tell it."""
