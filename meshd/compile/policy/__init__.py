"""Which connections a workload accepts."""
