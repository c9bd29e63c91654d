"""One call at a time per attachment, across threads and processes."""

from __future__ import annotations

import os
import signal
import threading
import time

from daemon.cni_server.attachment_locks import AttachmentLocks, IdleAttachments, LocksFile


def test_a_lock_is_held_by_one_thread_and_goes_with_its_last_user() -> None:
    waited: list[None] = []
    locks, order = AttachmentLocks(LocksFile().open(), lambda: waited.append(None)), list[str]()

    def second() -> None:
        with locks.holding("a"):
            order.append("second")

    with locks.holding("a"), locks.holding("b"):
        thread = threading.Thread(target=second)
        thread.start()
        while not waited:
            time.sleep(0.001)
        assert len(locks) == 2
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert len(locks) == 0


def test_a_lock_is_held_by_one_process() -> None:
    file = LocksFile()
    mine = AttachmentLocks(file.open())
    attachment = ("container", "eth0")
    read, write = os.pipe()
    with mine.holding(attachment):
        pid = os.fork()
        if pid == 0:
            waited: list[None] = []
            theirs = AttachmentLocks(file.open(), lambda: waited.append(None))
            with theirs.holding(("another", "eth0")):
                os.write(write, b"other;")
            with theirs.holding(attachment):
                os.write(write, b"same;" if waited else b"same at once;")
            os._exit(0)
        time.sleep(0.2)
        assert os.read(read, 100) == b"other;"
    assert os.read(read, 100) == b"same;"
    assert os.waitpid(pid, 0)[1] == 0
    os.close(read)
    os.close(write)


def test_a_killed_process_holds_no_lock() -> None:
    file = LocksFile()
    attachment, (read, write) = ("container", "eth0"), os.pipe()
    pid = os.fork()
    if pid == 0:
        with AttachmentLocks(file.open()).holding(attachment):
            os.write(write, b"held")
            time.sleep(60)
        os._exit(1)
    assert os.read(read, 4) == b"held"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    waited: list[None] = []
    with AttachmentLocks(file.open(), lambda: waited.append(None)).holding(attachment):
        assert waited == []
    os.close(read)
    os.close(write)


def test_attachments_are_held_only_while_no_call_is_about_them() -> None:
    file = LocksFile()
    calls, idle = AttachmentLocks(file.open()), IdleAttachments(file)
    busy, free = ("one", "eth0"), ("two", "eth0")
    with calls.holding(busy), idle.holding([busy, free]) as held:
        assert held == {free}
    order: list[str] = []

    def call() -> None:
        with calls.holding(free):
            order.append("call")

    thread = threading.Thread(target=call)
    with idle.holding([free]) as held:
        assert held == {free}
        thread.start()
        while len(calls) == 0:
            time.sleep(0.001)
        order.append("repair")
    thread.join()
    assert order == ["repair", "call"]
