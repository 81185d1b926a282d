"""meshd: a service mesh for VMs, bare-metal hosts and Kubernetes nodes."""

__version__ = "0.2.0"
