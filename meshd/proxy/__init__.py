"""The pool of Envoy proxies: bootstrap, admin interface, plan of replacement."""
