"""Begins work in threads for which the end of the process does not wait."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import traceback
from collections.abc import Callable
from typing import TypeVar

Made = TypeVar("Made")


def in_thread(name: str, work: Callable[[], Made]) -> asyncio.Future[Made]:
    """Begin work in a thread for which the end of the process does not wait."""
    made: concurrent.futures.Future[Made] = concurrent.futures.Future()
    made.set_running_or_notify_cancel()  # nobody can take it back any more

    threading.Thread(target=_carry_out, args=(work, made), name=name, daemon=True).start()
    return asyncio.wrap_future(made)


def _carry_out(work: Callable[[], Made], made: concurrent.futures.Future[Made]) -> None:
    try:
        result = work()
    except BaseException as error:
        # Its frames would keep all that the work has had until the collector comes, which may be
        # never (see ``garbage``).
        traceback.clear_frames(error.__traceback__)
        made.set_exception(error)
        del work, made
    else:
        made.set_result(result)
