"""Gateways: listeners, routes and certificates for clients outside the mesh."""
