"""A source that a client feeds: polling, faults, restarts, and what is kept on disk meanwhile."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from daemon.liveness.watchdog import Watchdog
from daemon.log import Log
from daemon.model import Node, Snapshot, Source
from daemon.sources.cache import LastKnown, load, render
from daemon.sources.remote import Feed, RemoteSource, SourceError
from tests.unit.daemon.waiting import wait_until

RANGES = (ip_network("10.244.0.0/16"),)


def node(name: str, number: int) -> Node:
    return Node(name, (ip_address(f"192.0.2.{number}"),), (ip_network(f"10.244.{number}.0/24"),))


class Script:
    """A client that does one step of the test each time it is called."""

    identity = "here"
    pauses, patience = (0.01, 0.02), 60.0

    def __init__(self, *steps: Callable[[Feed], None]) -> None:
        self.steps = list(steps)
        self.feeds: list[Feed] = []
        self.interrupted = threading.Event()

    def check(self) -> None:
        """Nothing is needed."""

    def follow(self, feed: Feed) -> None:
        self.feeds.append(feed)
        if self.steps:
            self.steps.pop(0)(feed)
        else:
            feed.wait(60)

    def interrupt(self) -> None:
        self.interrupted.set()

    def leave(self) -> Sequence[str]:
        return ()


@contextmanager
def source_of(client: Script, path: Path) -> Iterator[RemoteSource]:
    source = RemoteSource(client, last_known=path / "cluster.json", log=Log())
    try:
        yield source
    finally:
        source.close()


def _ignore(_result: object) -> None:
    """For a step that gives something."""


def readable(source: Source, seconds: float) -> bool:
    fd = source.fileno()
    assert fd is not None
    return bool(select.select([fd], [], [], seconds)[0])


def polled(source: Source) -> Snapshot:
    assert readable(source, 30)
    snapshot = source.poll()
    assert snapshot is not None
    return snapshot


def test_a_client_that_hangs_is_noticed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One that waits is not."""
    release, watchdog = threading.Event(), Watchdog(Log(), {})
    client = Script(lambda _feed: _ignore(release.wait(60)))
    client.patience = 0.05
    path = tmp_path / "cluster.json"
    source = RemoteSource(client, last_known=path, log=Log(), watch=watchdog.add)

    def is_named() -> bool:
        watchdog.check()
        return "no progress: source;" in capfd.readouterr().err

    def is_well() -> bool:
        return not watchdog.check()

    try:
        wait_until(is_named)
        release.set()
        wait_until(is_well)  # it waits, for longer than its patience
    finally:
        release.set()
        source.close()


def test_it_is_a_source(tmp_path: Path) -> None:
    with source_of(Script(), tmp_path) as made:
        source: Source = made
        assert source.poll() is None
        assert source.fault == ""
        assert source.activity.last_received == 0


def test_a_snapshot_is_polled_once(tmp_path: Path) -> None:
    client = Script(lambda feed: feed.snapshot([node("a", 1)], RANGES))
    with source_of(client, tmp_path) as source:
        assert polled(source) == Snapshot((node("a", 1),), RANGES)
        assert not readable(source, 0)
        assert source.poll() is None
        assert source.activity.snapshots == 1


def test_unchanged_nodes_stay_the_same_objects_and_unchanged_snapshots_are_no_news(
    tmp_path: Path,
) -> None:
    with source_of(Script(), tmp_path) as source:
        feed = wait_until(lambda: source._client.feeds)[0]  # type: ignore[attr-defined]
        feed.snapshot(iter([node("a", 1), node("b", 2)]), RANGES)
        first = polled(source)
        feed.snapshot([node("a", 1), node("b", 2)], RANGES)
        assert source.poll() is None
        feed.snapshot([node("a", 1), node("b", 3)], RANGES)
        second = polled(source)
        assert second.nodes[0] is first.nodes[0]
        assert second.nodes[1] == node("b", 3)
        assert source.activity.snapshots == 2


def test_only_the_newest_snapshot_is_polled(tmp_path: Path) -> None:
    def burst(feed: Feed) -> None:
        for number in range(1, 100):
            feed.snapshot([node("a", number)], RANGES)
        feed.received(99)
        feed.wait(60)

    with source_of(Script(burst), tmp_path) as source:
        wait_until(lambda: source.activity.events == 99)
        assert polled(source).nodes == (node("a", 99),)
        assert source.poll() is None


def test_what_is_heard_is_counted(tmp_path: Path) -> None:
    def receive(feed: Feed) -> None:
        feed.received(2)
        feed.count(111)
        feed.count(1000)
        feed.wait(60)

    with source_of(Script(receive), tmp_path) as source:
        wait_until(lambda: source.activity.bytes == 1111)
        assert source.activity.events == 2
        assert source.activity.last_received > 0


def test_a_loss_is_a_fault_until_the_next_sign_of_life(tmp_path: Path) -> None:
    with source_of(Script(), tmp_path) as source:
        feed = wait_until(lambda: source._client.feeds)[0]  # type: ignore[attr-defined]
        feed.lost("refused\nby \x1b[31mit")
        first = source.fault
        assert first.startswith("refused by  [31mit (since 2")
        feed.lost("refused again")
        assert source.fault == first.replace("refused by  [31mit", "refused again")
        feed.count(5)
        assert source.fault
        feed.received()
        assert source.fault == ""


def test_other_troubles_stay_until_they_are_over(tmp_path: Path) -> None:
    with source_of(Script(), tmp_path) as source:
        feed = wait_until(lambda: source._client.feeds)[0]  # type: ignore[attr-defined]
        feed.degraded("node", "no Node\nhere")
        feed.received()
        assert source.fault == "no Node here"
        feed.lost("away")
        feed.degraded("object", "denied")
        assert source.fault.startswith("away (since 2")
        assert source.fault.endswith("); no Node here; denied")
        feed.received()
        feed.degraded("node", "")
        assert source.fault == "denied"
        feed.degraded("object", "")
        assert source.fault == ""


def test_a_node_that_is_in_use_is_that_object(tmp_path: Path) -> None:
    with source_of(Script(), tmp_path) as source:
        feed = wait_until(lambda: source._client.feeds)[0]  # type: ignore[attr-defined]
        first = node("a", 1)
        feed.snapshot([first], RANGES)
        other = node("a", 2)
        assert feed.same(node("a", 1)) is first
        assert feed.same(other) is other


def test_a_client_that_fails_is_called_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: Feed) -> None:
        raise SourceError("no such door")

    def burst(_: Feed) -> None:
        raise RecursionError("too deep")

    good = threading.Event()

    def succeed(feed: Feed) -> None:
        assert "the source fails: RecursionError('too deep')" in source.fault
        feed.received()
        good.set()
        feed.wait(60)

    with source_of(Script(refuse, burst, lambda _: None, succeed), tmp_path) as source:
        assert good.wait(60)
        wait_until(lambda: not source.fault)


def test_the_end_comes_though_the_client_hangs(tmp_path: Path) -> None:
    hang = threading.Event()

    def ignore_the_end(feed: Feed) -> None:
        feed.snapshot([node("a", 1)], RANGES)
        hang.wait(60)

    client = Script(ignore_the_end)
    try:
        with source_of(client, tmp_path) as source:
            polled(source)
        assert client.interrupted.is_set()
        # What a thread that was left behind feeds is not used any more.
        client.feeds[0].snapshot([node("a", 2)], RANGES)
        known = load(tmp_path / "cluster.json", "here")
        assert known is not None
        assert known.nodes == (node("a", 1),)
    finally:
        hang.set()


def test_what_is_known_is_used_at_the_next_start(tmp_path: Path) -> None:
    def feed_one(feed: Feed) -> None:
        feed.snapshot([node("a", 1)], RANGES, position="17")
        feed.mark("18")
        feed.wait(60)

    with source_of(Script(feed_one), tmp_path) as source:
        polled(source)
        wait_until(lambda: source._position == "18")

    def refuse(feed: Feed) -> None:
        assert feed.known is not None
        assert feed.known.position == "18"
        feed.lost("away")
        feed.wait(60)

    with source_of(Script(refuse), tmp_path) as again:
        assert polled(again) == Snapshot((node("a", 1),), RANGES)
        fault = wait_until(lambda: again.fault if "away" in again.fault else "")
        assert "away (since 2" in fault
        assert not again.activity.is_starting
        assert "; its last known state is of 2" in fault
        assert again.activity.last_received == 0


def test_a_last_known_state_is_of_any_age_until_the_source_is_reached(tmp_path: Path) -> None:
    """Its first answer, or its first failure, may take as long as its time limits."""
    known = LastKnown("here", (node("a", 1),), RANGES, "5", 1.0)
    (tmp_path / "cluster.json").write_bytes(render(known))
    with source_of(Script(), tmp_path) as source:
        polled(source)
        assert source.fault.startswith("nothing was received from the source yet (since 2")
        assert source.fault.endswith("; its last known state is of 1970-01-01T00:00:01Z)")
        assert source.activity.is_starting
        feed = wait_until(lambda: source._client.feeds)[0]  # type: ignore[attr-defined]
        feed.received()
        assert source.fault == ""
        assert not source.activity.is_starting


def test_a_last_known_state_that_is_confirmed_is_no_news(tmp_path: Path) -> None:
    known = LastKnown("here", (node("a", 1),), RANGES, "5", 1.0)
    (tmp_path / "cluster.json").write_bytes(render(known))
    with source_of(Script(), tmp_path) as source:
        first = polled(source)
        feed = wait_until(lambda: source._client.feeds)[0]  # type: ignore[attr-defined]
        feed.snapshot([node("a", 1)], RANGES)
        assert source.poll() is None
        feed.snapshot([node("a", 1), node("b", 2)], RANGES)
        assert polled(source).nodes[0] is first.nodes[0]


@pytest.mark.parametrize("content", [b"", b"{}", render(LastKnown("there", (), (), "", 0.0))])
def test_a_file_of_something_else_is_ignored_and_logged(
    tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cluster.json").write_bytes(content)
    client = Script()
    with source_of(client, tmp_path) as source:
        feed = wait_until(lambda: client.feeds)[0]
        assert feed.known is None
        assert source.poll() is None
    assert "cluster.json is not used: it " in capfd.readouterr().err
