"""Kind networking.istio.io VirtualService."""
