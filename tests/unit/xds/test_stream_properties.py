"""Whatever happens in whichever order, a client ends with what is published, safely."""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.xds.exchange import Request, Response
from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, Detour, Resource, Resources
from meshd.xds.stream import Stream
from meshd.xds.subscription import UNKNOWN

_CLUSTERS = ("c0", "c1", "c2", "c3")
_ORDER = (CLUSTER, ENDPOINTS, LISTENER, ROUTES)
_INSIDE = "l0"
"""The listener that endpoints may lead to."""
_DETOUR = "by a detour"


@dataclasses.dataclass(frozen=True)
class _Item:
    """A resource of the model. Its body tells what it names: a listener its routes, a route or a
    listener its clusters, endpoints the listener they lead to; a bad one is refused."""

    type_url: str
    name: str
    names: tuple[str, ...] = ()
    bad: bool = False
    edition: int = 0

    def resource(self) -> Resource:
        body = ",".join(self.names)
        version = f"{body}/{self.bad}/{self.edition}"
        endpoints = self.name if self.type_url == CLUSTER else ""
        detour = None
        if self.type_url == ENDPOINTS and self.names:
            detour = Detour((_INSIDE,), Resource(ENDPOINTS, self.name, version + _DETOUR, b""))
        internal = self.type_url == LISTENER and self.name == _INSIDE
        return Resource(
            self.type_url, self.name, version, body.encode(), endpoints, detour, internal
        )


class _Client:
    """Does as Envoy does, and complains when it is told of what it cannot have heard of."""

    def __init__(self) -> None:
        self.has: dict[str, dict[str, Resource]] = {type_url: {} for type_url in _ORDER}
        self.told: set[str] = set()
        self.subscribed: dict[str, set[str]] = {ENDPOINTS: set(), ROUTES: set()}
        self.inbox: list[Response] = []
        self.outbox: list[Request] = []
        self.draining: list[Resource] = []
        """Former listeners and routes that may have connections."""
        self.ending: list[Resource] = []
        """Those whose connections end within this period."""

    def end_period(self) -> None:
        self.ending, self.draining = self.draining, []

    def connect(self) -> None:
        """A new stream: all that it has and asks for is said anew."""
        self.inbox.clear()
        self.outbox = [
            Request(
                type_url,
                subscribe=tuple(self.subscribed.get(type_url, ())),
                initial_versions={n: r.version for n, r in self.has[type_url].items()},
            )
            for type_url in _ORDER
            if type_url not in self.subscribed or self.subscribed[type_url]
        ]

    def read(self) -> None:
        response = self.inbox.pop(0)
        held = self.has[response.type_url]
        if response.type_url in {LISTENER, ROUTES}:
            gone = (*response.removed, *(one.name for one in response.resources))
            self.draining += (held[name] for name in gone if name in held)
        for name in response.removed:
            held.pop(name, None)
            if response.type_url == CLUSTER:
                self.told.discard(name)
        good = [resource for resource in response.resources if "True" not in resource.version]
        if response.type_url == CLUSTER:
            self.told.update(resource.name for resource in response.resources)
        if response.type_url == ENDPOINTS and any(resource.body for resource in good):
            assert _INSIDE in self.has[LISTENER], "endpoints lead to where nobody listens"
        for resource in good:  # Envoy applies the good ones of a response that it refuses, too
            held[resource.name] = resource
        bad = len(good) < len(response.resources)
        self.outbox.append(
            Request(response.type_url, nonce=response.nonce, error="bad" if bad else None)
        )
        self._subscribe()
        self.check()

    def _subscribe(self) -> None:
        routes = {n for r in self.has[LISTENER].values() for n in _named(r) if n[0] == "r"}
        for type_url, wanted in ((ENDPOINTS, set(self.has[CLUSTER])), (ROUTES, routes)):
            known = self.subscribed[type_url]
            if wanted != known:
                added, dropped = wanted - known, known - wanted
                self.outbox.append(Request(type_url, tuple(sorted(added)), tuple(sorted(dropped))))
                for name in dropped:
                    self.has[type_url].pop(name, None)
                self.subscribed[type_url] = wanted

    def check(self) -> None:
        for type_url in (LISTENER, ROUTES):
            for resource in self.has[type_url].values():
                self._check(resource)

    def check_draining(self) -> None:
        """Check that requests on connections of former listeners go somewhere."""
        for resource in (*self.draining, *self.ending):
            self._check(resource)

    def _check(self, resource: Resource) -> None:
        missing = {n for n in _named(resource) if n[0] == "c"} - self.told
        assert not missing, f"{resource.name} names {missing}"


def _named(resource: Resource) -> list[str]:
    return resource.body.decode().split(",") if resource.body else []


def _version(published: Resource, held: Resource | None, *, detours: bool) -> str:
    """Return the version that a client is to have; ``detours``: it may have taken one."""
    detour = published.detour and published.detour.resource.version
    return detour if detours and detour and held and held.version == detour else published.version


@st.composite
def _publication(draw: st.DrawFn) -> Resources:
    """Every cluster that is named is published, as the compiler does it."""
    clusters = draw(st.lists(st.sampled_from(_CLUSTERS), unique=True))
    some = st.lists(st.sampled_from(clusters), unique=True) if clusters else st.just([])
    edition, bad = st.integers(0, 2), st.sampled_from((False, False, False, True))
    items: list[_Item] = []
    listeners = draw(st.lists(st.sampled_from((_INSIDE, "l1", "l2")), unique=True))
    ways = st.sampled_from(((), (_INSIDE,)) if _INSIDE in listeners else ((),))
    for name in clusters:
        items.append(_Item(CLUSTER, name, (), draw(bad), draw(edition)))
        items.append(_Item(ENDPOINTS, name, draw(ways), False, draw(edition)))
    routes = draw(st.lists(st.sampled_from(("r0", "r1")), unique=True)) if listeners else []
    for name in routes:
        items.append(_Item(ROUTES, name, tuple(sorted(draw(some))), draw(bad), draw(edition)))
    for name in listeners:
        names = (*sorted(draw(some)), *routes)
        items.append(_Item(LISTENER, name, names, draw(bad), draw(edition)))
    return Resources.of(item.resource() for item in items)


_EVENTS = st.lists(
    st.one_of(
        _publication(),
        st.sampled_from(("send", "read", "ask", "send", "read", "ask", "break", "end period")),
        st.sampled_from(("exchange", "end period")),
    ),
    max_size=40,
)


class _World:
    def __init__(self, *, drains: bool = False) -> None:
        self.client = _Client()
        self.published: Resources | None = None
        self._drains = drains
        self.stream = Stream(drains=drains)
        self.client.connect()

    def apply(self, event: Resources | str) -> bool:
        """Whether anything could be done."""
        client = self.client
        if isinstance(event, Resources):
            self.stream.replace(event)
            self.published = event
        elif event == "break":
            self.stream = Stream(self.published, drains=self._drains)
            client.connect()
        elif event == "ask" and client.outbox:
            self.stream.receive(client.outbox.pop(0))
        elif event == "read" and client.inbox:
            client.read()
            if self._drains:
                client.check_draining()
        elif event == "end period" and self.stream.waits_to_remove:
            client.end_period()
            self.stream.end_period()
        elif event == "exchange":
            while any(self.apply(one) for one in ("send", "read", "ask")):
                """Until neither has anything to say."""
        elif event == "send" and (response := self.stream.next()):
            client.inbox.append(response)
        else:
            return False
        return True

    def settle(self) -> None:
        for _ in range(1000):
            done = [self.apply(event) for event in ("send", "read", "ask")]
            if not any(done):
                if self.stream.distrusts_listeners:
                    self.stream.trust_listeners()
                elif not self.apply("end period"):
                    return
        raise AssertionError("it never comes to rest")


@settings(deadline=None, max_examples=400)
@given(_EVENTS, _publication(), st.booleans())
def test_a_client_ends_with_what_is_published_but_for_what_it_refused(
    events: list[Resources | str], last: Resources, drains: bool
) -> None:
    world = _World(drains=drains)
    for event in (*events, last):
        world.apply(event)
    world.settle()
    assert world.stream.settled
    assert not world.stream.warming

    has, rejected = world.client.has, world.stream.rejections
    assert world.stream.synced == (not rejected)
    for type_url, name in rejected:
        assert "True" in last.of_type(type_url)[name].version
    stale = any(
        name in world.stream.held(type_url)
        for type_url, name in rejected
        if type_url in {LISTENER, ROUTES}
    )
    for type_url in _ORDER:
        wanted = {
            name: _version(resource, has[type_url].get(name), detours=bool(rejected))
            for name, resource in last.of_type(type_url).items()
            if (type_url, name) not in rejected
            and (type_url in {CLUSTER, LISTENER} or name in world.client.subscribed[type_url])
        }
        held = {
            name: resource.version
            for name, resource in has[type_url].items()
            if (type_url, name) not in rejected
        }
        # What the former version of a refused listener may name stays.
        withheld = stale and type_url in {CLUSTER, ENDPOINTS}
        if withheld:
            held = {name: version for name, version in held.items() if name in wanted}
        assert held == wanted
        account = world.stream.held(type_url)
        doubtful = {name for name, version in account.items() if version == UNKNOWN}
        assert withheld or all((type_url, name) in rejected for name in doubtful)
        sure = {name: version for name, version in account.items() if version != UNKNOWN}
        assert sure == {
            name: resource.version
            for name, resource in has[type_url].items()
            if name not in doubtful
        }


@settings(deadline=None, max_examples=200)
@given(_EVENTS, _publication())
def test_reconnecting_to_the_same_resources_sends_endpoints_and_nothing_else(
    events: list[Resources | str], last: Resources
) -> None:
    world = _World()
    for event in (*events, last):
        world.apply(event)
    world.settle()
    if world.stream.rejections:
        return
    world.apply("break")
    while world.apply("ask") or world.apply("read"):
        world.apply("send")
        others = (one for one in world.client.inbox if one.type_url != ENDPOINTS)
        assert not any(response.resources or response.removed for response in others)
    assert world.stream.synced
