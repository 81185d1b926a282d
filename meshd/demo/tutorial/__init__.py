"""The tutorial that runs itself: a node with Bookinfo, walked through step by step.

It does everything with commands that a reader can type, shows each of them, and checks the results.
It calls nothing of meshd directly.
"""
