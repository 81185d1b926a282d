"""Text of others, fit for a terminal and a log.

Names, reasons and versions come from nodes, manifests and peers. What a terminal would obey (escape
sequences, new lines, marks that turn text round) is shown as what it is, where text leaves.
"""

from __future__ import annotations

_AS_IT_IS = "\t"


def printable(text: str, keep: str = _AS_IT_IS) -> str:
    """``text`` with each character that is not shown written as Python writes it: ``\\x1b``.

    ``keep``: characters that stay, though they are not shown.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
