"""The open answer to a watch: a stream of events."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from daemon.sources.http import READ_SECONDS, Session, Unreachable


class Stream:
    """An open answer, which another thread can end at once.

    endpoint: the member that gives it. parts: of the answer, not entered yet. patience: seconds
    until it must begin; etcd says at once that a watch was created.
    """

    def __init__(
        self,
        endpoint: str,
        session: Session,
        parts: AbstractContextManager[Iterator[bytes]],
        patience: float = READ_SECONDS,
    ) -> None:
        self.endpoint = endpoint
        self._session, self._patience = session, patience
        self._interrupted = self._late = False
        with ExitStack() as stack:
            stack.callback(session.close)
            self._batches = session.lines_of(stack.enter_context(parts))
            self._stack = stack.pop_all()

    def answers(self) -> Iterator[dict[str, Any]]:
        """Each answer (rpc.proto, WatchResponse) as it comes; ends where it is interrupted.

        Raises Unreachable where the stream ends by itself, breaks, or is silent for too long.
        """
        timer = threading.Timer(self._patience, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            for lines in self._batches:
                timer.cancel()
                yield from map(self._parse, lines)
            raise Unreachable(f"{self.endpoint}: the stream of events ended")
        except Unreachable:
            if self._late:
                raise Unreachable(f"{self.endpoint}: the watch timed out: no answer") from None
            if not self._interrupted:
                raise
        finally:
            timer.cancel()

    def interrupt(self) -> None:
        """End `answers`, which waits in another thread. Repeatable, never raises."""
        self._interrupted = True
        self._session.interrupt()

    def close(self) -> None:
        """Close the connection: it is of no use for anything else."""
        self._stack.close()

    def _give_up(self) -> None:
        self._late = True
        self._session.interrupt()

    def _parse(self, line: bytes) -> dict[str, Any]:
        """One answer a line, as the gateway writes them (grpc-gateway, ForwardResponseStream)."""
        try:
            answer = json.loads(line)
            if "error" in answer:
                raise Unreachable(f"{self.endpoint}: {str(answer['error'])[:200]}")
            result: dict[str, Any] = answer["result"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            why = f"{self.endpoint}: the stream of events broke: {type(error).__name__}"
            raise Unreachable(why) from None
        return result
