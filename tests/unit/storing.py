"""Stores changes as meshd does, but here and now: in no thread, and whoever may wait."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meshd.api.base import Key, Object
from meshd.config import requests
from meshd.config.moment import Transaction
from meshd.config.requests import Refusals
from meshd.config.store import Store
from meshd.model.workload import Workload
from meshd.wire import Apply, Change, Changed, DeleteNamed, Rejected


def put(store: Store, objects: Iterable[Object]) -> tuple[Change, ...]:
    """Create or replace objects."""
    return _made(store, store.moment.put(objects))


def delete(store: Store, keys: Iterable[Key]) -> tuple[Change, ...]:
    return _made(store, store.moment.delete(keys))


def apply(
    store: Store,
    request: Apply,
    refusals: Refusals = lambda _after, _changed: (),
    workloads: Sequence[Workload] | None = None,
) -> Changed | Rejected:
    """Apply objects, or delete those of ``delete -f``, if that is right."""
    found = requests.judged(store.moment, request, refusals, workloads)
    if isinstance(found, Rejected):
        return found
    if not request.dry_run:
        _made(store, found.transaction)
    return found.answer


def delete_named(
    store: Store, request: DeleteNamed, workloads: Sequence[Workload] | None = None
) -> Changed:
    found = requests.judged_deletion(store.moment, request, workloads)
    if not request.dry_run:
        _made(store, found.transaction)
    return found.answer


def _made(store: Store, transaction: Transaction) -> tuple[Change, ...]:
    if not transaction.changes_nothing:
        store.adopt(store.write(transaction))
        store.tell()
    return transaction.changes
