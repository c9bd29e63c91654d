"""A thread enters namespaces and comes back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from kernel.netns import Namespace, inside
from tests.unit.cni_plugin import namespaces


def here() -> int:
    """The calling thread's namespace, by its inode."""
    return os.stat("/proc/thread-self/ns/net").st_ino


@contextmanager
def pods(count: int) -> Iterator[list[Namespace]]:
    made = [Namespace(namespaces.make(), f"pod {n}") for n in range(count)]
    try:
        yield made
    finally:
        for each in made:
            os.close(each.fd)


def visit() -> None:
    home = here()
    with pods(2) as (one, two):
        for pod in (one, two):
            assert not pod.is_current()
            with inside(pod):
                assert pod.is_current()
                assert here() == os.fstat(pod.fd).st_ino
            assert here() == home
        with inside(one):
            with inside(two):
                assert two.is_current()
            assert one.is_current()
            assert not two.is_current()
        assert here() == home
        assert not one.is_current()
        with pytest.raises(RuntimeError), inside(one):
            raise RuntimeError
        assert here() == home


def test_there_and_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(1) as thread:
        thread.submit(visit).result()
    assert len(os.listdir("/proc/self/fd")) == before
