"""A watch that is never answered: a fault, another member is tried, and the lease is kept."""

import time
from functools import partial

import pytest

from tests.netns.etcd.conftest import MakeSeat, Seat
from tests.netns.etcd.mute import mute_proxy
from tests.netns.etcd.server import Etcd
from tests.netns.routing.conftest import eventually

pytestmark = pytest.mark.xdist_group("etcd_mute")
IMPATIENCE = 3.0


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers must come within some seconds."""
    monkeypatch.setattr("daemon.sources.http.READ_SECONDS", IMPATIENCE)
    monkeypatch.setattr("daemon.sources.etcd.stream.Stream.__init__.__defaults__", (IMPATIENCE,))


def test_the_lease_is_kept_though_no_watch_is_answered(
    make_seat: MakeSeat, etcd: Etcd, prefix: str
) -> None:
    with mute_proxy(etcd, head=False) as url:
        seat = make_seat(endpoints=[url], leaseSeconds=10).start()
        eventually(lambda: bool(etcd.entries(f"{prefix}/v1/nodes")) or seat.fault)
        pairs = etcd.pairs(prefix)
        until = time.monotonic() + 25
        while time.monotonic() < until:
            assert etcd.pairs(prefix) == pairs
            time.sleep(1)
        eventually(lambda: "timed out" in seat.fault or seat.fault)
        seat.stop()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("head", [False, True])
def test_another_member_is_asked(make_seat: MakeSeat, etcd: Etcd, head: bool) -> None:
    with mute_proxy(etcd, head=head) as url:
        seats = [
            make_seat(endpoints=endpoints).start()
            for endpoints in ([url, *etcd.urls], [*etcd.urls, url])
        ]
        for seat in seats:
            seat.settle()
            eventually(partial(_has_left, seat, url))
        make_seat().start().settle()
        for seat in seats:
            eventually(partial(seat.knows, "node-1", "node-2", "node-3"))


def _has_left(seat: Seat, url: str) -> object:
    return seat.endpoint != url or seat.fault


@pytest.mark.usefixtures("impatient")
def test_a_watch_without_events_goes_on(make_seat: MakeSeat) -> None:
    one = make_seat().start()
    one.settle()
    stream = one._client._watcher._stream
    until = time.monotonic() + 2.5 * IMPATIENCE
    while time.monotonic() < until:
        assert one.fault == ""
        time.sleep(0.2)
    assert one._client._watcher._stream is stream
    make_seat().start()
    eventually(partial(one.knows, "node-1", "node-2"))
