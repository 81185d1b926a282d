"""Kind security.istio.io AuthorizationPolicy."""
