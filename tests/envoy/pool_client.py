"""Requests to 127.0.0.1:PORT until stdin ends, three on each connection; prints the counts."""

from __future__ import annotations

import http.client
import json
import sys
import threading


def main() -> None:
    port = int(sys.argv[1])
    done = threading.Event()
    answered: list[int] = []
    failed: list[str] = []

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        number = 0
        while not done.wait(0.002):
            number += 1
            try:
                connection.request("GET", "/")
                response = connection.getresponse()
                body = response.read()
                assert (response.status, body) == (200, b"hello")
                answered.append(number)
            except (OSError, http.client.HTTPException, AssertionError) as error:
                failed.append(repr(error))
                connection.close()
            if number % 3 == 0:
                connection.close()
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    print("started", flush=True)
    sys.stdin.read()
    done.set()
    for thread in threads:
        thread.join()
    print(json.dumps({"answered": len(answered), "failed": failed}))


if __name__ == "__main__":
    main()
