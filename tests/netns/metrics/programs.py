"""Debian's prometheus and promtool, as `make programs` unpacks them."""

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.pytest_netns.node import Node

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = ROOT / "build/programs"
PORT = 9090
DEADLINE = 60.0


def promtool(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, str]:
    """Exit status of promtool, and what it said."""
    argv = [PROGRAMS / "promtool", *arguments]
    done = subprocess.run(argv, input=stdin, capture_output=True, timeout=DEADLINE)
    return done.returncode, (done.stdout + done.stderr).decode()


class Prometheus:
    """A server on a node, which scrapes every second."""

    def __init__(
        self, node: Node, folder: Path, targets: Sequence[str], rules: Sequence[Path] = ()
    ) -> None:
        """Start it. targets: host and port of each daemon's metrics."""
        self._node = node
        conf = folder / "prometheus.yml"
        scrape = {"job_name": "podwire", "static_configs": [{"targets": list(targets)}]}
        conf.write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(path) for path in rules],
                    "scrape_configs": [scrape],
                }
            )
        )
        options = {
            "config.file": conf,
            "storage.tsdb.path": folder / "tsdb",
            "web.listen-address": f"127.0.0.1:{PORT}",
            "web.console.templates": folder,
            "web.console.libraries": folder,
        }
        argv = [f"--{key}={value}" for key, value in options.items()]
        self._log = folder / "prometheus.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*node.enter, PROGRAMS / "prometheus", *argv],
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "GOMAXPROCS": "1"},
            )

    def stop(self) -> None:
        """End it. Repeatable."""
        self._process.kill()
        self._process.wait(DEADLINE)

    def wait(self, query: str, seconds: float = DEADLINE) -> list[dict[str, Any]]:
        """The answer to a query, once there is one; AssertionError where none comes."""
        until = time.monotonic() + seconds
        while True:
            found, why = self._ask(query)
            if found:
                return found
            assert time.monotonic() < until, f"{query} has no answer: {why}"
            assert self._process.poll() is None, self._log.read_text()
            time.sleep(0.2)

    def _ask(self, query: str) -> tuple[list[dict[str, Any]], str]:
        try:
            answer = self.get("/api/v1/query", query=query)
        except OSError as error:
            return [], str(error)
        assert answer["status"] == "success", (query, answer)
        return list(answer["data"]["result"]), "it is empty"

    def get(self, path: str, **values: str) -> Mapping[str, Any]:
        """What its API answers."""
        status, body = fetch(self._node, "127.0.0.1", PORT, f"{path}?{urlencode(values)}")
        if status == HTTPStatus.SERVICE_UNAVAILABLE:  # it listens before it can answer
            raise OSError("it is not ready yet")
        answer: Mapping[str, Any] = json.loads(body)
        return answer


def fetch(node: Node, host: str, port: int, path: str, **headers: str) -> tuple[int, bytes]:
    """Status and body of what a server answers on a node. Raises OSError."""

    def work() -> tuple[int, bytes]:
        client = HTTPConnection(host, port, timeout=DEADLINE)
        try:
            client.request("GET", path, headers=headers)
            answer = client.getresponse()
            return answer.status, answer.read()
        finally:
            client.close()

    return node.ns.call(work)
