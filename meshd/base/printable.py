"""Makes foreign text safe for a terminal and a log.

Names, reasons and versions come from nodes, manifests and peers. What a terminal would obey (escape
sequences, new lines, marks that change the direction of text) is shown as code where text is
output.
"""

from __future__ import annotations

_AS_IT_IS = "\t"


def printable(text: str, keep: str = _AS_IT_IS) -> str:
    """Return ``text`` with each character that is not shown written as Python writes it.

    ``keep``: characters that stay, though they are not shown.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) & 0xFF:02x}"  # a byte that was no text
    return character.encode("unicode_escape").decode("ascii")
