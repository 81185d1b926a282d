"""The node's resolver, dnsmasq(8): what it is told, and what it is started with."""
