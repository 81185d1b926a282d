"""Kind security.istio.io RequestAuthentication."""
