"""Steps (h) and (i): bytes on the wire and identities; PERMISSIVE and STRICT."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from meshd.base.errors import NotReadyError
from meshd.demo.tutorial.enrollment import SAMPLE
from meshd.demo.tutorial.packets import Direction, streams, tls_records
from meshd.demo.tutorial.tutorial import Tutorial

_SECRET: Final = "mesh-marker-5f1c"  # noqa: S105 - what must not be seen on the wire
_OPEN: Final = "open-marker-77aa"
_CLIENT: Final = "spiffe://cluster.local/ns/default/sa/curl"
_SERVER: Final = "spiffe://cluster.local/ns/default/sa/httpbin"
_OUTSIDE: Final = "meshctl testbed exec -n legacy deploy/curl --"


def prove(tutorial: Tutorial, home: Path) -> None:
    client, server = tutorial.pod("default", "curl"), tutorial.pod("default", "httpbin")
    address = server["address"]
    capture = home / "wire.pcap"
    listen = (
        f"nsenter --net={server['netns']} tcpdump -Z root --immediate-mode -U -i eth0"
        f" -w {capture} tcp"
    )
    with tutorial.beside(listen) as tcpdump:
        if not tutorial.until(
            lambda: "listening on" in tcpdump.output or not tcpdump.runs, "tcpdump"
        ):
            raise NotReadyError("tcpdump does not begin to listen")
        if not tcpdump.runs:
            raise NotReadyError(f"tcpdump has ended: {tcpdump.output.strip()}")
        answer = tutorial.run(
            "meshctl testbed exec deploy/curl -- curl -sS"
            f" -H 'x-marker: {_SECRET}' http://httpbin:8000/anything/{_SECRET}"
            " | grep -oE '(By|URI)=spiffe:[^;\"]*'"
        )
        tutorial.run(f"{_OUTSIDE} curl -sS http://{address}:8080/anything/{_OPEN}", shown=False)
        tutorial.until(lambda: capture.read_bytes().count(_OPEN.encode()) > 1, "the last packet")
        tcpdump.interrupt()
    seen = capture.read_bytes()
    _judge_wire(tutorial, seen, client["address"], address)
    tutorial.expect(
        f"the server sees who calls: {_CLIENT}", f"URI={_CLIENT}" in answer.output, answer.output
    )
    _judge_server(tutorial, address)


def _judge_wire(tutorial: Tutorial, seen: bytes, client: str, server: str) -> None:
    tutorial.expect(
        f"a request from outside the mesh is there to be read: {_OPEN}", _OPEN.encode() in seen
    )
    tutorial.expect(f"of the one from inside, nothing: no {_SECRET}", _SECRET.encode() not in seen)
    between = {
        direction: tls_records(data)
        for direction, data in streams(seen).items()
        if {direction.source, direction.destination} == {client, server}
    }
    tutorial.expect(
        f"between {client} and {server} there are TLS records only, both ways:"
        f" {sum(count or 0 for count in between.values())}",
        len({direction.source for direction in between}) == 2 and all(between.values()),
        _told(between),
    )


def _told(between: dict[Direction, int | None]) -> str:
    return "; ".join(f"{one.source}:{one.source_port} {count}" for one, count in between.items())


def _judge_server(tutorial: Tutorial, address: str) -> None:
    answer = tutorial.run("meshctl explain curl httpbin:8000 | grep '^tls'")
    tutorial.expect(
        f"the client goes on only if the server is {_SERVER}",
        answer.output.strip().endswith(_SERVER),
    )
    answer = tutorial.run(
        f"{_OUTSIDE} openssl s_client -connect {address}:8080 -alpn istio </dev/null 2>/dev/null"
        " | openssl x509 -noout -ext subjectAltName"
    )
    tutorial.expect("and that is what the server shows", f"URI:{_SERVER}" in answer.output)


def require(tutorial: Tutorial) -> None:
    url = f"http://{tutorial.pod('default', 'reviews')['address']}:9080/reviews/0"
    ask = "curl -sS -o /dev/null -w '%{http_code}'"
    for mode in ("permissive", "strict"):
        tutorial.done(
            f"meshctl apply --wait -f {SAMPLE}/networking/peer-authentication-{mode}.yaml"
        )
        answer = tutorial.run(f"{_OUTSIDE} {ask} {url}")
        if mode == "permissive":
            tutorial.expect("PERMISSIVE: the namespace outside is answered", answer.output == "200")
        else:
            tutorial.expect(
                "STRICT: it is refused", answer.status != 0 and "200" not in answer.output
            )
        answer = tutorial.run(
            f"meshctl testbed exec deploy/curl -- {ask} http://reviews:9080/reviews/0"
        )
        tutorial.expect("a pod of the mesh is answered", answer.output == "200", answer.output)
    tutorial.done("meshctl delete --wait peerauthentication default")
