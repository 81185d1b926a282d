"""Bookinfo's services and what helps to try them. Each is a program that needs only Python."""
