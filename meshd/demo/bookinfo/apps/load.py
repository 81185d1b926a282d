"""Requests a URL many times and counts the answers: ``load.py -c 3 -n 30 URL``.

It prints its counts as fortio does, which the tutorial's readers know.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import threading
import time
from collections import Counter
from urllib.parse import urlsplit


def run(url: str, count: int, connections: int, headers: dict[str, str]) -> Counter[int]:
    """Return how often each status came; -1 stands for no answer at all."""
    tickets = itertools.count()
    results: Counter[int] = Counter()
    lock = threading.Lock()

    def work() -> None:
        target = urlsplit(url)
        path = f"{target.path or '/'}{f'?{target.query}' if target.query else ''}"
        connection = http.client.HTTPConnection(target.netloc, timeout=30)
        while next(tickets) < count:
            try:
                connection.request("GET", path, headers=headers)
                response = connection.getresponse()
                response.read()
                status = response.status
            except (OSError, http.client.HTTPException):
                connection.close()
                status = -1
            with lock:
                results[status] += 1
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("-n", type=int, default=20, metavar="COUNT", help="requests in all")
    parser.add_argument("-c", type=int, default=1, metavar="COUNT", help="at the same time")
    parser.add_argument("-H", action="append", default=[], metavar="NAME:VALUE", help="a header")
    given = parser.parse_args()
    pairs = (header.partition(":") for header in given.H)
    headers = {name.strip(): value.strip() for name, _, value in pairs}
    began = time.monotonic()
    results = run(given.url, given.n, given.c, headers)
    for status, times in sorted(results.items()):
        print(f"Code {status:3d} : {times} ({100 * times / given.n:.1f} %)")
    print(f"All done {given.n} calls, {given.n / (time.monotonic() - began):.0f} qps")


if __name__ == "__main__":
    main()
