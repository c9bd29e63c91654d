"""A watch: the answers of one stream, which another thread can end at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import requests
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from daemon.sources.etcd.faults import Unreachable, root_of

_ANSWER_MAX = 256 << 20


class Stream:
    """The open answer to a watch. endpoint: the member that gives it.

    silence: seconds without a word that end it, once it has said the first one.
    """

    def __init__(self, response: requests.Response, endpoint: str, silence: float) -> None:
        self.endpoint, self._silence = endpoint, silence
        self.interrupted = False
        self.bytes = 0
        self._response = response

    def answers(self) -> Iterator[dict[str, Any]]:
        """Each answer (rpc.proto, WatchResponse) as it comes; the end where it was interrupted.

        Raises Unreachable where the stream ends by itself, breaks, or is silent for too long.
        """
        try:
            for line in self._lines():
                answer = json.loads(line)
                if "error" in answer:
                    raise Unreachable(f"{self.endpoint}: {str(answer['error'])[:200]}")
                yield answer["result"]
        except (HTTPError, requests.RequestException, OSError, ValueError, KeyError, TypeError,
                AttributeError) as error:  # fmt: skip
            # What is read while another thread ends the stream may break anywhere.
            if not self.interrupted:
                raise Unreachable(f"{self.endpoint}: {_explain(error)}") from None
            return
        if not self.interrupted:
            raise Unreachable(f"{self.endpoint}: the stream of events ended")

    def interrupt(self) -> None:
        """End `answers`, which waits in another thread. Repeatable, never raises."""
        self.interrupted = True
        with suppress(Exception):  # it is closed already, or was never connected
            self._response.raw.shutdown()

    def close(self) -> None:
        """Close the connection: it is of no use for anything else."""
        self._response.close()

    def _lines(self) -> Iterator[bytes]:
        """One answer a line, as the gateway writes them (grpc-gateway, ForwardResponseStream)."""
        rest: list[bytes] = []
        size = 0
        for chunk in self._response.raw.stream(None):
            if not self.bytes:
                self._be_patient()
            self.bytes += len(chunk)
            *whole, tail = chunk.split(b"\n")
            for part in whole:
                line = b"".join([*rest, part])
                rest, size = [], 0
                if line.strip():
                    yield line
            rest.append(tail)
            size += len(tail)
            if size > _ANSWER_MAX:
                raise ValueError(f"an answer of more than {_ANSWER_MAX >> 20} MiB")

    def _be_patient(self) -> None:
        # urllib3 has no other way to the socket of an answer; over TLS it is the same object.
        socket = getattr(self._response.raw._sock_shutdown, "__self__", None)
        if socket is not None:
            socket.settimeout(self._silence)


def _explain(error: Exception) -> str:
    if isinstance(error, ReadTimeoutError):
        return "nothing was heard for too long"
    if isinstance(error, ProtocolError):  # it ended in the middle of a chunk (RFC 9112, 7.1)
        return "the connection was lost"
    return f"the stream of events broke: {root_of(error)}"
