"""A thread enters namespaces and comes back, whether it keeps the way home or looks it up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from kernel.netns import Namespace, close_kept_home, inside, keep_home_open
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


def keep_and_visit() -> None:
    before = len(os.listdir("/proc/self/fd"))
    keep_home_open()
    try:
        visit()
        visit()
    finally:
        close_kept_home()
    assert len(os.listdir("/proc/self/fd")) == before
    visit()


@pytest.mark.parametrize("work", [visit, keep_and_visit])
def test_there_and_back(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(1) as thread:  # which ends, with whatever it kept
        thread.submit(work).result()
