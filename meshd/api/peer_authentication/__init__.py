"""Kind security.istio.io PeerAuthentication."""
