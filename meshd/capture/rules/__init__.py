"""The rules of iptables and of routing: which are wanted, which are there, and the difference."""
