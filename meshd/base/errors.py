"""The errors that meshd raises on purpose: one shallow tree.

A message names the object, what is wrong with it and what to do about it. Users see it as it is,
without a traceback.
"""

from __future__ import annotations

from typing import Final

import msgspec

UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what was expected; the second for invalid UTF-8, the
third for what is nested too deeply."""


class MeshdError(Exception):
    """An error that meshd raises on purpose. ``str(error)`` is one line for users."""


class InvalidInputError(MeshdError):
    """The input of a user or a peer is wrong: a manifest, a setting, an argument."""


class NotReadyError(MeshdError):
    """A condition that should come true by itself does not hold yet; a later attempt may work."""


class UnreachableError(MeshdError):
    """Another process of meshd does not answer."""


class UnansweredError(UnreachableError):
    """Another process of meshd took a request, and has not answered it."""


class SystemRefusedError(MeshdError):
    """The kernel or a program of the system refused: iptables, mount, a netlink request."""
