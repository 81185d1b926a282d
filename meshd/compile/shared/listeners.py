"""The listeners that the clients of a scope share, where scopes share what chooses for them."""

from __future__ import annotations

from collections.abc import Mapping

from meshd.compile import messages
from meshd.compile.envoy.printed_listeners import PrintedListener
from meshd.compile.memo import Memo
from meshd.compile.traffic.scope_listeners import choices_are_alike
from meshd.compile.upstream.fixed import resolver_of
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import NOBODY, Scope
from meshd.compile.visibility.view import View
from meshd.model.snapshot import Snapshot


class ScopeListeners:
    """The listeners of all scopes."""

    def __init__(self, index: MeshIndex, snapshot: Snapshot, memo: Memo) -> None:
        self._snapshot = snapshot
        self._memo = memo
        self._alike = View.of(index, NOBODY).of_connections() if choices_are_alike(index) else None

    def of(self, view: View) -> tuple[PrintedListener, ...]:
        """Return the listeners of a scope; the very ones of before where nothing differs."""
        name, options = view.scope.name, self._snapshot.options
        resolver = resolver_of(view.scope.namespace, self._snapshot.resolvers)
        return self._memo.call(
            ("scope", name), messages.client_listeners, name, self._choices(view), resolver, options
        )

    def requests(self, views: Mapping[Scope, View]) -> Mapping[Scope, tuple[int, ...]]:
        """Return the ports at which all is HTTP that the clients of scopes send."""
        return {scope: self._choices(view).planned.requests for scope, view in views.items()}

    def _choices(self, view: View) -> messages.Choices:
        """Return how connections of a view's clients find their chains."""
        name, of = ("choices", ""), self._alike
        if of is None:
            name, of = ("choices", view.scope.name), view.of_connections()
        return self._memo.call(name, messages.client_choices, of, self._snapshot.options)
