"""Gathered deletions: nobody is told that a link is gone that is there."""

from __future__ import annotations

import threading

import pytest

from kernel import linkgroup
from kernel.linkgroup import LinkRemover


def test_whatever_goes_wrong_is_every_callers_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure that is no KernelError, as a full socket buffer is, must not pass for success."""

    class Broken:
        def __enter__(self) -> None:
            raise OSError("no buffer space")

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(linkgroup, "Netlink", Broken)
    remover, seen = LinkRemover(), list[str]()

    def remove() -> None:
        try:
            remover.remove("pw0")
        except OSError as error:
            seen.append(str(error))

    threads = [threading.Thread(target=remove) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["no buffer space"] * 8
