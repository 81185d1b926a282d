"""What proxies take, and what the plan says that they take."""
