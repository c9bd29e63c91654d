"""Work in a process of its own, which takes the memory of its libraries along when it ends."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def done_elsewhere(work: Callable[[], T]) -> T:
    """What `work` returns or raises in a forked process; no other thread may run.

    Raises ChildProcessError where that process is killed, OSError where there can be none.
    """
    output, feed = os.pipe()
    pid = os.fork()
    if pid == 0:
        _work(work, feed)
    os.close(feed)
    with open(output, "rb") as reader:
        data = reader.read()
    _, status = os.waitpid(pid, 0)
    if status:
        raise ChildProcessError(f"a process ended with status {status}")
    result, error = pickle.loads(data)  # noqa: S301 - from this very program
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _work(work: Callable[[], object], feed: int) -> None:
    status = 1
    try:
        outcome: tuple[object, Exception | None]
        try:
            outcome = work(), None
        except Exception as error:
            outcome = None, error
        with open(feed, "wb") as writer:
            pickle.dump(outcome, writer)
        status = 0
    finally:
        os._exit(status)
