from __future__ import annotations

import struct

from meshd.capture.pods.interruption import Ended, authors, counted, found
from meshd.capture.rules.nfnetlink import Change, changes
from meshd.model.workload import Interruptions


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def announcement(generation: int, process: int, program: bytes) -> bytes:
    """NFT_MSG_NEWGEN."""
    body = struct.pack(">BBH", 0, 0, generation) + b"".join(
        (
            attribute(1, struct.pack(">I", generation)),
            attribute(2, struct.pack(">I", process)),
            attribute(3, program + b"\0"),
        )
    )
    return struct.pack("=IHHII", 16 + len(body), 0xA0F, 0, 0, 0) + body


def test_the_program_that_changed_rules_is_read_from_the_kernels_announcements() -> None:
    other = struct.pack("=IHHII", 20, 0xA00, 0, 0, 0) + b"\0\0\0\0"
    told = other + announcement(7, 42, b"nft") + announcement(8, 43, b"\x1b[31m\xff")
    first, second = changes(told)
    assert first == Change(7, "nft", 42)
    assert second.program.isprintable()


def test_each_program_and_process_is_named_once_and_the_last_ones_only() -> None:
    made = (Change(number, "nft", number // 2) for number in range(2, 12))
    assert authors(made) == "nft (process 3), nft (process 4), nft (process 5)"
    assert authors([]) == "somebody else"


def test_nothing_to_put_back_is_no_interruption() -> None:
    assert found((Change(1, "nft", 2),), (), 0) is None


def test_programs_without_number_are_told_apart_up_to_a_limit() -> None:
    counts = Interruptions()
    for number in range(100):
        counts = counted(counts, Ended(f"p{number}", 0.5, "text", "moment"))
    assert counts.seconds == 50
    assert len(counts.counts) == 9
    assert counts.counts["others"] == 92
    assert counts.last == "moment: text"
