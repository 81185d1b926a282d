"""Kind networking.istio.io Gateway."""
