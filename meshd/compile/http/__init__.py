"""HTTP: routes, filters and what is done with a request."""
