"""What proxies report."""
