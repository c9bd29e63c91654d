"""`python -m tests.cluster.standin --listen ... --folder ...`; see the package's docstring."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from tests.cluster.standin.server import Files, serve


def main() -> None:
    parser = argparse.ArgumentParser("standin")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6443)
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True, help="objects, between two runs")
    parser.add_argument("--audit", type=Path, required=True, help="requests, one a line")
    parser.add_argument("--admin-token", required=True)
    parser.add_argument("--bookmark-seconds", type=float, default=60.0)
    words = parser.parse_args()
    files = Files(words.certificate, words.key, words.state, words.audit)
    server = serve((words.address, words.port), files, words.admin_token, words.bookmark_seconds)

    def end(*_: object) -> None:
        with server.store.lock:
            server.store.save()
            os._exit(0)

    signal.signal(signal.SIGTERM, end)
    sys.setswitchinterval(0.001)
    server.serve_forever()


if __name__ == "__main__":
    main()
