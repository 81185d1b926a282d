"""A node with pods, as the tests of nodes have it, for those who attack it."""

from __future__ import annotations

from tests.node.conftest import clean_host, make, node

__all__ = ["clean_host", "make", "node"]
