"""The API server of Kubernetes: how it is reached, what is read from it, and what that means."""
