"""Answers that any request may get."""

from __future__ import annotations

from meshd.wire.message import Message


class Done(Message, frozen=True):
    """It was done; there is nothing to tell."""


class Failed(Message, frozen=True):
    """It was not done. ``reason`` is one line for people; ``code`` is meshctl's exit status."""

    reason: str
    code: int = 1


Messages = Done | Failed
