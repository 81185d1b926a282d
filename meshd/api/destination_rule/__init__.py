"""Kind networking.istio.io DestinationRule."""
