"""Nodes join, leave and change; pods reach each other all the while."""

from pathlib import Path

from tests.netns.routing.conftest import DEVICE, Cluster, Member, eventually


def test_pods_reach_each_other(pair: tuple[Member, Member], podwire_bin: Path) -> None:
    one, two = (m.attach(podwire_bin / "podwire") for m in pair)
    four, six = (next(iter(sorted(two.addresses("eth0"), key=lambda a: ":" in a))), "")
    six = next(a for a in two.addresses("eth0") if ":" in a)
    assert one.ping(four.partition("/")[0])
    assert one.ping(six.partition("/")[0])
    server = two.echo("tcp", four.partition("/")[0])
    # Not masqueraded: the other pod sees the pod itself.
    assert one.exchange(server) == next(
        a.partition("/")[0] for a in one.addresses("eth0") if ":" not in a
    )
