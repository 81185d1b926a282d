"""The pool of Envoy proxies: what each is started with, how it is asked, who replaces whom."""
