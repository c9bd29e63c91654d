"""Network namespaces for tests: a pytest plugin.

Load it with `pytest_plugins = ("tests.pytest_netns.plugin",)`. It needs root, iproute2,
util-linux, nftables and ping. Fixtures:

`netns`        makes a named namespace: `pods = netns("pods")`
`pod`          one namespace with the path that CNI_NETNS wants: `pod.path`
`make_pod`     more of them
`node`         a namespace with an uplink: `eth0` on an underlay network, default routes for both
               families, and mounts of its own (`/run`, `/var/lib`, `/sys`), so that whatever runs
               in it with default paths leaves the machine alone
`make_node`    more of them, on the same underlay: `make_node(mtu=1400)`
`underlay`     the network between the nodes, and the outside world that their pods reach
`podwire_bin`  directory with `podwire`, `podwire-ipam` and the names it can be started under
`newest_reference_bin`  directory of the newest reference plugins

Whatever they make is removed after the test, processes in it included. When the test process
dies, even by kill -9, a reaper removes it. A namespace that is left at the end of the session
fails the run.

    def test_pod_reaches_outside(node, pod, underlay, podwire_bin):
        result = node.cni("ADD", podwire_bin / "podwire", conf, netns=pod.path)
        assert result.code == 0, result
        server = underlay.ns.echo("tcp", "192.0.2.1", 80)
        assert pod.exchange(server) == node.address(4)     # masqueraded

`snapshot(ns)` is the kernel state of a namespace as plain data, to compare before with after.
`@pytest.mark.needs("cnitool")` marks a test that runs a program which may be absent (`tools`).
"""

from tests.pytest_netns.namespace import Namespace
from tests.pytest_netns.node import CniResult, Node
from tests.pytest_netns.plugin import MakeNamespace, MakeNode
from tests.pytest_netns.snapshot import Snapshot, changes, snapshot
from tests.pytest_netns.traffic import EchoServer
from tests.pytest_netns.underlay import Underlay

__all__ = [
    "CniResult",
    "EchoServer",
    "MakeNamespace",
    "MakeNode",
    "Namespace",
    "Node",
    "Snapshot",
    "Underlay",
    "changes",
    "snapshot",
]
