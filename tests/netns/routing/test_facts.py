"""The node's facts, read while its pods come and go."""

import subprocess

from daemon.reading import read_facts
from kernel.netlink import Netlink
from kernel.netns import inside, open_namespace
from tests.pytest_netns.node import Node

ROUNDS = 150
# What an ADD does to the node's end, in its order, and a DEL.
ROUND = """\
link add pw0123456789a type veth peer name x
link set pw0123456789a alias podwire
addr add 10.244.1.1/32 dev pw0123456789a
link set pw0123456789a up
route add 10.244.1.2/32 dev pw0123456789a proto 4
link del pw0123456789a
"""


def test_what_a_pods_link_has_is_never_there_before_whose_it_is(node: Node) -> None:
    with open_namespace(str(node.ns.path)) as ns, inside(ns):
        nl = Netlink()
    argv = [*node.enter, "ip", "-batch", "-"]
    with nl, subprocess.Popen(argv, stdin=subprocess.PIPE, text=True) as pods:
        assert pods.stdin is not None
        pods.stdin.write(ROUND * ROUNDS)
        pods.stdin.close()
        seen = 0
        while pods.poll() is None:
            facts = read_facts(nl)
            marked = {link.name for link in facts.links if link.alias}
            having = [a.link for a in facts.addresses] + [r.link for r in facts.routes]
            theirs = [link for link in having if link.startswith("pw")]
            assert marked.issuperset(theirs), facts
            seen += len(theirs)
    assert pods.returncode == 0
    assert seen
