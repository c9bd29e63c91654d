"""The host state, read while pods come and go."""

import subprocess

from daemon.routing.host_state import read_host_state
from kernel.netlink.socket import Netlink
from kernel.netns import inside, open_namespace
from tests.pytest_netns.node import Node

ROUNDS = 40
# What an ADD does to the node's end, in its order, and a DEL. So many routes, for the kernel's wait
# while it deletes the link is long, and the moment before, when the link has something, short.
ROUND = (
    """\
link add pw0123456789a type veth peer name x
link set pw0123456789a alias podwire
addr add 10.244.1.1/32 dev pw0123456789a
link set pw0123456789a up
"""
    + "".join(f"route add 10.244.1.{n}/32 dev pw0123456789a proto 4\n" for n in range(2, 100))
    + "link del pw0123456789a\n"
)


def test_what_a_pods_link_has_is_never_there_before_whose_it_is(node: Node) -> None:
    with open_namespace(str(node.ns.path)) as ns, inside(ns):
        nl = Netlink()
    seen = 0
    with nl:
        while not seen:
            seen = _read_while_pods_come_and_go(node, nl)


def _read_while_pods_come_and_go(node: Node, nl: Netlink) -> int:
    """Check every reading; how many addresses and routes of pods' links were in them."""
    argv, seen = [*node.enter, "ip", "-batch", "-"], 0
    with subprocess.Popen(argv, stdin=subprocess.PIPE, text=True) as pods:
        assert pods.stdin is not None
        pods.stdin.write(ROUND * ROUNDS)
        pods.stdin.close()
        while pods.poll() is None:
            host = read_host_state(nl)
            marked = {link.name for link in host.links if link.alias}
            having = [a.link for a in host.addresses] + [r.link for r in host.routes]
            theirs = [link for link in having if link.startswith("pw")]
            assert marked.issuperset(theirs), host
            seen += len(theirs)
    assert pods.returncode == 0
    return seen
