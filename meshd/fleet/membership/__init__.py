"""The nodes that a server knows, their tokens, and what their certificates may say."""
