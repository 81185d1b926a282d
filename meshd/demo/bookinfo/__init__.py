"""The Bookinfo sample: its services, manifests and the tutorial's configuration."""
