"""Kind networking.istio.io ServiceEntry, WorkloadEntry and WorkloadGroup."""
