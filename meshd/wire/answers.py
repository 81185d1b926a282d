"""Answers that any request may get."""

from __future__ import annotations

from meshd.wire.message import Message


class Done(Message, frozen=True):
    """The request was carried out; there is nothing to tell."""


class Failed(Message, frozen=True):
    """The request failed. ``reason`` is one line for users; ``code`` is meshctl's exit status."""

    reason: str
    code: int = 1


Messages = Done | Failed
