"""What is remembered of connections that were cut."""

from __future__ import annotations

import resource
from ipaddress import ip_address
from itertools import pairwise

import pytest

from daemon.policy.compile import LocalPod
from daemon.policy.cut_connections import Cuts
from kernel.conntrack import Connection
from kernel.nftables.policy import CUT_SECONDS, load_policy, read_cuts, render
from kernel.nftables.policy_rules import Filter, PolicyRules
from tests.unit.cni_plugin.namespaces import elsewhere

POD = LocalPod("pw1", ("app", "web"), (ip_address("10.0.0.2"), ip_address("fd00::2")))
CLOSED = PolicyRules(
    known=frozenset({"pw1"}),
    ingress={"pw1": "none"},
    filters={"none": Filter("ingress")},
    closes=True,
)


def cut(number: int, version: int = 4) -> Connection:
    client = ip_address("192.0.2.7" if version == 4 else "fd00::7")
    return Connection(client, POD.addresses[version == 6], 17, 1024 + number, 53)


def in_kernel() -> set[Connection]:
    """Each in one direction: from the client."""
    found = {c for c in read_cuts() if c.port == 53}
    assert len(read_cuts()) == 2 * len(found)
    return found


def spent() -> float:
    """Seconds of CPU time of this process and its programs."""
    found = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in found)


def test_the_newest_are_remembered_and_one_more_costs_what_one_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    most = 8000
    monkeypatch.setattr("daemon.policy.cut_connections.CUTS_MAX", most)
    cuts, many = Cuts(), [cut(number) for number in range(most)]
    with elsewhere():
        load_policy(render(CLOSED))
        times = [spent()]
        for each in (many, [cut(0, 6)], [cut(most)]):
            cuts._remember(each)
            times.append(spent())
        assert in_kernel() == {*many[2:], cut(0, 6), cut(most)} == {*cuts.all}
    all_of_them, *one = (after - before for before, after in pairwise(times))
    assert max(one) < all_of_them / 3


def test_what_is_allowed_again_is_forgotten_and_so_is_all_after_its_time() -> None:
    now = [100.0]
    cuts = Cuts(lambda: now[0])
    with elsewhere():
        load_policy(render(CLOSED))
        cuts._remember([cut(1), cut(2), cut(1, 6)])
        assert {*cuts.forbidden(CLOSED, [POD])} == {cut(1), cut(2), cut(1, 6)}
        cuts.keep([cut(1), cut(1, 6)], loaded=False)
        assert in_kernel() == {cut(1), cut(1, 6)}
        # Of what the kernel does not have any more, too.
        load_policy("flush set inet podwire-policy cut6")
        cuts.keep([cut(1)], loaded=False)
        assert in_kernel() == {cut(1)}
        now[0] += CUT_SECONDS
        assert cuts.forbidden(CLOSED, [POD]) == ()
        # Another daemon has it of the kernel.
        again = Cuts()
        again.resume()
        assert again.forbidden(CLOSED, [POD]) == (cut(1),)
