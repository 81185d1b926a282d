"""Whatever happens in whichever order, a client ends with the secrets that it asks for."""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.sds.subscriber import Secret, Secrets, Subscriber
from meshd.xds.exchange import Request, Response
from meshd.xds.resources import SECRET

FILE = "file-root:/etc/x"
NAMES = ("a", "b", FILE)


class _Client:
    """Does as a client of either variant does."""

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        self.subscriber = Subscriber(whole=whole)
        self.wants: set[str] = set()
        self.has: dict[str, bytes] = {}
        self.denied: set[str] = set()
        self.inbox: list[Response] = []

    def want(self, names: set[str]) -> None:
        more, less = names - self.wants, self.wants - names
        self.wants = names
        self.has = {name: body for name, body in self.has.items() if name in names}
        self.denied &= names
        if self.whole:
            self._say(Request(SECRET, tuple(names)))
        elif more or less:
            self._say(Request(SECRET, tuple(more), tuple(less)))

    def come_back(self) -> None:
        """Connect again, with what it has, which the older variant cannot say."""
        self.inbox.clear()
        self.subscriber = Subscriber(whole=self.whole)
        if self.whole:
            self.has.clear()
        versions = {name: body.decode() for name, body in self.has.items()}
        if self.wants:
            self._say(Request(SECRET, tuple(self.wants), initial_versions=versions))

    def _say(self, request: Request) -> None:
        assert self.subscriber.receive(request) is None

    def work(self, secrets: Secrets) -> bool:
        """Take one response, if there is any; return whether there was."""
        if response := self.subscriber.next(secrets):
            assert {one.name for one in response.resources} <= self.wants
            self.inbox.append(response)
        if not self.inbox:
            return False
        response = self.inbox.pop(0)
        told = {one.name: one.body for one in response.resources if one.name in self.wants}
        self.has = told if self.whole else {**self.has, **told}
        for name in response.removed:
            self.has.pop(name, None)
        self.denied = (self.denied | set(response.removed)) & self.wants - told.keys()
        names = tuple(self.wants) if self.whole else ()
        self._say(Request(SECRET, names, nonce=response.nonce))
        return True


@dataclasses.dataclass
class _Node:
    """The secrets at one moment."""

    versions: dict[str, str | None] = dataclasses.field(default_factory=dict[str, "str | None"])
    """By name: None does not exist; a name that is not listed is awaited."""

    @property
    def secrets(self) -> Secrets:
        found = {
            name: Secret(version, version.encode())
            for name, version in self.versions.items()
            if version
        }
        files = {name: found.pop(name, None) for name in self.versions if name == FILE}
        awaited = frozenset(NAMES) - self.versions.keys()
        return Secrets(found, awaited, files=files)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("want"), st.sets(st.sampled_from(NAMES))),
        st.tuples(
            st.just("publish"),
            st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["1", "2", None])),
        ),
        st.tuples(st.just("work"), st.none()),
        st.tuples(st.just("come back"), st.none()),
    ),
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.booleans())
def test_a_client_ends_with_what_exists_of_what_it_asks_for(
    steps: list[tuple[str, object]], whole: bool
) -> None:
    node, client = _Node(), _Client(whole=whole)
    secrets = node.secrets
    for step, value in steps:
        if isinstance(value, set):
            client.want({str(name) for name in value})
        elif isinstance(value, dict):
            node.versions = value
            secrets = node.secrets
        elif step == "work":
            client.work(secrets)
        else:
            client.come_back()
    node.versions = dict.fromkeys(NAMES) | node.versions
    secrets = node.secrets
    for _ in range(50):
        if not client.work(secrets):
            break
    else:
        raise AssertionError("it never comes to rest")
    wanted = {name: node.versions[name] for name in client.wants}
    assert client.has == {name: one.encode() for name, one in wanted.items() if one}
    if not whole:
        assert client.denied <= {name for name, one in wanted.items() if not one}
