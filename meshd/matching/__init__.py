"""What requests and connections a match takes, and which match takes them before another."""
