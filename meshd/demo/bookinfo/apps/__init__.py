"""Bookinfo's services and programs to try them. Each needs only Python."""
