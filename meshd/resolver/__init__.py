"""The node's resolver, dnsmasq(8): its tables and its command line."""
