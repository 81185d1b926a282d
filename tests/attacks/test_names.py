"""What a workload has outside resolvers say of the mesh's names does not reach its neighbours.

A workload may ask for any name, and whoever owns that name decides what the answer says, of other
names too: it may lead on (CNAME) to a name of the mesh. All workloads of a node share its resolver.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from meshd.capture.rules import inside
from meshd.model.service import Endpoint, ServiceRecord
from meshd.resolver import command, files
from meshd.resolver.tables import tables
from meshd.settings import MeshSettings
from tests.waiting import PATIENCE

A: Final = 1
CNAME: Final = 5
AAAA: Final = 28
KINDS: Final = {A: socket.AF_INET, AAAA: socket.AF_INET6}
TRAPS: Final = {A: "198.18.66.6", AAAA: "fd00:198::666"}
OUTSIDE: Final = "127.0.0.53"
SETTINGS: Final = MeshSettings(dns_upstreams=(f"{OUTSIDE}:53",))
VAULT: Final = "198.19.0.1"
SERVICES: Final = (
    ServiceRecord(host="vault.shop.svc.cluster.local", namespace="shop", addresses=(VAULT,)),
    ServiceRecord(host="api.bank.test", namespace="shop", addresses=(VAULT,)),
    ServiceRecord(host="*.wild.test", namespace="shop", addresses=(VAULT,)),
    ServiceRecord(
        host="pods.shop.svc.cluster.local",
        namespace="shop",
        headless=True,
        endpoints=(Endpoint(address=VAULT, port=80, service_port=80, name="one"),),
    ),
    ServiceRecord(host="none.shop.svc.cluster.local", namespace="shop", headless=True),
)
FORMS: Final = ("shop", "shop.svc", "shop.svc.cluster.local")
NAMES: Final = (
    *(f"vault.{form}" for form in FORMS),
    *(f"pods.{form}" for form in FORMS),
    *(f"one.pods.{form}" for form in FORMS),
    "api.bank.test",
    "a.wild.test",
)
"""With an address of IPv4."""
WITHOUT: Final = ("none.shop.svc", "none.shop.svc.cluster.local", "gone.shop.svc.cluster.local")
"""Without any."""
_numbers = itertools.count()


def encoded(name: str) -> bytes:
    labels = (label.encode() for label in name.split("."))
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def decoded(message: bytes, at: int) -> tuple[str, int]:
    """A name, and where it ends."""
    labels: list[str] = []
    while length := message[at]:
        if length & 0xC0:
            pointed = struct.unpack_from(">H", message, at)[0] & 0x3FFF
            return ".".join([*labels, decoded(message, pointed)[0]]), at + 2
        labels.append(message[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels), at + 1


class Told(NamedTuple):
    code: int
    addresses: list[str]


def read(message: bytes) -> Told:
    flags, questions, answers = struct.unpack_from(">2x3H", message)
    at = 12
    for _ in range(questions):
        at = decoded(message, at)[1] + 4
    found: list[str] = []
    for _ in range(answers):
        at = decoded(message, at)[1]
        kind, length = struct.unpack_from(">H6xH", message, at)
        if kind in KINDS:
            found.append(socket.inet_ntop(KINDS[kind], message[at + 10 : at + 10 + length]))
        at += 10 + length
    return Told(flags & 15, found)


def record(name: str, kind: int, data: bytes) -> bytes:
    return encoded(name) + struct.pack(">2HIH", kind, 1, 3600, len(data)) + data


class Outside:
    """A resolver outside of the mesh, with the names of an attacker: ``NUMBER.HOW.KIND.NAME.evil``
    leads on to NAME, and says that there is an address of its own, or nothing."""

    def __init__(self, netns: Path) -> None:
        with inside.entered(netns):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((OUTSIDE, 53))
        self.asked: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                query, client = self._socket.recvfrom(4096)
                if not query:
                    return
                self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        name, end = decoded(query, 12)
        self.asked.append(name)
        question, kind = query[12 : end + 4], struct.unpack_from(">H", query, end)[0]
        records: list[bytes] = []
        code = 3
        if name.endswith(".evil"):
            _, how, *victim = name.removesuffix(".evil").split(".")
            target = ".".join(victim)
            records.append(record(name, CNAME, encoded(target)))
            if how == "address" and kind in TRAPS:
                trap = socket.inet_pton(KINDS[kind], TRAPS[kind])
                records.append(record(target, kind, trap))
                code = 0
        flags = 0x8580 | code
        head = query[:2] + struct.pack(">5H", flags, 1, len(records), 0, 0)
        return head + question + b"".join(records)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it has no peer; whoever reads is woken all the same
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._socket.close()


class Place(NamedTuple):
    """A namespace with the node's resolvers."""

    netns: Path
    outside: Outside

    def ask(self, name: str, kind: int) -> Told:
        with inside.entered(self.netns):
            asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with asking:
            asking.settimeout(PATIENCE)
            asking.connect(("127.0.0.1", SETTINGS.dns_port))
            header = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0)
            asking.send(header + encoded(name) + struct.pack(">2H", kind, 1))
            return read(asking.recv(4096))


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=PATIENCE)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    name = f"names-{os.getpid()}-{next(_numbers)}"
    netns = Path("/run/netns") / name
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    files.make(tmp_path / "of" / "x")
    files.write(tmp_path, tables(SERVICES, "cluster.local", f"127.0.0.2#{SETTINGS.dns_port}"))
    run("ip", "netns", "add", name)
    with contextlib.ExitStack() as stack:
        stack.callback(run, "ip", "netns", "del", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        outside = Outside(netns)
        stack.callback(outside.close)
        for resolver in (command.NAME, command.WILDCARDS_NAME):
            arguments = command.arguments(resolver, SETTINGS, tmp_path)
            process = subprocess.Popen(
                ["ip", "netns", "exec", name, str(command.find()), *arguments],
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
        made = Place(netns, outside)
        _wait_for(made)
        yield made


def _wait_for(place: Place) -> None:
    for _ in range(200):
        with contextlib.suppress(ConnectionError):
            if place.ask("a.wild.test", A).addresses == [VAULT]:
                return
        threading.Event().wait(0.05)
    raise AssertionError("the resolvers do not answer")


@pytest.mark.parametrize("how", ["address", "nothing"])
@pytest.mark.parametrize("first", [A, AAAA], ids=["A", "AAAA"])
def test_no_answer_from_outside_is_taken_for_one_about_a_name_of_the_mesh(
    place: Place, how: str, first: int
) -> None:
    every = (*NAMES, *WITHOUT)
    for number, name in enumerate(every):
        place.ask(f"{number}.{how}.{name}.evil", first)
    assert place.outside.asked
    told = {name: (place.ask(name, A), place.ask(name, AAAA).addresses) for name in every}
    expected = {name: ((0, [VAULT]), []) for name in NAMES}
    assert {name: told[name] for name in NAMES} == expected
    assert all((a.addresses, aaaa) == ([], []) for a, aaaa in (told[name] for name in WITHOUT))
