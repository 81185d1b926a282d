"""The plan: what the proxies do, in the mesh's own terms. It knows nothing of Envoy."""
