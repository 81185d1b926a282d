"""Keys of TLS session tickets, as proxies know them."""

from __future__ import annotations

from typing import Final

SESSION_TICKETS: Final = "session-tickets"
"""The secret with the keys that all members of a node's pool have in common."""
